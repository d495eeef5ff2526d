"""Instant runs: the code as it is now, without a saved version (clause B55)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from datatailr.errors import PlatformError
from datatailr.scheduler._bundle import packed
from datatailr.scheduler._lifecycle import Outcome
from datatailr.scheduler._names import internal_name
from datatailr.scheduler._notebook import ENDED, Looking, show
from datatailr.scheduler._platform import Platform, StartedRun
from datatailr.scheduler._reporting import failure, progress, success
from datatailr.utils import Environment

if TYPE_CHECKING:
    from datatailr.scheduler._workflow import Workflow

__all__ = ["INSTANT_OPTIONS", "InstantRun", "check_instant_options", "run_instantly"]

INSTANT_OPTIONS = ("instant_run_mode", "instant_run_embed", "instant_run_workstation_image")
"""Keywords of a call that go with `instant_run`."""
_MODES = ("auto", "source")
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0


class InstantRun:
    """A run of code that was not saved, and what can be asked of it.

    Every method asks the platform anew. The run goes on when this object, or the program, ends; it is
    listed with the other runs of the workflow.

    Attributes:
        workflow: The workflow whose run it is.
    """

    def __init__(self, workflow: Workflow, started: StartedRun) -> None:
        if started.run_id is None:
            raise PlatformError(f"the platform began no run of {workflow.name!r}")
        self.workflow = workflow
        self._started = started
        self._run_id = started.run_id

    @property
    def run_id(self) -> int:
        """Number of the run."""
        return self._run_id

    @property
    def job_id(self) -> str:
        """The platform's id of the workflow."""
        return self._started.job_id

    @property
    def environment(self) -> Environment:
        """Where it runs; always dev."""
        return self.workflow.environment

    def status(self) -> str:
        """State of the run, for instance `running` (clause B107)."""
        return str(self._platform().get_run(self._run_id)["state"])

    def task_status(self) -> dict[str, str]:
        """State of each task by its name, in the order of the calls."""
        return {str(task["name"]): str(task["state"]) for task in self.run_details()["tasks"]}

    def wait(self, timeout: float | None = None) -> str:
        """Return the state of the run once it has ended.

        Args:
            timeout: Seconds; None waits for ever.

        Raises:
            TimeoutError: it has not ended by then; the run goes on.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = _FIRST_PAUSE
        while (state := self.status()) not in ENDED:
            left = _LONGEST_PAUSE if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"run {self._run_id} is still {state} after {timeout} s; it goes on")
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, _LONGEST_PAUSE)
        return state

    def logs(
        self,
        task_name: str | None = None,
        stderr: bool = False,
        lines: int = 5000,
        task_id: int | None = None,
    ) -> str:
        """The last lines of a task's output, or of the run's own log; see `Workflow.logs`."""
        return self.workflow.logs(
            self._run_id, task_name=task_name, stderr=stderr, lines=lines, task_id=task_id
        )

    def result(self, task_name: str | None = None, task_id: int | None = None) -> Any:
        """The object that a task returned, None when there is none (yet); see `Workflow.result`.

        Without a task it is that of the only task which no other one waits for.

        Raises:
            ValueError: no such task; or none is named and there are several last ones.
        """
        if task_name is None and task_id is None:
            task_id = self._last_task()
        return self.workflow.result(self._run_id, task_name=task_name, task_id=task_id)

    def run_details(self) -> dict[str, Any]:
        """The run with its tasks; see `Workflow.run_details`."""
        return self.workflow.run_details(self._run_id)

    def stop(self) -> Outcome:
        """End this run and no other one; (False, message) when the platform refused (clause B95)."""
        try:
            self._platform().stop_run(self._run_id)
        except PlatformError as error:
            return failure(f"stopping run {self._run_id} of {self.workflow.name!r} failed: {error}")
        return True, f"stopping run {self._run_id} of {self.workflow.name!r}"

    def _platform(self) -> Platform:
        return self.workflow._require_platform()

    def _last_task(self) -> int:
        tasks = self.workflow.tasks
        waited_for = {number for task in tasks for number in task.translate_dependencies()}
        last = [task for task in tasks if task.id not in waited_for]
        if len(last) != 1:
            names = ", ".join(repr(task.name) for task in last[:10])
            raise ValueError(f"{self.workflow.name!r} ends with several tasks; name one of {names}")
        return last[0].id

    def __repr__(self) -> str:
        return f"<Instant run {self._run_id} of {self.workflow.name!r} in {self.environment}>"

    def _repr_html_(self) -> str:
        """How it stands, as a table for notebooks."""
        return self._looking()()[0]

    def _ipython_display_(self) -> None:
        """In a notebook a table that is kept up to date until the run has ended."""
        show(self, self._looking())

    def _looking(self) -> Looking:
        return Looking(f"run {self._run_id} of {self.workflow.name}", self.run_details)


def check_instant_options(options: Mapping[str, Any]) -> None:
    """Refuse what an instant run cannot do here: code always travels as the package's files, and runs in
    the workflow's own environment.

    Raises:
        ValueError: another mode, or an option that has no meaning; names it.
    """
    mode = options.get("instant_run_mode")
    if mode is not None and (not isinstance(mode, str) or mode.lower() not in _MODES):
        raise ValueError(f"instant_run_mode is {mode!r}; it must be {' or '.join(_MODES)}")
    for name in INSTANT_OPTIONS[1:]:
        if options.get(name):
            raise ValueError(
                f"{name} is {options[name]!r}; leave it out: the whole package travels, "
                "and runs in the environment that python_version and python_requirements describe"
            )


def run_instantly(workflow: Workflow) -> InstantRun:
    """Run a workflow once, with the code on disk now; its schedule and its saved versions stay as they are.

    Raises:
        NotConfiguredError: no platform is known.
        PlatformError: the platform refused it, or the environment could not be built.
        BundleError: the code cannot be packaged.
        TaskError: an argument cannot be pickled, or the tasks wait for one another.
        ValueError: a value of the definition that cannot be read, or no task.
    """
    platform = workflow._require_platform()
    problem = workflow._check_before_save()
    if problem is not None:
        raise ValueError(problem)
    package = workflow._package()
    if package is None:
        raise ValueError(f"workflow {workflow.name!r} has no code on this machine")
    with packed(package) as bundle:
        definition = workflow._definition(bundle=bundle)
        saved = platform.save_job(replace(definition, schedule=None, repository_verified=False, instant=True))
    workflow._saved_as(saved)
    if saved.image_key:
        platform.wait_for_image(saved.image_key, progress=progress)
    name = internal_name(workflow.name)
    started = platform.start_job(name, workflow.environment.value, version=saved.version)
    handle = InstantRun(workflow, started)
    success(
        f"Workflow {workflow.name!r} runs as it is now, as run {handle.run_id}; its name in the CLI is {name}"
    )
    return handle
