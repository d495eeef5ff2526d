"""The first minutes of a user: sign in, look around, write the demo, run it unchanged."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from e2e_harness import BIN, Platform, Ran, base_environment, run_command

DATATAILR = str(BIN / "datatailr")


class Newcomer:
    """A user who has a token, an empty home and no variables."""

    def __init__(self, folder: Path, platform: Platform) -> None:
        self.folder = folder
        self.platform = platform
        self.environment = base_environment(folder / "home") | {"HOME": str(folder / "home")}
        (folder / "home").mkdir()
        self.token = folder / "token"
        self.token.write_text(platform.token)

    def run(self, *command: str, cwd: Path | None = None, code: int = 0) -> Ran:
        return run_command(command, self.environment, cwd=cwd or self.folder, code=code)

    def login(self) -> Ran:
        arguments = ("--url", self.platform.address, "--token-file", str(self.token))
        return self.run(DATATAILR, "login", *arguments)


@pytest.fixture
def newcomer(tmp_path: Path, platform: Platform) -> Newcomer:
    return Newcomer(tmp_path, platform)


@pytest.mark.clause("B275")
def test_sign_in_look_around_and_sign_out(newcomer: Newcomer) -> None:
    assert newcomer.run(DATATAILR, "doctor", "--json", code=1).json()[-1]["name"] == "configuration"
    assert f"Signed in to {newcomer.platform.address}" in newcomer.login().out
    found = {check["name"]: check for check in newcomer.run(DATATAILR, "doctor", "--json").json()}
    wanted = ("configuration", "transport", "server", "versions", "nodes")
    assert [found[name]["verdict"] for name in wanted] == ["ok"] * 5
    line = newcomer.run(DATATAILR, "version").out
    assert "same version" in line and line.count("\n") == 1
    assert newcomer.platform.address in newcomer.run(DATATAILR, "info").out
    assert newcomer.platform.token not in newcomer.run(DATATAILR, "info", "--json").out
    newcomer.run(DATATAILR, "logout")
    newcomer.run(str(BIN / "dt"), "job", "ls", code=3)


@pytest.mark.clause("B275", "B95", "B5")
def test_the_demo_runs_and_saves_unchanged(newcomer: Newcomer) -> None:
    newcomer.login()
    newcomer.run(DATATAILR, "init-demo", "demo-files")
    folder = newcomer.folder / "demo-files"
    newcomer.run(sys.executable, "deploy.py", cwd=folder)
    newcomer.run(str(BIN / "dt"), "job", "watch", "demo-workflow")
    log = newcomer.run(str(BIN / "dt"), "log", "read", "demo-workflow", "-c", "report").out
    assert "most frequent: the (6), was (6), and (4)" in log
    assert "most frequent: the (6)" in newcomer.run(sys.executable, "deploy.py", "--local", cwd=folder).out
    newcomer.run(sys.executable, "deploy.py", "service", "app", "addin", "notebook", cwd=folder)
    listed = json.loads(newcomer.run(str(BIN / "dt"), "job", "ls", "-j").out)
    types = {job["display_name"]: job["type"] for job in listed if job["display_name"].startswith("Demo ")}
    assert types == {
        "Demo Workflow": "batch",
        "Demo Service": "service",
        "Demo App": "app",
        "Demo Addin": "excel",
        "Demo Notebook": "app",
    }
