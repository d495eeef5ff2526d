"""`datatailr version` and `info`: what is installed here, and where everything lies."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from datatailr.cli.output import print_aligned, print_json, print_table
from datatailr.cli.places import Places, default_data_dir, read_json
from datatailr.cli.servers import installed_release, startable_servers
from datatailr.cli.session import JsonOption
from datatailr.client.config import ADDRESS_VARIABLE, TOKEN_VARIABLE, ClientConfig, config_path, load_config
from datatailr.errors import DatatailrError


def version(
    *,
    json: JsonOption = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="Do not ask the server for its version.")
    ] = False,
) -> None:
    """Print the versions of this installation and of the server, and whether they fit.

    Examples: `datatailr version` and `datatailr version --json --offline`.
    """
    answer = versions(ask_server=not offline)

    if json:
        print_json(answer, pretty=True)
    else:
        print(version_line(answer))


def versions(*, ask_server: bool = True) -> dict[str, Any]:
    """What is installed here and what the configured server is.

    `server` is None when no server is configured or asked; its `error` tells why it gave no version.
    """
    from datatailr.client.status import PROTOCOL_VERSION

    answer: dict[str, Any] = {
        "opentailr": installed_release(),
        "protocol": PROTOCOL_VERSION,
        "python": ".".join(map(str, sys.version_info[:3])),
        "servers": startable_servers(),
        "server": None,
    }

    if not ask_server:
        return answer

    try:
        config = load_config()
    except DatatailrError:
        return answer

    if config is None:
        return answer

    from datatailr.cli.asking import ask

    found: dict[str, Any] = {"address": config.address, "version": None, "error": None}

    try:
        found["version"] = ask(config.address, config.token).version
    except DatatailrError as error:
        found["error"] = str(error).partition("\n")[0]

    answer["server"] = found
    return answer


def version_line(answer: dict[str, Any]) -> str:
    """The versions in one line."""
    line = f"opentailr {answer['opentailr']}, protocol {answer['protocol']}, Python {answer['python']}"
    server = answer["server"]

    if server is None:
        return f"{line}; no server asked"

    if server["error"]:
        return f"{line}; server at {server['address']}: {server['error']}"

    skew = skew_text(answer["opentailr"], server["version"])
    return f"{line}; server at {server['address']}: {server['version']} ({skew})"


def skew_text(client: str, server: str) -> str:
    """How the versions of client and server stand to each other."""
    if client == server:
        return "same version"

    mine, other = _numbers(client), _numbers(server)

    if not mine or not other or mine == other:
        return "another version; the protocols fit"

    return f"the {'server' if other > mine else 'client'} is newer; the protocols fit"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.partition("+")[0].split(".") if part.isdigit())


@dataclass(frozen=True)
class Fact:
    """One line of `info`: a value and where it comes from."""

    name: str
    value: str
    origin: str


def info(
    *,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", metavar="DIR", help="Directory of `datatailr up`.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Print every path, port and setting in use here, with the origin of each; no secret is shown.

    Examples: `datatailr info` and `datatailr info --json`.
    """
    facts = list_facts(data_dir)

    if json:
        print_json([asdict(fact) for fact in facts], pretty=True)
    elif sys.stdout.isatty():
        print_table(("WHAT", "VALUE", "FROM"), [(fact.name, fact.value, fact.origin) for fact in facts])
    else:
        print_aligned([(fact.name, fact.value, fact.origin) for fact in facts])


def list_facts(data_dir: Path | None = None) -> list[Fact]:
    """Everything that `info` prints."""
    from datatailr.cli.completion import cache_folder

    places = Places((data_dir or default_data_dir()).absolute())
    data_origin = "--data-dir" if data_dir else _folder_origin("XDG_DATA_HOME")
    facts = [
        Fact("release", installed_release(), "the installed package"),
        Fact("python", sys.executable, "this interpreter"),
        Fact("package", str(Path(__file__).resolve().parents[1]), "the installed package"),
        *_client_facts(),
        Fact("data directory", str(places.root), data_origin),
        Fact("control plane's data", str(places.controlplane), "below the data directory"),
        Fact("agent's data", str(places.agent), "below the data directory"),
        Fact("logs of the processes", str(places.log("x").parent), "below the data directory"),
        Fact("ready files", str(places.ready("x").parent), "below the data directory"),
        Fact("completion cache", str(cache_folder()), _folder_origin("XDG_CACHE_HOME")),
        *_port_facts(places),
    ]
    variables = ("DATATAILR_PROGRESS", "NO_COLOR", "DATATAILR_BASE_URL", "DATATAILR_USER_NAME")
    facts += [Fact(name, os.environ[name], "the environment") for name in variables if name in os.environ]
    return facts


def _client_facts() -> list[Fact]:
    path = config_path()
    origin = _folder_origin("XDG_CONFIG_HOME")
    facts = [Fact("client configuration", f"{path}{'' if path.is_file() else ' (not there)'}", origin)]

    try:
        config = load_config()
    except DatatailrError as error:
        return [*facts, Fact("server", "unknown", str(error).partition("\n")[0])]

    if config is None:
        return [*facts, Fact("server", "not configured", "`datatailr login` or `datatailr up` sets it")]

    return [
        *facts,
        Fact("server", config.address, config.source),
        Fact("token", "set, not shown" if config.token else "none", _token_origin(config)),
    ]


def _token_origin(config: ClientConfig) -> str:
    if os.environ.get(TOKEN_VARIABLE, "").strip():
        return TOKEN_VARIABLE

    return str(config_path()) if config.source == ADDRESS_VARIABLE and config.token else config.source


def _port_facts(places: Places) -> list[Fact]:
    from datatailr.cli.platform import DEFAULT_AGENT_PORT, DEFAULT_GRPC_PORT, DEFAULT_HTTP_PORT

    ports = {
        "gRPC": DEFAULT_GRPC_PORT,
        "gRPC for agents": DEFAULT_AGENT_PORT,
        "page": DEFAULT_HTTP_PORT,
    }
    holder = places.holder()

    if holder is not None and holder.get("grpc"):
        ready = read_json(places.ready("controlplane")) or {}
        found = (holder["grpc"], ready.get("agent_grpc") or "-", holder.get("http") or "-")
        origin = f"the running platform, process {holder['pid']}"
        return [Fact(name, str(value), origin) for name, value in zip(ports, found)]

    return [Fact(name, f"port {number}", "default of `datatailr up`") for name, number in ports.items()]


def _folder_origin(variable: str) -> str:
    return variable if os.path.isabs(os.environ.get(variable, "")) else "default"
