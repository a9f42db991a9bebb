"""Records of entries that simply passed, made of the ledger's row as it stands.

Of most entries of a large run reports want a few figures. For those, the row's JSON is looked at
once, and entry, verdict and receipt are made of it only when somebody asks for them.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pydantic_core import from_json

from pytest_manifest.analysis.records import AttemptRecord, EntryRecord
from pytest_manifest.manifest import Manifest
from pytest_manifest.schema import Entry, Receipt, Verdict, VerdictStatus, exact
from pytest_manifest.schema.costs import told_cost

_set: Final = object.__setattr__  # records are frozen


@dataclass(frozen=True, slots=True)
class Line:
    """An entry's line of the manifest: its number from 1, its bytes, and what it is about."""

    number: int
    raw: bytes
    entry: str
    task: str


class StoredRecord(EntryRecord):
    """An entry that has passed by its first sending, which was begun once and has one receipt."""

    __slots__ = ("_line", "_manifest", "_receipt", "_sentence", "_verdict")
    _manifest: Manifest
    _line: Line
    _verdict: str
    _receipt: str
    _sentence: str

    def __init__(self, manifest: Manifest, line: Line, verdict: str, receipt: str) -> None:
        """``verdict``, ``receipt``: JSON, as the ledger has it; the attempts are added later."""
        _set(self, "line", line.number)
        _set(self, "outcome", "passed")
        _set(self, "error_place", None)
        _set(self, "_manifest", manifest)
        _set(self, "_line", line)
        _set(self, "_verdict", verdict)
        _set(self, "_receipt", receipt)
        _set(self, "_sentence", from_json(verdict)["sentence"])

    @property
    def entry(self) -> Entry:
        return self._manifest.parse(self._line.raw, self.line)

    @property
    def verdict(self) -> Verdict:
        return Verdict.model_validate_json(self._verdict)

    @property
    def receipt(self) -> Receipt:
        return Receipt.model_validate_json(self._receipt)

    @property
    def id(self) -> str:
        return self._line.entry

    @property
    def task(self) -> str:
        return self._line.task

    @property
    def kind(self) -> VerdictStatus:
        return "passed"

    @property
    def sentence(self) -> str:
        return self._sentence

    @property
    def is_delayed(self) -> bool:
        raw = self._line.raw
        return (b'"countdown"' in raw or b'"eta"' in raw) and super().is_delayed


def stored_record(
    manifest: Manifest,
    line: Line,
    verdict: str,
    receipt: str,
    odd: Container[str],
    *,
    charged: bool,
) -> StoredRecord | None:
    """The record of an entry that has passed; None where the ledger's other tables must be asked.

    ``odd``: task ids of which these say more than the receipt does; ``charged``: some receipt of
    the run tells a cost.
    """
    fields: dict[str, Any] = from_json(receipt, cache_strings="keys")
    if fields["task_id"] in odd or not _tells_enough(fields):
        return None
    record = StoredRecord(manifest, line, verdict, receipt)
    cost = told_cost(fields.get("evidence"), fields.get("result")) if charged else None
    _set(record, "attempts", (_attempt(record, fields, cost, charged=charged),))
    return record


def _tells_enough(fields: dict[str, Any]) -> bool:
    """Whether it tells what is otherwise looked for in the records of sending and starting.

    Of the tries of a task that asked Celery for retries, these know more.
    """
    get = fields.get
    ran = fields["state"] in ("succeeded", "failed") and not get("retries")
    return bool(
        ran and get("worker") and get("sent_at") and get("started_at") and get("executions")
    )


def _attempt(
    record: StoredRecord, fields: dict[str, Any], cost: float | None, *, charged: bool
) -> AttemptRecord:
    get = fields.get
    return AttemptRecord(
        number=fields["attempt"],
        task_id=fields["task_id"],
        kind="passed",
        sentence=record.sentence,
        reason=None,
        sent_at=_moment(get("sent_at")),
        received_at=_moment(get("received_at")),
        started_at=_moment(get("started_at")),
        finished_at=_moment(get("finished_at")),
        wait=get("wait"),
        runtime=get("runtime"),
        worker=get("worker"),
        host=get("host"),
        pid=get("pid"),
        executions=fields["executions"],
        redelivered=get("redelivered", False),
        retries=get("retries", 0),
        cost=cost,
        charge=_charge(record, cost) if charged else None,
        queue=get("queue"),
    )


def _charge(record: StoredRecord, cost: float | None) -> float:
    """What the run's account has for it: what it tells, or its estimate."""
    if cost is None:
        cost = record.entry.cost if b'"cost"' in record._line.raw else None
    return float(exact(cost))


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
