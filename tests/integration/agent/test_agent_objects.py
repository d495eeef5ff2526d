"""Objects and bundles on the node."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import tarfile
from pathlib import Path

import grpc.aio
import pytest
from agent_fakes import FakeServer, until

from opentailr_agent.bundles import BundleError, BundleStore, unpack
from opentailr_agent.objects import ObjectCache
from opentailr_agent.transfer import ObjectError, ObjectMissingError, ObjectTransfer, hash_file

DATA = bytes(range(256)) * 4096


@pytest.fixture
def transfer(channel: grpc.aio.Channel) -> ObjectTransfer:
    return ObjectTransfer(channel, (), first_pause=0.01)


@pytest.fixture
def cache(tmp_path: Path, transfer: ObjectTransfer) -> ObjectCache:
    return ObjectCache(tmp_path / "objects", transfer, limit_bytes=3000)


async def test_a_read_goes_on_where_it_was_cut(
    server: FakeServer, transfer: ObjectTransfer, tmp_path: Path
) -> None:
    digest = server.objects.put(DATA)
    server.objects.cut_after = [65536, 65536 * 3]
    assert await transfer.read(digest, tmp_path / "x") == len(DATA)
    assert (tmp_path / "x").read_bytes() == DATA
    assert server.objects.reads == 3


async def test_a_write_goes_on_where_it_was_cut(
    server: FakeServer, transfer: ObjectTransfer, tmp_path: Path
) -> None:
    (tmp_path / "x").write_bytes(DATA)
    digest, size = hash_file(tmp_path / "x")
    server.objects.cut_after = [300_000, 300_000]
    await transfer.write(digest, tmp_path / "x", size)
    assert server.objects.content[digest] == DATA


async def test_a_write_whose_answer_was_lost_is_not_repeated_in_vain(
    server: FakeServer, transfer: ObjectTransfer, tmp_path: Path
) -> None:
    (tmp_path / "x").write_bytes(DATA)
    digest, size = hash_file(tmp_path / "x")
    server.objects.lose_complete = 1
    await transfer.write(digest, tmp_path / "x", size)
    assert server.objects.content[digest] == DATA


async def test_an_empty_object_travels(server: FakeServer, transfer: ObjectTransfer, tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    digest, size = hash_file(tmp_path / "x")
    await transfer.write(digest, tmp_path / "x", size)
    assert await transfer.read(digest, tmp_path / "y") == 0


async def test_a_server_that_comes_back_is_waited_for(
    server: FakeServer, transfer: ObjectTransfer, tmp_path: Path
) -> None:
    digest = server.objects.put(DATA)
    await server.stop()
    reading = asyncio.create_task(transfer.read(digest, tmp_path / "x"))
    await asyncio.sleep(0)
    await server.start()
    assert await asyncio.wait_for(reading, 20) == len(DATA)


async def test_other_content_is_never_taken(server: FakeServer, cache: ObjectCache, tmp_path: Path) -> None:
    digest = server.objects.put(DATA)
    server.objects.tampered = True

    with pytest.raises(ObjectError, match="other content"):
        await cache.get(digest, owner="a")

    assert not list((tmp_path / "objects" / "incoming").iterdir())
    server.objects.tampered = False
    assert (await cache.get(digest, owner="a")).read_bytes() == DATA


async def test_a_missing_object_is_told_at_once(cache: ObjectCache) -> None:
    with pytest.raises(ObjectMissingError):
        await cache.get("0" * 64, owner="a")


@pytest.mark.parametrize("digest", ["", "..", "../" + "a" * 61, "A" * 64, "a" * 64 + "\n"])
async def test_what_is_no_digest_is_refused(cache: ObjectCache, digest: str) -> None:
    with pytest.raises(ObjectError, match="no digest"):
        await cache.get(digest, owner="a")


async def test_a_store_that_stays_full_is_waited_for_and_told(
    server: FakeServer, transfer: ObjectTransfer, tmp_path: Path
) -> None:
    (tmp_path / "x").write_bytes(b"x")
    digest, size = hash_file(tmp_path / "x")
    server.objects.full = 12
    writing = asyncio.create_task(transfer.write(digest, tmp_path / "x", size))
    await until(lambda: transfer.trouble)
    assert transfer.trouble == "the store of the control plane is full: disk full"
    server.objects.full = min(server.objects.full, 8)
    await asyncio.wait_for(writing, 60)
    assert server.objects.content[digest] == b"x"
    assert not transfer.trouble


async def test_equal_objects_are_fetched_once(server: FakeServer, cache: ObjectCache) -> None:
    digest = server.objects.put(b"x" * 100)
    paths = await asyncio.gather(*(cache.get(digest, owner=str(number)) for number in range(5)))
    assert len(set(paths)) == 1
    assert server.objects.reads == 1


async def test_what_has_an_owner_stays_and_the_oldest_of_the_rest_goes(
    server: FakeServer, cache: ObjectCache
) -> None:
    digests = [server.objects.put(bytes([number]) * 1000) for number in range(5)]

    for digest in digests[:4]:
        await cache.get(digest, owner="task")

    assert cache.total_bytes == 4000, "the bound yields to live attempts"
    await cache.get(digests[1], owner="other")
    cache.release("task")
    assert cache.total_bytes == 3000
    cache.release("other")
    await cache.get(digests[0], owner="task")
    assert server.objects.reads == 5, "the longest unused one had gone"
    await cache.get(digests[1], owner="task")
    assert server.objects.reads == 5


async def test_a_file_that_user_code_changed_is_thrown_away(
    server: FakeServer, cache: ObjectCache, tmp_path: Path
) -> None:
    digest = server.objects.put(b"x" * 100)
    await cache.link(digest, tmp_path / "input", owner="a")
    assert os.stat(tmp_path / "input").st_nlink == 2
    (tmp_path / "input").chmod(0o644)
    (tmp_path / "input").write_bytes(b"y" * 100)
    assert (await cache.get(digest, owner="b")).read_bytes() == b"x" * 100


async def test_the_cache_survives_a_restart(
    server: FakeServer, cache: ObjectCache, transfer: ObjectTransfer, tmp_path: Path
) -> None:
    digest = server.objects.put(b"x" * 100)
    await cache.get(digest, owner="a")
    again = ObjectCache(tmp_path / "objects", transfer, limit_bytes=3000)
    assert (await again.get(digest, owner="a")).read_bytes() == b"x" * 100
    assert server.objects.reads == 1


def archive(entries: list[tarfile.TarInfo], path: Path) -> Path:
    with tarfile.open(path, "w") as packed:
        for entry in entries:
            packed.addfile(entry, io.BytesIO(b"x" * entry.size))

    return path


def entry(name: str, *, kind: bytes = tarfile.REGTYPE, target: str = "", size: int = 1) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type = kind
    made.linkname = target
    made.size = size if kind == tarfile.REGTYPE else 0
    return made


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (entry("pkg/../../evil"), "leaves"),
        (entry("/etc/evil"), "leaves"),
        (entry("other/x"), "outside"),
        (entry("pkg"), "outside"),
        (entry("pkg/link", kind=tarfile.SYMTYPE, target="/etc"), "link or a device"),
        (entry("pkg/link", kind=tarfile.LNKTYPE, target="pkg/a"), "link or a device"),
        (entry("pkg/pipe", kind=tarfile.FIFOTYPE), "link or a device"),
        (entry("pkg/dev", kind=tarfile.CHRTYPE), "link or a device"),
        (entry("pkg/a"), "twice"),
        (entry("pkg/a/b"), "not a sound archive"),
    ],
)
def test_archives_with_tricks_are_refused(tmp_path: Path, bad: tarfile.TarInfo, words: str) -> None:
    path = archive([entry("pkg/a"), bad], tmp_path / "x.tar")

    with pytest.raises(BundleError, match=words):
        unpack(path, tmp_path / "to" / "inner", "pkg")

    assert not (tmp_path / "evil").exists()
    assert not (tmp_path / "to" / "evil").exists()


@pytest.mark.parametrize("data", [b"", b"no archive at all" * 100])
def test_what_is_no_archive_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.tar").write_bytes(data)

    with pytest.raises(BundleError, match="not a sound archive"):
        unpack(tmp_path / "x.tar", tmp_path / "to", "pkg")


def test_a_cut_archive_is_refused(tmp_path: Path) -> None:
    path = archive([entry("pkg/a", size=5000)], tmp_path / "x.tar")
    path.write_bytes(path.read_bytes()[:2000])

    with pytest.raises(BundleError):
        unpack(path, tmp_path / "to", "pkg")


def test_a_compressed_bomb_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w:gz") as packed:
        packed.addfile(entry("pkg/a", size=1000), io.BytesIO(b"x" * 1000))

    with pytest.raises(BundleError, match="not a sound archive"):
        unpack(tmp_path / "x.tar", tmp_path / "to", "pkg")


@pytest.mark.parametrize("directory", ["", ".", "..", "a/b"])
def test_a_directory_that_is_no_plain_name_is_refused(tmp_path: Path, directory: str) -> None:
    with pytest.raises(BundleError, match="plain name"):
        unpack(tmp_path / "x.tar", tmp_path / "to", directory)


async def test_a_bundle_is_unpacked_once_and_read_only(
    server: FakeServer, cache: ObjectCache, tmp_path: Path
) -> None:
    script = entry("pkg/run.sh")
    script.mode = 0o755
    data = archive([entry("pkg/a.py"), entry("pkg/sub/b.py"), script], tmp_path / "x.tar").read_bytes()
    digest = server.objects.put(data)
    store = BundleStore(tmp_path / "bundles", cache)
    folders = await asyncio.gather(*(store.get(digest, "pkg", owner=str(number)) for number in range(3)))
    assert len(set(folders)) == 1
    root = folders[0] / "pkg"
    assert (root / "sub" / "b.py").read_bytes() == b"x"
    assert (root / "a.py").stat().st_mode & 0o777 == 0o444
    assert (root / "run.sh").stat().st_mode & 0o777 == 0o555
    assert (root / "sub").stat().st_mode & 0o777 == 0o555
    assert hashlib.sha256(data).hexdigest() == folders[0].name
    again = BundleStore(tmp_path / "bundles", cache)
    assert await again.get(digest, "pkg", owner="x") == folders[0]
    assert server.objects.reads == 1


async def test_unused_bundles_go_when_the_bound_is_passed(
    server: FakeServer, cache: ObjectCache, tmp_path: Path
) -> None:
    store = BundleStore(tmp_path / "bundles", cache, limit_bytes=1500)
    digests = []

    for number in range(3):
        path = archive([entry(f"pkg/{number}.py", size=1000)], tmp_path / "x.tar")
        digests.append(server.objects.put(path.read_bytes()))
        await store.get(digests[-1], "pkg", owner=str(number))

    store.release("0")
    assert not (tmp_path / "bundles" / digests[0]).exists()
    assert (tmp_path / "bundles" / digests[1]).exists()
    assert (tmp_path / "bundles" / digests[2]).exists()


@pytest.mark.parametrize("kind", ["pipe", "folder", "link"])
def test_what_user_code_left_in_place_of_a_result_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "result.pkl"

    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        (tmp_path / "other").write_bytes(DATA)
        path.symlink_to(tmp_path / "other")

    with pytest.raises(OSError):
        hash_file(path)
