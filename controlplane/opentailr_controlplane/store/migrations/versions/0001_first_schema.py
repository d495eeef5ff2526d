"""First schema: jobs, versions, runs, attempts, agents, images."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _int(name: str) -> sa.Column[int]:
    kind = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    return sa.Column(name, kind, autoincrement=False, nullable=False)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False)


def _flag(name: str) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean(), nullable=False)


def upgrade() -> None:
    op.create_table(
        "agents",
        _text("agent_id"),
        _text("name"),
        _int("epoch"),
        _text("journal_id"),
        _int("acked_seq"),
        _flag("schedulable"),
        _text("reason"),
        _int("memory_bytes"),
        sa.Column("cpu", sa.Float(), nullable=False),
        _int("slots"),
        _text("software_version"),
        _text("runtime"),
        _text("labels"),
        _text("python_versions"),
        _flag("allows_pre_scripts"),
        _int("first_seen"),
        _int("last_heard"),
        sa.PrimaryKeyConstraint("agent_id", name=op.f("pk_agents")),
    )
    op.create_table(
        "attempts",
        _text("attempt_id"),
        _int("run_id"),
        _int("task_id"),
        _int("fence"),
        _text("agent_id"),
        _int("state"),
        _flag("stop_wanted"),
        _int("memory_bytes"),
        sa.Column("cpu", sa.Float(), nullable=False),
        _int("assigned_time"),
        _int("start_time"),
        _int("end_time"),
        _int("cause_kind"),
        _text("cause_message"),
        _int("exit_code"),
        _int("signal"),
        _int("peak_memory_bytes"),
        _flag("gone"),
        sa.PrimaryKeyConstraint("attempt_id", name=op.f("pk_attempts")),
    )
    op.create_index("ix_attempts_open", "attempts", ["gone"], unique=False, sqlite_where=sa.text("gone IS 0"))
    op.create_index("ix_attempts_run_id_task_id", "attempts", ["run_id", "task_id"], unique=False)
    op.create_table(
        "builds",
        _text("build_id"),
        _text("image_key"),
        _int("state"),
        _text("agent_id"),
        _int("create_time"),
        _int("start_time"),
        _int("end_time"),
        _int("cause_kind"),
        _text("cause_message"),
        sa.PrimaryKeyConstraint("build_id", name=op.f("pk_builds")),
    )
    op.create_index("ix_builds_image_key", "builds", ["image_key"], unique=False)
    op.create_table(
        "counters",
        _int("id"),
        _text("installation"),
        _int("next_job"),
        _int("next_definition"),
        _int("next_run"),
        _int("next_build"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_counters")),
    )
    op.create_table(
        "definitions",
        _int("definition_id"),
        _text("image_key"),
        _int("task_count"),
        _text("header"),
        sa.PrimaryKeyConstraint("definition_id", name=op.f("pk_definitions")),
    )
    op.create_table(
        "idempotency",
        _text("actor"),
        _text("key"),
        _text("request_digest"),
        _text("kind"),
        _text("reply"),
        _int("expire_time"),
        sa.PrimaryKeyConstraint("actor", "key", name=op.f("pk_idempotency")),
    )
    op.create_table(
        "images",
        _text("image_key"),
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
        sa.PrimaryKeyConstraint("image_key", name=op.f("pk_images")),
    )
    op.create_table(
        "jobs",
        _text("job_id"),
        _text("name"),
        _text("display_name"),
        _int("environment"),
        _int("type"),
        _text("acl"),
        _int("next_version"),
        _int("scheduled_version"),
        _int("create_time"),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_jobs")),
    )
    op.create_index("ux_jobs_name_environment", "jobs", ["name", "environment"], unique=True)
    op.create_table(
        "outcomes",
        _int("run_id"),
        _int("task_id"),
        _text("preview"),
        _text("traceback"),
        sa.Column("exception", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "task_id", name=op.f("pk_outcomes")),
    )
    op.create_table(
        "payloads",
        _text("digest"),
        _int("size"),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_payloads")),
    )
    op.create_table(
        "run_tasks",
        _int("run_id"),
        _int("task_id"),
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
        sa.Column("result_digest", sa.Text(), nullable=True),
        _int("result_size"),
        _flag("result_inline"),
        _int("peak_memory_bytes"),
        _text("node"),
        sa.PrimaryKeyConstraint("run_id", "task_id", name=op.f("pk_run_tasks")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_run_tasks_result_digest",
        "run_tasks",
        ["result_digest"],
        unique=False,
        sqlite_where=sa.text("result_digest IS NOT NULL"),
    )
    op.create_table(
        "runs",
        _int("run_id"),
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
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_runs")),
    )
    op.create_index("ix_runs_job_id_run_id", "runs", ["job_id", "run_id"], unique=False)
    op.create_index("ix_runs_state", "runs", ["state"], unique=False)
    op.create_table(
        "definition_tasks",
        sa.Column("definition_id", sa.Integer(), autoincrement=False, nullable=False),
        _int("task_id"),
        _text("name"),
        _text("entrypoint"),
        _text("memory"),
        _int("memory_bytes"),
        sa.Column("cpu", sa.Float(), nullable=False),
        _flag("memory_is_default"),
        _text("depends_on"),
        _text("env"),
        sa.Column("arguments_digest", sa.Text(), nullable=True),
        _int("arguments_size"),
        _flag("arguments_inline"),
        sa.ForeignKeyConstraint(
            ["definition_id"],
            ["definitions.definition_id"],
            name=op.f("fk_definition_tasks_definition_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("definition_id", "task_id", name=op.f("pk_definition_tasks")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_definition_tasks_arguments_digest", "definition_tasks", ["arguments_digest"], unique=False
    )
    op.create_table(
        "versions",
        _text("job_id"),
        _int("version"),
        sa.Column("definition_id", sa.Integer(), nullable=False),
        _text("image_key"),
        _int("task_count"),
        _flag("verified"),
        _flag("has_schedule"),
        _flag("removed"),
        _int("create_time"),
        _text("created_by"),
        sa.ForeignKeyConstraint(
            ["definition_id"], ["definitions.definition_id"], name=op.f("fk_versions_definition_id")
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.job_id"], name=op.f("fk_versions_job_id")),
        sa.PrimaryKeyConstraint("job_id", "version", name=op.f("pk_versions")),
    )
