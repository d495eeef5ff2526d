"""`dt job …`: definitions and their runs; which command is which function."""

from __future__ import annotations

from datatailr.cli import jobactions, jobfiles, joblists
from datatailr.cli.session import new_group

app = new_group("Jobs, their versions and runs.")

for _name, _function in (
    ("ls", joblists.list_jobs),
    ("runs", joblists.list_runs),
    ("get", joblists.get_job),
    ("versions", joblists.list_versions),
    ("start", jobactions.start_jobs),
    ("watch", jobactions.watch_job),
    ("stop", jobactions.stop_jobs),
    ("rerun", jobactions.rerun),
    ("save", jobfiles.save),
    ("run", jobfiles.run),
    ("modify", jobfiles.modify),
    ("copy", jobfiles.copy),
    ("new", jobfiles.new),
    ("cron", jobfiles.cron),
    ("promote", jobactions.promote),
    ("rm", jobactions.remove),
    ("restore", jobactions.restore),
):
    app.command(_name)(_function)
