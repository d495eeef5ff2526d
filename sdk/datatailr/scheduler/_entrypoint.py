"""What a job starts with (section 11, clauses B189 to B194)."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from datatailr.scheduler._job_type import JobType
from datatailr.scheduler._package import CodePackage, locate_package, package_of_directory
from datatailr.scheduler._process import workflows_disabled
from datatailr.scheduler._sources import find_module_file, main_module_name, module_file, top_level_names

__all__ = ["EntryPoint"]

_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


class EntryPoint:
    """The function, callable object, module or notebook that a job starts with.

    Args:
        job_type: Kind of the job.
        func_or_module: A function, a module, a callable object or class that is an attribute of
            its module, or a text: `package.module:function`, `package.module`, the path of a `.py`
            file, or the path of a `.ipynb` notebook.

    Raises:
        FileNotFoundError: a notebook that does not exist.
        ValueError: a text, or a callable object, that leads to nothing.
        TypeError: anything else.
    """

    job_type: JobType
    module_name: str
    """Dotted name under which the platform imports it; the directory for a notebook."""
    function_name: str | None
    """None when the module itself is the entrypoint; the file name for a notebook."""
    file: Path | None
    """Source file; None in an interactive session and for what was loaded from the platform."""

    def __init__(
        self,
        job_type: JobType | str | None,
        func_or_module: Callable[..., Any] | ModuleType | str | os.PathLike[str],
    ) -> None:
        self.job_type = JobType.from_str(job_type)
        self.function_name = None
        self.file = None
        self._function: Callable[..., Any] | None = None
        self._notebook = False
        target = os.fspath(func_or_module) if isinstance(func_or_module, os.PathLike) else func_or_module
        if isinstance(target, str):
            self._from_text(target)
        elif inspect.isfunction(target):
            self._from_function(target)
        elif isinstance(target, ModuleType):
            self.module_name = _packaged_name(target.__name__)
            self.file = module_file(target.__name__)
        elif callable(target) and not inspect.isbuiltin(target) and not inspect.ismethod(target):
            self._from_object(target)
        else:
            raise TypeError(
                f"entrypoint is {target!r}; it must be a function, a module, a callable object that is an "
                "attribute of its module, or a text such as 'package.module:function'"
            )

    # -- the forms -----------------------------------------------------------------------------
    def _from_function(self, function: Callable[..., Any]) -> None:
        name = function.__module__
        self._function = function
        self.module_name = _packaged_name(name)
        self.function_name = function.__name__
        self.file = module_file(name)
        if self.file is None:
            source = Path(inspect.unwrap(function).__code__.co_filename)
            self.file = source if source.is_file() and source.suffix == ".py" else None

    def _from_object(self, target: Any) -> None:
        owner = getattr(target, "__module__", None)
        names = [owner] if isinstance(owner, str) else []
        names += [name for name in list(sys.modules) if name not in ("__main__", owner)]
        for name in [*names, "__main__"]:
            module = sys.modules.get(name)
            foreign = name.split(".")[0] in sys.stdlib_module_names | {"datatailr"}
            if foreign and name != "__main__":
                continue
            for attribute, value in list(getattr(module, "__dict__", {}).items()):
                if value is target:
                    self._function = target
                    self.module_name = _packaged_name(name)
                    self.function_name = attribute
                    self.file = module_file(name)
                    return
        raise ValueError(f"entrypoint {target!r} is no attribute of a module, so it cannot be found by name")

    def _from_text(self, text: str) -> None:
        if text.endswith(".ipynb"):
            path = Path(os.path.abspath(text))
            if not path.is_file():
                raise FileNotFoundError(f"the notebook {text!r} does not exist")
            app = self.job_type is JobType.APP
            self._notebook = True
            self.module_name = path.parent.name if app else str(path.parent)
            self.function_name = path.name
            self.file = path
            return
        if text.endswith(".py"):
            path = Path(os.path.abspath(text))
            if not path.is_file():
                raise ValueError(f"entrypoint {text!r}: there is no such file")
            self.module_name = _name_of_file(path)
            self.file = path
            return
        module, _, function = text.partition(":")
        if not _DOTTED.fullmatch(module) or (":" in text and not function.isidentifier()):
            raise ValueError(
                f"entrypoint {text!r} cannot be read; write 'package.module:function', 'package.module', "
                "or the path of an existing .py or .ipynb file"
            )
        self.file = find_module_file(module)
        if self.file is None:
            raise ValueError(f"entrypoint {text!r}: no module {module!r} can be found from here")
        if function:
            bound = top_level_names(self.file)
            if bound is not None and function not in bound:
                raise ValueError(f"entrypoint {text!r}: {self.file} defines no {function!r}")
            self.function_name = function
        self.module_name = module

    @classmethod
    def from_stored(cls, job_type: JobType | str | None, text: str) -> EntryPoint:
        """The entrypoint of a saved version, from its text; its code need not be on this machine."""
        result = cls.__new__(cls)
        result.job_type = JobType.from_str(job_type)
        module, _, function = text.rpartition(":")
        result.module_name = module or function
        result._notebook = function.endswith(".ipynb")
        result.function_name = None if function == result.module_name else function
        result.file = None
        result._function = None
        return result

    @classmethod
    def from_dict(cls, entrypoint_dict: Mapping[str, Any]) -> EntryPoint:
        """The entrypoint that a mapping describes: `entrypoint` (`module:function`) and `type`.

        Raises:
            ValueError: `entrypoint` is missing.
        """
        text = entrypoint_dict.get("entrypoint")
        if not isinstance(text, str) or not text:
            raise ValueError("an entrypoint needs the key 'entrypoint' with a text such as 'module:function'")
        return cls.from_stored(entrypoint_dict.get("type", entrypoint_dict.get("job_type")), text)

    def to_dict(self) -> dict[str, str]:
        """What `from_dict` reads."""
        return {"type": str(self.job_type), "entrypoint": str(self)}

    # -- use -----------------------------------------------------------------------------------
    @property
    def function(self) -> Callable[..., Any] | None:
        """The object that was given, None for texts, modules and stored entrypoints."""
        return self._function

    @property
    def is_notebook(self) -> bool:
        """True for a `.ipynb` file."""
        return self._notebook

    @property
    def package(self) -> CodePackage | None:
        """The directory that is shipped, None when there is no file on this machine.

        Raises:
            BundleError: the file does not lie where the module's name says.
        """
        if self.file is None:
            return None
        if self._notebook:
            return package_of_directory(self.file.parent, top_level=True)
        return locate_package(self.module_name, self.file)

    def importable_problem(self) -> str | None:
        """Why the platform could not find the function by its name, None when it can."""
        function = self._function
        if self.file is None and function is not None:
            return (
                f"{function.__name__} is defined in an interactive session, so there is no file to ship; "
                "move it into a module"
            )
        qualified = (
            getattr(function, "__qualname__", self.function_name) if inspect.isfunction(function) else None
        )
        if qualified is not None and qualified != self.function_name:
            return f"{qualified} is not at the top level of {self.module_name}; move it there"
        return None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Import the module with workflows disabled and call the function (clause B194).

        A keyword `env`, a mapping, is put into `os.environ` first.

        Raises:
            NotImplementedError: the job is no workflow.
        """
        if self.job_type not in (JobType.WORKFLOW, JobType.BATCH):
            raise NotImplementedError(
                f"an entrypoint of a {self.job_type.display_name()} is started by the platform"
            )
        env = kwargs.pop("env", None)
        if env is not None:
            os.environ.update({str(name): str(value) for name, value in env.items()})
        function = self._function
        if function is None:
            with workflows_disabled():
                module = importlib.import_module(self.module_name)
            if self.function_name is None:
                return module
            function = getattr(module, self.function_name)
        return function(*args, **kwargs)

    def __str__(self) -> str:
        return f"{self.module_name}:{self.function_name or self.module_name}"

    def __repr__(self) -> str:
        return f"EntryPoint({self.job_type.name}, {str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EntryPoint) and (self.job_type, str(self)) == (other.job_type, str(other))

    def __hash__(self) -> int:
        return hash((self.job_type, str(self)))

    def __reduce__(self) -> tuple[Callable[..., EntryPoint], tuple[JobType, str]]:
        return type(self).from_stored, (self.job_type, str(self))


def _packaged_name(module_name: str) -> str:
    if module_name == "__main__":
        return main_module_name() or "__main__"
    return module_name


def _name_of_file(path: Path) -> str:
    parts = [] if path.stem == "__init__" else [path.stem]
    directory = path.parent
    while (directory / "__init__.py").is_file():
        parts.insert(0, directory.name)
        directory = directory.parent
    return ".".join(parts) or path.stem
