"""Bounds of single parts: bundles, the keeper's memory of modules, its connections, last messages."""

from __future__ import annotations

import io
import socket
import tarfile
from collections import OrderedDict
from pathlib import Path

import pytest
from cp_world import definition, task

from datatailr.runner import pool as pool_module
from datatailr.runner import server as server_module
from datatailr.runner import wire
from datatailr.runner.child import Attempt
from datatailr.runner.loop import Loop
from datatailr.runner.pool import Pool
from datatailr.runner.server import Client, Server
from opentailr_agent import bundles
from opentailr_agent.bundles import BundleError, BundleStore, unpack
from opentailr_agent.objects import ObjectCache
from opentailr_controlplane.core import definition as definition_module
from opentailr_controlplane.core.errors import InvalidArgument


def archive(path: Path, *sizes: int) -> Path:
    with tarfile.open(path, "w") as packed:
        for number, size in enumerate(sizes):
            entry = tarfile.TarInfo(f"package/{number}.py")
            entry.size = size
            packed.addfile(entry, io.BytesIO(bytes(size)))

    return path


def test_a_bundle_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundles, "LARGEST_BUNDLE", 10_000)
    monkeypatch.setattr(bundles, "MOST_FILES", 3)

    with pytest.raises(BundleError, match="more than 10000 bytes"):
        unpack(archive(tmp_path / "large", 6_000, 6_000), tmp_path / "a", "package")

    with pytest.raises(BundleError, match="more than 3 entries"):
        unpack(archive(tmp_path / "many", 1, 1, 1, 1), tmp_path / "b", "package")

    assert unpack(archive(tmp_path / "good", 5_000, 5_000), tmp_path / "c", "package") == 10_000


class Archives:
    """Stands for the way to the control plane: every digest is a bundle of 4,000 bytes."""

    async def read(self, digest: str, target: Path) -> int:
        return archive(target, 4_000).stat().st_size


async def test_bundles_that_nobody_uses_go(tmp_path: Path) -> None:
    store = BundleStore(
        tmp_path / "bundles", ObjectCache(tmp_path / "objects", Archives()), limit_bytes=10_000
    )
    digests = [letter * 64 for letter in "abcdef"]

    for digest in digests:
        await store.get(digest, "package", owner="att_1" if digest == digests[0] else digest)
        store.release(digest)

    left = sorted(path.name[0] for path in (tmp_path / "bundles").iterdir() if len(path.name) == 64)
    assert left == ["a", "f"], "what is in use stays, and the newest of the others"
    store.release("att_1")


def test_modules_known_not_to_be_shared_stay_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "REMEMBERED_UNSOUND", 3)
    pool = Pool.__new__(Pool)
    pool._refused = OrderedDict()

    for number in range(10):
        pool.refuse((number,), "it starts a thread")

    assert list(pool._refused) == [(7,), (8,), (9,)]


def test_an_agent_that_does_not_read_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MAX_BACKLOG", 1 << 20)
    loop = Loop()

    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as agent:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        server = Server(loop, listener, lambda client, message: None)
        agent.connect(str(tmp_path / "socket"))
        loop.run_once()
        client: Client = next(iter(server._clients.values()))
        most = 0

        for _ in range(100):
            server.tell(client, {"op": "ended", "text": "x" * 50_000})
            server.flush()
            most = max(most, len(client.backlog))

            if not server._clients:
                break

        assert not server._clients, "it connects again and is told everything anew"
        assert most < (1 << 20) + 60_000
        server.close()

    loop.close()


def test_a_last_message_that_is_too_long_loses_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[bytes] = []

    class Channel:
        def write(self, data: bytes) -> bool:
            told.append(data)
            return True

    attempt = Attempt.__new__(Attempt)
    attempt._channel = Channel()  # type: ignore[assignment]
    failure = {"kind": "E", "message": "m", "traceback": "x" * (2 << 20), "exception": "y" * 100}
    attempt._report({"op": "outcome", "state": "failed", "failure": failure})
    message = wire.FrameReader(wire.MAX_REPORT).feed(told[0])[0]
    assert message["failure"] == {"kind": "E", "message": "m", "traceback": "", "exception": None}


def test_a_job_of_too_many_tasks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(definition_module, "MAX_TASKS", 5)
    definition_module.check_definition(definition(*map(task, range(5))))

    with pytest.raises(InvalidArgument, match=r"6|5"):
        definition_module.check_definition(definition(*map(task, range(6))))
