"""Where the control plane is and which token to show it.

Two sources, the first one that names an address wins:

1. the environment variables `DATATAILR_ADDRESS` (`HOST:PORT`) and `DATATAILR_TOKEN`;
2. the file `$XDG_CONFIG_HOME/opentailr/client.json` (`~/.config/opentailr/client.json` when the
   variable is not set), JSON with the members `address` and `token`, readable by its owner only.

`DATATAILR_TOKEN` alone replaces the token of the file. A token of the file is never shown to an
address that comes from the environment, unless both name the same address.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from datatailr._files import user_folder, write_private
from datatailr.errors import InvalidRequestError

ADDRESS_VARIABLE = "DATATAILR_ADDRESS"
TOKEN_VARIABLE = "DATATAILR_TOKEN"

_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[^\s/:\[\]]+):(?P<port>\d{1,5})")


@dataclass(frozen=True)
class ClientConfig:
    """One server and the right to talk to it.

    Attributes:
        address: `HOST:PORT` of the gRPC server.
        token: The bearer token; empty when none was found. Never printed by `repr`.
        source: Where the address came from, for error messages.
    """

    address: str
    token: str = field(repr=False)
    source: str


def config_path(environ: Mapping[str, str] | None = None) -> Path:
    """Path of the configuration file, whether it exists or not."""
    return user_folder("XDG_CONFIG_HOME", ".config", environ) / "client.json"


def check_address(address: str, *, source: str) -> str:
    """Return `address` without blanks around it.

    Raises:
        InvalidRequestError: it is not of the form `HOST:PORT`; names `source` and the value.
    """
    address = address.strip()
    match = _ADDRESS.fullmatch(address)

    if match is None or not 0 < int(match["port"]) < 65536:
        raise InvalidRequestError(
            f"{source}: the address {address!r} is not of the form HOST:PORT\n"
            "hint: write it without a scheme or path, for instance 127.0.0.1:7070"
        )

    return address


def load_config(environ: Mapping[str, str] | None = None) -> ClientConfig | None:
    """Find the server to talk to; None when no source names an address.

    Raises:
        InvalidRequestError: the file cannot be read or understood, or an address is malformed.
    """
    environ = os.environ if environ is None else environ
    address = environ.get(ADDRESS_VARIABLE, "").strip()
    token = environ.get(TOKEN_VARIABLE, "").strip()
    path = config_path(environ)

    if address:
        address = check_address(address, source=ADDRESS_VARIABLE)

        if not token:
            token = _token_for(address, path)

        return ClientConfig(address, token, ADDRESS_VARIABLE)

    stored = _read(path)

    if stored is None:
        return None

    return ClientConfig(stored.address, token or stored.token, stored.source)


def save_config(address: str, token: str, *, path: Path | None = None) -> Path:
    """Write the configuration file whole, with mode 0600, and return its path.

    Raises:
        InvalidRequestError: the file cannot be written.
    """
    path = config_path() if path is None else path
    document = json.dumps({"address": address, "token": token}, indent=2) + "\n"

    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(path, document)
    except OSError as error:
        raise InvalidRequestError(
            f"cannot write the client configuration {path}: {error.strerror or error}\n"
            f"hint: set {ADDRESS_VARIABLE} and {TOKEN_VARIABLE} instead, or XDG_CONFIG_HOME to a folder "
            "that you may write to"
        ) from None

    return path


def replace_config(address: str, token: str) -> tuple[Path, str]:
    """Write the configuration file; one for another server is kept beside it.

    Its token may exist nowhere else. A file that cannot be understood is kept, too.

    Returns:
        The path of the file, and what became of the earlier one; empty when nothing had to be kept.

    Raises:
        InvalidRequestError: the file cannot be written.
    """
    path = config_path()
    earlier = ""

    try:
        present = _read(path)

        if present is not None and present.address != address:
            earlier = f"the client configuration for {present.address}"
    except InvalidRequestError:
        earlier = "the client configuration that could not be read" if path.is_file() else ""

    if not earlier:
        return save_config(address, token, path=path), ""

    kept = path.with_suffix(".json.old")

    try:
        os.replace(path, kept)
    except OSError as error:
        raise InvalidRequestError(f"cannot keep {path} as {kept}: {error.strerror or error}") from None

    return save_config(address, token, path=path), f"{earlier} is now {kept}"


def _token_for(address: str, path: Path) -> str:
    """Token of the file if it belongs to `address`; a broken file is no obstacle here."""
    try:
        stored = _read(path)
    except InvalidRequestError:
        return ""

    return stored.token if stored is not None and stored.address == address else ""


def _read(path: Path) -> ClientConfig | None:
    remedy = f"\nhint: repair or delete it, or set {ADDRESS_VARIABLE} and {TOKEN_VARIABLE}"

    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InvalidRequestError(f"cannot read the client configuration {path}: {reason}{remedy}") from None

    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidRequestError(
            f"the client configuration {path} is not JSON: {error.msg} in line {error.lineno}{remedy}"
        ) from None

    if not isinstance(document, dict):
        raise InvalidRequestError(f"the client configuration {path} is not a JSON object{remedy}")

    for member in ("address", "token"):
        if not isinstance(document.get(member), str):
            raise InvalidRequestError(
                f"the client configuration {path} has no text member {member!r}{remedy}"
            )

    address = check_address(document["address"], source=str(path))
    return ClientConfig(address, document["token"].strip(), str(path))
