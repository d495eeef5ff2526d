"""Define workflows, services, apps and Excel add-ins in Python and run them on your own machines.

```python
from datatailr import task, workflow

@task()
def add(a: int, b: int) -> int:
    return a + b

@workflow()
def my_flow() -> None:
    add(add(1, 2), 3)

my_flow(local_run=True)
```
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datatailr.acl import ACL, Permission
    from datatailr.build import Image
    from datatailr.scheduler import (
        App,
        Environment,
        ExcelAddin,
        Resources,
        Schedule,
        Service,
        Task,
        Workflow,
        set_allow_unsafe_scheduling,
        task,
        workflow,
    )
    from datatailr.user import User
    from datatailr.utils import get_dt_env, is_dt_installed

__version__ = "0.1.0"
__provider__ = "opentailr"

__all__ = [
    "ACL",
    "App",
    "Environment",
    "ExcelAddin",
    "Image",
    "Permission",
    "Resources",
    "Schedule",
    "Service",
    "Task",
    "User",
    "Workflow",
    "__provider__",
    "__version__",
    "get_dt_env",
    "is_dt_installed",
    "set_allow_unsafe_scheduling",
    "task",
    "workflow",
]

_SUBMODULES = ("acl", "build", "errors", "excel", "logging", "scheduler", "user", "utils", "wrapper")
_HOMES = {
    "ACL": "acl",
    "Permission": "acl",
    "Image": "build",
    "User": "user",
    "get_dt_env": "utils",
    "is_dt_installed": "utils",
}
"""Submodules that the public names come from; the others come from `scheduler`."""


if not TYPE_CHECKING:  # a checker would take every misspelt name for one that is found here

    def __getattr__(name: str) -> Any:
        """A public name or submodule, imported when it is first asked for.

        So the command line, which needs errors and little else, starts without the definitions.
        """
        if name in _SUBMODULES:
            return importlib.import_module(f"{__name__}.{name}")
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        home = importlib.import_module(f"{__name__}.{_HOMES.get(name, 'scheduler')}")
        value = globals()[name] = getattr(home, name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, *_SUBMODULES})
