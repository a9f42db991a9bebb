"""Run a database row through its whole life, and leave nothing behind.

SQLAlchemy is loaded by the first task that runs, not with this module: a worker starts faster.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import JsonValue

from pytest_manifest.worker import evidence
from tasks import task
from tasks.diagnostics import sleep_for

if TYPE_CHECKING:
    from tasks.database import LifeCycle

TITLE_MAX_LENGTH = 200


@task
def fast_crud_task(data: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Create, read, update and delete one row in one transaction.

    ``data`` needs a ``title`` (1 to 200 characters); what else it holds is stored with it. Returns
    ``lifecycle``, ``row_id``, ``verified`` (what was read back) and ``database`` (its identity).
    Raises ValueError where ``data`` is not such a mapping.
    """
    from tasks.database import database

    title, fields = checked(data)
    return _report(database().run_lifecycle(title, fields))


@task
def sleep_crud_task(sec: float, data: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Like ``fast_crud_task``, but hold a pooled connection for ``sec`` seconds before the write.

    The result also has ``slept`` (seconds); the pool's numbers while the connection was held are
    the receipt's evidence ``pool``.
    """
    from tasks.database import database

    title, fields = checked(data)
    opened = database()
    with opened.connection() as connection:
        evidence(pool=opened.pool_numbers())
        slept = sleep_for(sec)
        lifecycle = opened.run_lifecycle(title, fields, connection=connection)
    return {**_report(lifecycle), "slept": slept}


def checked(data: object) -> tuple[str, dict[str, JsonValue]]:
    """Split ``data`` into its title and its other fields. Raises ValueError with a sentence."""
    if not isinstance(data, Mapping):
        raise ValueError(  # noqa: TRY004 - one type for everything that is wrong with data
            f"data must be an object with a 'title', not {type(data).__name__} ({data!r:.80})"
        )
    if "title" not in data:
        known = ", ".join(map(repr, data)) or "nothing"
        raise ValueError(f"data needs a 'title'; it has {known:.200}")
    title = data["title"]
    if not isinstance(title, str) or not title.strip() or len(title) > TITLE_MAX_LENGTH:
        raise ValueError(
            f"data['title'] must be text of 1 to {TITLE_MAX_LENGTH} characters, not {title!r:.80}"
        )
    if "\0" in title:
        raise ValueError("data['title'] must not hold a NUL character; PostgreSQL cannot store it")
    return title, {name: value for name, value in data.items() if name != "title"}


def _report(lifecycle: LifeCycle) -> dict[str, JsonValue]:
    return {
        "lifecycle": ["created", "verified", "deleted"],
        "row_id": lifecycle.row_id,
        "verified": {
            "title": lifecycle.title,
            "fields": lifecycle.fields,
            "revision": lifecycle.revision,
            "rows_left": lifecycle.rows_left,
        },
        "database": lifecycle.database,
    }
