from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog

# The small worlds around the core and the engine serve these tests too.
sys.path.insert(0, str(Path(__file__).parent.parent / "core"))
sys.path.insert(0, str(Path(__file__).parent.parent / "engine"))

from retention_world import Place

from opentailr_controlplane import retention


@pytest.fixture(autouse=True)
def quick_log() -> Iterator[None]:
    """The console's default renderer prints all local variables of a traceback, which takes seconds."""
    structlog.configure(processors=[structlog.processors.JSONRenderer(default=repr)])
    yield
    structlog.reset_defaults()


@pytest.fixture
async def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    """A store, an engine, objects and logs, without anything in them; readers are never waited for."""
    monkeypatch.setattr(retention, "READERS_NEED", 0.0)
    made = Place(tmp_path)
    await made.open()
    yield made
    await made.close()
