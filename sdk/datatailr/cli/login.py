"""`datatailr login`, `logout` and `export-auth`: which server, and the right to talk to it (clause B275)."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

import typer

from datatailr.cli.exits import Exit
from datatailr.cli.output import print_json, tell, time_text
from datatailr.cli.session import JsonOption
from datatailr.client.config import (
    ADDRESS_VARIABLE,
    TOKEN_VARIABLE,
    check_address,
    config_path,
    load_config,
    replace_config,
)
from datatailr.errors import InvalidRequestError, NotConfiguredError

BASE_URL: Final = "DATATAILR_BASE_URL"
USER_NAME: Final = "DATATAILR_USER_NAME"
USER_PASSWORD: Final = "DATATAILR_USER_PASSWORD"

_DEFAULT_PORT: Final = 7070


@dataclass(frozen=True)
class LocalPlatform:
    """The platform that `datatailr up` runs on this machine for this user."""

    grpc: str
    http: str
    token: str = field(repr=False)


def login(
    *,
    url: Annotated[
        str | None,
        typer.Option(
            "--url", metavar="HOST:PORT", help="gRPC address of the server; http:// may precede it."
        ),
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", metavar="FILE", help="File with the token; - is stdin.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Sign in: check a token with the server and keep both for Python and `dt`.

    This release knows people by their tokens; there is no sign-in by browser yet. Without --url the
    platform of `datatailr up` on this machine is found by itself. For programs that sign in without a
    terminal DATATAILR_BASE_URL, DATATAILR_USER_NAME and DATATAILR_USER_PASSWORD may be set together; the
    password is then the token.

    Examples: `datatailr login` and `datatailr login --url build-7:7070 --token-file token.txt`.
    """
    local = local_platform()
    named = _by_password() if url is None and token_file is None else None
    address = _address(url or (named[0] if named else None), local)
    token = named[2] if named else _token(token_file, address, local)

    from datatailr.cli.asking import ask

    server = ask(address, token)

    if named and server.user != named[1]:
        raise InvalidRequestError(
            f"{USER_NAME} is {named[1]!r}, but the token of {USER_PASSWORD} belongs to {server.user!r}\n"
            f"hint: set {USER_NAME}={server.user}, or give the other user's token"
        )

    path, notice = replace_config(address, token)

    if notice:
        tell(f"note: {notice}")

    if json:
        answer = {"address": address, "user": server.user, "expires": server.expires or None}
        print_json({**answer, "server_version": server.version, "config": str(path)}, pretty=True)
        return

    until = f"until {time_text(server.expires)}" if server.expires else "the token does not expire"
    print(f"Signed in to {address} (version {server.version}) as {server.user}; {until}.")
    tell(f"Kept in {path}. `datatailr logout` forgets it.")

    if os.environ.get(ADDRESS_VARIABLE, "").strip() not in ("", address):
        tell(f"note: {ADDRESS_VARIABLE} names another server and goes before it")


def logout() -> None:
    """Forget server and token; the environment variables stay as they are.

    Examples: `datatailr logout` and `datatailr logout && datatailr login --url build-7:7070`.
    """
    path = config_path()

    try:
        path.unlink()
    except FileNotFoundError:
        print("not signed in")
    except OSError as error:
        raise InvalidRequestError(f"cannot remove {path}: {error.strerror}") from None
    else:
        print(f"signed out; {path} is removed")

    for name in (ADDRESS_VARIABLE, TOKEN_VARIABLE):
        if os.environ.get(name):
            tell(f"note: {name} is still set in this shell")


def export_auth(
    *,
    shell: Annotated[
        bool, typer.Option("--shell", help="For sh, bash and zsh; so it is without it.")
    ] = False,
    fish: Annotated[bool, typer.Option("--fish", help="For fish.")] = False,
) -> None:
    """Print the commands that give server and token to a shell, and so to the programs started in it.

    They hold the token: evaluate them, do not keep them.

    Examples: `eval "$(datatailr export-auth)"` and `datatailr export-auth --fish | source`.
    """
    if shell and fish:
        raise typer.BadParameter("give either --shell or --fish", param_hint="--fish")

    config = load_config()

    if config is None:
        raise NotConfiguredError

    for name, value in ((ADDRESS_VARIABLE, config.address), (TOKEN_VARIABLE, config.token)):
        print(f"set -gx {name} {_fish_quoted(value)}" if fish else f"export {name}={shlex.quote(value)}")


def local_platform() -> LocalPlatform | None:
    """The platform of `datatailr up` in the default data directory; None when none is ready."""
    from datatailr.cli.places import Places, default_data_dir

    places = Places(default_data_dir())
    holder = places.holder()

    if holder is None or not holder.get("grpc"):
        return None

    try:
        token = places.admin_token.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None

    return LocalPlatform(str(holder["grpc"]), str(holder.get("http") or ""), token)


def _by_password() -> tuple[str, str, str] | None:
    """Address, user and token of the three variables of clause B275, if they are set together.

    Raises:
        InvalidRequestError: some of them are set, but not all.
    """
    values = [os.environ.get(name, "").strip() for name in (BASE_URL, USER_NAME, USER_PASSWORD)]

    if not any(values[1:]):
        return None

    missing = [name for name, value in zip((BASE_URL, USER_NAME, USER_PASSWORD), values) if not value]

    if missing:
        raise InvalidRequestError(
            f"{BASE_URL}, {USER_NAME} and {USER_PASSWORD} must be set together; missing: {', '.join(missing)}"
        )

    return values[0], values[1], values[2]


def _address(given: str | None, local: LocalPlatform | None) -> str:
    for text, source in (
        (given, "--url" if given != os.environ.get(BASE_URL) else BASE_URL),
        (os.environ.get(BASE_URL, "").strip(), BASE_URL),
        (os.environ.get(ADDRESS_VARIABLE, "").strip(), ADDRESS_VARIABLE),
    ):
        if text:
            return _from_url(text, source, local)

    if local is not None:
        return local.grpc

    config = load_config()

    if config is not None:
        return config.address

    raise NotConfiguredError(
        "no platform runs on this machine, and no address is given\n"
        "hint: start one with `datatailr up`, or name one: datatailr login --url HOST:7070"
    )


def _from_url(text: str, source: str, local: LocalPlatform | None) -> str:
    """`HOST:PORT` of an address that may be written as a URL."""
    bare = text.rstrip("/")

    if bare.startswith("https://"):
        raise InvalidRequestError(
            f"{source}: {text!r} asks for TLS, which this release does not speak\n"
            "hint: reach the server through a tunnel and give its end here, for instance 127.0.0.1:7070"
        )

    if local is not None and local.http and bare == local.http.rstrip("/"):
        return local.grpc

    bare = bare.removeprefix("http://").removeprefix("grpc://")
    _host, colon, _ = bare.rpartition(":")

    if not colon or bare.endswith("]"):
        bare = f"{bare}:{_DEFAULT_PORT}"

    return check_address(bare, source=source)


def _token(file: Path | None, address: str, local: LocalPlatform | None) -> str:
    if file is not None:
        return _read_token(file)

    token = os.environ.get(TOKEN_VARIABLE, "").strip()

    if token:
        return token

    if local is not None and address == local.grpc:
        return local.token

    if not sys.stdin.isatty():
        tell(
            f"error: no token for {address}, and no terminal to ask for one",
            f"hint: give it with --token-file FILE (- is stdin), or in {TOKEN_VARIABLE}",
        )
        raise typer.Exit(int(Exit.NOT_SIGNED_IN))

    from getpass import getpass

    tell("Paste a token; the administrator finds the first one in controlplane/admin.token of the server.")
    token = getpass("token: ").strip()

    if not token:
        tell("error: nothing was given; nothing is changed")
        raise typer.Exit(int(Exit.NOT_SIGNED_IN))

    return token


def _read_token(file: Path) -> str:
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise typer.BadParameter(f"cannot read {file}: {reason}", param_hint="--token-file") from None

    token = text.strip()

    if not token or len(token.split()) != 1 or not token.isascii():
        raise typer.BadParameter(f"{file} does not hold one token", param_hint="--token-file")

    return token


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
