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
