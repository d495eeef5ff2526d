"""Backups: what is refused, what is found damaged, what is copied once; and that restored ids never mix."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from retention_world import Place

from opentailr_controlplane import backup as making
from opentailr_controlplane import backup_main, restore
from opentailr_controlplane.backup import Made, make_backup
from opentailr_controlplane.backup_format import BackupError, NewerBackup, read_index, read_manifest
from opentailr_controlplane.datadir import DataDirectory, DirectoryInUse
from opentailr_controlplane.logstore import Stream
from opentailr_controlplane.restore import restore_backup
from opentailr_controlplane.security.tokens import RunTokens, read_or_make_secret
from opentailr_controlplane.store import loader
from opentailr_controlplane.store.migrate import HEAD


@pytest.fixture
async def used(place: Place) -> Place:
    """A data directory as a control plane leaves and uses it, with two finished runs and an active one."""
    (place.folder / "VERSION").write_text("1\n")
    for name in ("admin.token", "agent.token", "run.key"):
        read_or_make_secret(place.folder / name)
    bundle = await place.objects.put_bytes(b"the bundle")
    await place.save(bundle=bundle, post="pip list")
    await place.run()
    await place.run()
    digest = await place.objects.put_bytes(b"a large result")
    place.write("UPDATE run_tasks SET result_digest = ?, result_inline = 0 WHERE run_id = 1", digest)
    place.agent.outcome = lambda order: None
    from cp_engine import until

    from opentailr_controlplane.core.commands import StartVersion

    await place.engine.execute(StartVersion("alice", "flow"))
    await until(lambda: bool(place.agent.running))
    (attempt,) = place.agent.running
    await place.logs.append(attempt, Stream.STDOUT, offset=0, data=b"so far")
    return place


@pytest.fixture
def target(used: Place) -> Path:
    """Where backups of it go: beside it."""
    return used.folder.with_name(f"{used.folder.name}-backup")


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        path.relative_to(folder).as_posix(): (stat.S_IMODE(path.stat().st_mode), path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


async def test_a_backup_is_what_the_directory_holds(used: Place, target: Path, tmp_path: Path) -> None:
    made = make_backup(used.folder, target)
    manifest = made.manifest
    assert manifest == read_manifest(target) and manifest.unavailable == ()
    assert manifest.counts == {
        "jobs": 1, "versions": 1, "runs": 3, "active_runs": 1, "objects": 2, "logs": 11, "files": 4
    }  # fmt: skip
    assert manifest.installation == "test" and manifest.schema == HEAD
    there = tmp_path.with_name(f"{tmp_path.name}-restored")
    restored = restore_backup(target, there)
    assert restored.aside is None and restored.next_run == 2000
    before, after = tree(used.folder), tree(there)
    apart = {"state.db", "state.db-wal", "state.db-shm", "backup.lock", "run.key", "run.key.earlier"}
    assert {name: file for name, file in after.items() if name not in apart} == {
        name: file for name, file in before.items() if name not in apart
    }
    assert {name for name in after if name in apart} == {"state.db", "run.key", "run.key.earlier"}
    assert all(after[name][0] == 0o600 for name in ("state.db", "run.key", "run.key.earlier", "admin.token"))
    with closing(sqlite3.connect(used.database)) as old, closing(sqlite3.connect(there / "state.db")) as new:
        for table in ("runs", "run_tasks", "attempts", "payloads", "versions", "definitions", "builds"):
            query = f"SELECT * FROM {table} ORDER BY 1, 2"
            assert old.execute(query).fetchall() == new.execute(query).fetchall(), table


async def test_restored_ids_and_sessions_never_mix_with_later_ones(used: Place, target: Path) -> None:
    make_backup(used.folder, target)
    there = target.with_name(f"{target.name}-there")
    again = target.with_name(f"{target.name}-again")
    words = set()
    for place in (there, again):
        restore_backup(target, place)
        with closing(sqlite3.connect(place / "state.db")) as database:
            state = loader.load(database, used.engine.settings, used.engine._clock.now())
        assert state is not None
        words.add(state.installation)
        agent = state.agents["agt_1"]
        assert (agent.journal_id, agent.acked_seq) == ("", 0)
        assert agent.epoch == used.engine._state.agents["agt_1"].epoch + restore.EPOCH_STEP
        assert state.next_run == 2000 and set(state.runs) == {3}
    assert len(words) == 2 and all(word.startswith("test-") for word in words)
    # Code of a run that was going on keeps its access, that of a run which was lost does not.
    before, after = (RunTokens.from_file(place / "run.key") for place in (used.folder, there))
    assert after.verify(before.issue(3, "alice")) == before.verify(before.issue(3, "alice"))
    assert after.verify(before.issue(4, "alice")) is None
    assert after.verify(after.issue(4, "alice")) is not None
    assert before.verify(after.issue(3, "alice")) is None


async def test_a_restored_place_is_backed_up_into_the_same_directory(used: Place, target: Path) -> None:
    make_backup(used.folder, target)
    there = target.with_name(f"{target.name}-there")
    restore_backup(target, there)
    made = make_backup(there, target)
    assert made.manifest.installation.startswith("test-")
    assert [path.name for path in (target / "logs").iterdir()] == [made.manifest.installation]
    assert made.manifest.counts["logs"] == 11


async def test_only_what_is_new_is_copied_again(used: Place, target: Path) -> None:
    first = make_backup(used.folder, target)
    objects = {path: path.stat().st_ino for path in (target / "objects").rglob("*") if path.is_file()}
    assert first.copied == 2 + 11 + 4
    (attempt,) = used.agent.running
    await used.logs.append(attempt, Stream.STDOUT, offset=6, data=b", and on")
    second = make_backup(used.folder, target)
    assert second.copied == 1 + 4, "the log that grows, and the small files"
    assert {path: path.stat().st_ino for path in objects} == objects
    logs = [entry for entry in read_index(target, second.manifest) if entry.kind == "log"]
    assert max(entry.size for entry in logs if attempt in entry.path) == len(b"so far, and on")
    assert len(list((target / "database").iterdir())) == len(list((target / "index").iterdir())) == 1
    # What nothing refers to any more leaves the backup too.
    used.write("UPDATE run_tasks SET result_digest = NULL")
    third = make_backup(used.folder, target)
    assert third.manifest.counts["objects"] == 1
    assert len([path for path in (target / "objects").rglob("*") if path.is_file()]) == 1


async def test_places_that_are_no_place_for_a_backup(used: Place, target: Path, tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="inside the data directory"):
        make_backup(used.folder, used.folder / "backup")
    with pytest.raises(BackupError, match="no data directory"):
        make_backup(target.with_name("nothing"), target)
    target.mkdir()
    (target / "photo.jpg").write_bytes(b"x")
    with pytest.raises(BackupError, match="not empty and holds no backup"):
        make_backup(used.folder, target)
    (target / "photo.jpg").unlink()
    make_backup(used.folder, target)
    (target / "BACKUP").write_text("Backup of the Opentailr installation other\n")
    with pytest.raises(BackupError, match=r"another installation \(other, not test\)"):
        make_backup(used.folder, target)
    file = target.with_name("a file")
    file.write_text("")
    with pytest.raises(BackupError, match="cannot be used"):
        make_backup(used.folder, file)
    file.unlink()


async def test_a_damaged_object_is_told_and_the_rest_backed_up(used: Place, target: Path) -> None:
    digests = [row[0] for row in used.rows("SELECT DISTINCT result_digest FROM run_tasks WHERE run_id = 1")]
    path = used.objects.path(digests[0])
    path.chmod(0o600)
    path.write_bytes(b"another result")
    made = make_backup(used.folder, target)
    assert made.manifest.unavailable == (digests[0],) and made.manifest.counts["objects"] == 1
    code = backup_main.main(["backup", str(target), "--data-dir", str(used.folder)])
    assert code == 1
    path.unlink()
    assert make_backup(used.folder, target).manifest.unavailable == (digests[0],)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.chmod(0o600)
    os.truncate(path, path.stat().st_size - 2)


@pytest.mark.parametrize("damage", [flip, cut, Path.unlink])
async def test_every_damaged_file_is_named_and_nothing_is_touched(
    used: Place, target: Path, damage: Callable[[Path], None]
) -> None:
    make_backup(used.folder, target)
    there = target.with_name(f"{target.name}-there")
    there.mkdir()
    (there / "state.db").write_text("what was there")
    (there / "state.db").chmod(0o600)
    for path in sorted(path for path in target.rglob("*") if path.is_file() and path.stat().st_size):
        if path.name == "BACKUP":
            continue
        broken = target.with_name(f"{target.name}-broken")
        shutil.copytree(target, broken)
        hurt = broken / path.relative_to(target)
        damage(hurt)
        with pytest.raises(BackupError) as caught:
            restore_backup(broken, there, force=True)
        assert str(hurt) in str(caught.value) or hurt.name in str(caught.value)
        assert tree(there) == {"state.db": (0o600, b"what was there"), "lock": (0o600, b"")}
        assert not there.with_name(f"{there.name}.restoring").exists()
        shutil.rmtree(broken)


async def test_newer_formats_and_schemas_are_refused(used: Place, target: Path) -> None:
    made = make_backup(used.folder, target)
    there = target.with_name(f"{target.name}-there")
    path = target / "manifest.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "format": 2, "release": "9.9"}))
    with pytest.raises(NewerBackup, match=r"format 2.*9\.9"):
        restore_backup(target, there)
    assert backup_main.main(["restore", str(target), "--data-dir", str(there)]) == 4
    from opentailr_controlplane.backup_format import write_manifest

    values = {name: getattr(made.manifest, name) for name in made.manifest.__dataclass_fields__}
    write_manifest(target, type(made.manifest)(**{**values, "schema": "9999"}))
    with pytest.raises(NewerBackup, match="9999"):
        restore_backup(target, there)
    assert not there.exists() or not any(there.iterdir())
    with pytest.raises(BackupError, match="no finished backup"):
        restore_backup(there.with_name("nothing"), there)


async def test_the_place_of_a_restore(used: Place, target: Path) -> None:
    make_backup(used.folder, target)
    there = target.with_name(f"{target.name}-there")
    restore_backup(target, there)
    with pytest.raises(BackupError, match=r"not empty.*--force"):
        restore_backup(target, there)
    running = DataDirectory(there)
    with pytest.raises(DirectoryInUse, match=f"process {os.getpid()}"):
        restore_backup(target, there, force=True)
    assert backup_main.main(["restore", str(target), "--data-dir", str(there), "--force"]) == 3
    running.release()
    before = tree(there)
    restored = restore_backup(target, there, force=True)
    assert restored.aside is not None and tree(restored.aside) == before
    with pytest.raises(BackupError, match="move it elsewhere"):
        restore_backup(there / "backup", there, force=True) if (there / "backup").mkdir() else None
        shutil.copytree(target, there / "backup", dirs_exist_ok=True)
        restore_backup(there / "backup", there, force=True)


class Killed(BaseException):
    """The process is killed here."""


@pytest.mark.parametrize("step", range(1, 8))
async def test_a_backup_that_is_killed_leaves_the_earlier_one_whole(
    used: Place, target: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_backup(used.folder, target)
    there = target.with_name(f"{target.name}-there")
    await used.objects.put_bytes(b"more")
    (attempt,) = used.agent.running
    await used.logs.append(attempt, Stream.STDOUT, offset=6, data=b", and on")
    names = (
        "_copy_database",
        "_copy_objects",
        "_copy_logs",
        "_copy_files",
        "write_index",
        "sync_tree",
        "_prune",
    )
    name = names[step - 1]

    def killed(*_: object) -> Made:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(making, name, killed)
        with pytest.raises(Killed):
            make_backup(used.folder, target)
    restored = restore_backup(target, there)
    assert (restored.manifest == first.manifest) == (name != "_prune")
    assert make_backup(used.folder, target).manifest.counts["runs"] == 3
