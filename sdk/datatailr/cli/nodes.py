"""`dt node …`: the worker hosts."""

from __future__ import annotations

from datatailr.cli.output import print_json, print_table, size_text, tell, time_text
from datatailr.cli.session import JsonOption, PrettyOption, UtcOption, new_group, open_connection

app = new_group("Worker hosts.")


@app.callback()
def group() -> None:
    """Worker hosts: what they offer, what is reserved of it and when they were last heard."""


@app.command("ls")
def list_nodes(*, json: JsonOption = False, pretty: PrettyOption = False, utc: UtcOption = False) -> None:
    """List the worker hosts that have joined."""
    connection = open_connection()

    from datatailr.client import answers, queries

    nodes = [answers.node_answer(node) for node in queries.nodes(connection)]

    if json or pretty:
        print_json(nodes, pretty=pretty)
        return

    if not nodes:
        tell("No node has joined yet, so nothing can run.", "Start one:  datatailr agent --help")
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
