"""Which part of an answer is printed: filters, orders, fields and jq programs of `dt`."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from fake_server import FakeState
from test_cli_dt import Dt, a_run, saved

from datatailr.cli.shape import bare_fields
from datatailr.client import answers

__all__ = ["saved"]


@pytest.mark.clause("B268", "B282")
@pytest.mark.parametrize(
    ("command", "filter", "sort"),
    [
        ("ls", "name starts_with my and version > 0", "-create_time +name"),
        ("runs", "state = failed", "-run_id"),
    ],
)
def test_filter_sort_offset_and_size_reach_the_server(
    dt: Dt, saved: FakeState, command: str, filter: str, sort: str
) -> None:
    done = dt("job", command, "-f", filter, "-s", sort, "-o", "0", "-b", "7", "-j")
    assert done.code == 0
    request = saved.list_requests[-1]
    assert (request.filter, request.sort, request.page_size) == (filter, sort, 7)
    dt("job", command, "--filter", filter, "--sort", sort, "--offset", "40")
    request = saved.list_requests[-1]
    assert (request.filter, request.sort, request.offset, request.page_size) == (filter, sort, 40, 100)


@pytest.mark.clause("B268")
def test_lists_stop_at_the_batch_size(dt: Dt, saved: FakeState) -> None:
    saved.runs |= {number: a_run(number) for number in range(1, 9)}
    rows = json.loads(dt("job", "runs", "-j", "-o", "2", "-b", "3").out)
    assert [row["run_id"] for row in rows] == [6, 5, 4]


@pytest.mark.clause("B281")
@pytest.mark.parametrize(
    ("arguments", "line", "mark"),
    [
        (("ls", "-f", "nam = x"), "    nam = x", "    ^^^"),
        (("ls", "-s", "name -verson"), "    name -verson", "          ^^^^^^"),
        (("runs", "-f", "state = runing"), "    state = runing", "            ^^^^^^"),
        (("runs", "-f", "name = \udcff"), "    name = \N{REPLACEMENT CHARACTER}", "           ^"),
    ],
)
def test_mistakes_are_marked_before_anything_is_sent(
    dt: Dt, saved: FakeState, arguments: tuple[str, ...], line: str, mark: str
) -> None:
    done = dt("job", *arguments)
    assert done.code == 2
    assert f"{line}\n{mark}\n" in done.err
    assert done.out == ""
    assert not saved.list_requests


def test_empty_answers_say_why(dt: Dt, state: FakeState) -> None:
    for command in ("ls", "runs"):
        assert "fits the filter" in dt("job", command, "-f", "name = x").err
        assert "No more" in dt("job", command, "-o", "5").err
        assert dt("job", command, "-f", "name = x", "-j").out == "[]\n"


@pytest.mark.clause("B268", "B270", "B271")
def test_fields_are_chosen_and_listed(dt: Dt, saved: FakeState) -> None:
    [job] = json.loads(dt("job", "ls", "--fields", "version,name").out)
    assert list(job.items()) == [("version", 1), ("name", "my-flow")]
    assert dt("job", "ls", "--fields").out.split() == list(answers.JOB_KEYS)
    assert dt("job", "runs", "-f", "name = none", "--fields", "-p").out.split() == list(answers.RUN_KEYS)
    assert json.loads(dt("job", "get", "my-flow", "--fields", "state").out) == [{"state": "ready"}]
    done = dt("job", "ls", "--fields", "nam")
    assert (done.code, "did you mean name?" in done.err) == (2, True)


@pytest.mark.clause("B270", "B271")
def test_listed_keys_are_those_of_the_answers(dt: Dt, saved: FakeState) -> None:
    assert list(json.loads(dt("job", "ls", "-j").out)[0]) == list(answers.JOB_KEYS)
    assert list(json.loads(dt("job", "runs", "-j").out)[0]) == list(answers.RUN_KEYS)


def test_bare_fields() -> None:
    assert bare_fields(["job", "ls", "--fields"]) == ["job", "ls", "--fields="]
    assert bare_fields(["ls", "--fields", "-p"]) == ["ls", "--fields=", "-p"]
    assert bare_fields(["ls", "--fields", "a,b", "-p"]) == ["ls", "--fields", "a,b", "-p"]


def test_jq_missing_says_how_to_get_it(dt: Dt, saved: FakeState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jq", None)
    done = dt("job", "ls", "--jq", ".[].name")
    assert done.code == 1
    assert "pip install jq" in done.err


def test_jq(dt: Dt, saved: FakeState) -> None:
    assert dt("job", "ls", "--jq", ".[].name").out == "my-flow\n"
    assert dt("job", "ls", "--fields", "version", "--jq", ".[]").out == '{"version": 1}\n'
    assert dt("job", "versions", "my-flow", "--jq", "length").out == "1\n"
    assert dt("job", "start", "my-flow", "--jq", ".pending[0].Id").out == "job_1\n"
    wrong = dt("job", "ls", "--jq", ".[")
    assert (wrong.code, "--jq" in wrong.err) == (2, True)
    wrong = dt("job", "ls", "--jq", ".name")
    assert (wrong.code, "array" in wrong.err) == (2, True)
    values: Any = json.loads(dt("job", "ls", "--jq", "map(.id)", "-p").out)
    assert values == ["job_1"]
