"""Every error has a code, every code has a page, and both programs tell the same of it."""

from __future__ import annotations

import ast
import pickle
import re
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from datatailr import catalogue, errors
from datatailr.client.words import cause_word
from datatailr.v1 import common_pb2

ROOT = Path(__file__).resolve().parents[3]
PAGES = ROOT / "docs" / "errors"
SERVER = ROOT / "controlplane" / "opentailr_controlplane"
REFUSALS = frozenset(
    {
        *("InvalidArgument", "NotFound", "AlreadyExists", "FailedPrecondition", "PermissionDenied"),
        *("ResourceExhausted", "Unavailable", "Unauthenticated", "Aborted", "DataLoss"),
    }
)
CODE = re.compile(r"DT\d{4}\Z")


def error_classes() -> list[type[errors.DatatailrError]]:
    """The base and all classes below it."""
    found = [errors.DatatailrError]
    for kind in found:
        found.extend(below for below in kind.__subclasses__() if below not in found)
    return [kind for kind in found if kind.__module__.startswith("datatailr")]


def server_reasons() -> set[str]:
    """The reasons that stand in the sources of the control plane."""
    found = set()
    for source in SERVER.rglob("*.py"):
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and node.args):
                continue
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            reason = node.args[0]
            if name in REFUSALS and isinstance(reason, ast.Constant) and isinstance(reason.value, str):
                found.add(reason.value)
    return found


def test_a_code_is_given_once_and_belongs_to_a_chapter() -> None:
    from datatailr import _codes_platform, _codes_sdk

    counts = Counter(entry.code for entry in (*_codes_sdk.ENTRIES, *_codes_platform.ENTRIES))
    assert max(counts.values()) == 1 and len(counts) > 50
    assert all(CODE.match(code) and code[2:4] in catalogue.CHAPTERS for code in counts)
    assert all(entry.meaning and entry.example and entry.remedy for entry in catalogue.entries())
    for kind in ("reasons", "cause"):
        named = [
            word for entry in catalogue.entries() for word in _words(getattr(entry, kind)) if word is not None
        ]
        assert len(named) == len(set(named)), f"{kind}: one word has two codes"


def _words(value: str | tuple[str, ...]) -> tuple[str, ...]:
    if isinstance(value, tuple):
        return value
    return (value,) if value else ()


@pytest.mark.clause("B283")
@pytest.mark.parametrize("kind", error_classes())
def test_every_class_has_a_code_of_its_own_with_a_page(kind: type[errors.DatatailrError]) -> None:
    assert catalogue.find(kind.code) is not None
    assert "code" in vars(kind), f"{kind.__name__} only inherits a code"
    assert (PAGES / f"{kind.code}.md").is_file()


def test_no_two_classes_share_a_code() -> None:
    codes = Counter(kind.code for kind in error_classes())
    assert max(codes.values()) == 1


def test_every_reason_of_the_server_has_a_code() -> None:
    reasons = server_reasons()
    assert len(reasons) > 50
    assert {reason for reason in reasons if not catalogue.code_of_reason(reason)} == set()


def test_every_cause_has_a_code() -> None:
    kinds = [cause_word(kind) for kind in common_pb2.CauseKind.values() if kind]
    assert kinds and [kind for kind in kinds if not catalogue.code_of_cause(kind)] == []
    assert catalogue.code_of_cause("") == catalogue.code_of_cause("no such kind") == ""


def test_the_pages_are_those_of_the_catalogue() -> None:
    wanted = catalogue.pages()
    assert {path.name for path in PAGES.glob("*.md")} == set(wanted)
    for name, text in wanted.items():
        assert (PAGES / name).read_text(encoding="utf-8") == text, "run tools/error_pages.py"


@pytest.mark.parametrize("written", ["DT0401", "dt0401", "401", " DT401 "])
def test_explain_prints_the_page_offline(written: str) -> None:
    from datatailr.cli.dt import app

    shown = CliRunner().invoke(app, ["explain", written])
    assert shown.exit_code == 0
    assert shown.stdout == (PAGES / "DT0401.md").read_text(encoding="utf-8")


def test_explain_knows_near_misses() -> None:
    from datatailr.cli.dt import app

    refused = CliRunner().invoke(app, ["explain", "DT0999"])
    assert refused.exit_code == 2
    assert "there is no code 'DT0999'; did you mean 'DT0" in " ".join(refused.output.split())
    listed = CliRunner().invoke(app, ["explain", "all"]).stdout.splitlines()
    assert [line[:6] for line in listed] == [entry.code for entry in catalogue.entries()]


@pytest.mark.clause("B285")
def test_the_code_ends_the_first_line_once() -> None:
    plain = errors.NotFoundError("no job 'x' in dev\nhint: did you mean 'y'?")
    assert str(plain) == "no job 'x' in dev [DT0400]\nhint: did you mean 'y'?"
    assert str(errors.TaskError(f"several fit: {plain}")).count("[DT") == 1
    assert str(errors.DuplicateJobNameError("a")).endswith("choose another name [DT0101]")


def test_code_and_request_survive_a_pickle() -> None:
    error = errors.ConflictError("run 3 is active")
    error.code, error.request_id = "DT0505", "req_1"
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.code, copy.request_id, str(copy)) == ("DT0505", "req_1", str(error))
