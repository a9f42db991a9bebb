"""Add a history of annotations: each writing with its fields, its provenance and its price."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0003"
down_revision = "0002"

KEY = sa.String(150).with_variant(sa.String(150, collation="C"), "postgresql")
TEXTS = sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the table; it stays empty, because the authors of existing rows' fields are unknown."""
    op.create_table(
        "annotation_writing",
        sa.Column("id", NUMBER, primary_key=True, autoincrement=True),
        sa.Column("passage_id", KEY, nullable=False),
        sa.Column("prompt_version", sa.String(100), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("fields", TEXTS, nullable=False),
        sa.Column("prompt_digest", sa.String(64)),
        sa.Column("text_digest", sa.String(64)),
        sa.Column("provider", sa.Text()),
        sa.Column("model", sa.Text()),
        sa.Column("run", sa.Text()),
        sa.Column("entry", sa.Text()),
        sa.Column("attempt", sa.Integer()),
        sa.Column("tokens_in", sa.Integer(), nullable=False),
        sa.Column("tokens_out", sa.Integer(), nullable=False),
        sa.Column("cost_nanos", sa.BigInteger(), nullable=False),
        sa.Column("written_at", sa.DateTime(timezone=True), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("annotation_writing_of", "annotation_writing", ["passage_id", "prompt_version"])


def downgrade() -> None:
    """Remove the table with all that is in it."""
    op.drop_table("annotation_writing")
