"""Whether the tasks of a definition fit on any node, found out before anything is uploaded."""

from __future__ import annotations

from datatailr.client import queries
from datatailr.client.connection import Connection
from datatailr.errors import PlatformError
from datatailr.scheduler._platform import JobDefinition

_NAMED = 3


def too_large(connection: Connection, definition: JobDefinition) -> str:
    """What to tell of tasks that ask for more memory than the largest node offers; empty if all fit.

    Nothing is asked when all tasks have the standard memory, so that the usual call costs no more; and
    nothing is told when it cannot be learnt, since the platform says the same when the run starts.
    """
    asking = {task.name: task.resources for task in definition.tasks if not task.resources.memory_is_default}

    if not asking:
        return ""

    try:
        largest = max((node.memory_bytes for node in queries.nodes(connection)), default=0)
    except PlatformError:
        return ""

    refused = [name for name, resources in asking.items() if resources.memory_bytes > largest]

    if not largest or not refused:
        return ""

    more = f" and {len(refused) - _NAMED} more" if len(refused) > _NAMED else ""
    names = f"{', '.join(map(repr, refused[:_NAMED]))}{more}"
    asked = max(asking[name].memory_bytes for name in refused)
    return (
        f"task {names}: memory is {_gibibytes(asked)}, and the largest node offers {_gibibytes(largest)}; "
        "it will wait until a larger one joins\n"
        "hint: ask for less with @task(memory=...), or start an agent with a larger --memory"
    )


def _gibibytes(size: int) -> str:
    return f"{size / (1 << 30):.3g}g"
