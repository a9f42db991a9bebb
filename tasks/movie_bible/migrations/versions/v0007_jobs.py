"""Add the batch jobs that answers were bought by, and their requests."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0007"
down_revision = "0006"

DOCUMENT = sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "batch_job",
        sa.Column("display_name", sa.Text(), primary_key=True),
        sa.Column("run", sa.Text(), nullable=False),
        sa.Column("entry", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("service_name", sa.Text()),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True)),
        sa.Column("cancelled_at", sa.DateTime(timezone=True)),
        sa.UniqueConstraint("run", "entry", "number", name="batch_job_once"),
    )
    op.create_table(
        "batch_request",
        sa.Column("key", sa.Text(), primary_key=True),
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("passages", DOCUMENT, nullable=False),
        sa.Column("outcome", sa.Text()),
        sa.Column("account", DOCUMENT),
        sa.Column("told_by", sa.Integer()),
    )
    op.create_index("ix_batch_request_job", "batch_request", ["job"])


def downgrade() -> None:
    """Remove the tables with all that is in them."""
    op.drop_table("batch_request")
    op.drop_table("batch_job")
