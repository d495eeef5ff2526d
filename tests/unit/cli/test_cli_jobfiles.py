"""`dt job save`, `run`, `modify`, `copy`, `new` and `cron`: files and options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fake_server import FakeState
from test_cli_dt import Dt, saved

from datatailr.cli.crons import cron_words
from datatailr.v1 import job_pb2

__all__ = ["saved"]


@pytest.mark.clause("B76", "B268", "B269")
@pytest.mark.parametrize(
    ("options", "printed"),
    [
        (
            "-a 8,16 -w mon,tue,wed,thu,fri",
            "0 0 8,16 * * 1,2,3,4,5 (at minute 0 of hours 8 and 16, on Mon, Tue, Wed, Thu and Fri)",
        ),
        ("-M 15", "0 */15 * * * * (every 15 minutes)"),
        ("-m 0,30", "0 0,30 * * * * (at minutes 0 and 30 of every hour)"),
        ("-m 30 -a 6", "0 30 6 * * * (at 06:30)"),
        ("-H 2", "0 0 */2 * * * (at minute 0 of every 2 hours)"),
        ("-d 1 -i jan,jul", "0 0 0 1 1,7 * (at 00:00, on day 1, in Jan and Jul)"),
        ("--every-month 3", "0 0 0 1 */3 * (at 00:00, on day 1, every 3 months)"),
        ("--weekdays Sun --at-hours 7", "0 0 7 * * 7 (at 07:00, on Sun)"),
    ],
)
def test_cron(dt: Dt, options: str, printed: str) -> None:
    done = dt("job", "cron", *options.split())
    assert (done.code, done.out.strip()) == (0, printed)
    text = printed.partition(" (")[0]
    for command in ("save", "run"):
        assert dt("job", command, "-c", *options.split()).out.strip() == text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("-m 60", "60"),
        ("-m 1 -M 5", "every_minute"),
        ("-w noday", "noday"),
        ("-a x,1", "no list of numbers"),
        ("", "no option says when"),
    ],
)
def test_wrong_schedules_are_wrong_use(dt: Dt, options: str, words: str) -> None:
    done = dt("job", "cron", *options.split())
    assert done.code == 2
    assert words in done.err


def test_words_of_no_schedule() -> None:
    assert cron_words("") == "never"


def write(folder: Path, document: Any) -> str:
    path = folder / "a definition.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return f"file://{path}".replace(" ", "%20")


@pytest.mark.clause("B113", "B268", "B272")
def test_save_keeps_what_the_document_leaves_out(dt: Dt, saved: FakeState, tmp_path: Path) -> None:
    before = job_pb2.JobDefinition()
    before.CopyFrom(saved.saved[0])
    printed = json.loads(dt("job", "get", "my-flow", "-j").out)
    done = dt("job", "save", write(tmp_path, printed), "-j")
    assert json.loads(done.out) == {"versions": {"job_1": 2}}
    after = saved.saved[-1]
    assert (after.base_version, after.HasField("bundle")) == (1, False)
    assert [task.HasField("arguments") for task in after.tasks] == [False, False]
    after.base_version = 0
    before.acl.SetInParent()
    before.origin.SetInParent()
    after.origin.SetInParent()
    assert after == before


@pytest.mark.clause("B67", "B70", "B268")
def test_save_takes_over_what_the_document_says(dt: Dt, saved: FakeState, tmp_path: Path) -> None:
    [document] = json.loads(dt("job", "get", "my-flow", "-c", "-j").out)
    document["memory"] = "1g"
    document["acl"] = {"read": [1, -2]}
    document["image"]["python_requirements"] = "numpy"
    document["children_full"][1] |= {
        "memory": 1 << 30,
        "num_cpus": 4,
        "cpu": 4,
        "env": [{"DATATAILR_JOB_ENV_A": 1}],
    }
    document["children_full"].append(
        {"name": "last", "child_number": 2, "entrypoint": "pkg:last", "depends_on": [1]}
    )
    done = dt("job", "save", write(tmp_path, [document]), "-a", "8", "-z", "Europe/Berlin", "-o", "-1")
    assert done.out == "my-flow version 2 saved in dev\n"
    after = saved.saved[-1]
    assert after.resources.memory_bytes == 1 << 30
    assert after.image.python_requirements == "numpy" and after.image.python_version == "3.12"
    assert (list(after.acl.read), list(after.acl.write)) == ([1, -2], [])
    assert [(task.resources.memory_bytes, task.resources.cpu) for task in after.tasks][1] == (1 << 30, 4.0)
    assert [(variable.name, variable.value) for variable in after.tasks[1].env] == [("A", "1")]
    assert [task.HasField("arguments") for task in after.tasks] == [False, False, True]
    assert list(after.tasks[2].depends_on) == [1]
    assert (after.schedule.cron, after.schedule.timezone) == ("0 0 8 * * *", "Europe/Berlin")
    assert after.schedule.fields["rundate_offset"] == "-1"


@pytest.mark.clause("B268", "B272")
def test_run_saves_and_starts_that_version(dt: Dt, saved: FakeState, tmp_path: Path) -> None:
    file = write(tmp_path, json.loads(dt("job", "get", "my-flow", "-j").out))
    answer = json.loads(dt("job", "run", file, "-j").out)
    assert answer == {"running": [], "pending": [{"Id": "job_1", "RunId": 1}]}
    assert saved.start_requests[-1].version == 2
    assert "started" in dt("job", "run", file).out


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("{", "line 1, column 2"),
        ("[]", "no single JSON object"),
        ({}, "no name"),
        ({"name": "my-flow", "memry": "1g"}, "did you mean 'memory'?"),
        ({"name": "my-flow", "version": "x"}, "version is 'x'"),
        ({"name": "my-flow", "memory": "much"}, "memory"),
        ({"name": "my-flow", "cpu": True}, "cores"),
        ({"name": "my-flow", "environment": "moon"}, "moon"),
        ({"name": "my-flow", "display_name": "Other"}, "does not belong"),
        ({"name": "my-flow", "type": "app"}, "of type 'batch'"),
        ({"name": "my-flow", "acl": {"red": [1]}}, "did you mean 'read'?"),
        ({"name": "my-flow", "acl": {"read": ["me"]}}, "acl.read"),
        ({"name": "my-flow", "schedule": "often"}, "schedule"),
        ({"name": "my-flow", "env": {"A": "1"}}, "env is"),
        ({"name": "my-flow", "fail_after": "1h"}, "fail_after"),
        ({"name": "my-flow", "children_full": [{"child_number": 9}]}, "children_full[0] has no name"),
        ({"name": "my-flow", "jobs": [{"name": "a", "depends_on": ["b"]}]}, "jobs[0].depends_on"),
        ({"name": "new-one", "type": "batch"}, "image.python_version"),
        (
            {
                "name": "new-one",
                "type": "batch",
                "image": {"python_version": "3.12", "path_to_repo": "/none"},
            },
            "no code for 'new-one'",
        ),
    ],
)
def test_mistakes_in_files_name_the_field(
    dt: Dt, saved: FakeState, tmp_path: Path, document: Any, words: str
) -> None:
    done = dt("job", "save", write(tmp_path, document))
    assert done.code in (1, 2)
    assert words in done.err
    assert len(saved.saved) == 1


@pytest.mark.parametrize("file", ["file:///no/such/file.json", "http://x/y.json"])
def test_wrong_places_of_files(dt: Dt, saved: FakeState, file: str) -> None:
    done = dt("job", "save", file)
    assert done.code == 2
    assert file.removeprefix("file://") in done.err


def test_save_needs_a_file(dt: Dt, saved: FakeState) -> None:
    assert dt("job", "save").code == 2


@pytest.mark.clause("B268")
def test_modify(dt: Dt, saved: FakeState) -> None:
    saved.saved[0].acl.read.extend([1, -2])
    saved.saved[0].acl.write.extend([1])
    assert dt("job", "modify", "my-flow", "-c", "train", "-m", "2g", "-N", "4").out == (
        "my-flow version 2 saved in dev\n"
    )
    after = saved.saved[-1]
    assert [(task.resources.memory, task.resources.cpu) for task in after.tasks] == [
        ("512m", 2.0),
        ("2g", 4.0),
    ]
    assert after.resources.memory == "512m"
    dt("job", "modify", "my-flow", "-m", "1g", "-s", "0 8 * * *", "-d", "MY flow", "-r", "alice")
    after = saved.saved[-1]
    assert (after.resources.memory, after.schedule.cron, after.display_name) == ("1g", "0 8 * * *", "MY flow")
    dt("job", "modify", "my-flow", "-s", "", "-g", "dtusers:ra,admin:rwop", "-o", "r", "-u", "7:w")
    after = saved.saved[-1]
    assert after.schedule.cron == ""
    assert {name: list(getattr(after.acl, name)) for name in ("read", "write", "operate", "promote")} == {
        "read": [1, -1, -2],
        "write": [1, 7, -1],
        "operate": [-1],
        "promote": [-1],
    }


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ((), 2, "nothing to change"),
        (("-c", "train"), 2, "--memory or --num-cpus"),
        (("-c", "trane", "-m", "1g"), 4, "it has load, train"),
        (("-m", "much"), 1, "much"),
        (("-d", "Another"), 1, "dt job copy"),
        (("-g", "dtusers"), 1, "dtusers:rw"),
        (("-g", "people:r"), 4, "people"),
        (("-o", "x"), 1, "r read"),
        (("-s", "never"), 1, "schedule"),
    ],
)
def test_modify_refuses(dt: Dt, saved: FakeState, options: tuple[str, ...], code: int, words: str) -> None:
    done = dt("job", "modify", "my-flow", *options)
    assert (done.code, words in done.err) == (code, True), done.err
    assert len(saved.saved) == 1


@pytest.mark.clause("B268")
def test_copy(dt: Dt, saved: FakeState) -> None:
    assert dt("job", "copy", "my-flow", "Mine too").out == "mine-too version 2 saved in dev\n"
    after = saved.saved[-1]
    assert (after.name, after.display_name, after.base_job_id, after.base_version) == (
        "mine-too",
        "Mine too",
        "job_1",
        1,
    )
    assert not after.HasField("acl")
    refused = dt("job", "copy", "mine-too", "mine too")
    assert (refused.code, "already" in refused.err) == (1, True)


@pytest.mark.clause("B66", "B69", "B268")
def test_new_prints_what_save_understands(dt: Dt, state: FakeState, tmp_path: Path) -> None:
    package = tmp_path / "my_package"
    package.mkdir()
    (package / "module.py").write_text("def first():\n    return 1\n")
    for kind in ("batch", "service", "app", "excel"):
        document = json.loads(dt("job", "new", kind).out)
        assert document["type"] == kind
        document["image"]["path_to_repo"] = str(tmp_path)
        done = dt("job", "save", write(tmp_path, document))
        assert done.code == 0, done.err
        after = state.saved[-1]
        assert after.bundle.directory == "my_package" and not after.bundle.top_level
        assert after.bundle.digest in state.objects
        state.saved.clear()
    assert dt("job", "new", "thing").code == 2


@pytest.mark.clause("B125", "B269")
def test_rm_takes_a_version_or_all(dt: Dt, saved: FakeState) -> None:
    assert dt("job", "rm", "my-flow", "-v", "1").code == 0
    assert dt("job", "rm", "my-flow", "-v", "1", "-a").code == 2


@pytest.mark.clause("B269")
def test_start_now(dt: Dt, saved: FakeState) -> None:
    dt("job", "start", "my-flow", "-N")
    assert saved.start_requests[-1].now
    dt("job", "start", "my-flow")
    assert not saved.start_requests[-1].now
