"""Record how many of a row's input tokens the service had cached, and billed as such."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

TABLES = ("annotation", "annotation_writing")


def upgrade() -> None:
    """Add the column; it stays NULL in existing rows, of which nobody has counted them."""
    for table in TABLES:
        op.add_column(table, sa.Column("tokens_cached", sa.Integer()))


def downgrade() -> None:
    """Remove the column."""
    for table in TABLES:
        op.drop_column(table, "tokens_cached")
