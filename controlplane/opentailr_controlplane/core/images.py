"""Images and their builds: one live build per key, shared by all who need it (invariant 25)."""

from __future__ import annotations

from .definition import check_recipe, image_key
from .errors import FailedPrecondition
from .flow import fail_for_image
from .model import Agent, Build, Image, State
from .placement import enqueue, learn_image
from .transitions import move_build, move_image
from .values import (
    INFRASTRUCTURE,
    BuildState,
    Bundle,
    Cause,
    CauseKind,
    ImageState,
    Instant,
    Recipe,
    TaskState,
)


def check_pre_script(state: State, recipe: Recipe) -> None:
    """Refuses a pre script where no node would run it (B174)."""
    if not recipe.build_script_pre.strip():
        return
    connected = [agent for agent in state.agents.values() if agent.state.connected]
    if connected and not any(agent.allows_pre_scripts for agent in connected):
        raise FailedPrecondition(
            "pre_script_not_allowed",
            "The recipe has a build_script_pre, and no node allows such scripts: they would run on the "
            "node's own system.",
            field="image.build_script_pre",
            hint="Start an agent with --allow-pre-scripts, or leave the script out.",
        )


def ensure_image(state: State, recipe: Recipe, bundle: Bundle | None, key: str, now: Instant) -> Image:
    """The image of a recipe, with a build asked for unless it is there or under way.

    A failed image is built again: a save of the same recipe after a failure is a retry.
    """
    image = state.images.get(key)
    if image is None:
        image = Image(key, recipe, bundle if recipe.needs_bundle else None, now.wall)
        state.images[key] = image
        state.dirty.images[key] = image
        _new_build(state, image, now)
    elif image.state is ImageState.FAILED:
        move_image(state, image, ImageState.QUEUED, "user")
        image.cause = None
        image.tries = 0
        image.start_time = image.end_time = 0
        _new_build(state, image, now)
    return image


def key_of(recipe: Recipe, bundle: Bundle | None) -> str:
    """Checks a recipe that came without a definition and names its image."""
    check_recipe(recipe)
    return image_key(recipe, bundle)


def _new_build(state: State, image: Image, now: Instant) -> None:
    build = Build(f"bld_{state.installation}_{state.next_build}", image.image_key, now.wall)
    state.next_build += 1
    state.dirty.counters = True
    state.builds[build.build_id] = build
    state.build_queue[build.build_id] = None
    state.dirty.builds[build.build_id] = build
    image.build_id = build.build_id
    image.agent_id = ""


def build_reported(
    state: State,
    agent: Agent,
    build: Build,
    target: ImageState,
    *,
    cause: Cause | None,
    notice: str,
    now: Instant,
) -> None:
    """The agent that makes a live build tells how it goes."""
    image = state.images[build.image_key]
    if target is ImageState.BUILDING:
        if build.state is BuildState.ASSIGNED:
            move_build(state, build, BuildState.BUILDING, "agent")
            move_image(state, image, ImageState.BUILDING, "agent")
            build.start_time = image.start_time = now.wall
        return
    if target is ImageState.FAILED and cause is not None and cause.kind in INFRASTRUCTURE:
        build_lost(state, build, cause, now, owner="agent")
        return
    if not build.start_time:
        build.start_time = image.start_time = now.wall
    build.end_time = image.end_time = now.wall
    image.notice = notice[:4096]
    if target is ImageState.READY:
        _end(state, build, BuildState.READY, "agent")
        move_image(state, image, ImageState.READY, "agent")
        learn_image(state, agent, image.image_key)
        _release(state, image, now)
        return
    message = cause.message if cause is not None else "The build failed without a reason."
    cause = Cause(CauseKind.BUILD_FAILED, message[:4096])
    build.cause = cause
    _end(state, build, BuildState.FAILED, "agent")
    _fail(state, image, cause, "agent", now)


def build_lost(state: State, build: Build, cause: Cause, now: Instant, *, owner: str) -> None:
    """The platform itself failed the build: another one is asked for, within the budget."""
    image = state.images[build.image_key]
    build.cause = cause = Cause(cause.kind, cause.message[:4096])
    build.end_time = now.wall
    _end(state, build, BuildState.LOST, owner)
    if cause.kind is not CauseKind.NODE_DRAINED:
        image.tries += 1
    if image.tries > state.settings.infra_budget:
        image.end_time = now.wall
        _fail(state, image, cause, "core", now)
        return
    if image.state is ImageState.BUILDING:
        move_image(state, image, ImageState.QUEUED, "core")
    image.start_time = 0
    state.dirty.images[image.image_key] = image
    _new_build(state, image, now)


def _end(state: State, build: Build, target: BuildState, owner: str) -> None:
    move_build(state, build, target, owner)
    del state.builds[build.build_id]
    agent = state.agents[build.agent_id]
    agent.builds.pop(build.build_id, None)
    agent.changed[build.build_id] = None
    state.outgoing[agent.agent_id] = None


def _release(state: State, image: Image, now: Instant) -> None:
    for run_id in list(image.waiting):
        run = state.runs[run_id]
        run.held = False
        for task in run.tasks.values():
            if task.state is TaskState.READY and not task.queue_seq:
                enqueue(state, run, task, now)
    image.waiting.clear()


def _fail(state: State, image: Image, cause: Cause, owner: str, now: Instant) -> None:
    image.cause = cause
    move_image(state, image, ImageState.FAILED, owner)
    for run_id in list(image.waiting):
        message = f"The image could not be built: {cause.message}"
        fail_for_image(state, state.runs[run_id], message, image.build_id, now)
    image.waiting.clear()
