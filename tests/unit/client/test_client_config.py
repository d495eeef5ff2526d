"""Where the server's address and token come from."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from datatailr.client.config import ClientConfig, config_path, load_config, save_config
from datatailr.errors import InvalidRequestError


def test_nothing_is_configured(tmp_path: Path) -> None:
    assert load_config({"XDG_CONFIG_HOME": str(tmp_path)}) is None


def test_the_file_is_private_and_read_back(tmp_path: Path) -> None:
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "new")}
    path = save_config("127.0.0.1:7070", "secret", path=config_path(environ))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text()) == {"address": "127.0.0.1:7070", "token": "secret"}
    assert load_config(environ) == ClientConfig("127.0.0.1:7070", "secret", str(path))
    assert [entry.name for entry in path.parent.iterdir()] == ["client.json"]


def test_the_environment_comes_first(tmp_path: Path) -> None:
    environ = {"XDG_CONFIG_HOME": str(tmp_path)}
    save_config("127.0.0.1:7070", "of-the-file", path=config_path(environ))
    environ |= {"DATATAILR_ADDRESS": "example:1", "DATATAILR_TOKEN": "mine"}
    assert load_config(environ) == ClientConfig("example:1", "mine", "DATATAILR_ADDRESS")


def test_the_token_of_the_file_is_not_shown_to_another_address(tmp_path: Path) -> None:
    environ = {"XDG_CONFIG_HOME": str(tmp_path)}
    save_config("127.0.0.1:7070", "of-the-file", path=config_path(environ))
    other = load_config(environ | {"DATATAILR_ADDRESS": "example:1"})
    same = load_config(environ | {"DATATAILR_ADDRESS": "127.0.0.1:7070"})
    assert other is not None and other.token == ""
    assert same is not None and same.token == "of-the-file"


def test_a_token_alone_replaces_that_of_the_file(tmp_path: Path) -> None:
    environ = {"XDG_CONFIG_HOME": str(tmp_path), "DATATAILR_TOKEN": "mine"}
    save_config("127.0.0.1:7070", "of-the-file", path=config_path(environ))
    loaded = load_config(environ)
    assert loaded is not None and (loaded.address, loaded.token) == ("127.0.0.1:7070", "mine")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "not JSON"),
        (b"[]", "not a JSON object"),
        (b'{"address": "a:1"}', "'token'"),
        (b'{"address": 1, "token": ""}', "'address'"),
        (b"\xff", "not UTF-8"),
        (b'{"address": "http://a:1", "token": ""}', "HOST:PORT"),
    ],
)
def test_a_broken_file_is_named_with_the_remedy(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "opentailr" / "client.json"
    path.parent.mkdir()
    path.write_bytes(content)

    with pytest.raises(InvalidRequestError) as caught:
        load_config({"XDG_CONFIG_HOME": str(tmp_path)})

    assert str(path) in str(caught.value)
    assert words in str(caught.value)
    assert "hint:" in str(caught.value)


def test_a_file_that_is_a_directory_is_named(tmp_path: Path) -> None:
    path = tmp_path / "opentailr" / "client.json"
    path.mkdir(parents=True)

    with pytest.raises(InvalidRequestError, match="Is a directory"):
        load_config({"XDG_CONFIG_HOME": str(tmp_path)})


@pytest.mark.parametrize("address", ["localhost", "http://a:1", "a:0", "a:70000", ":7070", "a b:1", "a:1/x"])
def test_a_malformed_address_is_named(address: str) -> None:
    with pytest.raises(InvalidRequestError, match="DATATAILR_ADDRESS"):
        load_config({"DATATAILR_ADDRESS": address})


@pytest.mark.parametrize("address", ["localhost:1", "[::1]:7070", "host.example:65535"])
def test_a_good_address_is_taken(address: str) -> None:
    loaded = load_config({"DATATAILR_ADDRESS": f" {address} ", "DATATAILR_TOKEN": "t"})
    assert loaded is not None and loaded.address == address


def test_the_token_is_not_in_the_repr() -> None:
    assert "geheim" not in repr(ClientConfig("a:1", "geheim", "x"))


def test_importing_it_loads_no_transport() -> None:
    code = (
        "import sys, datatailr.client, datatailr.client.config as c; c.load_config({});"
        "print([m for m in sys.modules if m.split('.')[0] in {'grpc', 'google', 'rich', 'typer'}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
