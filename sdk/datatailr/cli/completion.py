"""What a shell offers at the tab key: commands, options, and names that the server knows.

A shell calls the program itself with `OPENTAILR_COMPLETE` set to the shell's name and the words up to
the cursor as arguments, and gets one candidate a line. Whatever goes wrong, nothing is printed: a
prompt is no place for an error. Names are kept for ten seconds, so that typing does not wait.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_args

from datatailr._files import user_folder, write_private

VARIABLE: Final = "OPENTAILR_COMPLETE"
Shell = Literal["bash", "zsh", "fish"]
SHELLS: Final[tuple[Shell, ...]] = get_args(Shell)

_KEPT_SECONDS: Final = 10.0
_ANSWER_SECONDS: Final = 0.2
"""How long the server may take; what was kept before is offered when it takes longer."""

_MOST_NAMES: Final = 500
_MOST_RUNS: Final = 50

_ENVIRONMENTS: Final = (("dev", ""), ("pre", ""), ("prod", ""))
_KINDS: Final = (("batch", ""), ("service", ""), ("app", ""), ("excel", ""))

# Which names a parameter takes, by its own name.
_NAMED: Final = {"name": "jobs", "names": "jobs", "run_id": "runs", "node": "nodes"}

Candidate = tuple[str, str]
"""A word, and what it means; empty when it speaks for itself."""


def answer(root: Callable[[], Any]) -> None:
    """Print the candidates for the words in `sys.argv`; never raises.

    Args:
        root: Makes the program's outermost group.
    """
    try:
        shell = os.environ[VARIABLE]
        lines = [_line(shell, *candidate) for candidate in candidates(root(), sys.argv[1:])]
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()
    except Exception:  # see the module's text
        pass


def candidates(root: Any, words: Sequence[str]) -> list[Candidate]:
    """What may stand at the place of the last word.

    Args:
        root: The program's outermost group.
        words: The words after the program's name, up to the cursor; the last one may be empty.
    """
    begun = words[-1] if words else ""
    place = _walk(root, words[:-1])

    if place.option is None and begun.startswith("-") and "=" in begun:
        text, _, begun = begun.partition("=")
        place.option = _option(place.command, text)

    # bash takes `=` for a word of its own.
    begun = begun.removeprefix("=") if place.option is not None else begun
    found = _offers(place, begun)
    return [(value, meaning) for value, meaning in found if value.startswith(begun)]


def cache_folder() -> Path:
    """Where names of the server are kept for a moment."""
    return user_folder("XDG_CACHE_HOME", ".cache")


def script(program: str, shell: Shell) -> str:
    """The lines that teach a shell to complete a program."""
    function = f"_opentailr_{program}"

    if shell == "bash":
        return (
            f"{function}() {{\n"
            "    local IFS=$'\\n'\n"
            f'    COMPREPLY=( $({VARIABLE}=bash command {program} "${{COMP_WORDS[@]:1:COMP_CWORD}}" '
            "2>/dev/null) )\n"
            "}\n"
            f"complete -o default -F {function} {program}\n"
        )

    if shell == "zsh":
        return (
            f"{function}() {{\n"
            "    local -a found\n"
            f'    found=("${{(@f)$({VARIABLE}=zsh command {program} "${{(@)words[2,CURRENT]}}" '
            '2>/dev/null)}")\n'
            '    if [[ -n "$found[1]" ]]; then _describe value found; else _files; fi\n'
            "}\n"
            f"(( $+functions[compdef] )) || {{ autoload -Uz compinit && compinit; }}\n"
            f"compdef {function} {program}\n"
        )

    return (
        f"function {function}\n"
        "    set -l words (commandline -opc)\n"
        "    set -l current (commandline -ct)\n"
        "    set -q current[1]; or set current ''\n"
        f"    env {VARIABLE}=fish {program} $words[2..-1] $current 2>/dev/null\n"
        "end\n"
        f"complete -c {program} -f -a '({function})'\n"
    )


@dataclass
class _Place:
    """Where the cursor is: in which command, behind which option, after how many arguments."""

    command: Any
    option: Any = None
    arguments: list[str] = field(default_factory=list)


def _walk(root: Any, words: Iterable[str]) -> _Place:
    place = _Place(root)
    only_arguments = False

    for word in words:
        if place.option is not None:
            if word != "=":
                place.option = None
        elif word == "--":
            only_arguments = True
        elif word.startswith("-") and not only_arguments:
            option = _option(place.command, word)
            place.option = option if option is not None and not option.is_flag else None
        elif word in getattr(place.command, "commands", ()):
            place = _Place(place.command.commands[word])
        else:
            place.arguments.append(word)

    return place


def _option(command: Any, text: str) -> Any:
    return next((param for param in _options(command) if text in (*param.opts, *param.secondary_opts)), None)


def _options(command: Any) -> list[Any]:
    return [param for param in command.params if param.param_type_name == "option"]


def _offers(place: _Place, begun: str) -> Iterable[Candidate]:
    if place.option is not None:
        return _values(place.option, place.arguments)

    if begun.startswith("-"):
        long = [
            (text, str(param.help or "").partition(";")[0].partition(",")[0].rstrip("."))
            for param in _options(place.command)
            for text in (*param.opts, *param.secondary_opts)
            if text.startswith("--") or begun != "-"
        ]
        return [*long, ("--help", "Show the help")]

    commands = getattr(place.command, "commands", None)

    if commands is not None:
        if place.arguments:
            # A word that is no command stands where one is expected.
            return []

        shown = ((name, commands[name]) for name in commands)
        return [(name, command.get_short_help_str(60)) for name, command in shown if not command.hidden]

    positional = [param for param in place.command.params if param.param_type_name == "argument"]

    if not positional:
        return []

    index = len(place.arguments)
    param = positional[index] if index < len(positional) else positional[-1]

    if index >= len(positional) and param.nargs != -1:
        return []

    return _values(param, place.arguments)


def _values(param: Any, arguments: Sequence[str]) -> Iterable[Candidate]:
    if param.name == "environment":
        return _ENVIRONMENTS

    if param.name == "kind":
        return _KINDS

    kind = _NAMED.get(param.name)

    if kind is None:
        return []

    known = _known(kind)

    if kind == "runs":
        latest: Candidate = ("latest", "the newest run")
        # Behind the name of a job its own runs alone.
        of_job = [entry for entry in known if arguments and entry[1].split(" ")[0] == arguments[0]]
        return [latest, *of_job] if arguments else known

    return known


def _known(kind: str) -> list[Candidate]:
    """Names of the server: those kept for a moment, or fresh ones, or old ones when it is slow."""
    from datatailr.client.config import load_config

    config = load_config()

    if config is None:
        return []

    key = hashlib.sha256(f"{config.address}\n{config.token}\n{kind}".encode()).hexdigest()[:32]
    path = cache_folder() / f"{key}.json"
    kept, age = _kept(path)

    if kept is not None and 0 <= age < _KEPT_SECONDS:
        return kept

    try:
        fresh = list(_ask(kind, config.address, config.token))
    except Exception:  # an old name is better than none
        return kept or []

    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(path, json.dumps({"time": time.time(), "names": fresh}))
    except OSError:
        pass

    return fresh


def _kept(path: Path) -> tuple[list[Candidate] | None, float]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        names = [(str(value), str(meaning)) for value, meaning in document["names"]]
        return names, time.time() - float(document["time"])
    except (OSError, ValueError, TypeError, KeyError):
        return None, 0.0


def _ask(kind: str, address: str, token: str) -> Iterator[Candidate]:
    from datatailr.cli.asking import quick_connection
    from datatailr.client.words import environment_word, node_state_word, state_word
    from datatailr.v1 import job_pb2, node_pb2, run_pb2

    connection = quick_connection(address, token)

    try:
        if kind == "jobs":
            jobs = connection.call(
                lambda s: s.jobs.ListJobs,
                job_pb2.ListJobsRequest(page_size=_MOST_NAMES),
                timeout=_ANSWER_SECONDS,
            )
            seen: dict[str, str] = {}

            for job in jobs.jobs:
                seen.setdefault(job.definition.name, job.definition.display_name)

            yield from seen.items()
        elif kind == "runs":
            runs = connection.call(
                lambda s: s.runs.ListRuns,
                run_pb2.ListRunsRequest(page_size=_MOST_RUNS),
                timeout=_ANSWER_SECONDS,
            )

            for run in runs.runs:
                where = environment_word(run.environment)
                yield str(run.run_id), f"{run.job_name} in {where} {state_word(run.state)}"
        else:
            nodes = connection.call(
                lambda s: s.nodes.ListNodes, node_pb2.ListNodesRequest(), timeout=_ANSWER_SECONDS
            )

            for node in nodes.nodes:
                yield node.name, node_state_word(node.state)
    finally:
        connection.close()


_UNSAFE: Final = re.compile(r"[\x00-\x1f\x7f]")


def _line(shell: str, value: str, meaning: str) -> str:
    """One candidate as a shell reads it; control characters of names do not reach the terminal."""
    value, meaning = _UNSAFE.sub("", value), _UNSAFE.sub(" ", meaning)

    if shell == "fish":
        return f"{value}\t{meaning}" if meaning else value

    if shell == "zsh":
        escaped = value.replace("\\", "\\\\").replace(":", "\\:")
        return f"{escaped}:{meaning}" if meaning else escaped

    return value
