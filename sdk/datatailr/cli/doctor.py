"""`datatailr doctor`: whether everything that a user needs is well, and if not, what to do."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from datatailr.cli.exits import Exit
from datatailr.cli.output import print_json, size_text
from datatailr.cli.places import Places, default_data_dir
from datatailr.cli.servers import installed_release, lacking
from datatailr.cli.session import JsonOption
from datatailr.client.config import ClientConfig, load_config
from datatailr.errors import DatatailrError

if TYPE_CHECKING:
    from datatailr.cli.asking import Server

_LEAST_FREE: Final = 1 << 30
"""Bytes that should be free where the platform keeps its data."""

_MOST_SKEW: Final = 5.0
"""Seconds by which clocks may differ; the page tells its time in whole seconds."""

Verdict = Literal["ok", "warning", "problem", "skipped"]


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Attributes:
        name: What was looked at.
        verdict: `problem` lets the program end with 1; `skipped` could not be, or need not be, looked at.
        says: What was found.
        remedy: What to do; empty if nothing.
    """

    name: str
    verdict: Verdict
    says: str
    remedy: str = ""


def doctor(
    *,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", metavar="DIR", help="Directory of `datatailr up`.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Look at everything that a user needs: each line is ok or says what to do.

    The exit code is 1 if there is a problem; warnings alone leave it at 0.

    Examples: `datatailr doctor` and `datatailr doctor --json`.
    """
    found: list[Check] = []
    width = 14

    for check in examine(Places((data_dir or default_data_dir()).absolute())):
        found.append(check)

        if not json:
            print(f"{check.verdict:<8}  {check.name:<{width}}  {check.says}", flush=True)

            if check.remedy:
                print(f"{'':<8}  {'':<{width}}  hint: {check.remedy}", flush=True)

    if json:
        print_json([asdict(check) for check in found], pretty=True)

    if any(check.verdict == "problem" for check in found):
        raise typer.Exit(int(Exit.FAILED))


def examine(places: Places) -> Iterator[Check]:
    """All checks, one after the other, as their answers come."""
    yield _python()
    yield _venv()
    yield _uv()
    yield _disk(places)
    yield _docker()

    try:
        config = load_config()
    except DatatailrError as error:
        what, _, remedy = str(error).partition("\nhint: ")
        yield Check("configuration", "problem", what, remedy)
        return

    if config is None:
        yield Check(
            "configuration",
            "problem",
            "no server is configured",
            "start a platform with `datatailr up`, or sign in to one: datatailr login --url HOST:7070",
        )
        return

    yield Check("configuration", "ok", f"{config.address}, from {config.source}")
    yield _transport(config)

    from datatailr.cli.asking import ask

    try:
        server = ask(config.address, config.token)
    except DatatailrError as error:
        what, _, remedy = str(error).partition("\nhint: ")
        yield Check("server", "problem", what, remedy or "look whether it runs: datatailr status")
        return

    yield Check("server", "ok", f"answers, and knows you as {server.user}")
    yield _versions(server)
    yield _clock(server, places)
    yield _nodes(config)


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    missing = {name: lacking(name) for name in ("opentailr_controlplane", "opentailr_agent")}

    if not any(missing.values()):
        return Check("Python", "ok", f"{version} at {sys.executable}; the servers can run here")

    names = list(dict.fromkeys(name for names in missing.values() for name in names))
    return Check(
        "Python",
        "ok",
        f"{version} at {sys.executable}; client only, as the servers need {', '.join(names)}",
    )


def _venv() -> Check:
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]

    if not missing:
        return Check("venv", "ok", "venv and ensurepip are there")

    package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
    return Check(
        "venv",
        "warning",
        f"this Python has no {' and no '.join(missing)}, which environments of tasks need without uv",
        f"apt-get install {package}, or install uv",
    )


def _uv() -> Check:
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.is_file() else shutil.which("uv")

    if found:
        return Check("uv", "ok", found)

    return Check(
        "uv", "warning", "not there; environments of tasks are built with pip, slowly", "pip install uv"
    )


def _disk(places: Places) -> Check:
    folder = next(path for path in (places.root, *places.root.parents) if path.exists())

    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Check(
            "disk", "problem", f"cannot look at {folder}: {error.strerror}", "choose another --data-dir"
        )

    says = f"{size_text(free)} free at {places.root}"

    if not os.access(folder, os.W_OK):
        return Check("disk", "problem", f"{folder} cannot be written to", "choose another --data-dir")

    if free < _LEAST_FREE:
        return Check("disk", "problem", says, f"make room; {size_text(_LEAST_FREE)} is the least")

    return Check("disk", "ok", says)


def _docker() -> Check:
    address = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")

    if not address.startswith("unix://"):
        return Check("Docker", "skipped", f"DOCKER_HOST is {address}; only a socket here is looked at")

    path = address.removeprefix("unix://")

    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1.0)
            connection.connect(path)
            connection.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
            answer = connection.recv(64)
    except PermissionError:
        return Check(
            "Docker",
            "warning",
            f"{path} may not be used by you",
            "sudo usermod -aG docker $USER, then log in anew",
        )
    except OSError:
        return Check("Docker", "skipped", "no engine answers here; the process runtime needs none")

    if b" 200 " in answer:
        return Check("Docker", "ok", f"an engine answers at {path}")

    return Check("Docker", "warning", f"what answers at {path} is no Docker engine", "look at DOCKER_HOST")


def _transport(config: ClientConfig) -> Check:
    host = config.address.rpartition(":")[0].strip("[]")

    try:
        loopback = ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        loopback = host == "localhost"

    if loopback:
        return Check("transport", "ok", "the server is on this machine; nothing crosses the network")

    return Check(
        "transport",
        "warning",
        f"{host} is another machine, and the connection is not encrypted",
        f"go through a tunnel: ssh -N -L 7070:127.0.0.1:{config.address.rpartition(':')[2]} {host}",
    )


def _versions(server: Server) -> Check:
    from datatailr.cli.about import skew_text

    mine = installed_release()
    skew = skew_text(mine, server.version)
    says = f"client {mine}, server {server.version}, protocol {server.protocol}: {skew}"

    if skew.startswith("the server is newer"):
        return Check("versions", "warning", says, f"pip install --upgrade 'opentailr=={server.version}'")

    if skew.startswith("the client is newer"):
        return Check("versions", "warning", says, "upgrade the server and start it again")

    return Check("versions", "ok", says)


def _clock(server: Server, places: Places) -> Check:
    page = server.page or _local_page(server, places)
    check = Check("clock", "skipped", "the server has no page that would tell its time")

    if not page:
        return check

    try:
        difference = _clock_difference(page)
    except (OSError, ValueError) as error:
        return replace(check, says=f"{page} does not tell the server's time: {error}")

    ahead = "ahead of" if difference > 0 else "behind"

    if abs(difference) <= _MOST_SKEW:
        return Check("clock", "ok", "this machine and the server agree on the time")

    return Check(
        "clock",
        "warning",
        f"this machine is {abs(difference):.0f} s {ahead} the server",
        "set both clocks by NTP: timedatectl set-ntp true",
    )


def _clock_difference(page: str, now: Callable[[], float] = time.time) -> float:
    """Seconds that this machine is ahead of the server of a page.

    Raises:
        OSError: it does not answer.
        ValueError: it does not tell the time, or is no page.
    """
    from email.utils import parsedate_to_datetime
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    if not page.startswith(("http://", "https://")):
        raise ValueError("it is no address of a page")

    begin = now()

    try:
        with urlopen(Request(page, method="HEAD"), timeout=2.0) as response:
            date = response.headers.get("Date")
    except HTTPError as error:
        # A refusal tells the time, too.
        with error:
            date = error.headers.get("Date")
    except HTTPException as error:
        raise ValueError(f"it speaks no HTTP ({type(error).__name__})") from None

    if not date:
        raise ValueError("its answer has no date")

    # The header leaves the part of a second away.
    return (begin + now()) / 2 - (parsedate_to_datetime(date).timestamp() + 0.5)


def _local_page(server: Server, places: Places) -> str:
    holder = places.holder()
    return str(holder.get("http") or "") if holder and holder.get("grpc") == server.address else ""


def _nodes(config: ClientConfig) -> Check:
    from datatailr.cli.asking import QUICK_SECONDS, quick_connection
    from datatailr.client.words import node_state_word
    from datatailr.v1 import node_pb2

    connection = quick_connection(config.address, config.token)

    try:
        nodes = connection.call(
            lambda s: s.nodes.ListNodes, node_pb2.ListNodesRequest(), timeout=QUICK_SECONDS
        ).nodes
    except DatatailrError as error:
        return Check("nodes", "skipped", str(error).partition("\n")[0])
    finally:
        connection.close()

    if not nodes:
        return Check(
            "nodes", "problem", "none has joined, so nothing can run", "start one: datatailr agent --help"
        )

    states = [(node.name, node_state_word(node.state)) for node in nodes]
    ready = sum(1 for _, state in states if state == "ready")
    others = ", ".join(f"{name} is {state}" for name, state in states if state != "ready")
    says = f"{ready} of {len(states)} ready{f'; {others}' if others else ''}"

    if not ready:
        return Check(
            "nodes", "problem", says, "dt node ls tells why; dt node resume NODE gives one work again"
        )

    return Check("nodes", "warning" if others else "ok", says, "dt node ls tells why" if others else "")
