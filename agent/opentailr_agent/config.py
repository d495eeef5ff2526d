"""Settings of an agent: from flags, checked once, then frozen."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from opentailr_agent.logs.budget import SPOOL_LIMIT

_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SIZE: Final = re.compile(r"^(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?$", re.IGNORECASE)
_MEMORY_SHARE: Final = 0.9
"""Of the machine's memory that is offered by default; the rest is for the system and ourselves."""


class ConfigError(ValueError):
    """A flag that cannot be right; the message names it and says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that an agent is told."""

    data_dir: Path
    address: str
    """`HOST:PORT` of the control plane's port for agents."""
    token: str
    """Bearer token; never shown."""
    ready_file: Path | None
    name: str
    """For people."""
    memory_bytes: int
    """Offered to attempts; a hard resource (clause B65a)."""
    cpu: float
    """Cores offered: the machine's times `--cpu-factor`, or what `--cpu` says."""
    slots: int
    """Most attempts at once."""
    runtime: str = "process"
    soft_memory_limit: int = 1 << 30
    """Bytes at which an attempt ends whose memory came from a default (clause B65a)."""
    strict_python: bool = False
    allow_pre_scripts: bool = False
    stop_attempts_on_exit: bool = False
    object_cache_bytes: int = 10 << 30
    min_free_disk: int = 512 << 20
    """Bytes; below it the node takes nothing new."""
    log_spool_bytes: int = SPOOL_LIMIT
    """Bytes that logs may take on this host's disk until they are stored; at most half of what is free."""

    def __repr__(self) -> str:
        return f"<settings of agent {self.name!r}: {self.data_dir} -> {self.address}>"


def parse_size(text: str, *, flag: str) -> int:
    """Bytes of a size like `512m`, `1.5g` or `1073741824`.

    Raises:
        ConfigError: The text is no positive size.
    """
    match = _SIZE.match(text.strip())
    size = int(float(match[1]) * _UNITS[match[2].lower()]) if match else 0

    if size <= 0:
        raise ConfigError(f"{flag} {text!r} is no size; write for instance 512m or 8g")

    return size


def load(arguments: Sequence[str] | None = None) -> Settings:
    """Reads and checks the command line.

    Raises:
        ConfigError: A value cannot be right.
        SystemExit: argparse refused the form of the command line (code 2), or help was asked for.
    """
    flags = _parser().parse_args(arguments)
    _check_address(flags.address)
    cores = os.cpu_count() or 1

    if flags.cpu_factor <= 0:
        raise ConfigError(f"--cpu-factor {flags.cpu_factor} must be above 0")

    if flags.cpu is not None and flags.cpu <= 0:
        raise ConfigError(f"--cpu {flags.cpu} must be above 0")

    if not 1 <= flags.slots <= 10_000:
        raise ConfigError(f"--slots {flags.slots} must lie between 1 and 10000")

    if flags.runtime != "process":
        raise ConfigError(f"--runtime {flags.runtime!r} is not known; this agent has `process`")

    memory = machine_memory()
    return Settings(
        data_dir=flags.data_dir.expanduser().absolute(),
        address=flags.address,
        token=_token(flags.token_file.expanduser()),
        ready_file=flags.ready_file.expanduser().absolute() if flags.ready_file else None,
        name=flags.name or os.uname().nodename,
        memory_bytes=(
            parse_size(flags.memory, flag="--memory") if flags.memory else int(memory * _MEMORY_SHARE)
        ),
        cpu=flags.cpu if flags.cpu is not None else cores * flags.cpu_factor,
        slots=flags.slots,
        runtime=flags.runtime,
        soft_memory_limit=parse_size(flags.soft_memory_limit, flag="--soft-memory-limit"),
        strict_python=flags.strict_python,
        allow_pre_scripts=flags.allow_pre_scripts,
        stop_attempts_on_exit=flags.stop_attempts_on_exit,
        object_cache_bytes=parse_size(flags.object_cache, flag="--object-cache"),
        min_free_disk=parse_size(flags.min_free_disk, flag="--min-free-disk"),
        log_spool_bytes=parse_size(flags.log_spool, flag="--log-spool"),
    )


def machine_memory() -> int:
    """Bytes of memory of this machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="opentailr_agent", description="Runs the attempts that a control plane gives to this host."
    )
    add = parser.add_argument
    add("--data-dir", type=Path, required=True, help="folder for everything the agent keeps")
    add("--address", required=True, metavar="HOST:PORT", help="the control plane's port for agents")
    add("--token-file", type=Path, required=True, help="file with the token for agents")
    add("--ready-file", type=Path, help="written when the first session is active, removed at exit")
    add("--name", default="", help="name of the node for people; the host's name unless given")
    add("--runtime", default="process", help="how attempts run: process")
    add("--memory", default="", help="memory offered to attempts; 90%% of the machine's unless given")
    add("--cpu", type=float, help="cores offered; the machine's times --cpu-factor unless given")
    add(
        "--cpu-factor",
        type=float,
        default=8.0,
        help="attempts may together ask for this multiple of the cores",
    )
    add("--slots", type=int, default=64, help="most attempts at once")
    add(
        "--soft-memory-limit",
        default="1g",
        help="where an attempt ends out_of_memory whose memory came from a default",
    )
    add("--strict-python", action="store_true", help="never use another Python version than the wanted one")
    add("--allow-pre-scripts", action="store_true", help="let build_script_pre run on this host")
    add("--stop-attempts-on-exit", action="store_true", help="end all attempts when the agent is ended")
    add("--object-cache", default="10g", help="bound of the cache of objects")
    add("--min-free-disk", default="512m", help="take nothing new below this free space")
    add("--log-spool", default="2g", help="bound of the logs on this host's disk that are not stored yet")
    return parser


def _check_address(address: str) -> None:
    host, _, port = address.rpartition(":")

    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigError(f"--address {address!r} is not HOST:PORT")

    bare = host.strip("[]")

    try:
        local = ip_address(bare).is_loopback
    except ValueError:
        local = bare == "localhost"

    if not local:
        raise ConfigError(
            f"--address {address!r} is not on this machine, and the connection has no TLS: the token would "
            "travel in the clear. Use an address of the loopback interface, for instance an SSH tunnel"
        )


def _token(path: Path) -> str:
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"--token-file {path} cannot be read: {error}") from error

    if not token or not token.isprintable() or not token.isascii() or " " in token:
        raise ConfigError(f"--token-file {path} holds no token; it should be one line of plain characters")

    return token
