"""Jobs that keep running: apps, services and Excel add-ins (sections 12 to 14)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, ClassVar

from datatailr.acl import ACL
from datatailr.build import Image
from datatailr.excel._addin import MODULE_MARK, Addin
from datatailr.scheduler._entrypoint import EntryPoint
from datatailr.scheduler._environment import EnvVars
from datatailr.scheduler._job import Job
from datatailr.scheduler._job_type import JobType
from datatailr.scheduler._reporting import warn_user
from datatailr.scheduler._resources import Resources
from datatailr.scheduler._sources import imported_modules
from datatailr.user import User
from datatailr.utils import Environment

__all__ = ["App", "ExcelAddin", "Service"]

Target = Callable[..., Any] | ModuleType | str | EntryPoint | None

FRAMEWORK_VARIABLE = "DATATAILR_FRAMEWORK"
FRAMEWORK_PACKAGES: Mapping[str, tuple[str, ...]] = {
    "streamlit": ("streamlit",),
    "dash": ("dash", "gunicorn"),
    "flask": ("flask", "gunicorn"),
    "fastapi": ("fastapi", "uvicorn", "jinja2", "python-multipart"),
    "panel": ("panel", "gunicorn"),
    "voila": ("voila", "jupyter"),
    "jupyter": ("jupyter",),
}
"""Frameworks and the packages that they need (clauses B205, B206)."""
_DETECTED = ("streamlit", "flask", "fastapi", "dash", "panel")
"""Frameworks that are recognised by an import, in this order (clause B204)."""


def _entry(job_type: JobType, target: Target) -> EntryPoint | None:
    if target is None or isinstance(target, EntryPoint):
        return target
    return EntryPoint(job_type, target)


class _LongRunning(Job):
    """What the three kinds share: the order of construction and the later Python default."""

    _DEFAULT_PYTHON_VERSION: ClassVar[str] = "3.12"
    _DEFAULT_RESOURCES: ClassVar[Resources | None] = Resources()
    _TYPE: ClassVar[JobType]

    def _build(self, entrypoint: Target, get_existing: bool, **options: Any) -> None:
        entry = _entry(self._TYPE, entrypoint)
        if entry is None and not get_existing:
            raise ValueError(f"{self._TYPE.display_name()} {options['name']!r} needs an entrypoint")
        Job.__init__(self, type=self._TYPE, entrypoint=entry, get_existing=get_existing, **options)

    def _finish(self) -> None:
        if self.entrypoint is not None and self.entrypoint.file is not None:
            self._warn_about_missing_packages()


class App(_LongRunning):
    """A web application or dashboard.

    Its entrypoint is a function, a module, a notebook or the name of one; what starts it is the
    framework: the argument, else what the entrypoint's file imports (clause B204).

    Args:
        name: Display name.
        entrypoint: What starts the app; may be None with get_existing.
        environment: Where it lives; None means dev.
        image: Used as it is; the python_* and build_* arguments are then ignored.
        run_as: User or user name; by default the signed-in user.
        resources: Memory and cores; by default 128m and 0.25.
        acl: Access list; by default the standard one.
        framework: streamlit, dash, flask, fastapi, panel, voila or jupyter.
        python_version: See `Image`.
        python_requirements: See `Image`.
        build_script_pre: See `Image`.
        build_script_post: See `Image`.
        env_vars: Variables for the container.
        get_existing: Load the saved app of this name (clause B112).
        version: Version to load; only with get_existing.
        app_section: Section of the launcher page, "" for the default one.

    Raises:
        ValueError: an unknown framework (clause B205), or another bad value; see `Job`.
    """

    _TYPE = JobType.APP
    _LISTED = "app"

    def __init__(
        self,
        name: str,
        entrypoint: Target,
        environment: Environment | str | None = Environment.DEV,
        image: Image | None = None,
        run_as: str | User | None = None,
        resources: Resources | None = Resources(),  # noqa: B008 - the documented default; never changed
        acl: ACL | None = None,
        framework: str | None = None,
        python_version: str = "3.12",
        python_requirements: str | list[str] = "",
        build_script_pre: str = "",
        build_script_post: str = "",
        env_vars: Mapping[str, str | int | float | bool] | None = None,
        get_existing: bool = False,
        version: str | int | None = None,
        app_section: str = "",
    ) -> None:
        if framework is not None:
            if framework not in FRAMEWORK_PACKAGES:
                raise ValueError(
                    f"framework is {framework!r}; it must be one of {', '.join(FRAMEWORK_PACKAGES)}"
                )
            _warn_about_framework(name, framework, python_requirements)
        self._given_framework = framework
        self._build(
            entrypoint,
            get_existing,
            name=name,
            environment=environment,
            image=image,
            run_as=run_as,
            resources=_own_copy(resources),
            acl=acl,
            python_version=python_version,
            python_requirements=python_requirements,
            build_script_pre=build_script_pre,
            build_script_post=build_script_post,
            env_vars=env_vars,
            app_section=app_section,
            version=version,
        )
        self._finish()

    @property
    def framework(self) -> str | None:
        """What starts the app; None when the entrypoint itself is called (clause B204)."""
        if self._given_framework is not None:
            return self._given_framework
        stored = self.env_vars.get(FRAMEWORK_VARIABLE)
        if stored is not None:
            return str(stored)
        entry = self.entrypoint
        if entry is None or entry.file is None:
            return None
        if entry.is_notebook:
            return "voila"
        imports = imported_modules(entry.file)
        return next((name for name in _DETECTED if name in imports), None)

    def _all_env_vars(self) -> EnvVars:
        framework = self.framework
        if framework is None or FRAMEWORK_VARIABLE in self.env_vars:
            return self.env_vars
        return {**self.env_vars, FRAMEWORK_VARIABLE: framework}


def _warn_about_framework(name: str, framework: str, requirements: object) -> None:
    if isinstance(requirements, list):
        missing = [package for package in FRAMEWORK_PACKAGES[framework] if package not in requirements]
        if missing:
            warn_user(f"app {name!r}: {framework} also needs {', '.join(missing)} in python_requirements")


def _own_copy(resources: Resources | None) -> Resources | None:
    """A copy, as the default of a parameter is one object for all jobs."""
    if isinstance(resources, Resources):
        return Resources(memory=resources.memory, cpu=resources.cpu)
    return resources


class Service(_LongRunning):
    """A process that always runs and is started again when it ends.

    The entrypoint is called with the port as its only argument (clause B196).

    Args:
        name: Display name; others reach it at `http://<internal name>`.
        entrypoint: Function that starts the service; may be None with get_existing.
        environment: Where it lives; None means dev.
        image: Used as it is; the python_* and build_* arguments are then ignored.
        run_as: User or user name; by default the signed-in user.
        resources: Memory and cores; by default 128m and 0.25.
        acl: Access list; by default the standard one.
        python_version: See `Image`.
        python_requirements: See `Image`.
        build_script_pre: See `Image`.
        build_script_post: See `Image`.
        env_vars: Variables for the container.
        get_existing: Load the saved service of this name (clause B112).
        version: Version to load; only with get_existing.
        app_section: Section of the launcher page, "" for the default one.
    """

    _TYPE = JobType.SERVICE
    _LISTED = "service"

    def __init__(
        self,
        name: str,
        entrypoint: Target,
        environment: Environment | str | None = Environment.DEV,
        image: Image | None = None,
        run_as: str | User | None = None,
        resources: Resources | None = Resources(),  # noqa: B008 - the documented default; never changed
        acl: ACL | None = None,
        python_version: str = "3.12",
        python_requirements: str | list[str] = "",
        build_script_pre: str = "",
        build_script_post: str = "",
        env_vars: Mapping[str, str | int | float | bool] | None = None,
        get_existing: bool = False,
        version: str | int | None = None,
        app_section: str = "",
    ) -> None:
        self._build(
            entrypoint,
            get_existing,
            name=name,
            environment=environment,
            image=image,
            run_as=run_as,
            resources=_own_copy(resources),
            acl=acl,
            python_version=python_version,
            python_requirements=python_requirements,
            build_script_pre=build_script_pre,
            build_script_post=build_script_post,
            env_vars=env_vars,
            app_section=app_section,
            version=version,
        )
        self._finish()


class ExcelAddin(_LongRunning):
    """Functions of Python as functions of worksheets.

    Args:
        name: Display name.
        entrypoint: Function that starts the add-in's server; may be None with get_existing.
        environment: Where it lives; None means dev.
        image: Used as it is; the python_* and build_* arguments are then ignored.
        run_as: User or user name; by default the signed-in user.
        resources: Memory and cores; by default 128m and 0.25.
        acl: Access list; by default the standard one.
        python_version: See `Image`.
        python_requirements: See `Image`.
        build_script_pre: See `Image`.
        build_script_post: See `Image`.
        env_vars: Variables for the container.
        get_existing: Load the saved add-in of this name (clause B112).
        version: Version to load; only with get_existing.
        app_section: Section of the launcher page, "" for the default one.

    Raises:
        ValueError: an exposed function has annotations that Excel cannot serve (clause B217).
    """

    _TYPE = JobType.EXCEL
    _LISTED = "excel"

    def __init__(
        self,
        name: str,
        entrypoint: Target,
        environment: Environment | str | None = Environment.DEV,
        image: Image | None = None,
        run_as: str | User | None = None,
        resources: Resources | None = Resources(),  # noqa: B008 - the documented default; never changed
        acl: ACL | None = None,
        python_version: str = "3.12",
        python_requirements: str | list[str] = "",
        build_script_pre: str = "",
        build_script_post: str = "",
        env_vars: Mapping[str, str | int | float | bool] | None = None,
        get_existing: bool = False,
        version: str | int | None = None,
        app_section: str = "",
    ) -> None:
        _check_addin(entrypoint)
        self._build(
            entrypoint,
            get_existing,
            name=name,
            environment=environment,
            image=image,
            run_as=run_as,
            resources=_own_copy(resources),
            acl=acl,
            python_version=python_version,
            python_requirements=python_requirements,
            build_script_pre=build_script_pre,
            build_script_post=build_script_post,
            env_vars=env_vars,
            app_section=app_section,
            version=version,
        )
        self._finish()

    def _all_env_vars(self) -> EnvVars:
        return {"DATATAILR_LOCAL": "false", **self.env_vars}


def _check_addin(entrypoint: Target) -> None:
    """Check the annotations of the add-in that the entrypoint's module defines (clause B217)."""
    names = (
        entrypoint.__dict__ if isinstance(entrypoint, ModuleType) else getattr(entrypoint, "__globals__", {})
    )
    addin = names.get(MODULE_MARK)
    if isinstance(addin, Addin):
        addin.check_annotations()
