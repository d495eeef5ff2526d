"""Indexes for what people filter and sort runs by."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for column in ("job_name", "display_name", "people_state", "environment", "submit_time"):
        op.create_index(f"ix_runs_{column}_run_id", "runs", [column, "run_id"], unique=False)
    for column in ("end_time", "scheduled_time"):
        op.create_index(
            f"ix_runs_{column}_run_id",
            "runs",
            [column, "run_id"],
            unique=False,
            sqlite_where=sa.text(f"{column} > 0"),
        )
