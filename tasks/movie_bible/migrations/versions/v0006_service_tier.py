"""Record the service tier at which a row's call was answered, and so priced."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

TABLES = ("annotation", "annotation_writing")


def upgrade() -> None:
    """Add the column; it stays NULL in existing rows."""
    for table in TABLES:
        op.add_column(table, sa.Column("service_tier", sa.Text()))


def downgrade() -> None:
    """Remove the column."""
    for table in TABLES:
        op.drop_column(table, "service_tier")
