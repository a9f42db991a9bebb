"""Keep the files and addresses that reports have left, for the summary to name."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

_KEY: Final = pytest.StashKey[dict[str | None, list[tuple[str, Path | str]]]]()


def add_paper(config: pytest.Config, kind: str, place: Path | str, run: str | None = None) -> None:
    """Have the summary name a file or an address that is of this kind (one word, like ``page``).

    ``run``: the id of the run that it is about; None: it is about the session.
    """
    rows = config.stash.setdefault(_KEY, {}).setdefault(run, [])
    if (kind, place) not in rows:
        rows.append((kind, place))


def papers(config: pytest.Config, run: str | None = None) -> list[tuple[str, Path | str]]:
    """Return ``(kind, place)`` of what was added for this run, or for the session, in order."""
    return list(config.stash.get(_KEY, {}).get(run, ()))
