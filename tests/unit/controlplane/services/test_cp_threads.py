"""A cancelled call never leaves a thread at work on a file that its caller has let go of."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from opentailr_controlplane.objects import FileObjectStore
from opentailr_controlplane.threads import in_thread


def open_below(folder: Path) -> list[str]:
    """Files below a folder that this process has open."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return [link for link in found if link.startswith(str(folder))]


async def test_a_cancelled_caller_hears_of_it_when_the_thread_is_done() -> None:
    begun, gate = threading.Event(), threading.Event()
    done: list[int] = []

    def slow(number: int) -> int:
        begun.set()
        assert gate.wait(10)
        done.append(number)
        return number

    with ThreadPoolExecutor(1) as executor:
        running = asyncio.create_task(in_thread(executor, slow, 1))
        waiting = asyncio.create_task(in_thread(executor, slow, 2))
        await asyncio.to_thread(begun.wait, 10)
        for _ in range(3):
            # Once is enough for an impatient caller, more change nothing.
            running.cancel()
            waiting.cancel()
            await asyncio.sleep(0)
        assert not running.done() and not waiting.done() and done == []
        gate.set()
        answers = await asyncio.gather(running, waiting, return_exceptions=True)
    assert [type(answer) for answer in answers] == [asyncio.CancelledError] * 2
    assert done == [1, 2], "what waited for a thread was carried out too"


async def test_answers_and_errors_come_through() -> None:
    with ThreadPoolExecutor(1) as executor:
        assert await in_thread(executor, divmod, 7, 2) == (3, 1)
        with pytest.raises(ZeroDivisionError):
            await in_thread(executor, divmod, 7, 0)


async def test_uploads_cancelled_at_any_moment_keep_no_file_open(tmp_path: Path) -> None:
    store = FileObjectStore(tmp_path / "objects")

    async def upload(number: int) -> None:
        content = os.urandom(100_000) + number.to_bytes(4, "big")
        async with store.writer(hashlib.sha256(content).hexdigest(), len(content)) as writer:
            await writer.write(content)
            await writer.commit()

    for turns in range(1, 40):
        tasks = [asyncio.create_task(upload(turns * 10 + number)) for number in range(6)]
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert not open_below(tmp_path), f"after {turns} turns of the loop"
    store.close()


async def test_an_upload_that_is_cancelled_while_all_threads_are_busy_closes_its_file(tmp_path: Path) -> None:
    store = FileObjectStore(tmp_path / "objects")
    gate, leaving = threading.Event(), asyncio.Event()
    content = b"x" * 100_000

    async def upload() -> None:
        async with store.writer(hashlib.sha256(content).hexdigest(), len(content)) as writer:
            await writer.write(content)
            await writer.commit()
            for _ in range(4):
                store._threads.submit(gate.wait, 10)
            leaving.set()

    task = asyncio.create_task(upload())
    await leaving.wait()
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(task, return_exceptions=True)
    store.close()
    assert not open_below(tmp_path)
