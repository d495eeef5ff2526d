"""Tables of the control plane, as SQLAlchemy Core; migrations bring a database to this form.

Times are integer microseconds, 0 for "not reached". Enumerations are the integers of `core.values`. Small
structures that nobody searches by (dependencies, variables, labels, a definition's header) are JSON text;
`store.codec` and `core.causes` read them. User payloads are opaque: rows of `payloads` up to 64 KiB, else
objects; a reference is (digest, size, inline).

A run or task keeps its summary in `runs` and `run_tasks`; what is long (traceback, preview, exception) is in
`outcomes`, so that a page of tasks does not read it.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _int(name: str, *, key: bool = False) -> Column[int]:
    return Column(
        name,
        BigInteger().with_variant(Integer, "sqlite"),
        primary_key=key,
        nullable=False,
        autoincrement=False,
    )


def _text(name: str, *, key: bool = False) -> Column[str]:
    return Column(name, Text, primary_key=key, nullable=False)


def _flag(name: str) -> Column[bool]:
    return Column(name, Boolean(create_constraint=False), nullable=False)


def _real(name: str) -> Column[float]:
    return Column(name, Float, nullable=False)


counters = Table(
    # One row: the numbers that are never given twice, and the random name of this installation, which
    # keeps ids of different installations apart.
    "counters",
    metadata,
    _int("id", key=True),
    _text("installation"),
    _int("next_job"),
    _int("next_definition"),
    _int("next_run"),
    _int("next_build"),
)

definitions = Table(
    # What a version consists of, immutable; versions promoted to another environment share one.
    "definitions",
    metadata,
    _int("definition_id", key=True),
    _text("image_key"),
    _int("task_count"),
    _text("header"),
)

definition_tasks = Table(
    "definition_tasks",
    metadata,
    Column(
        "definition_id",
        Integer,
        ForeignKey("definitions.definition_id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    _int("task_id", key=True),
    _text("name"),
    _text("entrypoint"),
    _text("memory"),
    _int("memory_bytes"),
    _real("cpu"),
    _flag("memory_is_default"),
    _text("depends_on"),
    _text("env"),
    Column("arguments_digest", Text),
    _int("arguments_size"),
    _flag("arguments_inline"),
    sqlite_with_rowid=False,
)
Index("ix_definition_tasks_arguments_digest", definition_tasks.c.arguments_digest)

jobs = Table(
    "jobs",
    metadata,
    _text("job_id", key=True),
    _text("name"),
    _text("display_name"),
    _int("environment"),
    _int("type"),
    _text("acl"),
    _int("next_version"),
    _int("scheduled_version"),
    _int("create_time"),
    Index("ux_jobs_name_environment", "name", "environment", unique=True),
)

versions = Table(
    "versions",
    metadata,
    Column("job_id", Text, ForeignKey("jobs.job_id"), primary_key=True),
    _int("version", key=True),
    Column("definition_id", Integer, ForeignKey("definitions.definition_id"), nullable=False),
    _text("image_key"),
    _int("task_count"),
    _flag("verified"),
    _flag("has_schedule"),
    _flag("removed"),
    _int("create_time"),
    _text("created_by"),
    _flag("instant"),
)

images = Table(
    "images",
    metadata,
    _text("image_key", key=True),
    _text("recipe"),
    _text("bundle"),
    _int("state"),
    _int("cause_kind"),
    _text("cause_message"),
    _text("notice"),
    _text("build_id"),
    _text("agent_id"),
    _int("tries"),
    _int("create_time"),
    _int("start_time"),
    _int("end_time"),
)

builds = Table(
    "builds",
    metadata,
    _text("build_id", key=True),
    _text("image_key"),
    _int("state"),
    _text("agent_id"),
    _int("create_time"),
    _int("start_time"),
    _int("end_time"),
    _int("cause_kind"),
    _text("cause_message"),
    Index("ix_builds_image_key", "image_key"),
)

agents = Table(
    "agents",
    metadata,
    _text("agent_id", key=True),
    _text("name"),
    _int("epoch"),
    _text("journal_id"),
    _int("acked_seq"),
    _flag("schedulable"),
    _text("reason"),
    _int("memory_bytes"),
    _real("cpu"),
    _int("slots"),
    _text("software_version"),
    _text("runtime"),
    _text("labels"),
    _text("python_versions"),
    _flag("allows_pre_scripts"),
    _int("first_seen"),
    _int("last_heard"),
    _int("drain_by"),
)

runs = Table(
    "runs",
    metadata,
    _int("run_id", key=True),
    _text("job_id"),
    _int("version"),
    _int("definition_id"),
    _text("job_name"),
    _text("display_name"),
    _int("environment"),
    _int("type"),
    _int("state"),
    _int("people_state"),
    _text("run_as"),
    _text("started_by"),
    _text("run_date"),
    _int("original_run_id"),
    _flag("partial_rerun"),
    _int("submit_time"),
    _int("start_provisioning_time"),
    _int("start_time"),
    _int("end_time"),
    _int("scheduled_time"),
    _int("expire_time"),
    _flag("cancel_requested"),
    _int("cause_kind"),
    _text("cause_message"),
    _int("tasks_total"),
    _int("tasks_pending"),
    _int("tasks_running"),
    _int("tasks_completed"),
    _int("tasks_failed"),
    _int("tasks_other"),
    _text("cause_detail"),
    Index("ix_runs_job_id_run_id", "job_id", "run_id"),
    Index("ix_runs_state", "state"),
    # What people filter runs by; the run id behind the value gives the newest first. An index on what changes
    # with a run costs a page of each commit: there is one, and no other is worth it (a scan of 100,000 runs
    # takes some 20 ms).
    Index("ix_runs_job_name_run_id", "job_name", "run_id"),
    Index("ix_runs_display_name_run_id", "display_name", "run_id"),
    Index("ix_runs_people_state_run_id", "people_state", "run_id"),
    Index("ix_runs_environment_run_id", "environment", "run_id"),
    Index("ix_runs_submit_time_run_id", "submit_time", "run_id"),
)

Index("ix_runs_environment_end_time", runs.c.environment, runs.c.end_time, sqlite_where=runs.c.end_time > 0)
Index("ix_runs_end_time_run_id", runs.c.end_time, runs.c.run_id, sqlite_where=runs.c.end_time > 0)
Index(
    "ix_runs_scheduled_time_run_id",
    runs.c.scheduled_time,
    runs.c.run_id,
    sqlite_where=runs.c.scheduled_time > 0,
)
Index("ix_runs_original_run_id", runs.c.original_run_id, sqlite_where=runs.c.original_run_id > 0)

run_tasks = Table(
    "run_tasks",
    metadata,
    _int("run_id", key=True),
    _int("task_id", key=True),
    _int("state"),
    _int("people_state"),
    _int("fence"),
    _int("attempts"),
    _int("infra_failures"),
    _text("attempt_id"),
    _int("not_before"),
    _int("start_provisioning_time"),
    _int("start_time"),
    _int("end_time"),
    _int("cause_kind"),
    _text("cause_message"),
    _int("exit_code"),
    _int("signal"),
    Column("result_digest", Text),
    _int("result_size"),
    _flag("result_inline"),
    _int("peak_memory_bytes"),
    _text("node"),
    _text("cause_detail"),
    sqlite_with_rowid=False,
)
Index(
    "ix_run_tasks_result_digest",
    run_tasks.c.result_digest,
    sqlite_where=run_tasks.c.result_digest.is_not(None),
)

outcomes = Table(
    # The long parts of a task's outcome.
    "outcomes",
    metadata,
    _int("run_id", key=True),
    _int("task_id", key=True),
    _text("preview"),
    _text("traceback"),
    Column("exception", LargeBinary, nullable=False),
)

attempts = Table(
    # `gone` is true once the attempt's processes are known to be gone from the agent.
    "attempts",
    metadata,
    _text("attempt_id", key=True),
    _int("run_id"),
    _int("task_id"),
    _int("fence"),
    _text("agent_id"),
    _int("state"),
    _flag("stop_wanted"),
    _int("memory_bytes"),
    _real("cpu"),
    _int("assigned_time"),
    _int("start_time"),
    _int("end_time"),
    _int("cause_kind"),
    _text("cause_message"),
    _int("exit_code"),
    _int("signal"),
    _int("peak_memory_bytes"),
    _flag("gone"),
    _text("cause_detail"),
    Index("ix_attempts_run_id_task_id", "run_id", "task_id"),
)
Index("ix_attempts_open", attempts.c.gone, sqlite_where=attempts.c.gone.is_(False))

late_outcomes = Table(
    # What nodes told of attempts that had been given up; evidence for people, never a truth.
    "late_outcomes",
    metadata,
    Column("attempt_id", Text, ForeignKey("attempts.attempt_id", ondelete="CASCADE"), primary_key=True),
    _int("state"),
    _int("heard_time"),
    _int("start_time"),
    _int("end_time"),
    _int("cause_kind"),
    _text("cause_message"),
    _text("cause_detail"),
)

payloads = Table(
    # Inline payloads by digest: equal bytes are stored once.
    "payloads",
    metadata,
    _text("digest", key=True),
    _int("size"),
    Column("data", LargeBinary, nullable=False),
)

removals = Table(
    # Runs that retention has taken out of `runs` and of which other tables, or the logs, may hold something.
    "removals",
    metadata,
    _int("run_id", key=True),
)

removed_logs = Table(
    # Finished runs that are kept without their logs; `complete` once no file of them is left.
    "removed_logs",
    metadata,
    _int("run_id", key=True),
    _flag("complete"),
)

idempotency = Table(
    # Answers to commands that create, kept for a day.
    "idempotency",
    metadata,
    _text("actor", key=True),
    _text("key", key=True),
    _text("request_digest"),
    _text("kind"),
    _text("reply"),
    _int("expire_time"),
)
