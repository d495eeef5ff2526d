"""Objects go when nothing refers to them, never while somebody may still need them, and whole for readers."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import time
from pathlib import Path

import pytest
from cp_world import definition, task
from retention_world import Place, with_retention

from opentailr_controlplane.core.commands import SaveVersion
from opentailr_controlplane.core.errors import NotFound
from opentailr_controlplane.logstore import Stream
from opentailr_controlplane.retention import Retention
from opentailr_controlplane.sweeping import renew, sweep


async def sweep_all(place: Place) -> Retention:
    return await with_retention(place, lambda retention: retention.sweep())


async def test_only_old_objects_that_nothing_names_go(place: Place) -> None:
    kinds = ("bundle", "arguments", "result", "nobody's", "nobody's and young")
    digests = {kind: await place.objects.put_bytes(kind.encode() * 10) for kind in kinds}
    await place.engine.execute(
        SaveVersion(
            "alice",
            definition(
                task(0), task(1, 0), bundle=digests["bundle"], post="pip list"
            ),
        )
    )  # fmt: skip
    run_id = await place.run()
    place.write(
        "UPDATE run_tasks SET result_digest = ?, result_inline = 0 WHERE task_id = 0", digests["result"]
    )
    place.write(
        "UPDATE definition_tasks SET arguments_digest = ?, arguments_inline = 0 WHERE task_id = 1",
        digests["arguments"],
    )
    for kind in kinds[:-1]:
        place.make_old(digests[kind])
    used = place.objects.used_bytes
    retention = await sweep_all(place)
    assert retention.removed["objects"] == 1
    assert retention.removed["object_bytes"] == used - place.objects.used_bytes == len("nobody's") * 10
    left = {kind for kind in kinds if await place.objects.has(digests[kind])}
    assert left == set(kinds) - {"nobody's"}
    # The result goes once its run has expired or been removed.
    place.write("UPDATE run_tasks SET result_digest = NULL WHERE run_id = ?", run_id)
    place.make_old(digests["result"])
    await sweep_all(place)
    with pytest.raises(NotFound):
        await place.objects.get_bytes(digests["result"], limit=1000)


async def test_who_asks_for_an_object_keeps_it_for_a_while(place: Place) -> None:
    digests = [await place.objects.put_bytes(bytes([number])) for number in range(5)]
    for digest in digests:
        place.make_old(digest)
    assert await place.objects.has(digests[0])
    assert await place.objects.missing([digests[1], "0" * 64]) == ["0" * 64]
    await place.objects.put_bytes(bytes([2]))
    source = place.folder / "file"
    source.write_bytes(bytes([3]))
    assert await place.objects.link_from(source) == digests[3]
    await sweep_all(place)
    assert [place.objects.path(digest).is_file() for digest in digests] == [True] * 4 + [False]


async def test_an_object_that_is_being_read_is_read_to_its_end(place: Place) -> None:
    data = os.urandom(9_000_000)
    digest = await place.objects.put_bytes(data)
    place.make_old(digest)
    reading = place.objects.read(digest)
    parts = [await anext(reading)]
    await sweep_all(place)
    assert not place.objects.path(digest).exists()
    parts.extend([part async for part in reading])
    assert b"".join(parts) == data


async def test_an_upload_under_way_stays_and_a_forgotten_one_goes(place: Place) -> None:
    open_one, forgotten = (hashlib.sha256(text).hexdigest() for text in (b"open", b"forgotten"))
    partial = place.folder / "objects" / "partial"
    async with place.objects.writer(forgotten, 9) as writer:
        await writer.write(b"for")
    async with place.objects.writer(open_one, 4) as writer:
        await writer.write(b"op")
        old = time.time() - 3 * 86_400
        for path in partial.iterdir():
            os.utime(path, (old, old))
        await sweep_all(place)
        assert [path.name for path in partial.iterdir()] == [f"{open_one}.part"]
        await writer.write(b"en")
        await writer.commit()
    assert await place.objects.get_bytes(open_one, limit=10) == b"open"


def test_an_object_renewed_between_the_look_and_the_removal_stays(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"x")
    os.utime(path, (1, 1))

    class Asked:
        """Somebody has asked for the object just before the sweep gets the lock."""

        entered = 0

        def __enter__(self) -> None:
            self.entered += 1
            os.utime(path)

        def __exit__(self, *_: object) -> None:
            pass

    leases = Asked()
    assert sweep(tmp_path, set(), time.time() - 100, leases) == (0, 0)  # type: ignore[arg-type]
    assert leases.entered == 1 and path.exists()
    assert renew(path, threading.Lock()) and not renew(tmp_path / "none", threading.Lock())


async def test_uploads_and_saves_beside_sweeps_never_miss_an_object(place: Place) -> None:
    """A client that was told an object is there, and then names it, finds it."""
    digests = [await place.objects.put_bytes(f"object {number}".encode()) for number in range(60)]
    retention = place.retention()

    async def client(part: list[str]) -> None:
        for digest in part:
            place.make_old(digest)
            if await place.objects.missing([digest]):
                assert await place.objects.put_bytes(f"object {digests.index(digest)}".encode()) == digest
            await asyncio.sleep(0.002)
            assert await place.objects.has(digest)

    sweeps = asyncio.create_task(_sweep_on(retention))
    await asyncio.gather(*(client(digests[start::3]) for start in range(3)))
    sweeps.cancel()
    await asyncio.gather(sweeps, return_exceptions=True)
    await retention.close()


async def _sweep_on(retention: Retention) -> None:
    while True:
        await retention.sweep()


async def test_log_files_of_unknown_origin_go_when_they_are_old(place: Place) -> None:
    await place.save()
    run_id = await place.run()
    known = place.log_files()
    for log_id in ("att_gone", "bld_gone", "run_77", "att_young"):
        await place.write_log(log_id)
    await place.logs.sync()
    old = time.time() - 3 * 86_400
    for path in (place.folder / "logs").rglob("*.*"):
        if not path.name.startswith("att_young"):
            os.utime(path, (old, old))
    strange = place.folder / "logs" / "00" / "not a log.out"
    strange.write_text("kept")
    os.utime(strange, (old, old))
    retention = await sweep_all(place)
    assert retention.removed["stray_logs"] == 3
    assert place.log_files() == known | {"att_young.out", "att_young.err", "not a log.out"}
    assert await place.logs.read(f"run_{run_id}", Stream.STDOUT, 0) == b"it ran\n"


async def test_a_log_that_is_removed_while_it_is_synced_harms_no_other(place: Place) -> None:
    await asyncio.gather(
        *(place.logs.append(f"att_{n}", Stream.STDOUT, offset=0, data=b"x" * 100_000) for n in range(20))
    )
    syncing = asyncio.create_task(place.logs.sync())
    await asyncio.sleep(0)
    await place.logs.remove([f"att_{n}" for n in range(0, 20, 2)])
    await syncing
    await place.logs.append("att_1", Stream.STDOUT, offset=100_000, data=b"y", end=True)
    await place.logs.sync()
    assert await place.logs.durable("att_1", Stream.STDOUT) == 100_001
    assert place.log_files() == {f"att_{n}.out" for n in range(1, 20, 2)}


async def test_results_of_a_removed_run_that_a_rerun_took_over_stay(place: Place) -> None:
    await place.save()
    first = await place.run()
    second = await place.rerun(first)
    await place.rerun(second)
    digest = await place.objects.put_bytes(b"large")
    place.write("UPDATE run_tasks SET result_digest = ?, result_inline = 0", digest)
    place.age(second, 31)
    await with_retention(place, lambda retention: retention.run_once())
    assert place.trace_of(second) == {}
    place.make_old(digest)
    await sweep_all(place)
    assert await place.objects.get_bytes(digest, limit=10) == b"large"


def test_payloads_are_what_definitions_name() -> None:
    """The queries of the collection know every place of a reference; a new column would have to be added."""
    from opentailr_controlplane.store import schema

    names = {
        f"{table.name}.{column.name}"
        for table in schema.metadata.sorted_tables
        for column in table.c
        if "digest" in column.name or "bundle" in column.name
    }
    assert names == {
        "payloads.digest",
        "run_tasks.result_digest",
        "definition_tasks.arguments_digest",
        "images.bundle",
        "idempotency.request_digest",
    }
