"""The table of causes for people, and the enumerations and texts that it is about."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from datatailr.client.words import CAUSE_HINTS, cause_word
from datatailr.v1 import common_pb2
from opentailr_agent.core import model as agent_model
from opentailr_controlplane.core.causes import KEPT, decode_cause, encode_detail
from opentailr_controlplane.core.values import INFRASTRUCTURE, Cause, CauseKind

PAGE = Path(__file__).parents[3] / "docs" / "design" / "causes.md"
NO_ATTEMPT = {CauseKind.FAIL_AFTER, CauseKind.STOPPED, CauseKind.UPSTREAM, CauseKind.BUILD_FAILED}


def table() -> dict[str, list[str]]:
    """The rows of the table of kinds: the other cells by kind."""
    section = PAGE.read_text(encoding="utf-8").partition("## Kinds")[2].partition("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section.splitlines()
        if line.startswith("|")
    ]
    return {row[0].strip("`"): row[1:] for row in rows[2:]}


def test_the_table_has_every_kind_and_no_other() -> None:
    words = {cause_word(number): number for number in common_pb2.CauseKind.values() if number}
    assert set(table()) == set(words)
    assert {word: CauseKind(number).name.lower() for word, number in words.items()} == dict(zip(words, words))
    assert {kind.name for kind in CauseKind if kind} == {word.upper() for word in words}
    # A node tells only some of them; those have the numbers of the wire.
    for kind in agent_model.CauseKind:
        assert not kind or CauseKind[kind.name].value == kind.value


@pytest.mark.parametrize("kind", [kind for kind in CauseKind if kind])
def test_the_table_names_the_budget_that_is_charged(kind: CauseKind) -> None:
    budget = table()[kind.name.lower()][2]
    if kind is CauseKind.NODE_DRAINED:
        assert budget == "free" and kind in INFRASTRUCTURE
    elif kind in NO_ATTEMPT:
        assert budget == "none" and kind not in INFRASTRUCTURE
    else:
        assert budget == ("platform" if kind in INFRASTRUCTURE else "user")


@pytest.mark.parametrize("kind", [kind for kind in CauseKind if kind])
def test_the_table_names_fields_that_travel(kind: CauseKind) -> None:
    named = set(re.findall(r"`(\w+)`", table()[kind.name.lower()][1]))
    assert named <= set(common_pb2.Cause.DESCRIPTOR.fields_by_name)
    assert named <= {*KEPT, "traceback", "signal_name"}


def test_every_field_of_a_cause_belongs_to_a_kind() -> None:
    named = {name for cells in table().values() for name in re.findall(r"`(\w+)`", cells[1])}
    assert named == {*KEPT, "traceback", "signal_name"}
    assert {field.name for field in dataclasses.fields(Cause)} == {*KEPT, "kind", "message", "traceback"}


def test_every_kind_says_what_to_do() -> None:
    assert set(CAUSE_HINTS) == {number for number in common_pb2.CauseKind.values() if number}
    assert all(CAUSE_HINTS.values())


def test_fields_come_back_as_they_were_kept() -> None:
    values = {
        field.name: 7 if field.type == "int" else "x"
        for field in dataclasses.fields(Cause)
        if field.name in KEPT
    }
    cause = Cause(CauseKind.SIGNAL, "why", **values)  # type: ignore[arg-type]
    assert decode_cause(int(cause.kind), "why", encode_detail(cause)) == cause
    assert encode_detail(None) == encode_detail(Cause(CauseKind.RESULT, "why")) == ""
    assert decode_cause(0, "", "") is None
    # Rows of an older version have the two columns alone.
    assert decode_cause(2, "why", "", exit_code=3) == Cause(CauseKind.EXIT_CODE, "why", exit_code=3)
