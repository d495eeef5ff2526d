"""The process: one owner of its data, clear ends, metrics and the page."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
import pytest
from controlplane_agent import FakeAgent, save, start_job, watch
from controlplane_harness import Client, FakeRunning, refused

from datatailr.v1 import identity_pb2
from opentailr_controlplane.config import ConfigError
from opentailr_controlplane.datadir import DirectoryInUse, NewerFormat, bind
from opentailr_controlplane.server import ControlPlane, main

Starter = Callable[..., Awaitable[ControlPlane]]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "opentailr_controlplane", *arguments]


def ended(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A control plane that must end by itself."""
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=30)


def one_line(text: str) -> str:
    lines = text.strip().splitlines()
    assert len(lines) == 1, text
    return lines[0]


def test_a_whole_life_as_a_process(tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    data = tmp_path / "data"
    ports = ("--grpc-port", "0", "--agent-port", "0", "--http-port", "0")
    process = subprocess.Popen(
        command("--data-dir", str(data), *ports, "--ready-file", str(ready)),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 30
        while not ready.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        content = json.loads(ready.read_text())
        assert set(content) == {"grpc", "agent_grpc", "http", "token", "pid"}
        assert content["pid"] == process.pid
        for name in ("admin.token", "agent.token", "run.key", "lock"):
            assert stat.S_IMODE((data / name).stat().st_mode) == 0o600, name
        assert stat.S_IMODE((data / "state.db").stat().st_mode) == 0o600
        assert stat.S_IMODE((data / "objects").stat().st_mode) == 0o700
        assert stat.S_IMODE(ready.stat().st_mode) == 0o600
        assert (data / "admin.token").read_text().strip() == content["token"]

        second = ended("--data-dir", str(data), *ports)
        assert second.returncode == 3
        assert f"in use by process {process.pid}" in one_line(second.stderr)

        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=10)
        assert time.monotonic() - begun < 3
        assert process.returncode == 0
        assert not ready.exists()
        assert content["token"] not in log
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def test_bad_flags_are_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ("--data-dir", str(tmp_path / "data"))
    for arguments, word in (
        ((), "--data-dir"),
        ((*data, "--grpc-port", "99999"), "--grpc-port is 99999"),
        ((*data, "--grpc-port", "x"), "--grpc-port"),
        ((*data, "--grpc-port", "5000", "--http-port", "5000"), "must differ"),
        ((*data, "--host", "0.0.0.0"), "TLS"),
        ((*data, "--host", "example.org"), "TLS"),
        ((*data, "--nonsense"), "--nonsense"),
        ((*data, "--log-level", "loud"), "--log-level"),
        ((*data, "--max-log-bytes", "1"), "--max-log-bytes"),
        ((*data, "--max-object-bytes", "-1"), "--max-object-bytes"),
        ((*data, "--ready-file", str(tmp_path / "no" / "x")), "--ready-file"),
    ):
        assert main(arguments) == 2, arguments
        assert word in one_line(capsys.readouterr().err)
    assert not (tmp_path / "data").exists()


def test_what_cannot_be_used_is_one_clear_line(tmp_path: Path) -> None:
    taken = bind("127.0.0.1", 0)
    assert taken is not None
    with taken:
        taken.listen()
        busy = str(taken.getsockname()[1])
        ports = ("--grpc-port", busy, "--agent-port", "0", "--http-port", "0")
        result = ended("--data-dir", str(tmp_path / "data"), *ports)
    assert result.returncode == 2, result.stderr
    assert f"--grpc-port {busy}" in one_line(result.stderr)


def test_a_file_that_is_no_database_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"no database" * 200)
    result = ended("--data-dir", str(tmp_path), "--grpc-port", "0", "--agent-port", "0", "--http-port", "0")
    assert result.returncode == 2, result.stderr
    assert "state.db: The database failed: file is not a database" in one_line(result.stderr)


async def test_a_directory_that_cannot_be_made(start: Starter) -> None:
    with pytest.raises(ConfigError, match="--data-dir /proc/nothing"):
        await start(data_dir=Path("/proc/nothing"))


def test_a_directory_of_a_newer_release_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "VERSION").write_text("99\n")
    result = ended("--data-dir", str(tmp_path), "--grpc-port", "0", "--agent-port", "0", "--http-port", "0")
    assert result.returncode == 4
    assert "format 99" in one_line(result.stderr)
    assert {path.name for path in tmp_path.iterdir()} == {"VERSION", "lock"}


async def test_directory_has_one_owner_and_is_given_up(start: Starter, running: FakeRunning) -> None:
    first = await start(engine_factory=running.open)
    with pytest.raises(DirectoryInUse, match=f"process {os.getpid()}"):
        await start(engine_factory=running.open)
    await first.close()
    assert (await start(engine_factory=running.open)).grpc_address == first.grpc_address


async def test_newer_database_and_foreign_directories(start: Starter, tmp_path: Path) -> None:
    import sqlite3

    plane = await start()
    await plane.close()
    database = sqlite3.connect(tmp_path / "data" / "state.db")
    database.execute("UPDATE alembic_version SET version_num = '9999'")
    database.commit()
    database.close()
    with pytest.raises(NewerFormat, match="9999"):
        await start()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "VERSION").write_text("something else")
    with pytest.raises(ConfigError, match="something else"):
        await start(data_dir=tmp_path / "other")


async def test_secrets_that_others_can_read_stop_the_start(start: Starter, tmp_path: Path) -> None:
    plane = await start()
    await plane.close()
    (tmp_path / "data" / "admin.token").chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        await start()


async def test_a_kept_port_that_is_taken_gives_way(start: Starter) -> None:
    plane = await start()
    await plane.close()
    port = int(plane.grpc_address.rpartition(":")[2])
    blocker = bind("127.0.0.1", port)
    assert blocker is not None
    blocker.listen()
    try:
        again = await start()
        assert again.grpc_address != plane.grpc_address
        assert again.agent_address == plane.agent_address
    finally:
        blocker.close()


async def test_followers_are_sent_away_when_the_server_stops(plane: ControlPlane, client: Client) -> None:
    await save(client)
    run_id = await start_job(client)
    following = asyncio.create_task(watch(client, run_id))
    async with asyncio.timeout(10):
        while plane.engine.metrics()["subscriptions"] < 2:
            await asyncio.sleep(0.01)
    begun = time.monotonic()
    await plane.close()
    assert time.monotonic() - begun < 3
    refusal = await refused(following)
    assert refusal.code in {grpc.StatusCode.ABORTED, grpc.StatusCode.UNAVAILABLE}


# ---------------------------------------------------------------------------------- HTTP


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


async def fetch(url: str, **headers: str) -> tuple[int, dict[str, str], str]:
    """Status, headers and text of a page; redirects are not followed."""

    def work() -> tuple[int, dict[str, str], str]:
        opener = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))
        request = urllib.request.Request(url, headers=headers)
        try:
            with opener.open(request, timeout=10) as answer:
                return (
                    answer.status,
                    {k.lower(): v for k, v in answer.headers.items()},
                    answer.read().decode(),
                )
        except urllib.error.HTTPError as error:
            with error:
                return error.code, {k.lower(): v for k, v in error.headers.items()}, error.read().decode()

    return await asyncio.to_thread(work)


async def test_metrics_count_calls_and_name_nobody(
    plane: ControlPlane, client: Client, agent: FakeAgent
) -> None:
    await save(client, name="secret-project")
    await watch(client, await start_job(client, "secret-project"))
    await client.call(client.identity.GetCaller, identity_pb2.GetCallerRequest())
    status, headers, text = await fetch(f"{plane.http_url}/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain")
    values = {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line[0] != "#"
    }
    caller = '{code="OK",method="/datatailr.v1.IdentityService/GetCaller"}'
    assert values[f"opentailr_rpc_total{caller}"] == 1
    assert values["opentailr_commit_seconds_count"] >= 4
    assert values["opentailr_engine_sessions"] == 1
    assert values["opentailr_log_appended_bytes"] > 0
    for name in ("queue_length", "attempts_live", "loop_delay_seconds"):
        assert f"opentailr_engine_{name}" in values
    for hidden in ("secret-project", plane.admin_token, client.metadata[0][1]):
        assert hidden not in text


async def test_page_shows_runs_to_who_holds_a_token(plane: ControlPlane, client: Client) -> None:
    await save(client, display_name="<script>alert(1)</script>")
    await start_job(client)
    status, headers, text = await fetch(plane.http_url)
    assert status == 200
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert "alert" not in text
    assert "Runs waiting" in text

    status, headers, _ = await fetch(f"{plane.http_url}/?token={plane.admin_token}")
    assert (status, headers["location"]) == (303, "/")
    cookie = headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert plane.admin_token not in cookie
    _, _, page = await fetch(plane.http_url, cookie=cookie.partition(";")[0])
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script>" not in page
    _, _, page = await fetch(plane.http_url, authorization=f"Bearer {plane.admin_token}")
    assert "&lt;script&gt;" in page

    agent_token = (plane.settings.data_dir / "agent.token").read_text().strip()
    for wrong in ("nonsense", agent_token):
        status, _, text = await fetch(f"{plane.http_url}/?token={wrong}")
        assert status == 401
        assert "alert" not in text
    _, _, page = await fetch(plane.http_url, cookie="opentailr_session=guess")
    assert "alert" not in page


async def test_health_follows_the_engine(faked: ControlPlane, running: FakeRunning) -> None:
    assert (await fetch(f"{faked.http_url}/healthz"))[0] == 200
    running.engine.healthy = False
    assert (await fetch(f"{faked.http_url}/healthz"))[0] == 503
