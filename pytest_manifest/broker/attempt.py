"""Name attempts: one attempt is one sending of one entry."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timezone
from hashlib import sha1
from typing import Final

from pytest_manifest.schema.models import Entry

RUN8_LENGTH = 8


@dataclass(frozen=True, slots=True)
class Attempt:
    """One sending of ``entry`` within ``run``; ``number`` counts from 1."""

    run: str
    entry: Entry
    number: int
    task_id: str


def new_run_id(now: datetime | None = None) -> str:
    """Name a run: ``YYYYMMDDTHHMMSS-xxxxxxxx``, in UTC, with eight random hex characters."""
    moment = (now or datetime.now(timezone.utc)).astimezone(timezone.utc)
    return f"{moment:%Y%m%dT%H%M%S}-{secrets.token_hex(RUN8_LENGTH // 2)}"


def run8(run: str) -> str:
    """Give the eight hex characters that every task id and key of ``run`` begins with."""
    return run[-RUN8_LENGTH:]


def task_id_for(run: str, entry_id: str, number: int, position: int = 0) -> str:
    """Name one attempt: the same facts always give the same id, and no other run, entry or number
    does. ``position`` is the entry's in the manifest, from 0.

    It is a UUID, as Celery's own ids are: of the version for forms of one's own (RFC 9562, 5.8).
    The first 32 bits are the run's, as in :func:`run8`, so that results can be found, or subscribed
    to, by pattern; 28 are the position, modulo 2**28; and 62 are drawn from run, entry and number.
    Ids come in the order of their entries, and what is stored by them lies side by side in the
    pages of a ledger's tables: with 100,000 entries that takes a third of the time.

    What is drawn decides only between attempts of one place, in runs with the same 32 bits. Of
    10,000 runs some two have these in common with a chance of 1 %, and where both have a million
    entries, one id of theirs is the same with a chance of 2e-13.
    """
    drawn = sha1(f"{run}/{entry_id}/{number}".encode(), usedforsecurity=False).digest()
    bits = int.from_bytes(drawn[:8], "big") & _DRAWN | _VARIANT
    high, low, text = position >> 12 & 0xFFFF, position & 0xFFF, f"{bits:016x}"
    return f"{run8(run)}-{high:04x}-8{low:03x}-{text[:4]}-{text[4:]}"


_DRAWN: Final = (1 << 62) - 1
_VARIANT: Final = 0b10 << 62


def is_of_attempt(task_id: str, run: str, entry_id: str, number: int) -> bool:
    """Tell whether an id belongs to this attempt, at whatever position its entry was sent."""
    _, *parts = task_id.split("-")
    try:
        position = int(parts[0], 16) << 12 | int(parts[1][1:], 16)
    except (ValueError, IndexError):
        return False
    return task_id == task_id_for(run, entry_id, number, position)


def attempt_of(run: str, entry: Entry, number: int, position: int = 0) -> Attempt:
    """Make the attempt that sends ``entry``, at this position, for the ``number``-th time."""
    return Attempt(run, entry, number, task_id_for(run, entry.id, number, position))
