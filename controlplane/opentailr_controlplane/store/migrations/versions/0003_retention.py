"""What is being removed, what is kept without its logs, and the ways to find what is old."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def _run_id() -> sa.Column[int]:
    kind = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    return sa.Column("run_id", kind, autoincrement=False, nullable=False)


def upgrade() -> None:
    op.create_table("removals", _run_id(), sa.PrimaryKeyConstraint("run_id", name="pk_removals"))
    op.create_table(
        "removed_logs",
        _run_id(),
        sa.Column("complete", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", name="pk_removed_logs"),
    )
    op.create_index(
        "ix_runs_environment_end_time",
        "runs",
        ["environment", "end_time"],
        sqlite_where=sa.text("end_time > 0"),
    )
    op.create_index(
        "ix_runs_original_run_id",
        "runs",
        ["original_run_id"],
        sqlite_where=sa.text("original_run_id > 0"),
    )
