"""Definitions of every type on the real platform: saved, read back, printed and saved again; instant runs."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from typing import Any

import pytest
from e2e_harness import Project

from datatailr import App, ExcelAddin, Service, Workflow
from datatailr.client import documents, queries
from datatailr.client.connection import Connection
from datatailr.errors import NotSupportedError, TaskError
from datatailr.scheduler import Job
from datatailr.scheduler._platform import get_platform

SERVED = """
    from datatailr import ACL, App, ExcelAddin, Permission, Resources, Service, User
    from datatailr.excel import Addin

    addin = Addin("Prices", "Prices of things.")


    @addin.expose("Price", help="One price")
    def price(name: str, day: int = 1) -> float:
        return 1.5


    def serve(port):
        raise SystemExit(3)


    def __excel_main__(port, ws_port):
        addin.run(port, ws_port)


    ME = User.signed_user()
    COMMON = dict(
        python_version="3.11",
        python_requirements=["flask", "gunicorn"],
        build_script_post="echo post",
        env_vars={"A": 1, "B": True},
        resources=Resources(memory="300m", cpu=0.5),
        acl=ACL({Permission.READ: [ME], Permission.WRITE: [ME], Permission.OPERATE: [ME]}),
    )
    JOBS = [
        App("@NAME@ app", serve, framework="flask", app_section="Desk", **COMMON),
        Service("@NAME@ service", "shop.served:serve", app_section="Desk", **COMMON),
        ExcelAddin("@NAME@ addin", __excel_main__, app_section="Desk", **COMMON),
    ]
"""
TYPES: list[tuple[str, type[Job], str]] = [
    ("app", App, "serve"),
    ("service", Service, "serve"),
    ("addin", ExcelAddin, "__excel_main__"),
]


@pytest.fixture
def connection(project: Project) -> Any:
    opened = Connection(project.platform.address, project.platform.token)
    yield opened
    opened.close()


def stored(connection: Connection, name: str, version: int) -> tuple[Any, list[Any]]:
    job = queries.job(connection, name, "dev", version=version)
    return job.definition, list(queries.version_tasks(connection, job))


@pytest.mark.clause("B5", "B95", "B98", "B102", "B103", "B112", "B113", "B118", "B125", "B134", "B270")
def test_other_types_are_saved_and_say_that_they_do_not_run_yet(project: Project) -> None:
    project.write("shop/served.py", SERVED)
    answers = project.script(
        """
        import json
        from shop.served import JOBS

        print(json.dumps([[job.save(), job.run(), job.start(), job.version, job.id] for job in JOBS]))
        """
    )
    for (kind, job_class, function), answer in zip(TYPES, json.loads(answers.out.splitlines()[-1])):
        saved, ran, started, version, job_id = answer
        assert saved[0] is True and "version 1 is saved" in saved[1]
        assert ran[0] is False and "version 2 is saved, but starting" in ran[1]
        assert "runs workflows only" in ran[1] and "runs workflows only" in started[1]
        assert (started[0], version) == (False, 2)
        name = f"{project.name} {kind}"
        loaded = job_class(name=name, entrypoint=None, get_existing=True, version="1")  # type: ignore[call-arg]
        assert (loaded.id, loaded.version, loaded.versions("dev")) == (job_id, 1, [1, 2])
        assert str(loaded.entrypoint) == f"shop.served:{function}"
        assert (loaded.resources.memory, loaded.resources.cpu) == ("300m", 0.5)
        assert {"A": "1", "B": "True"}.items() <= loaded.env_vars.items()
        assert loaded.acl is not None and loaded.acl.to_dict()["write"] == loaded.acl.to_dict()["read"]
        assert loaded.acl.to_dict().get("promote", []) == []
        assert (loaded.app_section, loaded.image.build_script_post) == ("Desk", "echo post")
        assert loaded.image.python_requirements == "flask\ngunicorn"
        internal = loaded.internal_name
        assert [job["name"] for job in job_class.ls("dev", filter_by=f"name = {internal}")] == [internal]
        assert Workflow.ls("dev", filter_by=f"name = {internal}") == []
        assert loaded.runs(refresh=True) == []
        loaded.env_vars["A"] = "2"
        assert loaded.save()[0] and loaded.version == 3
        assert loaded.remove(all_versions=False)[0] and loaded.versions() == [1, 2]
        platform = get_platform()
        assert platform is not None
        with pytest.raises(NotSupportedError, match="runs workflows only"):
            platform.start_job(internal, "dev")


@pytest.mark.clause("B72", "B74", "B101", "B268", "B270")
def test_what_get_prints_of_other_types_is_saved_as_the_same(
    project: Project, connection: Connection
) -> None:
    project.write("shop/served.py", SERVED)
    project.script("from shop.served import JOBS\nfor job in JOBS:\n    job.save()\n")
    for kind, _, _ in TYPES:
        name = f"{project.name} {kind}"
        before, _ = stored(connection, name, 1)
        printed = project.platform.dt("job", "get", name, "--json").out
        (project.folder / "d.json").write_text(printed)
        project.platform.dt("job", "save", f"file://{project.folder}/d.json")
        after, tasks = stored(connection, name, 2)
        assert after == before and tasks == []
        assert after.resources.memory == "300m" and list(after.acl.read) == [1]


def rows(project: Project, name: str, version: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What the store has of a version: its definition and its tasks, arguments included."""
    path = project.platform.data / "controlplane" / "state.db"
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as store:
        store.row_factory = sqlite3.Row
        ((number,),) = store.execute(
            "SELECT definition_id FROM versions JOIN jobs USING (job_id) "
            "WHERE display_name = ? AND environment = 1 AND version = ?",
            (name, version),
        )
        (definition,) = store.execute("SELECT * FROM definitions WHERE definition_id = ?", (number,))
        tasks = store.execute(
            "SELECT * FROM definition_tasks WHERE definition_id = ? ORDER BY task_id", (number,)
        )
        found = [dict(row) for row in (definition, *tasks)]
    for row in found:
        assert row.pop("definition_id") == number
    return found[0], found[1:]


FLOW = """
    from datatailr import ACL, Permission, Resources, Schedule, User, task, workflow


    @task(memory="200m")
    def number(value=1):
        return value


    @task(cpu=0.5)
    def total(values, more, *, flag=None):
        return sum(values) + more["last"]


    ME = User.signed_user()


    @workflow(
        name="@NAME@",
        python_version="3.11",
        schedule=Schedule(at_hours=[7, 19], weekdays=["mon"], timezone="Europe/Berlin"),
        acl=ACL({Permission.READ: [ME], Permission.WRITE: [ME], Permission.OPERATE: [ME]}),
        env_vars={"A": "x=1", "B": ""},
        resources=Resources(memory="400m"),
        fail_after="1h 30m",
        expire_after="30m",
    )
    def flow(last=7):
        first = number()
        second = number(2).update_env_vars({"A": "y", "C": "z"})
        first >> second
        total([first, (second,)[0]], {"last": number(last)}, flag={"text": ["number", None]}).alias("sum")
"""


@pytest.mark.clause("B44", "B74", "B75", "B83", "B113", "B240", "B270")
def test_a_scheduled_workflow_travels_whole_through_its_document(
    project: Project, connection: Connection
) -> None:
    flow = project.deploy(FLOW)
    before, tasks = stored(connection, flow.name, 1)
    printed = project.platform.dt("job", "get", flow.name, "--json", "-c").out
    (project.folder / "d.json").write_text(printed)
    project.platform.dt("job", "save", f"file://{project.folder}/d.json")
    after, tasks_after = stored(connection, flow.name, 2)
    assert (after, tasks_after) == (before, tasks)
    kept, kept_tasks = rows(project, flow.name, 1)
    assert rows(project, flow.name, 2) == (kept, kept_tasks)
    assert len({row["arguments_digest"] for row in kept_tasks}) == 4, "each task has arguments of its own"
    assert after.schedule.timezone == "Europe/Berlin" and "at_hours" in after.schedule.fields
    assert [(v.name, v.value) for v in after.env] == [("A", "x=1"), ("B", "")] and len(tasks) == 4
    assert [(v.name, v.value) for v in tasks[1].env] == [("A", "y"), ("B", ""), ("C", "z")]
    # the same as what the SDK says of the loaded object
    again = Workflow(name=flow.name, get_existing=True, version=2)
    first = Workflow(name=flow.name, get_existing=True, version=1)
    assert again.to_dict() == first.to_dict()
    assert again.get_schedule_args() == first.get_schedule_args()
    # and its arguments, tasks inside included, do what they did
    answer = project.platform.dt("job", "start", flow.name, "-v", "2", "--now", "-j").json()
    run_id = (answer["running"] + answer["pending"])[0]["RunId"]
    assert flow.wait(run_id).result("sum") == 10
    stored_job = queries.job(connection, flow.name, "dev", version=2)
    definition = documents.stored_definition(stored_job, queries.version_tasks(connection, stored_job))
    assert definition.acl is not None and definition.acl["read"] == [1] and definition.acl["promote"] == []


@pytest.mark.clause("B41", "B48", "B103", "B104", "B124")
def test_a_schedule_is_stored_and_both_programs_say_that_it_does_not_fire_yet(project: Project) -> None:
    project.write("shop/flow.py", FLOW)
    ran = project.script("from shop.flow import flow\n\nflow()\n")
    assert "is on its schedule" in ran.out
    assert "does not start runs by schedules yet" in ran.err
    job = project.flow.job
    assert (job.state, job.runs(refresh=True)) == ("scheduled", [])
    again, message = job.start()
    assert not again and "on its schedule already" in message
    assert job.stop()[0]
    told = project.platform.dt("job", "start", job.internal_name)
    assert "does not start runs by schedules yet" in told.err
    assert project.platform.dt("job", "stop", job.internal_name).code == 0


@pytest.mark.clause("B90", "B94", "B284")
def test_a_predecessor_must_exist_and_not_lead_back(project: Project) -> None:
    project.write("shop/tasks.py", "from datatailr import task\n\n@task()\ndef one():\n    return 1\n")
    ran = project.script(
        """
        import json
        from datatailr import Schedule, Workflow
        from shop.tasks import one

        def made(name, after=None):
            schedule = None if after is None else Schedule(run_after_job_name=after)
            flow = Workflow(name=f"@NAME@ {name}", schedule=schedule, python_version="3.11")
            flow.set_autorun(False)
            with flow:
                one()
            return flow.save()

        print(json.dumps([made("b", "@NAME@ a"), made("a"), made("b", "@NAME@ a"), made("a", "@NAME@ b")]))
        """
    )
    missing, first, second, circle = json.loads(ran.out.splitlines()[-1])
    assert missing[0] is False and "to run after" in missing[1] and f"{project.name} a" in missing[1]
    assert first[0] and second[0]
    assert circle[0] is False and "would run after itself" in circle[1]
    assert Workflow(name=f"{project.name} a", get_existing=True).version == 1


@pytest.mark.clause("B55")
def test_an_instant_run_has_a_handle_and_leaves_no_version(project: Project) -> None:
    project.write(
        "shop/flow.py",
        """
        import os
        import time

        from datatailr import task, workflow


        @task()
        def double(x):
            print("doubling", x)
            return 2 * x


        @task()
        def slow():
            time.sleep(600)


        @workflow(name="@NAME@", python_version="3.11")
        def flow(n):
            double(double(n))


        @workflow(name="@NAME@ slow", python_version="3.11")
        def long_flow():
            slow()
        """,
    )
    ran = project.script(
        """
        import json
        from shop.flow import flow, long_flow

        handle = flow(5, instant_run=True)
        state = handle.wait(timeout=60)
        slow = long_flow(instant_run=True)
        stopped = slow.stop()
        print(json.dumps([
            handle.run_id, state, handle.result(), handle.task_status(), handle.logs("double"),
            handle.workflow.versions(), str(handle.environment), stopped[0], slow.wait(timeout=60),
        ]))
        """
    )
    run_id, state, result, tasks, log, versions, environment, stopped, slow = ran.last()
    assert (state, result, versions, environment) == ("completed", 20, [], "dev")
    assert tasks == {"double": "completed", "double-1": "completed"}
    assert "doubling 5" in log
    assert (stopped, slow) == (True, "stopped")
    name = project.flow.name
    listed = project.platform.dt("job", "ls", "-f", f'display_name = "{name}"', "-j").json()
    assert listed == []
    rows = project.platform.dt("job", "runs", "-f", f"run_id = {run_id}", "-j").json()
    assert [row["state"] for row in rows] == ["completed"]
    with pytest.raises(TaskError, match="there is no job"):
        _ = project.flow.job
    assert "of version 1 repeats" in project.platform.dt("job", "rerun", str(run_id), "--full").out
    # a version that is saved later has a number of its own
    project.script("from shop.flow import flow\n\nflow(1)\n")
    assert project.flow.wait(max(project.flow.run_ids())).details["job_version"] == 2
    assert project.flow.job.versions() == [2]
    assert project.flow.job.runs(refresh=True)[-1]["run_id"] == run_id
