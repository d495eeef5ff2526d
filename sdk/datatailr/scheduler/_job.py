"""Jobs: what all kinds of work have in common (sections 5 and 7 to 10)."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from datetime import datetime
from typing import Any, ClassVar

from datatailr.acl import ACL
from datatailr.build import Image
from datatailr.build._requirements import missing_packages
from datatailr.errors import ConflictError, NotFoundError, TaskError
from datatailr.scheduler import _platform
from datatailr.scheduler._entrypoint import EntryPoint
from datatailr.scheduler._environment import (
    EnvVars,
    checked_env_vars,
    env_entries,
    env_from_entries,
    env_pairs,
)
from datatailr.scheduler._job_type import JobType
from datatailr.scheduler._lifecycle import Lifecycle
from datatailr.scheduler._names import internal_name, normalize_name
from datatailr.scheduler._package import CodePackage
from datatailr.scheduler._reporting import warn_user
from datatailr.scheduler._repository import UNKNOWN, verify_repository
from datatailr.scheduler._resources import Resources
from datatailr.scheduler._saving import Origin, entry_file_names, shipped
from datatailr.scheduler._schedule import Schedule
from datatailr.scheduler._sources import imported_modules
from datatailr.scheduler._times import local_time
from datatailr.user import User, default_user_name
from datatailr.utils import Environment

__all__ = ["Job"]

_NEEDED_KEYS = (
    *("display_name", "name", "environment", "type", "image", "run_as", "memory", "state", "create_time"),
    *("version", "id"),
)


class Job(Lifecycle):
    """Base of App, Service, ExcelAddin and Workflow.

    Args:
        name: Display name; it must hold a letter or digit (clause B2).
        environment: Where it lives; None means dev.
        image: Used as it is; the python_* and build_* arguments are then ignored (B180).
        run_as: User or user name; by default the signed-in user.
        resources: Memory and cores; by default 128m and 0.25.
        acl: Access list; by default the job's present one, or the standard one (B240).
        python_version: See `Image`.
        python_requirements: See `Image`.
        build_script_pre: See `Image`.
        build_script_post: See `Image`.
        env_vars: Variables for the running container.
        type: Kind of the job.
        entrypoint: What it starts with.
        get_existing: Load the saved definition; arguments that differ from their default override
            it, an entrypoint replaces the code (clause B112).
        app_section: Section of the launcher page, "" for the default one.
        version: Version to load; only with get_existing.

    Raises:
        ValueError: a bad name, environment, Python version, or a version without get_existing.
        TaskError: get_existing found no such job or version, or several (B114).
    """

    _DEFAULT_PYTHON_VERSION: ClassVar[str] = "auto"
    _DEFAULT_RESOURCES: ClassVar[Resources | None] = None
    """Default of the parameter `resources`."""

    def __init__(
        self,
        name: str,
        environment: Environment | str | None = Environment.DEV,
        image: Image | None = None,
        run_as: str | User | None = None,
        resources: Resources | None = None,
        acl: ACL | None = None,
        python_version: str = "auto",
        python_requirements: str | list[str] = "",
        build_script_pre: str = "",
        build_script_post: str = "",
        env_vars: Mapping[str, str | int | float | bool] | None = None,
        type: JobType | str | None = JobType.UNKNOWN,
        entrypoint: EntryPoint | None = None,
        get_existing: bool = False,
        app_section: str = "",
        version: str | int | None = None,
    ) -> None:
        super().__init__()
        if version is not None and not get_existing:
            raise ValueError("version is given without get_existing=True; it selects a saved version")
        internal_name(name)
        self.name = name
        self.environment = Environment.parse_or_dev(environment)
        self.type = JobType.from_str(type)
        self._id = str(uuid.uuid4())
        self.state: str | None = None
        self.version: int | None = None
        self.create_time: datetime | None = None
        self.schedule: Schedule | None = None
        self._base_version: int | None = None
        self.run_as = _checked_user(run_as)
        self.resources = _checked_resources(resources) or self._default_resources()
        self.acl = _checked_acl(acl)
        self.env_vars: EnvVars = checked_env_vars(env_vars, owner=f"job {name!r}")
        self.app_section = app_section
        self.entrypoint = entrypoint
        build: dict[str, tuple[Any, Any]] = {
            "python_version": (python_version, self._DEFAULT_PYTHON_VERSION),
            "python_requirements": (python_requirements, ""),
            "build_script_pre": (build_script_pre, ""),
            "build_script_post": (build_script_post, ""),
        }
        if not get_existing:
            self.image = image or Image(**{key: value for key, (value, _) in build.items()})
        else:
            loaded = self.__get_existing__(name, self.environment, version, get_tasks=True)
            given = (self.run_as, resources, self.acl, self.env_vars)
            self.from_dict(loaded)
            self._override(*given, app_section=app_section, entrypoint=entrypoint)
            if image is not None:
                self.image = image
            else:
                self.image.update(
                    **{key: value for key, (value, default) in build.items() if value != default}
                )
        self._fill_image_origin()

    @classmethod
    def _default_resources(cls) -> Resources:
        return Resources()

    def _override(
        self,
        run_as: str | User | None,
        resources: Resources | None,
        acl: ACL | None,
        env_vars: EnvVars,
        *,
        app_section: str,
        entrypoint: EntryPoint | None,
    ) -> None:
        """Let arguments that differ from their defaults win over what was loaded (clause B112)."""
        if run_as is not None:
            self.run_as = run_as
        if resources is not None and resources != self._DEFAULT_RESOURCES:
            self.resources = resources
        if acl is not None:
            self.acl = acl
        if env_vars:
            self.env_vars = env_vars
        if app_section:
            self.app_section = app_section
        if entrypoint is not None:
            self.entrypoint = entrypoint
            self.image.update(path_to_repo=None, path_to_module=None)

    # -- identity ------------------------------------------------------------------------------
    @property
    def id(self) -> str:
        """Unique identifier: random before the first save, then the platform's (clause B5)."""
        return self._id

    @property
    def internal_name(self) -> str:
        """The name that identifies the job on the platform and in the CLI (clause B3).

        Raises:
            ValueError: the display name holds no letter and no digit (clause B2).
        """
        return internal_name(self.name)

    def __repr__(self) -> str:
        return f"<{self.type.display_name()} {self.name!r} in {self.environment}>"

    # -- code and image ------------------------------------------------------------------------
    def _package(self) -> CodePackage | None:
        """The directory to ship; None when the code of the loaded version stays."""
        return self.entrypoint.package if self.entrypoint is not None else None

    def _entry_points(self) -> list[EntryPoint]:
        return [self.entrypoint] if self.entrypoint is not None else []

    def _fill_image_origin(self) -> None:
        package = self._package()
        if package is not None:
            self._fill_image_from(package)

    def _fill_image_from(self, package: CodePackage) -> None:
        if self.image.path_to_repo is None:
            self.image.path_to_repo = package.path_to_repo
        if self.image.path_to_module is None:
            self.image.path_to_module = package.path_to_module

    def __find_missing_python_packages(self) -> None:
        """Warn of imports that the requirements do not cover (clause B181)."""
        package = self._package()
        files = {entry.file for entry in self._entry_points() if entry.file is not None}
        imports = {name for file in files if file.suffix == ".py" for name in imported_modules(file)}
        if package is None or not imports:
            return
        missing = missing_packages(imports, self.image.python_requirements, entry_file_names(package))
        if missing:
            warn_user(
                f"job {self.name!r}: imported but not listed in python_requirements: {', '.join(missing)}"
            )

    def _warn_about_missing_packages(self) -> None:
        self.__find_missing_python_packages()

    def verify_repo_is_ready(self) -> tuple[str, str]:
        """(branch, commit) of the packaged code's repository, if nothing is uncommitted and the
        commit is what the remote has (clauses B163 to B166).

        Raises:
            RepoValidationError: it is not so, with a text for each reason.
            TaskError: the job has no code on this machine.
        """
        package = self._package()
        if package is None:
            raise TaskError(f"job {self.name!r} has no code on this machine that could be verified")
        return verify_repository(package.repository)

    # -- output --------------------------------------------------------------------------------
    def _run_as_name(self) -> str:
        if isinstance(self.run_as, User):
            return self.run_as.name
        return self.run_as or default_user_name()

    def _all_env_vars(self) -> EnvVars:
        """The user's variables and those that the kind of job adds (clause B73)."""
        return self.env_vars

    def to_dict(self) -> dict[str, Any]:
        """The definition for JSON (clauses B66 to B68).

        Raises:
            ValueError: unreadable memory, or cpu that is not positive (clause B8).
        """
        self.resources.request(owner=f"job {self.name!r}")
        result: dict[str, Any] = {
            "environment": str(self.environment),
            "image": self.image.to_dict(),
            "type": str(self.type),
            "display_name": self.name,
            "name": self.internal_name,
            "run_as": self._run_as_name(),
            "memory": str(self.resources.memory),
            "num_cpus": self.resources.cpu,
            "app_section": self.app_section,
        }
        if self.acl is not None:
            result["acl"] = self.acl.to_dict()
        result.update(self._type_dict())
        return result

    def _type_dict(self) -> dict[str, Any]:
        return {
            "entrypoint": None if self.entrypoint is None else str(self.entrypoint),
            "env": env_entries(self._all_env_vars()),
        }

    def to_json(self) -> str:
        """JSON text of `to_dict()`."""
        return json.dumps(self.to_dict())

    def get_schedule_args(self) -> dict[str, Any]:
        """Additional arguments for scheduling; override or extend it as needed (clause B75)."""
        return {}

    # -- from the platform ---------------------------------------------------------------------
    @classmethod
    def __get_existing__(
        cls,
        job_name: str,
        environment: Environment | str | None,
        version: str | int | None = None,
        get_tasks: bool = False,
    ) -> dict[str, Any]:
        """The definition of a saved job, as `job get` answers it (clauses B114 to B117).

        Args:
            job_name: Display or internal name.
            environment: Where it lives; None means dev.
            version: A version; by default the latest.
            get_tasks: Also `children_full`.

        Raises:
            TaskError: no such job or version, or several jobs fit.
        """
        where = Environment.parse_or_dev(environment)
        wanted = None if version is None else int(version)
        name = normalize_name(job_name) or job_name
        try:
            return dict(
                cls._require_platform().get_job(name, where.value, version=wanted, with_tasks=get_tasks)
            )
        except NotFoundError as error:
            which = "" if wanted is None else f" version {wanted}"
            _, _, hint = str(error).partition("\n")
            missing = TaskError(f"there is no job {job_name!r}{which} in {where}\n{hint}".rstrip())
            missing.code = error.code
        except ConflictError as error:
            missing = TaskError(f"several jobs fit {job_name!r} in {where}: {error}")
        # outside the handlers: how the platform was asked is of no use to the caller
        raise missing

    def from_dict(self, job_dict: Mapping[str, Any]) -> None:
        """Fill this object from a platform answer (clause B134).

        Raises:
            ValueError: a needed key is missing.
        """
        missing = [key for key in _NEEDED_KEYS if key not in job_dict]
        if "cpu" not in job_dict and "num_cpus" not in job_dict:
            missing.append("cpu or num_cpus")
        if missing:
            raise ValueError(f"the description of a job lacks {', '.join(missing)}")
        self.name = job_dict["display_name"]
        self.environment = Environment.parse_or_dev(job_dict["environment"])
        self.type = JobType.from_str(job_dict["type"])
        self.image = Image().from_dict(job_dict["image"] or {})
        self.run_as = _stored_user(job_dict["run_as"])
        self.resources = Resources.from_job_dict(job_dict)
        self.state = job_dict["state"]
        self.create_time = local_time(job_dict["create_time"])
        self.version = self._base_version = int(job_dict["version"])
        self._id = str(job_dict["id"])
        acl = job_dict.get("acl")
        self.acl = ACL.from_stored(acl) if acl else None
        entrypoint = job_dict.get("entrypoint")
        self.entrypoint = EntryPoint.from_stored(self.type, entrypoint) if entrypoint else None
        self.env_vars = env_from_entries(job_dict.get("env"))
        self.app_section = job_dict.get("app_section") or ""

    # -- saving --------------------------------------------------------------------------------
    def _check_before_save(self) -> str | None:
        """A reason why the job cannot be saved; mistakes in values raise."""
        for entry in self._entry_points():
            problem = entry.importable_problem()
            if problem is not None:
                return f"job {self.name!r}: {problem}"
        if self._base_version is None and not self._entry_points():
            return f"job {self.name!r} has no entrypoint"
        return None

    def _save_version(self, platform: _platform.Platform) -> tuple[_platform.SavedVersion, Origin | None]:
        package = self._package()
        with shipped(package) if package is not None else nullcontext() as code:
            origin = None if code is None else code[1]
            if origin is not None:
                self.image.update(branch_name=origin.branch, commit_hash=origin.commit)
            definition = self._definition(bundle=None if code is None else code[0])
            saved = platform.save_job(definition)
        self._saved_as(saved)
        return saved, origin

    def _saved_as(self, saved: _platform.SavedVersion) -> None:
        self._id = saved.job_id
        self.version = self._base_version = saved.version
        self.state = saved.state
        self.create_time = local_time(saved.create_time)

    def _definition(self, *, bundle: _platform.Bundle | None) -> _platform.JobDefinition:
        document = self.to_dict()
        image = self.image
        return _platform.JobDefinition(
            name=self.internal_name,
            display_name=self.name,
            environment=self.environment.value,
            type=str(self.type),
            resources=self.resources.request(owner=f"job {self.name!r}"),
            image=_platform.ImageRecipe(
                python_version=image.python_version,
                python_requirements=image.python_requirements,
                build_script_pre=image.build_script_pre,
                build_script_post=image.build_script_post,
            ),
            origin=_platform.CodeOrigin(
                image.branch_name, image.commit_hash, image.path_to_repo, image.path_to_module
            ),
            document=document,
            run_as=self._run_as_name() if self.run_as is not None else None,
            bundle=bundle,
            entrypoint=document.get("entrypoint"),
            env=env_pairs(self._all_env_vars()),
            app_section=self.app_section,
            tasks=self._task_definitions(),
            schedule=self._schedule_request(),
            acl=document.get("acl"),
            repository_verified=image.commit_hash not in (None, UNKNOWN),
            base_version=self._base_version,
            base_job_id=None,
            instant=False,
            **self._limits(),
        )

    def _take_over(self, job_id: str, version: int, state: str) -> None:
        self._id, self.version, self.state = job_id, version, state

    def _task_definitions(self) -> Sequence[_platform.TaskDefinition]:
        return ()

    def _limits(self) -> dict[str, int | None]:
        return {}

    def _schedule_request(self) -> _platform.ScheduleRequest | None:
        fields = self.get_schedule_args()
        schedule = self.schedule or (Schedule() if fields else None)
        return None if schedule is None else schedule.request(fields)


def _checked_user(value: object) -> str | User | None:
    if value is None or isinstance(value, User):
        return value
    if isinstance(value, str) and value.strip():
        return value
    raise TypeError(f"run_as is {value!r}; it must be a User or a user name")


def _stored_user(name: Any) -> str | User | None:
    """The user of a stored job; its name alone where people cannot be looked up."""
    if not name:
        return None
    try:
        return User(str(name))
    except (ValueError, RuntimeError):
        return str(name)


def _checked_resources(value: object) -> Resources | None:
    if value is None or isinstance(value, Resources):
        return value
    raise TypeError(f"resources is {value!r}; it must be a Resources object")


def _checked_acl(value: object) -> ACL | None:
    if value is None or isinstance(value, ACL):
        return value
    raise TypeError(f"acl is {value!r}; it must be an ACL")
