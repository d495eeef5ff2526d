"""The image of a job as a value (section 10, clauses B169 to B174, B179)."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datatailr.build._project import find_project_dependencies, project_python_version
from datatailr.build._requirements import existing_file, freeze, requirements_text

__all__ = ["Image"]

DEFAULT_PYTHON_VERSION = "3.13"
"""What None and "" mean (clause B169)."""
_VERSION = re.compile(r"3\.1[0-4](\.\d+)?")
_RUN = re.compile(r"^[ \t]*RUN[ \t]+", re.MULTILINE)
_FIELDS = (
    *("python_version", "python_requirements", "build_script_pre", "build_script_post"),
    *("branch_name", "commit_hash", "path_to_repo", "path_to_module"),
)
_ORIGIN_FIELDS = _FIELDS[4:]
_STORED_ONLY = ("image_id", "image_name")


class Image:
    """What the code of a job runs in.

    Args:
        python_version: `major.minor` or with patch, 3.10 to 3.14; "auto" (any case) is what the
            project states (`.python-version`, else `requires-python`), else the version of the
            running interpreter; None or "" is 3.13.
        python_requirements: A list, the name of a requirements file or of a pyproject.toml, text
            with lines or commas, or "auto": the dependencies of the project's pyproject.toml, else
            the packages of the running interpreter.
        build_script_pre: Shell text that runs before the requirements are installed, or the name of
            a file with it; a leading `RUN ` is dropped.
        build_script_post: The same, after requirements and code are in place.
        branch_name: Branch of the code; filled at save.
        commit_hash: Commit of the code; filled at save.
        path_to_repo: Root of the repository; filled from the entrypoint when empty.
        path_to_module: The package directory relative to it; filled likewise.

    Raises:
        TypeError: a value of a wrong type.
        ValueError: a Python version that is not supported.
    """

    branch_name: str | None
    commit_hash: str | None
    path_to_repo: str | None
    path_to_module: str | None
    image_id: str | None = None
    image_name: str | None = None

    def __init__(
        self,
        python_version: str | None = "auto",
        python_requirements: str | list[str] = "",
        build_script_pre: str = "",
        build_script_post: str = "",
        branch_name: str | None = None,
        commit_hash: str | None = None,
        path_to_repo: str | None = None,
        path_to_module: str | None = None,
    ) -> None:
        self._python_version: str | None = None
        self._requirements: str | None = None
        self._build_script_pre = ""
        self._build_script_post = ""
        given = dict(locals())
        del given["self"]
        self.update(**given)

    @property
    def python_version(self) -> str:
        """The version that the code runs with."""
        if self._python_version is not None:
            return self._python_version
        where = self._package_and_repository()
        stated = project_python_version(*where) if where else None
        return stated or f"{sys.version_info.major}.{sys.version_info.minor}"

    @python_version.setter
    def python_version(self, value: str | None) -> None:
        if value is not None and not isinstance(value, str):
            raise TypeError(f"python_version is {value!r}; it must be a text such as '3.12' or 'auto'")
        text = (value or "").strip()
        if text.lower() == "auto":
            self._python_version = None
        elif not text:
            self._python_version = DEFAULT_PYTHON_VERSION
        elif _VERSION.fullmatch(text):
            self._python_version = text
        else:
            raise ValueError(f"python_version is {value!r}; it must be 3.10 to 3.14, or 'auto'")

    @property
    def python_requirements(self) -> str:
        """Requirement lines, separated by newlines."""
        if self._requirements is None:
            where = self._package_and_repository()
            found = find_project_dependencies(*where) if where else None
            if found is None:
                found = freeze()
            if where is None:
                return found  # the project may become known later
            self._requirements = found
        return self._requirements

    @python_requirements.setter
    def python_requirements(self, value: str | list[str]) -> None:
        automatic = isinstance(value, str) and value.strip().lower() == "auto"
        self._requirements = None if automatic else requirements_text(value)

    @property
    def build_script_pre(self) -> str:
        """Shell text that runs before the requirements are installed."""
        return self._build_script_pre

    @build_script_pre.setter
    def build_script_pre(self, value: str) -> None:
        self._build_script_pre = _script("build_script_pre", value)

    @property
    def build_script_post(self) -> str:
        """Shell text that runs after requirements and code are in place."""
        return self._build_script_post

    @build_script_post.setter
    def build_script_post(self, value: str) -> None:
        self._build_script_post = _script("build_script_post", value)

    def _package_and_repository(self) -> tuple[Path, Path] | None:
        if self.path_to_repo is None or self.path_to_module is None:
            return None
        repository = Path(self.path_to_repo)
        return repository / self.path_to_module, repository

    def update(self, **kwargs: Any) -> None:
        """Set fields.

        Raises:
            AttributeError: no such field; nothing is changed then.
            TypeError: a value of a wrong type.
            ValueError: a Python version that is not supported.
        """
        for name in kwargs:
            if name not in _FIELDS:
                raise AttributeError(f"an image has no field {name!r}; its fields are {', '.join(_FIELDS)}")
        for name, value in kwargs.items():
            if name in _ORIGIN_FIELDS and value is not None and not isinstance(value, str):
                raise TypeError(f"{name} is {value!r}; it must be a text or None")
            setattr(self, name, value)

    def to_dict(self) -> dict[str, Any]:
        """The fields by name (clause B71); None where unknown."""
        return {name: getattr(self, name) for name in _FIELDS}

    def to_json(self) -> str:
        """JSON text of `to_dict()`, indented by 4."""
        return json.dumps(self.to_dict(), indent=4)

    def from_dict(self, data: Mapping[str, Any]) -> Image:
        """Fill this image from a mapping of fields, also `image_id` and `image_name`; returns it.

        Texts are taken as they are: a stored requirement line is never read as a file name.

        Raises:
            AttributeError: an unknown key.
        """
        for name in data:
            if name not in _FIELDS and name not in _STORED_ONLY:
                raise AttributeError(f"an image has no field {name!r}")
        for name, value in data.items():
            if name == "python_requirements":
                self._requirements = requirements_text(value) if isinstance(value, list) else str(value or "")
            elif name in ("build_script_pre", "build_script_post"):
                setattr(self, f"_{name}", str(value or ""))
            elif name in _STORED_ONLY:
                setattr(self, name, value)
            else:
                self.update(**{name: value})
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Image) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        requirements = len(self.python_requirements.splitlines())
        return f"Image(python_version={self.python_version!r}, {requirements} requirements)"


def _script(field: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{field} is {value!r}; it must be a text: shell lines, or the name of a file")
    file = existing_file(value)
    text = file.read_text(encoding="utf-8") if file is not None else value
    return _RUN.sub("", text.replace("\\n", "\n"))
