"""The type of the fixture `package`, in a module whose name no other folder of tests has."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

Builder = Callable[..., ModuleType]
