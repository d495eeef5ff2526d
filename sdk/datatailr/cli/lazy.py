"""Commands that are imported when they are asked for, so that a program starts with what it needs."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import typer
from typer.core import TyperGroup


class LazyCommands(MutableMapping[str, Any]):
    """Commands by name, some of them as `module:attribute` until they are looked up.

    Args:
        present: Commands that are there already.
        places: Where the others come from; an attribute is a function or a group.
    """

    def __init__(self, present: Mapping[str, Any], places: Mapping[str, str]) -> None:
        self._present = dict(present)
        self._places = dict(places)

    def __getitem__(self, name: str) -> Any:
        if name not in self._present and name in self._places:
            self._present[name] = _load(name, self._places[name])

        return self._present[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._present[name] = command

    def __delitem__(self, name: str) -> None:
        if name not in self:
            raise KeyError(name)

        self._present.pop(name, None)
        self._places.pop(name, None)

    def __contains__(self, name: object) -> bool:
        return name in self._present or name in self._places

    def __iter__(self) -> Iterator[str]:
        """Those of the table in its order, after those that were there already."""
        yield from (name for name in self._present if name not in self._places)
        yield from self._places

    def __len__(self) -> int:
        return len({*self._present, *self._places})


def lazy_group(places: Mapping[str, str]) -> type[TyperGroup]:
    """A class of groups that have these commands besides those that are registered with them."""

    class LazyGroup(TyperGroup):
        def __init__(self, **attributes: Any) -> None:
            super().__init__(**attributes)
            self.commands = LazyCommands(self.commands, places)

    return LazyGroup


def _load(name: str, place: str) -> Any:
    module, _, attribute = place.partition(":")
    found = getattr(importlib.import_module(module), attribute)

    if not isinstance(found, typer.Typer):
        alone = typer.Typer(rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False)
        alone.command(name)(found)
        found = alone

    command = typer.main.get_command(found)
    command.name = name
    return command
