"""One sending of one entry, and the names that belong to it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha1
from uuid import NAMESPACE_URL

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
    moment = (now or datetime.now(UTC)).astimezone(UTC)
    return f"{moment:%Y%m%dT%H%M%S}-{secrets.token_hex(RUN8_LENGTH // 2)}"


def run8(run: str) -> str:
    """Give the eight hex characters that every task id and key of ``run`` begins with."""
    return run[-RUN8_LENGTH:]


def task_id_for(run: str, entry_id: str, number: int) -> str:
    """Name one attempt: the same three facts always give the same id, and no other facts do.

    The prefix common to a run lets its results be found, or subscribed to, by pattern.
    """
    return f"{run8(run)}-{_uuid5(f'{run}/{entry_id}/{number}')}"


def _uuid5(name: str) -> str:
    """``uuid.uuid5`` in the namespace of URLs, as text, in a third of the time (RFC 9562, 5.5)."""
    digest = bytearray(sha1(_URL + name.encode(), usedforsecurity=False).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x50  # the version
    digest[8] = digest[8] & 0x3F | 0x80  # the variant
    text = digest.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


_URL = NAMESPACE_URL.bytes


def attempt_of(run: str, entry: Entry, number: int) -> Attempt:
    """Make the attempt that sends ``entry`` for the ``number``-th time."""
    return Attempt(run, entry, number, task_id_for(run, entry.id, number))
