"""The channel of a streaming function (clauses B219, B221)."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Any

__all__ = ["Message", "Queue"]


@dataclass(frozen=True)
class Message:
    """One value, or one error, on its way to a cell."""

    value: Any
    is_error: bool = False


class Queue:
    """Takes the values that a streaming function shows one after another.

    Several threads may push and take.

    Args:
        name: `<add-in name in lower case>.<function>`.
        _id: Id of the cell's call.
    """

    def __init__(self, name: str, _id: str) -> None:
        self.name = name
        self.id = _id
        self._messages: deque[Message] = deque()
        self._changed = threading.Condition()

    def push(self, value: Any) -> None:
        """Show a value in the cell."""
        self._put(Message(value))

    def error(self, message: str) -> None:
        """Show an error in the cell."""
        self._put(Message(str(message), is_error=True))

    def _put(self, message: Message) -> None:
        with self._changed:
            self._messages.append(message)
            self._changed.notify()

    def take(self, timeout: float | None = None) -> Message | None:
        """The oldest message that was not taken yet, None when none comes within `timeout` seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: bool(self._messages), timeout):
                return None
            return self._messages.popleft()

    def __repr__(self) -> str:
        return f"<Queue {self.name} {self.id}>"
