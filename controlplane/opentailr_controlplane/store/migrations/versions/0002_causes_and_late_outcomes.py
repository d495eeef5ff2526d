"""The fields of causes, and what nodes told of attempts that had been given up."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def _int(name: str) -> sa.Column[int]:
    kind = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    return sa.Column(name, kind, autoincrement=False, nullable=False)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False)


def upgrade() -> None:
    for table in ("runs", "run_tasks", "attempts"):
        # A default lets the column be added without writing the rows anew.
        op.add_column(table, sa.Column("cause_detail", sa.Text(), nullable=False, server_default=""))
    op.create_table(
        "late_outcomes",
        _text("attempt_id"),
        _int("state"),
        _int("heard_time"),
        _int("start_time"),
        _int("end_time"),
        _int("cause_kind"),
        _text("cause_message"),
        _text("cause_detail"),
        sa.PrimaryKeyConstraint("attempt_id", name="pk_late_outcomes"),
        sa.ForeignKeyConstraint(
            ["attempt_id"],
            ["attempts.attempt_id"],
            name="fk_late_outcomes_attempt_id",
            ondelete="CASCADE",
        ),
    )
