"""Excel add-ins: functions of Python as functions of worksheets (section 14)."""

from __future__ import annotations

from datatailr.excel._addin import Addin, ExposedFunction
from datatailr.excel._queue import Queue

__all__ = ["Addin", "ExposedFunction", "Queue"]
