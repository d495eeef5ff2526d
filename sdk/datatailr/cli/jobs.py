"""`dt job …`: definitions and their runs; which command is which function."""

from __future__ import annotations

from datatailr.cli.session import new_group

app = new_group(
    "Jobs, their versions and runs.",
    {
        "ls": "datatailr.cli.joblists:list_jobs",
        "runs": "datatailr.cli.joblists:list_runs",
        "get": "datatailr.cli.joblists:get_job",
        "versions": "datatailr.cli.joblists:list_versions",
        "start": "datatailr.cli.jobactions:start_jobs",
        "watch": "datatailr.cli.jobactions:watch_job",
        "stop": "datatailr.cli.jobactions:stop_jobs",
        "rerun": "datatailr.cli.jobactions:rerun",
        "save": "datatailr.cli.jobfiles:save",
        "run": "datatailr.cli.jobfiles:run",
        "modify": "datatailr.cli.jobfiles:modify",
        "copy": "datatailr.cli.jobfiles:copy",
        "new": "datatailr.cli.jobfiles:new",
        "cron": "datatailr.cli.jobfiles:cron",
        "promote": "datatailr.cli.jobactions:promote",
        "rm": "datatailr.cli.jobactions:remove",
        "restore": "datatailr.cli.jobactions:restore",
    },
)


@app.callback()
def group() -> None:
    """Jobs, their versions and runs."""
