"""Name attempts: one attempt is one sending of one entry."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timezone
from hashlib import sha1

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

    The prefix common to a run lets its results be found, or subscribed to, by pattern. What follows
    is a UUID of a form of our own (RFC 9562, 5.8): the position, and what is drawn from the name.
    So ids come in the order of their entries, and what is stored by them lies side by side in the
    pages of a ledger's tables: with 100,000 entries that takes a third of the time.
    """
    drawn = bytearray(sha1(f"{run}/{entry_id}/{number}".encode(), usedforsecurity=False).digest())
    drawn[2] = drawn[2] & 0x0F | 0x80  # the version
    drawn[4] = drawn[4] & 0x3F | 0x80  # the variant
    text = drawn.hex()
    return f"{run8(run)}-{position:08x}-{text[:4]}-{text[4:8]}-{text[8:12]}-{text[12:24]}"


def is_of_attempt(task_id: str, run: str, entry_id: str, number: int) -> bool:
    """Tell whether an id belongs to this attempt, at whatever position its entry was sent."""
    try:
        position = int(task_id[RUN8_LENGTH + 1 :].partition("-")[0], 16)
    except ValueError:
        return False
    return task_id == task_id_for(run, entry_id, number, position)


def attempt_of(run: str, entry: Entry, number: int, position: int = 0) -> Attempt:
    """Make the attempt that sends ``entry``, at this position, for the ``number``-th time."""
    return Attempt(run, entry, number, task_id_for(run, entry.id, number, position))
