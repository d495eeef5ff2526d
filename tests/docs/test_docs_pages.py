"""What can be said of the pages without running them: examples, names, commands, links."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from docs_examples import (
    DOCS,
    READ_LANGUAGES,
    ROOT,
    RUN_LANGUAGES,
    blocks_of,
    commands,
    matches,
    reader,
    steps,
)

sys.path.insert(0, str(DOCS))

from _generate import commands as command_pages
from _generate import sphinx_extension, tables, texts, wire

EXAMPLE_PAGES = [DOCS / "tutorial.md", *sorted((DOCS / "howto").glob("*.md"))]
SIGNATURES = ROOT / "tests" / "contract" / "signatures.json"
PROTOS = ROOT / "protos"


@pytest.mark.parametrize("page", EXAMPLE_PAGES, ids=lambda path: path.name)
def test_every_block_is_run_or_says_why_not(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    fences = re.findall(r"^```(?:\{code-block\} )?([a-z]+)$", text, re.MULTILINE)
    blocks = blocks_of(page)
    assert [block.language for block in blocks] == fences, "a block that the parser does not see"
    for block in blocks:
        assert block.language in RUN_LANGUAGES | READ_LANGUAGES, block
        assert not block.not_run or block.language in RUN_LANGUAGES, "only what would be run needs a reason"


def test_most_examples_are_run() -> None:
    reasons = [block.not_run for page in EXAMPLE_PAGES for block in blocks_of(page) if block.not_run]
    assert len(reasons) < sum(steps(page) for page in EXAMPLE_PAGES) / 4


def test_what_a_page_says_is_compared(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```console\n$ echo one; echo two\none\n```\n", encoding="utf-8")
    with pytest.raises(Exception, match="the page says"):
        reader(tmp_path / "folder", {}).follow(page)
    page.write_text("```console\n$ exit 3\n```\n", encoding="utf-8")
    with pytest.raises(Exception, match="exited with 3, not 0"):
        reader(tmp_path / "folder", {}).follow(page)
    page.write_text("% exits 3\n```console\n$ exit 3\n```\n", encoding="utf-8")
    assert reader(tmp_path / "folder", {}).follow(page) == 1


def test_a_python_block_that_fails_fails_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nassert 1 == 2\n```\n", encoding="utf-8")
    with pytest.raises(Exception, match="AssertionError"):
        reader(tmp_path / "folder", {}).follow(page)


def test_a_captioned_block_is_a_file(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```{code-block} python\n:caption: a/b.py\nX = 1\n```\n", encoding="utf-8")
    assert reader(tmp_path / "folder", {}).follow(page) == 0
    assert (tmp_path / "folder" / "a" / "b.py").read_text(encoding="utf-8") == "X = 1\n"


def test_commands_of_a_block_with_what_they_print() -> None:
    source = "$ one \\\n    two\nprinted\nmore\n$ three\n"
    assert list(commands(source)) == [("one \\\n    two", "printed\nmore"), ("three", "")]
    assert matches("a ...\nb", "a 17 s\n  b\n")
    assert not matches("a ...\nb", "a 17 s\nc\n")


def test_all_documented_names_have_a_place() -> None:
    pages = "\n".join(path.read_text(encoding="utf-8") for path in (DOCS / "reference").glob("*.md"))
    errors = tables.error_table()
    modules = re.findall(r"automodule:: (datatailr\.\w+)\n   :members:\n", pages)
    missing = []
    for entry in json.loads(SIGNATURES.read_text(encoding="utf-8"))["names"]:
        if entry.get("source") != "seed" and entry.get("optional"):
            continue
        name = entry["name"]
        listed = re.search(rf"(?:auto\w+:: \S*\.|:members:[^\n]*\b){name}\b", pages + errors)
        if not listed and not set(entry["import_from"]) & set(modules):
            missing.append(name)
    # These four come with shared data.
    assert sorted(missing) == ["Blob", "Group", "KV", "Secrets"]


@pytest.mark.parametrize(
    ("module", "name"), [("datatailr.cli.dt", "dt"), ("datatailr.cli.platform", "datatailr")]
)
def test_all_commands_have_a_section(module: str, name: str) -> None:
    page = command_pages.reference(module, name)
    names = list(command_pages.command_names(module, name))
    assert len(names) > 5
    for command in names:
        assert re.search(rf"^#+ `{re.escape(command)}`$", page, re.MULTILINE), command


def test_the_options_of_a_command_stand_in_its_section() -> None:
    page = command_pages.reference("datatailr.cli.dt", "dt")
    section = page.partition("`dt job watch`\n")[2].partition("\n### ")[0]
    assert "| `-i, --run-id" in section
    assert "Ctrl-C ends the watching" in section


def test_the_wire_page_has_every_call_and_message() -> None:
    page = wire.reference(PROTOS)
    source = "".join(path.read_text(encoding="utf-8") for path in PROTOS.rglob("*.proto"))
    for call in re.findall(r"^  rpc (\w+)\(", source, re.MULTILINE):
        assert re.search(rf"^#### \w+\.{call}$", page, re.MULTILINE), call
    for kind in re.findall(r"^(?:message|enum) (\w+) ", source, re.MULTILINE):
        assert re.search(rf"^### {kind}$", page, re.MULTILINE), kind
    assert "Saves a new immutable version of a job" in page


def test_words_for_people_come_from_the_wire() -> None:
    states = wire.enumeration(PROTOS, "State")
    assert "| `out_of_memory` |" in states and "unspecified" not in states
    with pytest.raises(KeyError):
        wire.enumeration(PROTOS, "Weather")


def test_every_error_and_exit_code_is_listed() -> None:
    from datatailr import errors
    from datatailr.cli.exits import EXIT_CODES

    table = tables.error_table()
    for name in errors.__all__:
        assert f"errors.{name}`" in table, name
    assert tables.exit_codes().count("\n") == len(EXIT_CODES) + 1


def test_markers_name_parts_that_exist() -> None:
    for page in DOCS.rglob("*.md"):
        for marker in re.findall(r"<!-- generated: (.+?) -->", page.read_text(encoding="utf-8")):
            assert marker in sphinx_extension.PARTS, page
    with pytest.raises(KeyError):
        sphinx_extension.expand("<!-- generated: weather -->\n")


def test_links_out_of_the_docs_become_text_when_they_lead_somewhere() -> None:
    page = DOCS / "howto" / "README.md"
    assert (
        texts.without_outer_links("[a](../../README.md), [b](data.md)\n", page, DOCS) == "`a`, [b](data.md)\n"
    )
    assert (
        texts.without_outer_links("```\n[a](../../x.md)\n```\n", page, DOCS) == "```\n[a](../../x.md)\n```\n"
    )
    with pytest.raises(texts.MissingTargetError, match=r"nowhere\.md"):
        texts.without_outer_links("[a](../../nowhere.md)\n", page, DOCS)


def test_docstrings_become_restructured_text() -> None:
    assert texts.restructured(["a `b ` and", "```python", "x = 1", "```"]) == [
        "a `b` and",
        "",
        ".. code-block:: python",
        "",
        "    x = 1",
        "",
    ]
