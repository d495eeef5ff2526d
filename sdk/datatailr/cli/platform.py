"""`datatailr`: start, stop and look at a platform on this machine."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from datatailr.cli.exits import Exit, run_program
from datatailr.cli.output import print_aligned, print_json, tell
from datatailr.cli.servers import lacking
from datatailr.cli.session import JsonOption, complete, completion_asked, new_group

if TYPE_CHECKING:
    from datatailr.cli.places import Places

app = new_group(
    "Start, stop and look at a platform on this machine, and sign in to one.",
    {
        "login": "datatailr.cli.login:login",
        "logout": "datatailr.cli.login:logout",
        "export-auth": "datatailr.cli.login:export_auth",
        "doctor": "datatailr.cli.doctor:doctor",
        "info": "datatailr.cli.about:info",
        "version": "datatailr.cli.about:version",
        "init-demo": "datatailr.cli.initdemo:init_demo",
        "setup-cli": "datatailr.cli.setupcli:setup_cli",
    },
)

DataDirOption = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", metavar="DIR", help="Directory of all state; ~/.local/share/opentailr by default."
    ),
]

DEFAULT_GRPC_PORT: Final = 7070
DEFAULT_AGENT_PORT: Final = 7071
DEFAULT_HTTP_PORT: Final = 7080

_DOWN_SECONDS: Final = 12.0
"""`up` stops within 10 s; more than that means that it hangs."""

_PASS_ON: Final = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


@app.command()
def up(
    *,
    data_dir: DataDirOption = None,
    grpc_port: Annotated[
        int,
        typer.Option(
            min=0, max=65535, metavar="N", help="Port for people and programs; 0: any free one, kept."
        ),
    ] = DEFAULT_GRPC_PORT,
    http_port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="N", help="Port for browsers; 0: any free one, kept.")
    ] = DEFAULT_HTTP_PORT,
    agent_port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, metavar="N", help="Port for agents; 7071, or any free one beside other ports."
        ),
    ] = None,
    ready_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="JSON with addresses, token and processes, there while it runs."),
    ] = None,
    runtime: Annotated[str, typer.Option(help="process or docker.")] = "process",
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Memory that tasks may have, for instance 8g.")
    ] = None,
    cpu: Annotated[
        float | None, typer.Option(metavar="CORES", help="Cores that tasks may have together.")
    ] = None,
    allow_pre_scripts: Annotated[
        bool, typer.Option("--allow-pre-scripts", help="Let build_script_pre run on this machine.")
    ] = False,
    strict_python: Annotated[
        bool, typer.Option("--strict-python", help="Refuse Python versions that are not on this machine.")
    ] = False,
    retain: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ENV=AGE[,COUNT]",
            help="How long finished runs are kept, and how many of a job, by environment: dev=30d,10000.",
        ),
    ] = None,
    retain_logs: Annotated[
        list[str] | None,
        typer.Option(metavar="ENV=AGE", help="How long the logs of finished runs are kept: dev=14d."),
    ] = None,
) -> None:
    """Run a control plane and an agent here, in the foreground, until Ctrl-C.

    Without --data-dir the client configuration is written too, so that Python and `dt` need no
    environment variable.

    Exit codes: 0 stopped, 1 failed, 2 bad configuration, 3 data directory in use, 4 written by
    a newer version.

    Examples: `datatailr up` and `datatailr up --data-dir /srv/opentailr --memory 8g --retain dev=30d`.
    """
    if runtime not in ("process", "docker"):
        raise typer.BadParameter(f"{runtime!r} is neither process nor docker", param_hint="--runtime")

    _require("opentailr_controlplane", "opentailr_agent")

    from datatailr.cli.places import UpError
    from datatailr.cli.supervisor import Supervisor, UpOptions

    places = _places(data_dir)
    agent_arguments: list[str] = []

    if memory is not None:
        agent_arguments += ["--memory", memory]

    if cpu is not None:
        agent_arguments += ["--cpu", f"{cpu:g}"]

    if allow_pre_scripts:
        agent_arguments.append("--allow-pre-scripts")

    if strict_python:
        agent_arguments.append("--strict-python")

    controlplane_arguments = [f"--retain={rule}" for rule in retain or ()]
    controlplane_arguments += [f"--retain-logs={rule}" for rule in retain_logs or ()]

    if agent_port is None:
        agent_port = DEFAULT_AGENT_PORT if grpc_port == DEFAULT_GRPC_PORT else 0

    if ready_file is not None:
        ready_file = ready_file.absolute()
        ready_file.unlink(missing_ok=True)

    options = UpOptions(
        places=places,
        grpc_port=grpc_port,
        agent_port=agent_port,
        http_port=http_port,
        ready_file=ready_file,
        runtime=runtime,
        agent_arguments=tuple(agent_arguments),
        controlplane_arguments=tuple(controlplane_arguments),
    )
    told = False

    def on_ready(document: dict[str, Any]) -> None:
        nonlocal told
        config = _configure(document) if data_dir is None else None

        if told:
            tell("both processes are ready again")
            return

        told = True
        _greet(document, places, config=config)

    try:
        code = Supervisor(options, on_ready=on_ready, say=tell).run()
    except UpError as error:
        tell(f"error: {error}")
        code = error.code

    raise typer.Exit(code)


@app.command()
def down(*, data_dir: DataDirOption = None, json: JsonOption = False) -> None:
    """Stop the `datatailr up` of a data directory, and wait until it has ended.

    Tasks that go on because `up` was killed are ended, too.

    Examples: `datatailr down` and `datatailr down --data-dir /srv/opentailr`.
    """
    from datatailr.cli.places import is_process
    from datatailr.cli.supervisor import end_leftovers

    places = _places(data_dir)
    holder = places.holder()

    if holder is None:
        _answer_down(places, json=json, pid=None, seconds=0.0, left=end_leftovers(places))
        return

    begin = time.monotonic()

    try:
        os.kill(holder["pid"], signal.SIGTERM)
    except ProcessLookupError:
        pass
    except PermissionError:
        tell(f"error: process {holder['pid']} belongs to another user")
        raise typer.Exit(int(Exit.DENIED)) from None

    while is_process(holder["pid"], holder["started"]):
        if time.monotonic() - begin > _DOWN_SECONDS:
            tell(f"error: process {holder['pid']} is still there after {_DOWN_SECONDS:.0f} s")
            raise typer.Exit(int(Exit.FAILED))

        # Nothing reports the end of a process that is not our child.
        time.sleep(0.05)

    _answer_down(places, json=json, pid=holder["pid"], seconds=time.monotonic() - begin)


@app.command()
def status(*, data_dir: DataDirOption = None, json: JsonOption = False) -> None:
    """Show the processes, ports, versions and nodes of the platform of a data directory.

    The exit code is 7 when it does not run or does not answer.

    Examples: `datatailr status` and `datatailr status --json`.
    """
    from datatailr.cli.status import platform_status, print_status

    answer = platform_status(_places(data_dir))

    if json:
        print_json(answer, pretty=True)
    else:
        print_status(answer)

    if not answer["reachable"]:
        raise typer.Exit(int(Exit.UNREACHABLE))


DirectoryArgument = Annotated[Path, typer.Argument(metavar="DIR", help="Directory of the backup.")]


@app.command()
def backup(directory: DirectoryArgument, *, data_dir: DataDirOption = None, json: JsonOption = False) -> None:
    """Back the platform up, also while it runs: jobs, runs, logs, results, tokens.

    DIR is made, or holds an earlier backup of the same platform, to which only what is new is added.
    Keep it as safe as the data directory: it holds the tokens.

    Exit codes: 0 done, 1 failed, 4 written by a newer version.

    Examples: `datatailr backup /mnt/backup` and `datatailr backup /mnt/backup --json`.
    """
    _require("opentailr_controlplane")

    from datatailr.cli.backup import back_up

    raise typer.Exit(back_up(_places(data_dir), directory, json=json))


@app.command()
def restore(
    directory: DirectoryArgument,
    *,
    data_dir: DataDirOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="Move what is in the data directory aside instead of refusing.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Bring the platform back as it was at a backup; it must not run.

    Runs that were going on at the backup go on after the next `datatailr up`.

    Exit codes: 0 done, 1 failed, 3 data directory in use, 4 written by a newer version.

    Examples: `datatailr restore /mnt/backup` and `datatailr restore /mnt/backup --force`.
    """
    _require("opentailr_controlplane")

    from datatailr.cli.backup import restore as put_back

    raise typer.Exit(put_back(_places(data_dir), directory, force=force, json=json))


@app.command(context_settings=_PASS_ON)
def controlplane(context: typer.Context) -> None:
    """Run a control plane alone; all arguments are its own, and so is its help.

    Examples: `datatailr controlplane --help` and `datatailr controlplane --data-dir /srv/opentailr`.
    """
    _become("opentailr_controlplane", context.args)


@app.command(context_settings=_PASS_ON)
def agent(context: typer.Context) -> None:
    """Run an agent alone; all arguments are its own, and so is its help.

    Examples: `datatailr agent --help` and `datatailr agent --data-dir /srv/agent --address build-7:7071`.
    """
    _become("opentailr_agent", context.args)


def main() -> None:
    """Entry point of the program."""
    if completion_asked():
        complete(app)
        return

    run_program(lambda: app(prog_name="datatailr"))


def _places(data_dir: Path | None) -> Places:
    from datatailr.cli.places import Places, default_data_dir

    return Places((data_dir or default_data_dir()).absolute())


def _configure(document: dict[str, Any]) -> Path | None:
    """Make this platform the one that the SDK and `dt` of this user talk to.

    A configuration for another server is kept beside, as its token may exist nowhere else.
    """
    from datatailr.client.config import replace_config
    from datatailr.errors import InvalidRequestError

    try:
        path, notice = replace_config(document["grpc"], document["token"])
    except InvalidRequestError as error:
        tell(f"error: {error}")
        return None

    if notice:
        tell(f"note: {notice}")

    return path


def _greet(document: dict[str, Any], places: Places, *, config: Path | None) -> None:
    """Say where everything is and what to try."""
    rows = [
        ("gRPC", document["grpc"]),
        ("page", document["http"]),
        ("data", str(places.root)),
        ("logs", str(places.log("controlplane").parent)),
    ]

    if config is not None:
        rows.append(("config", str(config)))

    print("Opentailr is running.", flush=True)
    print_aligned([(f"  {label}", value) for label, value in rows])
    print("\nTry:")

    if config is None:
        print(f"  export DATATAILR_ADDRESS={document['grpc']}")
        print(f'  export DATATAILR_TOKEN="$(cat {places.admin_token})"')

    print("  dt job ls\n\nCtrl-C stops it.", flush=True)


def _answer_down(places: Places, *, json: bool, pid: int | None, seconds: float, left: int = 0) -> None:
    if json:
        stopped = {"data_dir": str(places.root), "stopped": pid is not None, "pid": pid}
        print_json(stopped | {"seconds": round(seconds, 3), "left_behind": left}, pretty=True)
    elif pid is None:
        print(f"nothing runs in {places.root}")

        if left:
            print(f"ended {left} processes that a killed one had left running")
    else:
        print(f"stopped process {pid} of {places.root} after {seconds:.1f} s")


def _require(*modules: str) -> None:
    """End with a remedy if a server cannot run with this interpreter."""
    missing = [name for module in modules for name in lacking(module)]

    if not missing:
        return

    if "Python 3.11" in missing:
        tell(
            f"error: the servers need Python 3.11 or later; this is {sys.version_info[0]}."
            f"{sys.version_info[1]}",
            "hint: install them with a newer interpreter: python3.11 -m pip install 'opentailr[all]'",
        )
    else:
        tell(
            f"error: the servers are not installed here ({', '.join(dict.fromkeys(missing))} missing)",
            f"hint: {sys.executable} -m pip install 'opentailr[all]'",
        )

    raise typer.Exit(int(Exit.FAILED))


def _become(module: str, arguments: list[str]) -> None:
    """Give this process to a server: signals and exit code are then the server's own."""
    _require(module)

    from datatailr.cli.children import module_command

    command = module_command(module, arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
