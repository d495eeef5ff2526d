"""`dt node …`: the worker hosts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from datatailr.cli.output import print_json, print_table, size_text, tell, time_text
from datatailr.cli.session import JsonOption, PrettyOption, UtcOption, new_group, open_connection

if TYPE_CHECKING:
    from datatailr.v1 import node_pb2

app = new_group("Worker hosts.")

NodeArgument = Annotated[str, typer.Argument(metavar="NODE", help="Name or id of the node.")]


def _microseconds(text: str) -> int:
    """Whole microseconds of a duration such as `10m`."""
    from datatailr.scheduler._durations import duration_microseconds

    try:
        return duration_microseconds(text, field="--within") or 0
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


@app.callback()
def group() -> None:
    """Worker hosts: what they offer, what is reserved of it and when they were last heard."""


@app.command("ls")
def list_nodes(*, json: JsonOption = False, pretty: PrettyOption = False, utc: UtcOption = False) -> None:
    """List the worker hosts that have joined.

    Examples: `dt node ls` and `dt node ls --json`.
    """
    connection = open_connection()

    from datatailr.client import answers, queries

    nodes = [answers.node_answer(node) for node in queries.nodes(connection)]

    if json or pretty:
        print_json(nodes, pretty=pretty)
        return

    if not nodes:
        tell(
            f"No node has joined {connection.address} yet, so nothing can run.",
            "Start one:  datatailr agent --help",
        )
        return

    print_table(
        ("NODE", "STATE", "TASKS", "MEMORY", "CPU", "RUNTIME", "PYTHON", "LAST HEARD"),
        [
            (
                node["name"],
                node["state"],
                str(node["attempts"]),
                f"{size_text(node['memory_reserved'])} of {size_text(node['memory'])}",
                f"{node['cpu_reserved']:g} of {node['cpu']:g}",
                node["runtime"],
                " ".join(node["python_versions"]),
                time_text(node["last_heard"], utc=utc),
            )
            for node in nodes
        ],
        state="STATE",
    )

    for node in nodes:
        if node["reason"]:
            deadline = node["drain_deadline"]
            until = f"; what runs is stopped at {time_text(deadline, utc=utc)}" if deadline else ""
            print(f"{node['name']}: {node['reason']}{until}")


@app.command("drain")
def drain_node(
    node: NodeArgument,
    *,
    within: Annotated[
        int | None,
        typer.Option(
            parser=_microseconds,
            metavar="TIME",
            help="Stop what still runs after this time, for instance 10m; it is tried again elsewhere. "
            "Without it everything may end by itself.",
        ),
    ] = None,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Shown to people who look at the node.")] = "",
    json: JsonOption = False,
    pretty: PrettyOption = False,
) -> None:
    """Give a node no new work, so that it can be taken away.

    The node is `draining` until nothing runs on it, then `drained`. Tasks that a deadline ends are charged
    with no failure. Only administrators may do this.

    Examples: `dt node drain vm` and `dt node drain vm --within 10m --reason "new disk"`.
    """
    _set(node, schedulable=False, within=within or 0, reason=reason, as_json=json or pretty, pretty=pretty)


@app.command("resume")
def resume_node(node: NodeArgument, *, json: JsonOption = False, pretty: PrettyOption = False) -> None:
    """Give a drained or draining node work again.

    Examples: `dt node resume vm` and `dt node resume vm --json`.
    """
    _set(node, schedulable=True, within=0, reason="", as_json=json or pretty, pretty=pretty)


def _set(node: str, *, schedulable: bool, within: int, reason: str, as_json: bool, pretty: bool) -> None:
    connection = open_connection()

    from datatailr.client import answers, queries

    found: node_pb2.Node = queries.set_node_schedulable(
        connection, node, schedulable=schedulable, drain_within=within, reason=reason
    )
    answer: dict[str, Any] = answers.node_answer(found)

    if as_json:
        print_json(answer, pretty=pretty)
        return

    running = f", {answer['attempts']} tasks on it" if answer["attempts"] else ""
    print(f"{answer['name']} is {answer['state']}{running}")
