"""Runs the examples of a page as a reader would: files are written, commands typed, answers compared.

- A code block with a caption is a file of that name, written below the reader's folder.
- A `python` block without one is a script of its own, run in that folder.
- A `console` block holds commands after `$ ` and, below them, what they print: `...` stands for anything. A
  command must exit with 0, or with the code that a comment `% exits N` before the block names.
- A comment `% not run: REASON` before a block says why it is not run.
- Blocks of other languages (`text`, `json`, `toml`) are for reading.
"""

from __future__ import annotations

import doctest
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sybil import Document, Example, Region, Sybil
from sybil.typing import Evaluator

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
BIN = Path(sys.executable).parent
COMMAND_SECONDS = 60.0
RUN_LANGUAGES = frozenset({"python", "console"})
READ_LANGUAGES = frozenset({"text", "json", "toml", "yaml", "ini", "bash"})

_BLOCK = re.compile(
    r"(?P<before>(?:^% [^\n]*\n+)*)"
    r"^```(?:\{code-block\} )?(?P<language>[a-z]+)\n"
    r"(?P<options>(?::[a-z-]+:[^\n]*\n)*)\n?(?P<source>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_COMPARE = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True)
class Block:
    """A code block of a page."""

    language: str
    source: str
    caption: str
    exits: int
    not_run: str


def read_block(found: re.Match[str]) -> Block:
    """What a block says of itself, in its options and the comments before it."""
    caption = re.search(r"^:caption: (.+)$", found["options"], re.MULTILINE)
    exits = re.search(r"^% exits (\d+)$", found["before"], re.MULTILINE)
    not_run = re.search(r"^% not run: (.+)$", found["before"], re.MULTILINE)
    return Block(
        found["language"],
        found["source"],
        caption[1].strip() if caption else "",
        int(exits[1]) if exits else 0,
        not_run[1] if not_run else "",
    )


def parse(evaluator: Evaluator) -> Sybil:
    """A parser of pages whose examples are run by the evaluator."""

    def blocks(document: Document) -> Iterator[Region]:
        for found in _BLOCK.finditer(document.text):
            yield Region(found.start(), found.end(), parsed=read_block(found), evaluator=evaluator)

    return Sybil(parsers=[blocks])


@dataclass
class Reader:
    """Somebody who does what a page says, in a folder and an environment."""

    folder: Path
    environment: Mapping[str, str]
    done: list[str] = field(default_factory=list)
    """What has been run so far, for messages."""

    def follow(self, page: Path) -> int:
        """Runs all examples of a page in order; returns how many commands and scripts that were."""
        before = len(self.done)
        for example in parse(self.evaluate).parse(page).examples():
            example.evaluate()
        return len(self.done) - before

    def evaluate(self, example: Example) -> str | None:
        """Runs one example; None, or what went wrong."""
        block: Block = example.parsed
        if block.not_run or (block.language in READ_LANGUAGES and not block.caption):
            return None
        if block.caption:
            path = self.folder / block.caption
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.source, encoding="utf-8")
            return None
        if block.language == "python":
            script = self.folder / ".script.py"
            script.write_text(block.source, encoding="utf-8")
            return self.run(f"{shlex.quote(sys.executable)} {script.name}", "", exits=block.exits)
        if block.language == "console":
            for command, expected in commands(block.source):
                if problem := self.run(command, expected, exits=block.exits):
                    return problem
            return None
        return f"nobody knows how to run {block.language!r}"

    def run(self, command: str, expected: str, *, exits: int) -> str | None:
        """Runs one command; None, or how it differs from what the page says."""
        process = subprocess.Popen(
            ["bash", "-c", command],
            cwd=self.folder,
            env=dict(self.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            printed, _ = process.communicate(timeout=COMMAND_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            printed, _ = process.communicate()
            return f"$ {command}\ndid not end within {COMMAND_SECONDS} s; it printed\n{printed}"
        printed = _ANSI.sub("", printed)
        self.done.append(f"$ {command}\n{printed}")
        if process.returncode != exits:
            return f"exited with {process.returncode}, not {exits}\n" + "\n".join(self.done)
        if expected.strip() and not matches(expected, printed):
            return f"$ {command}\nprinted\n{printed}\nthe page says\n{expected}"
        return None


def commands(source: str) -> Iterator[tuple[str, str]]:
    """The commands of a console block, each with the text below it; a backslash at the end goes on."""
    command = ""
    below: list[str] = []
    continues = False
    for line in source.splitlines():
        if continues:
            command += "\n" + line
        elif line.startswith("$ "):
            if command:
                yield command, "\n".join(below)
            command, below = line.removeprefix("$ "), []
        else:
            below.append(line)
            continue
        continues = line.endswith("\\")
    yield command, "\n".join(below)


def matches(expected: str, printed: str) -> bool:
    """Whether the printed text is the expected one; `...` stands for anything, blanks count once."""
    return doctest.OutputChecker().check_output(expected.strip() + "\n", printed.strip() + "\n", _COMPARE)


def blocks_of(page: Path) -> list[Block]:
    """All blocks of a page, without running any."""
    return [read_block(found) for found in _BLOCK.finditer(page.read_text(encoding="utf-8"))]


def steps(page: Path) -> int:
    """How many commands and scripts a reader of the page runs."""
    to_run = [block for block in blocks_of(page) if not block.not_run and not block.caption]
    typed = sum(len(list(commands(block.source))) for block in to_run if block.language == "console")
    return typed + sum(block.language == "python" for block in to_run)


def reader(folder: Path, environment: Mapping[str, str]) -> Reader:
    """A reader with the programs of this environment on the path."""
    path = f"{BIN}{os.pathsep}{environment.get('PATH', os.defpath)}"
    folder.mkdir(parents=True, exist_ok=True)
    return Reader(folder, {**environment, "PATH": path, "COLUMNS": "110"})
