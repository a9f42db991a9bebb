"""Make the tables of films, passages and annotations."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None

# Written out, rather than taken from the models: a migration must not change with them.
KEY = sa.String(150).with_variant(sa.String(150, collation="C"), "postgresql")
TEXTS = sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "film",
        sa.Column("id", KEY, primary_key=True),
        sa.Column("title", sa.Text()),
        sa.Column("year", sa.Integer()),
        sa.Column("director", sa.Text()),
        sa.Column("cast", TEXTS),
    )
    op.create_table(
        "passage",
        sa.Column("id", KEY, primary_key=True),
        sa.Column("film_id", KEY),
        sa.Column("kind", sa.String(50), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("text_digest", sa.String(64), nullable=False),
    )
    op.create_index("ix_passage_film_id", "passage", ["film_id"])
    op.create_table(
        "movie_bible_identity",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("name", sa.String(32), nullable=False),
    )
    _create_annotation()


def _create_annotation() -> None:
    op.create_table(
        "annotation",
        sa.Column("id", NUMBER, primary_key=True, autoincrement=True),
        sa.Column("passage_id", KEY, nullable=False),
        sa.Column("prompt_version", sa.String(100), nullable=False),
        sa.Column("summary", sa.Text()),
        sa.Column("themes", TEXTS),
        sa.Column("characters", TEXTS),
        sa.Column("mood", sa.Text()),
        sa.Column("prompt_digest", sa.String(64)),
        sa.Column("text_digest", sa.String(64)),
        sa.Column("provider", sa.Text()),
        sa.Column("model", sa.Text()),
        sa.Column("run", sa.Text()),
        sa.Column("entry", sa.Text()),
        sa.Column("tokens_in", sa.Integer(), nullable=False),
        sa.Column("tokens_out", sa.Integer(), nullable=False),
        sa.Column("cost_nanos", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("written_at", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("passage_id", "prompt_version", name="annotation_once"),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    """Remove the tables with all that is in them."""
    for table in ("annotation", "movie_bible_identity", "passage", "film"):
        op.drop_table(table)
