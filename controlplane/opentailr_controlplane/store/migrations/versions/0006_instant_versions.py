"""Which versions were made for one run only, and so stand in no list."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "versions",
        sa.Column("instant", sa.Boolean(create_constraint=False), nullable=False, server_default=sa.false()),
    )
