"""Tasks and the graph (section 2)."""

from __future__ import annotations

import importlib
import inspect
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
from sdk_builder import Builder

from datatailr import Resources, Task, Workflow, task, workflow
from datatailr.scheduler import (
    CodePackageMismatchError,
    DuplicateJobNameError,
    EntryPoint,
    JobType,
    TaskError,
)
from datatailr.scheduler.batch import CyclicDependencyError, MissingDagError
from datatailr.scheduler.constants import DEFAULT_TASK_CPU, DEFAULT_TASK_MEMORY


@task()
def get_number() -> int:
    """A number."""
    return 41


@task
def add(a: int, b: int = 1) -> int:
    return a + b


@task()
def collect(*values: Any, **named: Any) -> Any:
    return values, named


@task()
def dated(rundate: str, *args: Any) -> Any:
    return rundate, args


@task()
def dated_named(x: int, scheduled_time: str = "", job_name: str = "") -> Any:
    return x, scheduled_time, job_name


@task()
def dated_any(rundate: str = "", **rest: Any) -> Any:
    return rundate, rest


@task(memory="512m", cpu=2)
def heavy() -> None:
    pass


@task(memory="128m")
def stated() -> None:
    pass


def graph(**options: Any) -> Workflow:
    flow = Workflow("Flow", **options)
    flow.set_autorun(False)
    return flow


@pytest.mark.clause("B13")
def test_a_task_function_is_a_function() -> None:
    assert get_number() == 41
    assert add(1) == 2
    assert add(a=1, b=5) == 6
    assert add.__name__ == "add"
    assert get_number.__doc__ == "A number."
    assert list(inspect.signature(add).parameters) == ["a", "b"]
    assert inspect.signature(add).parameters["b"].default == 1
    assert add.__datatailr_task__ is True  # type: ignore[attr-defined]
    assert add.__wrapped__(2, 3) == 5  # type: ignore[attr-defined]


@pytest.mark.clause("B13")
def test_decorators_without_parentheses() -> None:
    @workflow
    def bare() -> None:
        add(1)

    assert '"display_name": "Bare"' in bare(to_json=True, python_requirements=["pytest"])
    with pytest.raises(TypeError, match="functions"):
        task(memory=3)(7)  # type: ignore[arg-type]


@pytest.mark.clause("B16", "B17")
def test_a_call_in_a_workflow_makes_a_task() -> None:
    with graph() as flow:
        first = get_number()
        second = add(first)
        third = collect(1, 2, x=3, y=first)
    assert isinstance(first, Task)
    assert [entry.name for entry in flow.tasks] == ["get_number", "add", "collect"]
    assert [entry.id for entry in flow.tasks] == [0, 1, 2]
    assert str(first.entrypoint) == f"{__name__}:get_number"
    assert second.args == {"a": first, "b": 1}  # type: ignore[attr-defined]
    assert third.args == {"values": (1, 2), "x": 3, "y": first}


@pytest.mark.clause("B17")
@pytest.mark.parametrize("call", [lambda: add(), lambda: add(1, 2, 3), lambda: add(1, c=2)])
def test_a_call_that_does_not_fit_is_an_error(call: Any) -> None:
    with graph(), pytest.raises(ValueError, match="task 'add'"):
        call()


@pytest.mark.clause("B17")
def test_keywords_that_would_hide_a_parameter() -> None:
    with graph(), pytest.raises(ValueError, match="'values'"):
        collect(1, values=2)


@pytest.mark.clause("B18")
def test_args_can_be_assigned() -> None:
    with graph():
        first, second = get_number(), add(1)
        second.args = {"a": first}  # type: ignore[attr-defined]
        assert second.dependencies == {0}  # type: ignore[attr-defined]
        with pytest.raises(TypeError, match="args of task 'add'"):
            second.args = [1]  # type: ignore[attr-defined]


@pytest.mark.clause("B19", "B20")
def test_dependencies_come_from_containers() -> None:
    class Box:
        def __init__(self, content: Any) -> None:
            self.content = content

    with graph():
        a, b, c, d, e, f = (get_number() for _ in range(6))
        found: Any = collect([a, (b, {c})], x={"k": [{"deep": d}]}, y={e: 1}, z=Box(f))
        assert found.dependencies == {0, 1, 2, 3}
        loop: list[Any] = [a]
        loop.append(loop)
        endless: Any = collect(loop)
        assert endless.dependencies == {0}


@pytest.mark.clause("B22")
def test_depends_on_is_ascending_and_unique() -> None:
    with graph() as flow:
        a, b = get_number(), get_number()
        collect(b, a, [b, a])
    assert flow.to_dict()["jobs"][2]["depends_on"] == [0, 1]


@pytest.mark.clause("B23", "B24", "B26")
def test_arrows() -> None:
    with graph() as flow:
        a, b, c, d = (get_number() for _ in range(4))
        assert (a >> b) is b  # type: ignore[operator]
        assert (c << b) is b  # type: ignore[operator]
        both = [c, d]
        assert (a >> both) is both  # type: ignore[operator]
        e, f, g = (get_number() for _ in range(3))
        assert ([a, b] >> e) is e  # type: ignore[operator]
        assert (f << both) is both  # type: ignore[operator]
        assert ([f, g] << a) is a  # type: ignore[operator]
        a >> a  # type: ignore[operator]
    expected = {0: set(), 1: {0}, 2: {0, 1}, 3: {0}, 4: {0, 1}, 5: {0, 2, 3}, 6: {0}}
    assert {entry.id: entry.translate_dependencies() for entry in flow.tasks} == expected


@pytest.mark.clause("B23")
def test_a_chain_of_arrows() -> None:
    with graph() as flow:
        a, b, c = (get_number() for _ in range(3))
        a >> b >> c  # type: ignore[operator]
    assert flow.task_levels() == [[0], [1], [2]]


@pytest.mark.clause("B25")
def test_an_explicit_dependency_changes_no_argument() -> None:
    with graph():
        a: Any = get_number()
        b: Any = add(5)
        a >> b
        assert b.args == {"a": 5, "b": 1}


@pytest.mark.clause("B27")
def test_a_cycle_is_named() -> None:
    with graph() as flow:
        a, b, c, _ = (get_number() for _ in range(4))
        a >> b >> c >> a  # type: ignore[operator]
    for use in (flow.to_json, flow.task_levels):
        with pytest.raises(CyclicDependencyError, match=r"'get_number' -> .*'get_number'"):
            use()
    flow.set_local_run(True)
    with pytest.raises(CyclicDependencyError):
        flow.run()
    assert issubclass(CyclicDependencyError, TaskError)


@pytest.mark.clause("B27")
def test_a_cycle_stops_save_and_run(platform: Any) -> None:
    with graph() as flow:
        a, b = get_number(), get_number()
        a >> b >> a  # type: ignore[operator]
    for use in (flow.save, flow.run):
        with pytest.raises(CyclicDependencyError):
            use()
    assert platform.calls == []


@pytest.mark.clause("B28")
def test_repeated_calls_get_numbered_names() -> None:
    with graph() as flow:
        for _ in range(3):
            get_number()
        last = Task("last", get_number, dependencies=["get_number-1", "get_number-2"])
    assert [entry.name for entry in flow.tasks][:3] == ["get_number", "get_number-1", "get_number-2"]
    assert last.translate_dependencies() == {1, 2}
    assert flow.get_task_by_name("get_number-1") is flow.tasks[1]


@pytest.mark.clause("B29")
def test_alias() -> None:
    with graph() as flow:
        a: Any = get_number().alias("first")  # type: ignore[attr-defined]
        b: Any = get_number()
        assert a.alias("first") is a
        with pytest.raises(DuplicateJobNameError) as caught:
            b.alias("first")
        assert caught.value.job_name == "first"
        assert (a.name, b.name) == ("first", "get_number")
        for bad in ("", "  ", "a\nb"):
            with pytest.raises(ValueError):
                a.alias(bad)
        assert a.alias('"ψ"/x').name == '"ψ"/x'
    assert flow.get_task_by_name('"ψ"/x') is a


@pytest.mark.clause("B30", "B31")
def test_alias_frees_the_plain_name_but_no_number() -> None:
    with graph() as flow:
        get_number().alias("x")  # type: ignore[attr-defined]
        get_number()
        get_number().alias("z")  # type: ignore[attr-defined]
        get_number()
        get_number().alias("get_number-4")  # type: ignore[attr-defined]
        get_number()
        get_number()
    names = [entry.name for entry in flow.tasks]
    assert names == ["x", "get_number", "z", "get_number-2", "get_number-4", "get_number-5", "get_number-6"]
    assert len(set(names)) == len(names)


@pytest.mark.clause("B31")
def test_an_automatic_name_avoids_a_taken_one() -> None:
    with graph() as flow:
        add(1).alias("get_number-1")  # type: ignore[attr-defined]
        get_number()
        get_number()
    assert [entry.name for entry in flow.tasks] == ["get_number-1", "get_number", "get_number-2"]


@pytest.mark.clause("B32")
def test_renaming_changes_nothing_else() -> None:
    with graph() as flow:
        a: Any = get_number()
        b: Any = add(a)
        c = Task("c", get_number, dependencies=["get_number"])
        a.alias("source")
        d: Any = get_number()
    assert (a.id, b.id, d.id) == (0, 1, 3)
    assert b.args["a"] is a
    assert b.translate_dependencies() == {0}
    assert c.translate_dependencies() == {0}
    assert flow.get_task_by_name("get_number") is d


@pytest.mark.clause("B33")
def test_what_a_task_is() -> None:
    with graph():
        a: Any = get_number()
        b: Any = get_number()
    assert a(1, x=2) is a
    assert sorted([b, a]) == [a, b]
    assert hash(b) == 1
    assert a != b
    with pytest.raises(TypeError):
        a[0]
    with pytest.raises(TypeError):
        list(a)


@pytest.mark.clause("B34")
def test_set_resources() -> None:
    with graph():
        a: Any = heavy()
        assert a.set_resources(cpu=3) is a
        assert a.resources == Resources("128m", 3)
        a.set_resources(memory="1g")
        assert a.resources == Resources("1g", 0.25)
        a.set_resources(Resources("2g", 4), memory="9g", cpu=9)
        assert a.resources == Resources("2g", 4)
        with pytest.raises(TypeError, match="resources of task 'heavy'"):
            a.set_resources("1g")


@pytest.mark.clause("B35", "B137")
def test_variables_of_tasks() -> None:
    flow = graph(env_vars={"A": 1, "B": "b"})
    with flow:
        a: Any = get_number()
        b: Any = get_number()
        assert a.update_env_vars({"B": "changed", "C": True}) is a
    assert a.env_vars == {"A": 1, "B": "changed", "C": True}
    assert b.env_vars == {"A": 1, "B": "b"}
    copied = flow.get_env_vars_copy()
    copied["Z"] = 1
    assert flow.get_env_vars_copy() == {"A": 1, "B": "b"}


@pytest.mark.clause("B36")
def test_a_task_needs_a_workflow() -> None:
    with pytest.raises(MissingDagError):
        Task("x", get_number)

    class Special(Task):
        pass

    with graph() as flow:
        special = Special("special", get_number)
        after: Any = add(special)  # type: ignore[arg-type]
    assert flow.is_task_in(special)
    assert after.translate_dependencies() == {special.id}
    flow.set_local_run(True)
    flow.run()
    assert pickle.loads(after._result) == 42


@pytest.mark.clause("B37")
def test_explicit_dependencies() -> None:
    with graph():
        a: Any = get_number()
        b = Task("b", get_number, dependencies=[a])
        c = Task("c", get_number, dependencies=["b", 0])
        assert c.translate_dependencies() == {0, 1}
        assert b.translate_dependencies() == {0}
        with pytest.raises(KeyError, match="nobody"):
            Task("d", get_number, dependencies=["nobody"]).translate_dependencies()
        with pytest.raises(KeyError, match="99"):
            Task("e", get_number, dependencies=[99]).translate_dependencies()
        with pytest.raises(TypeError):
            Task("f", get_number, dependencies=[1.5]).translate_dependencies()  # type: ignore[list-item]


@pytest.mark.clause("B38")
def test_all_tasks_come_from_one_package(package: Builder, tmp_path: Path) -> None:
    first = package(
        "one/tasks.py", "from datatailr import task\n@task\ndef f(): pass\n", **{"one/__init__.py": ""}
    )
    second = package(
        "two/tasks.py", "from datatailr import task\n@task\ndef g(): pass\n", **{"two/__init__.py": ""}
    )
    with graph() as flow:
        first.f()
        with pytest.raises(CodePackageMismatchError, match="two"):
            second.g()
    assert flow.image.path_to_repo == str(tmp_path / "project")
    assert flow.image.path_to_module == "one"
    assert [entry.name for entry in flow.tasks] == ["f"]


TWICE = """
from datatailr import task

@task
def f():
    return 1

@task()
def f():
    return 2
"""


@pytest.mark.clause("B39")
def test_two_task_functions_of_one_name(package: Builder) -> None:
    with pytest.raises(ValueError, match=r"two @task functions named 'f'.*lines 4 and 8"):
        package("twice.py", TWICE)


@pytest.mark.clause("B39")
def test_reloading_a_module_is_no_duplicate(package: Builder) -> None:
    module = package("once.py", "from datatailr import task\n@task\ndef f(): return 1\n")
    assert module.__file__ is not None
    Path(module.__file__).write_text("from datatailr import task\n\n\n@task\ndef f(): return 22\n")
    assert importlib.reload(module).f() == 22


@pytest.mark.clause("B39")
def test_a_notebook_cell_can_be_run_again() -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    cell = "from datatailr import task\n@task\ndef f(): return 1\n"
    for file in ("<cell 1>", "<cell 1>", "<cell 2>"):
        source = cell if file == "<cell 1>" else "\n\n" + cell
        exec(compile(source, file, "exec"), names)
    assert names["f"]() == 1


@pytest.mark.clause("B40")
def test_platform_parameters_are_no_arguments() -> None:
    with graph():
        a: Any = get_number()
        skipped: Any = dated(1, a)
        assert skipped.args == {"args": (1, a)}
        assert dated_named(3).args == {"x": 3}
        with pytest.raises(ValueError, match="rundate is filled by the platform"):
            dated(rundate="2026-01-01")
        with pytest.raises(ValueError, match="job_name is filled by the platform"):
            dated_named(1, job_name="x")
        assert dated_any(rundate="x", more=1).args == {"rundate": "x", "more": 1}


@pytest.mark.clause("B64", "B65")
def test_resources_of_tasks_by_precedence() -> None:
    with graph() as plain:
        heavy(), stated(), get_number()
    found = [(entry["memory"], entry["num_cpus"]) for entry in plain.to_dict()["jobs"]]
    assert found == [("512m", 2), ("128m", 0.25), ("128m", 0.25)]
    with graph(resources=Resources("1g", 3)) as given:
        heavy(), stated(), get_number(), heavy().set_resources(memory="64m")  # type: ignore[func-returns-value]
    found = [(entry["memory"], entry["num_cpus"]) for entry in given.to_dict()["jobs"]]
    assert found == [("512m", 2), ("128m", 3), ("1g", 3), ("64m", 0.25)]
    with graph(resources=Resources(memory="1g")) as half:
        get_number()
    assert half.tasks[0].resources == Resources("1g", 0.25)


@pytest.mark.clause("B64", "B65", "B65a")
def test_a_default_is_told_from_an_equal_value() -> None:
    assert (DEFAULT_TASK_MEMORY, DEFAULT_TASK_CPU) == ("128m", 0.25)
    with graph():
        default: Any = get_number()
        given: Any = stated()
    assert default.resources.request(owner="x").memory_is_default
    assert not given.resources.request(owner="x").memory_is_default


@pytest.mark.clause("B135")
def test_add_job() -> None:
    flow = graph()
    made = Task("x", get_number, dag=flow)
    flow.add_job(made)
    assert flow.tasks == [made]
    assert made.resources == Resources("128m", 0.25)
    with pytest.raises(DuplicateJobNameError):
        Task("x", add, dag=flow)
    other = graph()
    moved = Task("x", get_number, dag=other)
    flow.add_job(moved)
    assert (moved.name, moved.id, moved.dag) == ("x-1", 1, flow)
    with pytest.raises(TypeError):
        flow.add_job("x")  # type: ignore[arg-type]


@pytest.mark.clause("B136")
def test_looking_tasks_up() -> None:
    with graph() as flow:
        a: Any = get_number()
    assert flow.get_task_by_name("get_number") is a
    assert flow.get_task_by_name("nobody") is None
    assert flow.get_task_name_from_id(0) == "get_number"
    assert flow.get_task_name_from_id(5) is None
    assert flow.is_task_in(a)
    assert not graph().is_task_in(a)
    with graph() as other:
        get_number()
    # a task of the same id, but another one
    assert not other.is_task_in(a)


@pytest.mark.clause("B138", "B139")
def test_reset_and_ids(platform: Any) -> None:
    flow = Workflow("Flow", env_vars={"A": 1})
    assert (flow.next_job_id, flow.next_job_id) == (0, 1)
    with flow:
        get_number()
        flow.reset()
    assert platform.calls == []
    assert flow.tasks == []
    assert flow.get_env_vars_copy() == {}
    assert flow.next_job_id == 0
    with graph() as again:
        again.reset()
        get_number()
    assert [entry.name for entry in again.tasks] == ["get_number"]


@pytest.mark.clause("B142")
def test_a_task_can_be_pickled_without_its_workflow() -> None:
    with graph():
        a: Any = add(1).alias("one")  # type: ignore[attr-defined]
    data = pickle.dumps(a)
    # the workflow does not travel, with all its tasks
    assert b"Workflow" not in data
    loaded = pickle.loads(data)
    assert loaded.dag is None
    assert (loaded.name, loaded.id, loaded.args) == ("one", 0, {"a": 1, "b": 1})
    assert str(loaded.entrypoint) == str(a.entrypoint)


@pytest.mark.clause("B19")
def test_a_task_of_another_workflow_is_no_argument() -> None:
    with graph():
        foreign: Any = get_number()
    with graph() as flow:
        add(foreign)
    with pytest.raises(TaskError, match="another workflow"):
        flow.to_json()


@pytest.mark.clause("B70", "B72")
def test_task_to_dict_and_json() -> None:
    with graph(env_vars={"A": 1}):
        a: Any = get_number()
        b: Any = heavy() << a  # type: ignore[operator]
        sum_: Any = add(a, 1).alias("sum")  # type: ignore[attr-defined]
    assert b is a
    assert sum_.to_dict() == {
        "display_name": "sum",
        "name": "sum",
        "child_number": 2,
        "entrypoint": f"{__name__}:add",
        "memory": "128m",
        "num_cpus": 0.25,
        "depends_on": [0],
        "env": [{"DATATAILR_JOB_ENV_A": "1"}],
    }
    assert '"child_number": 2' in sum_.to_json()


def test_a_graph_of_ten_thousand_tasks() -> None:
    with graph() as flow:
        last: Any = get_number()
        for _ in range(9_999):
            last = add(last)
    assert len(flow.task_levels()) == 10_000
    assert flow.to_dict()["jobs"][9_999]["depends_on"] == [9_998]


def test_entrypoints_of_tasks_are_workflow_entrypoints() -> None:
    with graph():
        made: Any = get_number()
    assert made.entrypoint == EntryPoint(JobType.WORKFLOW, sys.modules[__name__].get_number)
