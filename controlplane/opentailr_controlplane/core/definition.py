"""Checking a definition as a whole, and the plan that runs follow.

A definition is refused whole or accepted whole: nothing is half-written. Checking 10,000 tasks takes some
tens of milliseconds; it needs no state, so the engine does it outside its loop.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import deque
from dataclasses import dataclass, field, replace

from .errors import InvalidArgument
from .values import Bundle, JobDefinition, JobType, Payload, Recipe, Resources, TaskDefinition

MAX_TASKS = 20_000
"""Most tasks of one workflow; a run with its counters then stays near 10 MB of memory."""

MAX_NAME = 512
"""Longest name, in characters, of a job or task."""

MAX_TEXT = 1_000_000
"""Longest text, in characters, of requirements, a build script or one environment variable."""

_INTERNAL_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_PYTHON = re.compile(r"3\.1[0-4](\.\d+)?")
_ENTRYPOINT = re.compile(r"[^\s:]+:[^\s:]+")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def normalise_requirements(text: str) -> str:
    """Requirement lines stripped, blank ones dropped, order kept."""
    return "\n".join(line for line in (raw.strip() for raw in text.splitlines()) if line)


def image_key(recipe: Recipe, bundle: Bundle | None) -> str:
    """SHA-256 that names the image of a recipe; the bundle counts only where a post script sees it."""
    content = {
        "python_version": recipe.python_version,
        "python_requirements": normalise_requirements(recipe.python_requirements),
        "build_script_pre": recipe.build_script_pre,
        "build_script_post": recipe.build_script_post,
    }
    if recipe.needs_bundle:
        if bundle is None:
            raise InvalidArgument(
                "bundle_missing",
                "The recipe has a post script, which sees the code, but no bundle was given.",
                field="bundle",
                hint="Send the bundle with the recipe.",
            )
        content["bundle"] = bundle.digest
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Plan:
    """What runs of one saved definition follow: the definition and its graph, ready for walking.

    `definition` carries no tasks; `tasks` maps ids to them, in ascending order. A job that is no workflow
    has one task, 0, made of its own entrypoint.
    """

    definition_id: int
    definition: JobDefinition
    tasks: dict[int, TaskDefinition]
    downstream: dict[int, tuple[int, ...]]
    image_key: str
    large: tuple[tuple[int, float], ...] = ()
    """The distinct (memory_bytes, cpu) that tasks ask for, for the notices at a start."""


@dataclass(frozen=True, slots=True)
class CheckedDefinition:
    """A definition that passed `check_definition`, with what was computed on the way."""

    definition: JobDefinition
    image_key: str
    tasks: dict[int, TaskDefinition] = field(repr=False)
    downstream: dict[int, tuple[int, ...]] = field(repr=False)
    large: tuple[tuple[int, float], ...] = ()

    def plan(self, definition_id: int) -> Plan:
        """The plan under the number that the store keeps it by."""
        return Plan(
            definition_id,
            without_tasks(self.definition),
            self.tasks,
            self.downstream,
            self.image_key,
            self.large,
        )


def without_tasks(definition: JobDefinition) -> JobDefinition:
    """The definition as it is stored apart from its tasks."""
    return replace(definition, tasks=()) if definition.tasks else definition


def stored_plan(definition_id: int, definition: JobDefinition, tasks: list[TaskDefinition], key: str) -> Plan:
    """The plan of a definition that was checked when it was saved."""
    by_id, downstream, large = _graph(definition, tuple(tasks))
    return Plan(definition_id, without_tasks(definition), by_id, downstream, key, large)


def check_definition(definition: JobDefinition) -> CheckedDefinition:
    """Refuses a definition that can never work.

    Raises:
        InvalidArgument: naming the first field at fault, its value and the remedy.
    """
    if not _INTERNAL_NAME.fullmatch(definition.name) or len(definition.name) > MAX_NAME:
        raise _bad(
            "name",
            f"{definition.name[:80]!r} is not an internal name.",
            "Use lower-case ASCII letters, digits and single hyphens.",
        )
    _check_name("display_name", definition.display_name)
    _check_name("run_as", definition.run_as)
    check_recipe(definition.recipe, "image")
    _check_bundle(definition.bundle)
    _check_resources("resources", definition.resources)
    _check_env("env", definition.env)
    _check_duration("fail_after", definition.fail_after)
    _check_duration("expire_after", definition.expire_after)
    if definition.type is JobType.BATCH:
        _check_tasks(definition.tasks)
    else:
        if definition.tasks:
            raise _bad("tasks", f"A job of type {definition.type.text} has no tasks.", "Save a workflow.")
        if not definition.schedule.empty:
            raise _bad(
                "schedule",
                f"A job of type {definition.type.text} cannot have a schedule.",
                "Only workflows start by a schedule.",
            )
        _check_entrypoint("entrypoint", definition.entrypoint)
    by_id, downstream, large = _graph(definition, definition.tasks)
    _refuse_cycle(by_id, downstream)
    return CheckedDefinition(
        definition, image_key(definition.recipe, definition.bundle), by_id, downstream, large
    )


def check_recipe(recipe: Recipe, where: str = "recipe") -> None:
    """Refuses a recipe that no node could build (B169)."""
    if not _PYTHON.fullmatch(recipe.python_version):
        raise _bad(
            f"{where}.python_version",
            f"Python {recipe.python_version[:40]!r} is not known.",
            "Use 3.10 to 3.14, with or without a patch number.",
        )
    for name in ("python_requirements", "build_script_pre", "build_script_post"):
        text: str = getattr(recipe, name)
        if len(text) > MAX_TEXT or "\x00" in text:
            raise _bad(
                f"{where}.{name}",
                f"The text has {len(text)} characters or holds a NUL.",
                f"At most {MAX_TEXT} characters without NUL.",
            )


def _bad(field_name: str, message: str, hint: str) -> InvalidArgument:
    return InvalidArgument("invalid_definition", f"{field_name}: {message}", field=field_name, hint=hint)


def _check_name(where: str, name: str) -> None:
    if not name.strip():
        raise _bad(where, "It is empty.", "Give a name.")
    if len(name) > MAX_NAME:
        raise _bad(where, f"It has {len(name)} characters.", f"At most {MAX_NAME}.")
    if _CONTROL.search(name):
        raise _bad(where, f"{name[:80]!r} has control characters.", "Leave out line breaks and tabs.")


def _check_entrypoint(where: str, entrypoint: str) -> None:
    if not entrypoint:
        raise _bad(where, "It is missing.", "Name the function as module:function.")
    if not _ENTRYPOINT.fullmatch(entrypoint) or len(entrypoint) > 4 * MAX_NAME:
        raise _bad(
            where, f"{entrypoint[:80]!r} is not module:function.", "Name the function as module:function."
        )


def _check_bundle(bundle: Bundle) -> None:
    if not _DIGEST.fullmatch(bundle.digest):
        raise _bad(
            "bundle.digest",
            f"{bundle.digest[:80]!r} is not a SHA-256.",
            "Upload the packaged code and name it by its digest.",
        )
    directory = bundle.directory
    if not directory or directory in {".", ".."} or "/" in directory or _CONTROL.search(directory):
        raise _bad("bundle.directory", f"{directory[:80]!r} is no directory's name.", "Give a plain name.")


def _check_resources(where: str, resources: Resources) -> None:
    if resources.memory_bytes <= 0 or resources.memory_bytes > 1 << 62:
        raise _bad(
            f"{where}.memory",
            f"{resources.memory[:40]!r} ({resources.memory_bytes} bytes) is not a size.",
            "Give a positive size such as 512m.",
        )
    if not (math.isfinite(resources.cpu) and 0 < resources.cpu <= 1e6):
        raise _bad(f"{where}.cpu", f"{resources.cpu} is not a number of cores.", "Give a positive number.")


def _check_env(where: str, env: tuple[tuple[str, str], ...]) -> None:
    for position, (name, value) in enumerate(env):
        if not name or "=" in name or _CONTROL.search(name):
            raise _bad(
                f"{where}[{position}].name",
                f"{name[:80]!r} cannot name an environment variable.",
                "Leave out '=', blanks at the ends and control characters.",
            )
        if "\x00" in value or len(value) > MAX_TEXT:
            raise _bad(
                f"{where}[{position}].value",
                f"{name} holds a NUL or is too long.",
                "Shorten it.",
            )


def _check_duration(where: str, value: int) -> None:
    if value < 0 or value > 1 << 60:
        raise _bad(where, f"{value} microseconds is not a duration.", "Give a positive duration or none.")


def _check_tasks(tasks: tuple[TaskDefinition, ...]) -> None:
    if not tasks:
        raise _bad("tasks", "The workflow has no task.", "Call at least one task in the workflow's function.")
    if len(tasks) > MAX_TASKS:
        raise _bad("tasks", f"The workflow has {len(tasks)} tasks.", f"At most {MAX_TASKS}; split it.")
    names: dict[str, int] = {}
    ids: set[int] = set()
    for position, task in enumerate(tasks):
        where = f"tasks[{position}]"
        if task.task_id < 0 or task.task_id > 0x7FFFFFFF:
            raise _bad(f"{where}.id", f"{task.task_id} is not an id.", "Ids are 0, 1, 2, …")
        if task.task_id in ids:
            raise _bad(f"{where}.id", f"The id {task.task_id} is used twice.", "Give each task its own id.")
        ids.add(task.task_id)
        _check_name(f"{where}.name", task.name)
        if task.name in names:
            raise _bad(
                f"{where}.name",
                f"{task.name[:80]!r} is already the name of tasks[{names[task.name]}].",
                "Give one of them an alias.",
            )
        names[task.name] = position
        _check_entrypoint(f"{where}.entrypoint", task.entrypoint)
        _check_resources(f"{where}.resources", task.resources)
        _check_env(f"{where}.env", task.env)
    for position, task in enumerate(tasks):
        for upstream in task.depends_on:
            if upstream not in ids:
                raise _bad(
                    f"tasks[{position}].depends_on",
                    f"{task.name[:80]!r} depends on task {upstream}, which does not exist.",
                    "Name only ids of tasks of this workflow.",
                )


def _graph(
    definition: JobDefinition, tasks: tuple[TaskDefinition, ...]
) -> tuple[dict[int, TaskDefinition], dict[int, tuple[int, ...]], tuple[tuple[int, float], ...]]:
    """Tasks by id with duplicates and self-edges (B26) dropped, and the edges forward."""
    if definition.type is not JobType.BATCH:
        tasks = (
            TaskDefinition(
                0, definition.name, definition.entrypoint, definition.resources, (), definition.env
            ),
        )
    by_id: dict[int, TaskDefinition] = {}
    edges: dict[int, list[int]] = {task.task_id: [] for task in tasks}
    large: dict[tuple[int, float], None] = {}
    for task in sorted(tasks, key=lambda item: item.task_id):
        clean = tuple(sorted({upstream for upstream in task.depends_on if upstream != task.task_id}))
        # A plan stays in memory as long as its runs: it names the arguments and does not hold them.
        arguments = task.arguments.reference() if isinstance(task.arguments, Payload) else task.arguments
        task = TaskDefinition(
            task.task_id, task.name, task.entrypoint, task.resources, clean, task.env, arguments
        )
        by_id[task.task_id] = task
        large[(task.resources.memory_bytes, task.resources.cpu)] = None
        for upstream in clean:
            edges[upstream].append(task.task_id)
    return by_id, {task_id: tuple(ids) for task_id, ids in edges.items() if ids}, tuple(large)


def _refuse_cycle(tasks: dict[int, TaskDefinition], downstream: dict[int, tuple[int, ...]]) -> None:
    open_upstreams = {task_id: len(task.depends_on) for task_id, task in tasks.items()}
    ready = deque(task_id for task_id, count in open_upstreams.items() if not count)
    seen = 0
    while ready:
        seen += 1
        for successor in downstream.get(ready.popleft(), ()):
            open_upstreams[successor] -= 1
            if not open_upstreams[successor]:
                ready.append(successor)
    if seen == len(tasks):
        return
    # Walking back along unfinished upstreams must meet a task again: that is a cycle to show.
    current = next(task_id for task_id, count in open_upstreams.items() if count)
    trail: dict[int, None] = {}
    while current not in trail:
        trail[current] = None
        current = next(up for up in tasks[current].depends_on if open_upstreams[up])
    path = list(trail)
    names = [tasks[task_id].name for task_id in reversed(path[path.index(current) :])]
    shown = " -> ".join([*names[:10], *(["…"] if len(names) > 10 else []), names[0]])
    raise _bad("tasks", f"The tasks depend on one another in a circle: {shown}.", "Remove one edge.")
