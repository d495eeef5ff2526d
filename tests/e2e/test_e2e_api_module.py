"""Somebody's existing module, unchanged, in a git repository with a remote: the way of a working day."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from e2e_harness import Project, run_command

CLEANING = """
    import os

    from datatailr import task

    LEDGER = @LEDGER@


    def note(line):
        with open(LEDGER, "a", encoding="utf-8") as ledger:
            ledger.write(line + "\\n")


    @task(memory="150m")
    def load(rows: int = 4) -> list[int]:
        '''Rows of the day.'''
        note("load")
        return list(range(rows))


    @task()
    def clean(rows, *, factor):
        note("clean")
        if os.path.exists(LEDGER + ".broken"):
            raise ValueError("a row is broken")
        return [factor * row for row in rows]
"""
REPORT = """
    from datatailr import task
    from pipeline.cleaning import note


    @task()
    def report(rows, title="Total", rundate=None):
        note("report")
        return f"{title}: {sum(rows)}"
"""
DEPLOY = """
    from datatailr import workflow
    from pipeline import cleaning
    from pipeline.report import report


    @workflow(name="@NAME@", python_version="3.11", env_vars={"STAGE": "test"})
    def daily(factor):
        rows = cleaning.load()
        report(cleaning.clean(rows, factor=factor).alias("cleaned"), title="Sum")


    if __name__ == "__main__":
        daily(10)
"""


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
    }
    return run_command(["git", *identity, *arguments], environment, cwd=folder).out.strip()


def plain_call(project: Project) -> str:
    """What the functions do without any platform."""
    return project.script(
        "from pipeline import cleaning, report\n"
        "print(report.report(cleaning.clean(cleaning.load(2), factor=3)))\n"
    ).out.strip()


@pytest.mark.clause("B13", "B98", "B102", "B119", "B121", "B122", "B127", "B129", "B131", "B163", "B167")
def test_deployed_edited_repaired_and_promoted(project: Project, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.txt"
    broken = tmp_path / "ledger.txt.broken"

    def did() -> list[str]:
        lines = ledger.read_text().split()
        ledger.unlink()
        return lines

    cleaning = CLEANING.replace("@LEDGER@", repr(str(ledger)))
    project.write("pipeline/cleaning.py", cleaning)
    project.write("pipeline/report.py", REPORT)
    assert plain_call(project) == "Total: 3"
    assert did() == ["load", "clean", "report"]

    project.write("deploy.py", DEPLOY)
    git(tmp_path, "init", "-q", "--bare", "-b", "main", "remote.git")
    git(project.folder, "init", "-q", "-b", "main")
    git(project.folder, "add", "-A")
    git(project.folder, "commit", "-qm", "first")
    git(project.folder, "remote", "add", "origin", str(tmp_path / "remote.git"))
    git(project.folder, "push", "-q", "-u", "origin", "main")
    pushed = git(project.folder, "rev-parse", "HEAD")

    # deployed and run
    assert "ERROR" not in project.python("deploy.py").err
    first = project.flow.wait()
    assert (first.result("report"), did()) == ("Sum: 60", ["load", "clean", "report"])
    image = project.flow.job.image
    assert (image.branch_name, image.commit_hash, image.path_to_module) == ("main", pushed, "pipeline")

    # edited, not committed, run again: the code on disk counts
    project.write("pipeline/report.py", REPORT.replace("sum(rows)", "max(rows)"))
    project.python("deploy.py")
    second = project.flow.wait(max(project.flow.run_ids()))
    assert (second.result("report"), second.details["job_version"], did()) == (
        "Sum: 30",
        2,
        ["load", "clean", "report"],
    )
    assert first.result("report") == "Sum: 60"
    assert project.flow.job.image.commit_hash == "unknown"

    # a failure in the middle, its cause repaired, and only what failed is executed again
    broken.touch()
    project.python("deploy.py")
    third = project.flow.wait(max(project.flow.run_ids()), state="failed")
    assert third.states == {"load": "completed", "cleaned": "failed", "report": "did_not_run"}
    assert did() == ["load", "clean"]
    broken.unlink()
    assert third.job.rerun(third.id)[0]
    repaired = project.flow.wait(max(project.flow.run_ids()))
    assert did() == ["clean", "report"]
    assert repaired.result("report") == "Sum: 30"
    assert repaired.result("load") == [0, 1, 2, 3]
    assert (repaired.details["original_run_id"], repaired.details["partial_rerun"]) == (third.id, True)
    assert third.result("report") is None

    # promotion: only what was verified
    job = project.flow.job
    refused, message = job.promote(from_environment="dev")
    assert not refused and "verified repository" in message
    assert job.versions("pre") == []
    promoted, message = job.promote(from_environment="dev", version=1)
    assert promoted, message
    assert job.versions("pre") == [1]
    git(project.folder, "commit", "-qam", "second")
    git(project.folder, "push", "-q")
    project.python("deploy.py")
    last = project.flow.wait(max(project.flow.run_ids()))
    assert last.details["job_version"] == 4
    assert last.job.promote(from_environment="dev")[0]
    assert job.versions("pre") == [1, 4]
    assert job.runs(refresh=True)[0]["run_id"] == last.id, "nothing was started in pre"
