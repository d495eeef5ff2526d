"""Environments from recipes, with the real uv."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from agent_fakes import until

from opentailr_agent.builder import interpreters as found
from opentailr_agent.builder.interpreters import Interpreter, PythonVersionError, choose
from opentailr_agent.builder.venv import MARKER, BuildError, Recipe, VenvBuilder

OWN = f"{sys.version_info[0]}.{sys.version_info[1]}"


def interpreter(text: str) -> Interpreter:
    major, minor, patch = map(int, text.split("."))
    return Interpreter(Path(f"/python/{text}"), (major, minor, patch))


@pytest.fixture
async def host() -> list[Interpreter]:
    return await found.discover()


def builder_for(path: Path, host: list[Interpreter], **more: bool) -> VenvBuilder:
    return VenvBuilder(path, interpreters=host, **more)


def run(python: Path, code: str) -> str:
    done = subprocess.run(
        [os.fspath(python), "-c", code], check=False, capture_output=True, text=True, env={"PATH": "/usr/bin"}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def log_of(path: Path, build_id: str) -> tuple[str, str]:
    folder = path / "builds" / build_id
    return (folder / "stdout").read_text(), (folder / "stderr").read_text()


@pytest.mark.clause("B169")
@pytest.mark.parametrize(
    ("wanted", "host", "chosen", "told"),
    [
        ("3.12", ["3.11.2", "3.12.1", "3.12.4"], "3.12.4", False),
        ("3.12.1", ["3.12.1", "3.12.4"], "3.12.1", False),
        ("3.12.9", ["3.12.1", "3.12.4", "3.13.0"], "3.12.4", True),
        ("3.12", ["3.10.1", "3.13.0", "3.14.0"], "3.13.0", True),
        ("3.14", ["3.10.1", "3.11.2", "3.13.0"], "3.13.0", True),
    ],
)
def test_the_nearest_newer_else_the_nearest_older_version_is_used(
    wanted: str, host: list[str], chosen: str, told: bool
) -> None:
    choice = choose(wanted, map(interpreter, host))
    assert choice.interpreter.text == chosen
    assert bool(choice.notice) == told

    if told:
        assert wanted in choice.notice
        assert chosen in choice.notice

        with pytest.raises(PythonVersionError, match=r"--strict-python; it has .*" + host[0]):
            choose(wanted, map(interpreter, host), strict=True)


@pytest.mark.parametrize("wanted", ["", "3", "2.7", "3.12; rm -rf /", "three"])
def test_what_is_no_version_is_refused(wanted: str) -> None:
    with pytest.raises(PythonVersionError, match="is not a version"):
        choose(wanted, [interpreter("3.12.1")])


def test_no_interpreter_at_all_is_told() -> None:
    with pytest.raises(PythonVersionError, match="uv python install"):
        choose("3.12", [])


async def test_own_interpreter_is_found(host: list[Interpreter]) -> None:
    assert sys.version_info[:3] in [one.version for one in host]
    assert all(one.path.exists() for one in host)
    assert len({one.path.resolve() for one in host}) == len(host)


@pytest.mark.clause("B175", "B177")
async def test_an_environment_without_requirements_needs_no_network(
    tmp_path: Path, host: list[Interpreter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_OFFLINE", "1")
    builder = builder_for(tmp_path, host)
    assert builder.ready("key") is None
    built = await builder.ensure("key", Recipe(OWN), build_id="bld_1")
    assert built.notice == ""
    assert run(built.python, "import datatailr.errors, datatailr; print('yes')") == "yes"
    assert run(built.python, "import grpc, google.protobuf, datatailr.v1.job_pb2_grpc; print('yes')") == "yes"
    assert builder.ready("key") == built
    assert builder.keys() == ["key"]
    out, _ = log_of(tmp_path, "bld_1")
    assert "$ " in out
    assert "uv venv" in out
    assert run(built.python, "import sys; print(sys.path[-1])").startswith(str(tmp_path / "platform"))


async def test_joiners_share_one_build_and_its_log(tmp_path: Path, host: list[Interpreter]) -> None:
    builder = builder_for(tmp_path, host)
    first = asyncio.create_task(builder.ensure("key", Recipe(OWN)))
    await until(lambda: (tmp_path / "builds" / "local-key").exists())
    builder.open_log("bld_2", "key")
    second = asyncio.create_task(builder.ensure("key", Recipe(OWN), build_id="bld_2"))
    assert await first == await second
    assert log_of(tmp_path, "bld_2")[0].count("uv venv") == 1
    assert not (tmp_path / "builds" / "local-key").exists()


@pytest.mark.clause("B175")
async def test_a_requirement_that_does_not_exist_fails_with_the_reason(
    tmp_path: Path, host: list[Interpreter]
) -> None:
    (tmp_path / "empty").mkdir()
    env = {**os.environ, "UV_NO_INDEX": "1", "UV_FIND_LINKS": str(tmp_path / "empty")}
    builder = VenvBuilder(tmp_path, interpreters=host, env=env)

    with pytest.raises(BuildError) as caught:
        await builder.ensure("key", Recipe(OWN, "no-such-package-anywhere==1.0"), build_id="bld_1")

    assert "uv pip install" in str(caught.value)
    assert "no-such-package-anywhere" in str(caught.value)
    out, err = log_of(tmp_path, "bld_1")
    assert "no-such-package-anywhere" in err
    assert out.splitlines()[-1].startswith("Build failed: `") and "no-such-package-anywhere" not in out
    assert not (tmp_path / "environments" / "key").exists()
    assert builder.ready("key") is None


async def test_another_python_version_is_told_in_log_and_notice(
    tmp_path: Path, host: list[Interpreter]
) -> None:
    only = [one for one in host if one.text == ".".join(map(str, sys.version_info[:3]))]
    wanted = "3.14" if OWN != "3.14" else "3.13"
    builder = builder_for(tmp_path, only)

    async def again(*, again: bool = False) -> list[Interpreter]:
        return only

    builder.interpreters = again  # type: ignore[method-assign]
    built = await builder.ensure("key", Recipe(wanted), build_id="bld_1")
    assert f"Python {wanted} is not on this host" in built.notice
    assert built.notice in log_of(tmp_path, "bld_1")[0]
    ready = builder.ready("key")
    assert ready is not None
    assert ready.notice == built.notice


@pytest.mark.clause("B174")
async def test_a_pre_script_is_refused_unless_allowed(tmp_path: Path, host: list[Interpreter]) -> None:
    recipe = Recipe(OWN, pre_script="touch $VIRTUAL_ENV/made")

    with pytest.raises(BuildError, match="--allow-pre-scripts"):
        await builder_for(tmp_path, host).ensure("key", recipe)

    assert not (tmp_path / "environments" / "key").exists()
    built = await builder_for(tmp_path, host, allow_pre_scripts=True).ensure("key", recipe)
    assert (built.root / "made").exists()


@pytest.mark.clause("B174", "B175", "B176")
async def test_a_post_script_works_in_a_copy_of_the_code(tmp_path: Path, host: list[Interpreter]) -> None:
    bundle = tmp_path / "bundle"
    (bundle / "pkg").mkdir(parents=True)
    (bundle / "pkg" / "__init__.py").write_text("word = 'before'")
    (bundle / "pkg" / "__init__.py").chmod(0o444)
    (bundle / "pkg").chmod(0o555)

    async def code() -> Path:
        return bundle

    script = "python -c 'import pkg; print(pkg.word)'\necho \"word = 'after'\" > __init__.py; echo told >&2"
    built = await builder_for(tmp_path, host).ensure(
        "key", Recipe(OWN, post_script=script), code=code, build_id="bld_1"
    )
    assert built.code is not None
    assert (built.code / "pkg" / "__init__.py").read_text() == "word = 'after'\n"
    assert (bundle / "pkg" / "__init__.py").read_text() == "word = 'before'"
    out, err = log_of(tmp_path, "bld_1")
    assert "before" in out
    assert err == "told\n"
    assert "$ python -c 'import pkg; print(pkg.word)'" in out


async def test_a_failing_script_names_itself_and_leaves_nothing(
    tmp_path: Path, host: list[Interpreter]
) -> None:
    builder = builder_for(tmp_path, host, allow_pre_scripts=True)

    with pytest.raises(BuildError, match=r"`echo why >&2; exit 7` ended with exit code 7:\nwhy"):
        await builder.ensure("key", Recipe(OWN, pre_script="echo why >&2; exit 7"))

    assert not (tmp_path / "environments" / "key").exists()
    built = await builder.ensure("key", Recipe(OWN))
    assert built.python.exists()


async def test_a_build_that_nobody_wants_ends_with_its_processes(
    tmp_path: Path, host: list[Interpreter]
) -> None:
    builder = builder_for(tmp_path, host, allow_pre_scripts=True)
    script = f"echo $$ > {tmp_path}/pid; exec sleep 1000"
    task = asyncio.create_task(builder.ensure("key", Recipe(OWN, pre_script=script)))
    file = tmp_path / "pid"
    await until(lambda: file.exists() and file.read_text().strip())
    pid = int(file.read_text())
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await until(lambda: not Path(f"/proc/{pid}").exists())
    assert not (tmp_path / "environments" / "key").exists()
    assert not (tmp_path / "builds" / "local-key").exists()


async def test_a_ruin_is_built_anew(tmp_path: Path, host: list[Interpreter]) -> None:
    builder = builder_for(tmp_path, host)
    built = await builder.ensure("key", Recipe(OWN))
    (built.root / MARKER).unlink()
    (built.root / "rest").touch()
    assert builder.ready("key") is None
    built = await builder.ensure("key", Recipe(OWN))
    assert not (built.root / "rest").exists()


@pytest.mark.slow
async def test_requirements_are_installed_compiled_and_before_ours(
    tmp_path: Path, host: list[Interpreter]
) -> None:
    builder = builder_for(tmp_path, host)
    built = await builder.ensure("key", Recipe(OWN, "six==1.16.0\n"), build_id="bld_1")
    assert run(built.python, "import six; print(six.__version__)") == "1.16.0"
    assert list(built.root.glob("lib/python*/site-packages/__pycache__/six.*.pyc"))
    assert "six==1.16.0" in log_of(tmp_path, "bld_1")[1]


@pytest.mark.slow
async def test_other_minor_versions_get_the_sdk_too(tmp_path: Path, host: list[Interpreter]) -> None:
    others = sorted({one.minor for one in host} - {sys.version_info[:2]})

    if not others:
        pytest.skip("this host has one Python version only")

    builder = builder_for(tmp_path, host)

    for major, minor in others:
        built = await builder.ensure(f"key{minor}", Recipe(f"{major}.{minor}"))
        assert run(built.python, "import datatailr.errors; print('yes')") == "yes"
