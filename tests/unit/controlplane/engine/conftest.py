from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog

# The small world around the core serves these tests too.
sys.path.insert(0, str(Path(__file__).parent.parent / "core"))

from cp_engine import FailingStore, FixedIds, RealClock

from opentailr_controlplane import engine as engine_module
from opentailr_controlplane.engine import Engine


@pytest.fixture(autouse=True)
def quick_log() -> Iterator[None]:
    """The console's default renderer prints all local variables of a traceback, which takes seconds."""
    structlog.configure(processors=[structlog.processors.JSONRenderer(default=repr)])
    yield
    structlog.reset_defaults()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[FailingStore]:
    store = FailingStore(tmp_path / "state.db")
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def engine(store: FailingStore, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Engine]:
    monkeypatch.setattr(engine_module, "RETRY_SECONDS", 0.02)
    engine = Engine(store, clock=RealClock(), ids=FixedIds())
    await engine.start()
    yield engine
    store.gate.set()
    store.full = False
    await engine.close()
