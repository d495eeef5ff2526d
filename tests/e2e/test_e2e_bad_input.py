"""Bad input gets a clear error that names the thing, and leaves nothing half-written."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest
from e2e_harness import Flow, Platform, Project, base_environment, client_variables, run_command, up_command

from datatailr import Workflow
from datatailr.v1 import common_pb2

TASKS = """
    from datatailr import task, workflow


    @task()
    def one():
        return 1


    @task()
    def two(value):
        return value
"""


@pytest.fixture(scope="module")
def canary(module_project: Project) -> Workflow:
    """A good workflow that is on the platform already."""
    with client_variables(module_project.platform):
        return module_project.run(
            """
            from datatailr import task, workflow


            @task()
            def fine():
                return "fine"


            @workflow(name="@NAME@")
            def flow():
                fine()
            """
        ).job


@pytest.fixture(autouse=True)
def platform_still_works(platform: Platform, canary: Workflow, client: None) -> Iterator[None]:
    """After each bad input a good workflow runs as if nothing had happened."""
    yield
    with client_variables(platform):
        assert canary.start()[0] is True
        run = Flow(canary.name, platform).wait(seconds=20)
        assert run.result("fine") == "fine"


@pytest.mark.clause("B27")
def test_a_cycle(project: Project) -> None:
    project.write("shop/tasks.py", TASKS)
    ran = project.script(
        """
        from datatailr import workflow
        from shop.tasks import one, two


        @workflow(name="@NAME@")
        def flow():
            first = one()
            second = two(first)
            second >> first


        flow()
        """,
        code=1,
    )
    assert "CyclicDependencyError" in ran.err.splitlines()[-1]
    assert "one" in ran.err.splitlines()[-1] and "two" in ran.err.splitlines()[-1]
    project.assert_never_saved()


@pytest.mark.clause("B29", "B58")
def test_a_duplicate_alias(project: Project) -> None:
    project.write("shop/tasks.py", TASKS)
    ran = project.script(
        """
        from datatailr import workflow
        from shop.tasks import one


        @workflow(name="@NAME@")
        def flow():
            one().alias("mine")
            one().alias("mine")


        flow()
        """,
        code=1,
    )
    assert "DuplicateJobNameError" in ran.err and "mine" in ran.err.splitlines()[-1]
    project.assert_never_saved()


@pytest.mark.clause("B38")
def test_a_task_from_another_package(project: Project) -> None:
    project.write("shop/tasks.py", TASKS)
    project.write("depot/tasks.py", TASKS)
    ran = project.script(
        """
        from datatailr import workflow
        from depot.tasks import two
        from shop.tasks import one


        @workflow(name="@NAME@")
        def flow():
            two(one())


        flow()
        """,
        code=1,
    )
    message = ran.err.splitlines()[-1]
    assert "CodePackageMismatchError" in message and "shop" in message and "depot" in message
    project.assert_never_saved()


@pytest.mark.clause("B182")
def test_a_bundle_that_would_ship_a_home_directory(project: Project) -> None:
    project.environment["HOME"] = str(project.folder)
    project.write("diary.txt", "private")
    ran = project.script(
        """
        from datatailr import task, workflow


        @task()
        def one():
            return 1


        @workflow(name="@NAME@")
        def flow():
            one()


        if __name__ == "__main__":
            flow()
        """
    )
    assert "ERROR" in ran.err and str(project.folder) in ran.err and "home" in ran.err
    assert "Traceback" not in ran.err
    project.assert_never_saved()


@pytest.mark.clause("B187")
def test_nothing_to_package(project: Project) -> None:
    environment = project.platform.client_environment()
    project.write("shop/tasks.py", TASKS)
    project.write(".gitignore", "shop/\n")
    run_command(["git", "init"], environment, cwd=project.folder)
    ran = project.script(
        """
        import json

        from datatailr import Workflow
        from shop.tasks import one

        with Workflow(name="@NAME@") as wf:
            one()
            wf.set_autorun(False)
        print(json.dumps(wf.save()))
        """
    )
    success, message = ran.last()
    assert success is False and "shop" in message
    project.assert_never_saved()


@pytest.mark.clause("B47", "B95")
def test_a_workflow_without_tasks(project: Project) -> None:
    ran = project.script(
        """
        import json

        from datatailr import Workflow

        wf = Workflow(name="@NAME@")
        print(json.dumps([wf.save(), wf.run()]))
        """
    )
    saved, run = ran.last()
    assert saved[0] is False and run[0] is False
    assert "task" in saved[1] and "task" in run[1]
    project.assert_never_saved()


@pytest.mark.clause("B2")
@pytest.mark.parametrize("name", ["", "日本", "!!!"])
def test_a_name_that_has_no_internal_form(project: Project, name: str) -> None:
    ran = project.script(f"from datatailr import Workflow\n\nWorkflow(name={name!r})\n", code=1)
    assert "ValueError" in ran.err.splitlines()[-1] and repr(name) in ran.err.splitlines()[-1]


@pytest.mark.clause("B1", "B3", "B29")
def test_names_in_any_script(project: Project) -> None:
    project.name = "Übung \"one\" / 'zwei' <b> 日本 %s {x} ; $(touch x)"
    names = [
        "Größe",
        "日本語",
        "a/b\\c",
        'it\'s "quoted"',
        "<i>&amp;</i>",
        "$(whoami)",
        "..",
        "two words",
        "%d{y}",
    ]
    project.write(
        "shop/flow.py",
        f"""
        from datatailr import task, workflow

        NAMES = {names!r}


        @task()
        def one(value):
            print("I am", value)
            return value


        @workflow(name={project.name!r})
        def flow():
            for name in NAMES:
                one(name).alias(name)
        """,
    )
    project.script("from shop.flow import flow\n\nflow()\n")
    run = project.flow.wait()
    assert list(run.states) == names
    for name in names:
        assert run.result(name) == name
        assert run.out(name) == f"I am {name}\n"
    assert Workflow(name=run.job.to_dict()["name"], get_existing=True).name == project.name


@pytest.mark.clause("B8", "B11", "B169")
@pytest.mark.parametrize(
    ("call", "named"),
    [
        ("flow(resources=Resources(memory='lots'))", "lots"),
        ("flow(fail_after='soon')", "soon"),
        ("flow(python_version='2.7')", "2.7"),
    ],
)
def test_unreadable_values(project: Project, call: str, named: str) -> None:
    project.write(
        "shop/flow.py",
        TASKS
        + """

    @workflow(name="@NAME@")
    def flow():
        one()
    """,
    )
    ran = project.script(f"from datatailr import Resources\nfrom shop.flow import flow\n\n{call}\n", code=1)
    last = ran.err.strip().splitlines()[-1]
    assert last.startswith(("ValueError", "TypeError")) and named in last, ran.err
    project.assert_never_saved()


def attempt(project: Project) -> tuple[bool, str, str]:
    """Runs a workflow from a script: success, message, stderr."""
    project.write("shop/tasks.py", TASKS)
    ran = project.script(
        """
        import json

        from datatailr import Workflow
        from shop.tasks import one

        with Workflow(name="@NAME@") as wf:
            one()
            wf.set_autorun(False)
        print(json.dumps(wf.run()))
        """
    )
    success, message = ran.last()
    return success, message, ran.err


@pytest.mark.clause("B95")
@pytest.mark.parametrize("token", ["wrong", "", "zwölf"])
def test_a_wrong_or_missing_token(project: Project, token: str) -> None:
    project.environment["DATATAILR_TOKEN"] = token
    success, message, err = attempt(project)
    assert success is False and "token" in message and message.splitlines()[0] in err
    assert "Traceback" not in err
    assert project.platform.token not in err
    del project.environment["DATATAILR_TOKEN"]
    project.assert_never_saved()


@pytest.mark.clause("B95")
def test_no_server_at_the_address(project: Project) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    project.environment["DATATAILR_ADDRESS"] = address
    success, message, err = attempt(project)
    assert success is False and address in message and "datatailr up" in message
    assert "Traceback" not in err


@contextlib.contextmanager
def server_of_protocol(version: str) -> Iterator[str]:
    """A gRPC server that refuses every call because it speaks another version."""
    detail = common_pb2.ErrorDetail(reason="protocol_mismatch")

    def refuse(request: bytes, context: grpc.ServicerContext) -> bytes:
        context.send_initial_metadata((("opentailr-protocol", version),))
        context.set_trailing_metadata((("opentailr-error-bin", detail.SerializeToString()),))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"this server speaks protocol {version}")
        raise AssertionError

    class Everything(grpc.GenericRpcHandler):
        def service(
            self, handler_call_details: grpc.HandlerCallDetails
        ) -> grpc.RpcMethodHandler[bytes, bytes]:
            return grpc.unary_unary_rpc_method_handler(refuse)

    pool = futures.ThreadPoolExecutor(2)
    server = grpc.server(pool, handlers=[Everything()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()
        pool.shutdown()


@pytest.mark.clause("B95")
def test_a_server_of_another_protocol_version(project: Project) -> None:
    with server_of_protocol("7") as address:
        project.environment["DATATAILR_ADDRESS"] = address
        success, message, err = attempt(project)
    assert success is False and "protocol" in message and "7" in message and "1" in message
    assert "Traceback" not in err


def test_a_port_that_speaks_no_grpc(project: Project) -> None:
    project.environment["DATATAILR_ADDRESS"] = project.platform.ready["http"].removeprefix("http://")
    success, message, err = attempt(project)
    assert success is False and project.environment["DATATAILR_ADDRESS"] in message
    assert "Traceback" not in err


def test_a_data_directory_in_use(project: Project, platform: Platform, tmp_path: Path) -> None:
    command = up_command(platform.folder, name="second.json")
    ran = run_command(command, base_environment(tmp_path), code=None, seconds=30)
    assert ran.code != 0
    said = ran.err.strip().splitlines()[-1]
    assert str(platform.data) in said and "use" in said, ran.err
    assert not (platform.folder / "second.json").exists()
    assert "Traceback" not in ran.err


def test_a_data_directory_of_a_newer_version(project: Project, tmp_path: Path) -> None:
    folder = tmp_path / "newer"
    versions = make_newer(folder)
    ran = run_command(up_command(folder), base_environment(tmp_path), code=None, seconds=30)
    assert ran.code != 0 and not (folder / "ready.json").exists()
    assert "newer" in ran.err and "Traceback" not in ran.err, ran.err
    for path, text in versions.items():
        assert path.read_text() == text


def make_newer(folder: Path) -> dict[Path, str]:
    """A data directory whose every VERSION file comes from the future."""
    first = Platform.start(folder)
    first.stop()
    (folder / "ready.json").unlink(missing_ok=True)
    files = [*first.data.glob("VERSION"), *first.data.glob("*/VERSION")]
    found = dict.fromkeys(files, "999999\n")
    assert found, sorted(os.listdir(first.data))
    for path, text in found.items():
        path.write_text(text)
    return found


def test_a_taken_port(project: Project, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = up_command(tmp_path / "other")
        command[command.index("--grpc-port") + 1] = port
        ran = run_command(command, base_environment(tmp_path), code=None, seconds=30)
    assert ran.code != 0 and port in ran.err and "Traceback" not in ran.err, ran.err
