"""Record which attempt of an entry wrote an annotation; earlier rows do not know it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column."""
    op.add_column("annotation", sa.Column("attempt", sa.Integer()))


def downgrade() -> None:
    """Remove the column."""
    op.drop_column("annotation", "attempt")
