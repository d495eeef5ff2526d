"""The settings of a control plane: read once from the command line, checked, then frozen."""

from __future__ import annotations

import argparse
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from .logstore import DEFAULT_MAX_BYTES, DEFAULT_MIN_FREE_BYTES
from .retention_policy import Policy, PolicyError

LOG_LEVELS = ("debug", "info", "warning", "error")


class ConfigError(Exception):
    """A setting cannot be used; the text is one line that names it and the remedy."""


@dataclass(frozen=True)
class Settings:
    """Everything a control plane is told from outside."""

    data_dir: Path
    """Where all state lives; one process owns it."""
    host: str = "127.0.0.1"
    """Address of all ports; a loopback address."""
    grpc_port: int = 7070
    """Port for people and programs; 0 means a free one, kept over restarts."""
    agent_port: int = 7071
    """Port for agents; 0 as above."""
    http_port: int = 7080
    """Port of metrics and the status page; 0 as above."""
    ready_file: Path | None = None
    """Written, whole, once all ports answer; removed at the end."""
    log_level: str = "info"
    """Least level of the lines on standard error."""
    log_json: bool = False
    """Lines as JSON, for programs that collect logs."""
    max_log_bytes: int = DEFAULT_MAX_BYTES
    """Bound of one stream of one log."""
    max_object_bytes: int = 0
    """Bound of all objects together; 0 means the disk's."""
    min_free_disk_bytes: int = DEFAULT_MIN_FREE_BYTES
    """Bytes of the disk that logs and objects leave to the database, for outcomes to be written."""
    retain: Sequence[str] = ()
    """Rules for runs by environment, such as `dev=30d,10000`; see `retention_policy`."""
    retain_logs: Sequence[str] = ()
    """Rules for logs by environment, such as `dev=14d`."""

    def __post_init__(self) -> None:
        for name, port in (
            ("--grpc-port", self.grpc_port),
            ("--agent-port", self.agent_port),
            ("--http-port", self.http_port),
        ):
            if not 0 <= port <= 65535:
                raise ConfigError(f"{name} is {port}; give a port from 1 to 65535, or 0 for any free one")
        fixed = [port for port in (self.grpc_port, self.agent_port, self.http_port) if port]
        if len(set(fixed)) != len(fixed):
            raise ConfigError("--grpc-port, --agent-port and --http-port must differ")
        if not is_loopback(self.host):
            raise ConfigError(
                f"--host is {self.host!r}, which other machines can reach, but this server has no TLS: "
                "tokens would travel in clear; use 127.0.0.1, and an SSH tunnel for other machines"
            )
        if self.log_level not in LOG_LEVELS:
            raise ConfigError(f"--log-level is {self.log_level!r}; use one of {', '.join(LOG_LEVELS)}")
        if self.max_log_bytes < 1024:
            raise ConfigError(f"--max-log-bytes is {self.max_log_bytes}; give at least 1024")
        if self.max_object_bytes < 0:
            raise ConfigError(f"--max-object-bytes is {self.max_object_bytes}; give a number of bytes, or 0")
        if self.min_free_disk_bytes < 0:
            raise ConfigError(
                f"--min-free-disk-bytes is {self.min_free_disk_bytes}; give a number of bytes, or 0"
            )
        if self.ready_file is not None and not self.ready_file.parent.is_dir():
            raise ConfigError(f"--ready-file {self.ready_file}: its directory does not exist; make it first")
        try:
            self.policy()
        except PolicyError as error:
            raise ConfigError(str(error)) from None

    def policy(self) -> Policy:
        """How long things are kept."""
        return Policy.parse(self.retain, self.retain_logs)


def is_loopback(host: str) -> bool:
    """True for addresses that only this machine reaches."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see --help")


def parse(arguments: Sequence[str]) -> Settings:
    """Settings from command-line arguments. Raises ConfigError."""
    parser = _Parser(
        prog="python -m opentailr_controlplane",
        description="Runs the control plane of Opentailr in the foreground.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--data-dir", type=Path, required=True, help="directory of all state; made if missing")
    add("--host", default=Settings.host, help="loopback address of all ports (%(default)s)")
    add("--grpc-port", type=int, default=Settings.grpc_port, help="port for people (%(default)s)")
    add("--agent-port", type=int, default=Settings.agent_port, help="port for agents (%(default)s)")
    add("--http-port", type=int, default=Settings.http_port, help="metrics, status (%(default)s)")
    add("--ready-file", type=Path, help="JSON with addresses and token, there while it serves")
    add("--log-level", default=Settings.log_level, help="debug, info, warning or error (%(default)s)")
    add("--log-json", action="store_true", help="log lines as JSON")
    add("--max-log-bytes", type=int, default=Settings.max_log_bytes, help="bound of one log (%(default)s)")
    add(
        "--max-object-bytes",
        type=int,
        default=Settings.max_object_bytes,
        help="bound of all objects; 0: none",
    )
    add(
        "--min-free-disk-bytes",
        type=int,
        default=Settings.min_free_disk_bytes,
        help="free space that logs and objects leave to the database (%(default)s)",
    )
    add(
        "--retain",
        action="append",
        default=[],
        metavar="ENV=AGE[,COUNT]",
        help="age and number of finished runs kept of a job: dev=30d,10000; forever, 0: no limit",
    )
    add(
        "--retain-logs",
        action="append",
        default=[],
        metavar="ENV=AGE",
        help="how long the logs of finished runs are kept: dev=14d",
    )
    return Settings(**vars(parser.parse_args(arguments)))
