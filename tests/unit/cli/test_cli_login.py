"""`datatailr login`, `logout`, `export-auth`, `version`, `info` and `doctor`."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_server import TOKEN, FakeState

from datatailr.cli import doctor as doctor_module
from datatailr.cli.about import skew_text
from datatailr.cli.exits import Exit
from datatailr.cli.places import Places, default_data_dir, start_of, write_json
from datatailr.client.config import config_path, load_config, save_config
from datatailr.v1 import node_pb2

Run = Callable[..., Any]


@pytest.fixture
def address(state: FakeState, monkeypatch: pytest.MonkeyPatch) -> str:
    """A server that nothing is configured for."""
    found = os.environ["DATATAILR_ADDRESS"]
    monkeypatch.delenv("DATATAILR_ADDRESS")
    monkeypatch.delenv("DATATAILR_TOKEN")
    return found


def up_here(address: str, http: str = "http://127.0.0.1:1") -> Places:
    """What a `datatailr up` of the default data directory, this process, leaves."""
    places = Places(default_data_dir())
    places.make()
    places.controlplane.mkdir()
    places.admin_token.write_text(TOKEN + "\n")
    pid = os.getpid()
    write_json(places.state_file, {"pid": pid, "started": start_of(pid), "grpc": address, "http": http})
    return places


@pytest.mark.clause("B275")
@pytest.mark.parametrize("before", ["", "http://", "grpc://"])
def test_login_with_a_token_file(datatailr: Run, address: str, tmp_path: Path, before: str) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    done = datatailr("login", "--url", f"{before}{address}", "--token-file", str(tmp_path / "token"))
    assert done.code == 0 and TOKEN not in done.out + done.err
    assert done.out.startswith(f"Signed in to {address} (version ")
    config = load_config()
    assert config is not None and (config.address, config.token) == (address, TOKEN)
    assert stat.S_IMODE(config_path().stat().st_mode) == 0o600


@pytest.mark.clause("B275")
def test_login_finds_the_platform_of_this_machine(datatailr: Run, address: str) -> None:
    places = up_here(address, "http://127.0.0.1:7999")
    assert json.loads(datatailr("login", "--json").out)["address"] == address
    assert datatailr("login", "--url", "http://127.0.0.1:7999/").code == 0
    places.admin_token.unlink()
    config_path().unlink()
    assert datatailr("login").code == Exit.NOT_SIGNED_IN


@pytest.mark.clause("B275")
def test_login_by_the_three_variables(
    datatailr: Run, address: str, state: FakeState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATATAILR_USER_PASSWORD", TOKEN)
    done = datatailr("login")
    assert done.code == 1 and "missing: DATATAILR_BASE_URL, DATATAILR_USER_NAME" in done.err
    monkeypatch.setenv("DATATAILR_BASE_URL", f"http://{address}")
    monkeypatch.setenv("DATATAILR_USER_NAME", "nobody-else")
    done = datatailr("login")
    assert done.code == 1 and "'nobody-else'" in done.err and not config_path().exists()
    monkeypatch.setenv("DATATAILR_USER_NAME", done.err.partition("belongs to '")[2].partition("'")[0])
    assert datatailr("login").code == 0
    config = load_config()
    assert config is not None and config.token == TOKEN


def test_login_refuses_and_changes_nothing(datatailr: Run, address: str, tmp_path: Path) -> None:
    wrong, empty = tmp_path / "wrong", tmp_path / "empty"
    wrong.write_text("not-it")
    empty.write_text("\n")
    save_config("elsewhere:7070", "precious")
    before = config_path().read_bytes()
    cases = [
        (["--url", address, "--token-file", str(wrong)], Exit.NOT_SIGNED_IN, "token"),
        (["--url", address, "--token-file", str(empty)], Exit.USAGE, "does not hold one token"),
        (["--url", address, "--token-file", str(tmp_path / "none")], Exit.USAGE, "No such file"),
        (["--url", f"https://{address}"], Exit.FAILED, "TLS"),
        (["--url", "http://"], Exit.FAILED, "HOST:PORT"),
        (["--url", address], Exit.NOT_SIGNED_IN, "--token-file"),
        (["--url", "127.0.0.1:1", "--token-file", str(wrong)], Exit.UNREACHABLE, "127.0.0.1:1"),
    ]

    for arguments, code, words in cases:
        done = datatailr("login", *arguments)
        assert (done.code, words in done.err) == (code, True), (arguments, done)
        assert config_path().read_bytes() == before and done.out == ""


def test_login_keeps_the_configuration_of_another_server(
    datatailr: Run, address: str, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    save_config("elsewhere:7070", "precious")
    done = datatailr("login", "--url", address, "--token-file", str(tmp_path / "token"))
    assert "elsewhere:7070" in done.err and "precious" not in done.out + done.err
    assert "precious" in config_path().with_suffix(".json.old").read_text()


@pytest.mark.clause("B275")
def test_logout(datatailr: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_config("here:7070", "secret")
    monkeypatch.setenv("DATATAILR_TOKEN", "other-secret")
    done = datatailr("logout")
    assert done.code == 0 and not path.exists()
    assert "DATATAILR_TOKEN is still set" in done.err and "secret" not in done.out + done.err.replace(
        "TOKEN", ""
    )
    assert datatailr("logout").out == "not signed in\n"


@pytest.mark.clause("B275")
@pytest.mark.parametrize("token", ["plain", 'it\'s $HOME "and" `more` \\ *'])
def test_export_auth_survives_the_shell(datatailr: Run, token: str) -> None:
    save_config("here:7070", token)
    text = datatailr("export-auth", "--shell").out
    assert datatailr("export-auth").out == text
    shown = 'printf "%s %s" "$DATATAILR_ADDRESS" "$DATATAILR_TOKEN"'
    done = subprocess.run(["bash", "-c", f"{text}{shown}"], capture_output=True, text=True, check=True)
    assert done.stdout == f"here:7070 {token}"
    fish = datatailr("export-auth", "--fish").out
    assert fish.startswith("set -gx DATATAILR_ADDRESS 'here:7070'\nset -gx DATATAILR_TOKEN '")
    assert datatailr("export-auth", "--fish", "--shell").code == Exit.USAGE


def test_export_auth_needs_a_configuration(datatailr: Run) -> None:
    done = datatailr("export-auth")
    assert done.code == Exit.NOT_SIGNED_IN and done.out == ""


@pytest.mark.clause("B275")
def test_version_is_one_line(datatailr: Run, state: FakeState, monkeypatch: pytest.MonkeyPatch) -> None:
    line = datatailr("version").out
    assert line.count("\n") == 1 and os.environ["DATATAILR_ADDRESS"] in line and "protocol 1" in line
    assert json.loads(datatailr("version", "-j", "--offline").out)["server"] is None
    monkeypatch.setenv("DATATAILR_ADDRESS", "127.0.0.1:1")
    away = datatailr("version")
    assert away.code == 0 and "127.0.0.1:1" in away.out and away.out.count("\n") == 1


def test_skew() -> None:
    assert skew_text("0.1.0", "0.1.0") == "same version"
    assert skew_text("0.9.0", "0.10.0").startswith("the server is newer")
    assert skew_text("1.0", "0.10.0").startswith("the client is newer")
    assert skew_text("unknown", "0.1.0") == "another version; the protocols fit"


def test_info_tells_values_with_their_origin(
    datatailr: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    save_config("here:7070", "secret-token")
    facts = {fact["name"]: fact for fact in json.loads(datatailr("info", "--json").out)}
    assert facts["server"]["value"] == "here:7070" and facts["server"]["origin"] == str(config_path())
    assert facts["gRPC"] == {"name": "gRPC", "value": "port 7070", "origin": "default of `datatailr up`"}
    assert facts["data directory"]["origin"] == "XDG_DATA_HOME"
    monkeypatch.setenv("DATATAILR_ADDRESS", "there:1234")
    monkeypatch.setenv("DATATAILR_TOKEN", "other-secret")
    up_here("127.0.0.1:4711")
    text = datatailr("info").out
    assert "secret" not in text and "\x1b" not in text
    assert any(line.split() == ["server", "there:1234", "DATATAILR_ADDRESS"] for line in text.splitlines())
    assert any("127.0.0.1:4711" in line and str(os.getpid()) in line for line in text.splitlines())
    assert str(tmp_path / "other") in datatailr("info", "--data-dir", str(tmp_path / "other")).out


def checks(done: Any) -> dict[str, dict[str, str]]:
    return {check["name"]: check for check in json.loads(done.out)}


def test_doctor_finds_all_well(datatailr: Run, state: FakeState) -> None:
    state.nodes = [node_pb2.Node(agent_id="agt_1", name="vm", state=node_pb2.NODE_STATE_READY)]
    done = datatailr("doctor", "--json")
    found = checks(done)
    assert done.code == 0 and done.err == ""
    assert list(found) == [
        *("Python", "venv", "uv", "disk", "Docker", "configuration", "transport", "server", "versions"),
        *("clock", "nodes"),
    ]
    assert all(check["remedy"] for check in found.values() if check["verdict"] in ("warning", "problem"))
    lines = datatailr("doctor").out.splitlines()
    assert [line.split()[1] for line in lines if not line.startswith(" ")] == list(found)
    assert "\x1b" not in "".join(lines)


def test_doctor_names_each_problem_with_its_remedy(
    datatailr: Run, state: FakeState, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(doctor_module.shutil, "disk_usage", lambda path: usage(1 << 40, 1 << 40, 1000))
    found = checks(datatailr("doctor", "--json"))
    assert found["disk"]["verdict"] == "problem" and "1000 B free" in found["disk"]["says"]
    assert found["nodes"]["verdict"] == "problem"
    state.nodes = [node_pb2.Node(name="vm", state=node_pb2.NODE_STATE_DRAINED)]
    assert "vm is drained" in checks(datatailr("doctor", "-j"))["nodes"]["says"]
    monkeypatch.setenv("DATATAILR_TOKEN", "wrong")
    done = datatailr("doctor", "-j")
    assert done.code == 1 and checks(done)["server"]["verdict"] == "problem"
    monkeypatch.setenv("DATATAILR_ADDRESS", "127.0.0.1:1")
    assert "127.0.0.1:1" in checks(datatailr("doctor", "-j"))["server"]["says"]
    monkeypatch.setenv("DATATAILR_ADDRESS", "nonsense")
    assert checks(datatailr("doctor", "-j"))["configuration"]["remedy"]
    monkeypatch.delenv("DATATAILR_ADDRESS")
    done = datatailr("doctor", "-j")
    assert "datatailr up" in checks(done)["configuration"]["remedy"] and done.code == 1
    monkeypatch.setattr(doctor_module.importlib.util, "find_spec", lambda name: None)
    assert checks(datatailr("doctor", "-j"))["venv"]["verdict"] == "warning"


def test_doctor_compares_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Page(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response_only(404)
            self.send_header("Date", "Tue, 14 Nov 2023 22:13:20 GMT")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            """Nothing is told."""

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        page = f"http://127.0.0.1:{server.server_address[1]}"

        try:
            difference = doctor_module._clock_difference(page, now=lambda: 1_700_000_060.5)
        finally:
            server.shutdown()
            thread.join()

    assert difference == 60.0

    with pytest.raises(ValueError, match="no address of a page"):
        doctor_module._clock_difference("file:///etc/passwd")


def test_doctor_warns_of_what_crosses_the_network() -> None:
    from datatailr.client.config import ClientConfig

    for host in ("127.0.0.1", "localhost", "[::1]"):
        assert doctor_module._transport(ClientConfig(f"{host}:7070", "t", "here")).verdict == "ok"

    check = doctor_module._transport(ClientConfig("build-7:7171", "t", "here"))
    assert check.verdict == "warning" and "127.0.0.1:7171 build-7" in check.remedy
