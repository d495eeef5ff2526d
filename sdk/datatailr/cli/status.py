"""What `datatailr status` finds out about the platform of a data directory."""

from __future__ import annotations

from typing import Any

from datatailr.cli.output import print_aligned, print_table, size_text, time_text
from datatailr.cli.places import Places, start_of
from datatailr.errors import DatatailrError


def platform_status(places: Places) -> dict[str, Any]:
    """Processes, addresses, versions and nodes.

    `running` tells whether an `up` lives, `reachable` whether the server answers; `error` is why
    it does not. Times are microseconds, sizes bytes.
    """
    holder = places.holder()
    answer: dict[str, Any] = {
        "data_dir": str(places.root),
        "running": holder is not None,
        "reachable": False,
        "grpc": None,
        "http": None,
        "server_version": None,
        "user": None,
        "processes": [],
        "nodes": [],
        "error": None,
    }

    if holder is None:
        answer["error"] = "no `datatailr up` runs in this data directory"
        return answer

    answer["grpc"] = holder.get("grpc") or None
    answer["http"] = holder.get("http") or None
    answer["processes"] = [
        _process("up", holder["pid"], None),
        _process("controlplane", holder.get("controlplane_pid", 0), str(places.log("controlplane"))),
        _process("agent", holder.get("agent_pid", 0), str(places.log("agent"))),
    ]

    if answer["grpc"] is None:
        answer["error"] = "it is still starting"
        return answer

    try:
        _ask_server(answer, places)
    except (DatatailrError, OSError) as error:
        answer["error"] = str(error)

    return answer


def print_status(answer: dict[str, Any]) -> None:
    """Print the answer for people."""
    rows = [
        ("data", answer["data_dir"]),
        ("gRPC", answer["grpc"] or "-"),
        ("page", answer["http"] or "-"),
        ("server", answer["server_version"] or "-"),
        ("signed in as", answer["user"] or "-"),
    ]
    print_aligned(rows)

    if answer["processes"]:
        print()
        print_table(
            ("PROCESS", "PID", "STATE", "LOG"),
            [
                (
                    process["name"],
                    str(process["pid"] or "-"),
                    "running" if process["alive"] else "down",
                    process["log"] or "-",
                )
                for process in answer["processes"]
            ],
            state="STATE",
        )

    if answer["nodes"]:
        print()
        print_table(
            ("NODE", "STATE", "TASKS", "MEMORY", "VERSION", "LAST HEARD"),
            [
                (
                    node["name"],
                    node["state"],
                    str(node["attempts"]),
                    f"{size_text(node['memory_reserved'])} of {size_text(node['memory'])}",
                    node["version"],
                    time_text(node["last_heard"]),
                )
                for node in answer["nodes"]
            ],
            state="STATE",
        )

    if answer["error"]:
        print(f"\n{answer['error']}")

    if not answer["running"]:
        print("Start it:  datatailr up")


def _process(name: str, pid: int, log: str | None) -> dict[str, Any]:
    return {"name": name, "pid": pid or None, "alive": bool(pid and start_of(pid)), "log": log}


def _ask_server(answer: dict[str, Any], places: Places) -> None:
    from datatailr.client import answers, queries
    from datatailr.client.connection import Connection

    token = places.admin_token.read_text(encoding="utf-8").strip()
    connection = Connection(answer["grpc"], token)

    try:
        caller = queries.caller(connection)
        answer["reachable"] = True
        answer["server_version"] = caller.server_version
        answer["user"] = caller.user.name
        answer["nodes"] = [answers.node_answer(node) for node in queries.nodes(connection)]
    finally:
        connection.close()
