"""`datatailr.wrapper`: the commands of `dt` as methods (B274)."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import typer
from fake_server import FakeState
from test_cli_dt import Dt, saved

from datatailr import wrapper
from datatailr.cli.dt import app
from datatailr.errors import NotFoundError
from datatailr.scheduler import Environment
from datatailr.wrapper import (
    dt__Blob,
    dt__Group,
    dt__Job,
    dt__Kv,
    dt__Log,
    dt__Node,
    dt__System,
    dt__Tag,
    dt__User,
)

__all__ = ["saved"]

pytestmark = pytest.mark.clause("B274")


def test_every_command_of_the_groups_is_a_method() -> None:
    groups: Any = typer.main.get_command(app)
    for group in (dt__Job, dt__Log, dt__Node):
        instance = group()
        for command in groups.commands[group._GROUP].commands.values():
            name = command.name.replace("-", "_")
            method = getattr(instance, name)
            assert callable(method) and name in dir(instance)
            assert method.__name__ == name and inspect.getdoc(method)


def test_it_answers_what_the_command_prints(saved: FakeState, dt: Dt) -> None:
    job = dt__Job()
    [listed] = job.ls()
    assert [listed] == json.loads(dt("job", "ls", "-j").out)
    assert listed["name"] == "my-flow" and isinstance(listed["create_time"], int)
    assert job.get("my-flow", show_children=True)[0]["children_full"][1]["name"] == "train"
    assert job.get(name="my-flow", c=True) == job.get("my-flow", show_children=True)
    assert job.ls(fields=["name", "version"]) == [{"name": "my-flow", "version": 1}]
    assert [run["run_id"] for run in job.runs("my-flow", batch_size=5)] == [4]
    assert job.versions("my-flow", environment=Environment.DEV, json=True) == [1]
    assert dt__Node().ls() == []


def test_options_and_lists_arrive_as_on_the_command_line(saved: FakeState) -> None:
    answer = dt__Job().start(
        "my-flow", "my-flow", run_date=date(2026, 1, 31), now=True, watch=False, version=None
    )
    assert len(answer["running"]) + len(answer["pending"]) == 2
    assert [(r.run_date, r.now, r.version) for r in saved.start_requests] == [("2026-01-31", True, 0)] * 2
    dt__Job().start(["my-flow"], r="2026-02-01", v=1)
    assert (saved.start_requests[-1].run_date, saved.start_requests[-1].version) == ("2026-02-01", 1)
    dt__Job().ls(sort="-create_time name", all=True)
    assert saved.list_requests[-1].sort == "-create_time name" and saved.list_requests[-1].include_removed


def test_what_is_no_json_is_text(saved: FakeState) -> None:
    assert dt__Job().cron(at_hours=[8, 16], w="mon").startswith("0 0 8,16 * * 1 (")
    assert dt__Job().save(cron_string=True, every_minute=5) == "0 */5 * * * *\n"
    assert dt__Job().new("service")["type"] == "service"
    saved.log = b'{"a": 1}\n'
    assert dt__Log().read("my-flow", child_num=0, lines=3) == '{"a": 1}\n'


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda job: job.get(), "arguments name; 0 are given"),
        (lambda job: job.get("a", "b"), "2 are given"),
        (lambda job: job.get("a", name="b"), "name is given twice"),
        (lambda job: job.promote(environment="dev"), "needs the arguments before it"),
        (lambda job: job.ls(filtre="x"), "did you mean filter?"),
        (lambda job: job.ls(all="yes"), "must be True or False"),
    ],
)
def test_wrong_arguments_are_type_errors(call: Callable[[Any], Any], words: str) -> None:
    with pytest.raises(TypeError) as error:
        call(dt__Job())
    assert words in str(error.value)


def test_failures_are_runtime_errors(saved: FakeState, capsys: pytest.CaptureFixture[str]) -> None:
    job = dt__Job()
    with pytest.raises(RuntimeError, match="mars") as refused:
        job.ls(filter="name = mars or")
    with pytest.raises(RuntimeError, match="mars"):
        job.get("my-flow", environment="mars")
    with pytest.raises(RuntimeError, match="nothing") as missing:
        job.get("nothing")
    assert isinstance(missing.value.__cause__, NotFoundError)
    assert str(refused.value).startswith("dt job ls: ")
    assert capsys.readouterr().out == ""


def test_a_watched_run_that_fails_is_a_failure(saved: FakeState, monkeypatch: pytest.MonkeyPatch) -> None:
    from datatailr.cli import watch
    from datatailr.cli.exits import Exit

    def failing(connection: object, run_id: int) -> Exit:
        print("run 4 failed")
        return Exit.RUN_FAILED

    monkeypatch.setattr(watch, "watch", failing)
    with pytest.raises(RuntimeError, match="exit code 6: run 4 failed"):
        dt__Job().watch("my-flow")


@pytest.mark.parametrize("group", [dt__User, dt__Group, dt__Blob, dt__Kv, dt__Tag, dt__System])
def test_groups_of_later_releases_say_so(group: type[Any]) -> None:
    with pytest.raises(RuntimeError, match=f"no command `dt {group._GROUP} get-acl`"):
        group().get_acl("x", y=1)
    assert not hasattr(group(), "_repr_html_")


def test_commands_that_are_not_there() -> None:
    with pytest.raises(RuntimeError, match="no command `dt log extract`"):
        dt__Log().extract()
    with pytest.raises(AttributeError, match="did you mean versions"):
        dt__Job().verions


def test_other_threads_print_where_they_did(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    inside, printed = threading.Event(), threading.Event()
    real = sys.stdout

    def command() -> None:
        print('{"a":')
        inside.set()
        assert printed.wait(5)
        print("1}")

    def other() -> None:
        assert inside.wait(5)
        print("from elsewhere")
        printed.set()

    class Command:
        @staticmethod
        def main(**options: Any) -> None:
            command()

    thread = threading.Thread(target=other)
    thread.start()
    text = wrapper._run("dt x", Command, [])
    thread.join(5)
    assert text == '{"a":\n1}\n'
    assert capsys.readouterr().out == "from elsewhere\n"
    assert sys.stdout is real


def test_importing_it_loads_no_program(tmp_path: Path) -> None:
    code = (
        "import sys, datatailr.wrapper as w; w.dt__Job(); print({'typer', 'grpc', 'rich'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.strip() == "set()"
