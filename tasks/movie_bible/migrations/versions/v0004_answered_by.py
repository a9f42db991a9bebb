"""Record which model answered, by its own word, beside the one that was asked."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

TABLES = ("annotation", "annotation_writing")


def upgrade() -> None:
    """Add the column; it stays NULL in existing rows, of which nobody knows what answered."""
    for table in TABLES:
        op.add_column(table, sa.Column("answered_by", sa.Text()))


def downgrade() -> None:
    """Remove the column."""
    for table in TABLES:
        op.drop_column(table, "answered_by")
