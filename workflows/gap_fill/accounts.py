"""Read from receipts what batches report of their rows and costs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from pytest_manifest.schema import Entry, Receipt
from tasks.filling.order import BadOrderError, Order, read_order


class RowAccount(BaseModel):
    """A row that a batch has written."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    action: str
    revision: int
    digest: str
    fields: list[str]
    answered_by: str | None = None
    service_tier: str | None = None
    attempt: int | None = None
    """The attempt that wrote it, where that was one before the one that tells of it."""


class EarlierRow(BaseModel):
    """A row that a batch found complete."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    run: str | None = None
    entry: str | None = None
    attempt: int | None = None
    revision: int
    digest: str


class Tokens(BaseModel):
    """Tokens, and for what was wasted their cost in US dollars too."""

    model_config = ConfigDict(populate_by_name=True, extra="ignore", frozen=True)

    tokens_in: int = Field(alias="in")
    tokens_out: int = Field(alias="out")
    cached: int = 0
    cost: float | None = None


class Unpriced(BaseModel):
    """Tokens that were billed at a price which nobody knows."""

    model_config = ConfigDict(populate_by_name=True, extra="ignore", frozen=True)

    tokens_in: int = Field(0, alias="in")
    tokens_out: int = Field(0, alias="out")

    def __bool__(self) -> bool:
        return bool(self.tokens_in or self.tokens_out)


class PaidReport(BaseModel):
    """The cost of a batch of any kind, as it tells it; None where its model has no known price.

    ``unknown_bills`` are calls that may have been billed beyond that, as nobody has told.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    cost: float | None
    unpriced: Unpriced = Unpriced()
    unknown_bills: int = 0


class BatchReport(PaidReport):
    """The parts of a batch's result that are held against the database."""

    provider: str
    model: str
    prompt: str
    prompt_digest: str
    database: str
    rows: dict[str, RowAccount]
    already: dict[str, EarlierRow | None]
    tokens: Tokens
    wasted: Tokens


@dataclass(frozen=True, slots=True)
class Account:
    """A batch: its entry, its receipt, and what it reports."""

    entry: Entry
    receipt: Receipt
    report: BatchReport

    @property
    def ids(self) -> list[str]:
        return ids_of(self.entry)


def account_of(entry: Entry, receipt: Receipt | None) -> Account | None:
    """Return a batch's account, also of one that ended early and reported; None if it has none."""
    if receipt is None:
        return None
    document = receipt.result if receipt.result is not None else receipt.evidence.get("gap_fill")
    if not isinstance(document, dict) or "rows" not in document:
        return None
    return Account(entry, receipt, BatchReport.model_validate(document))


def accounts_of(entries: Iterable[Entry], receipts: Mapping[str, Receipt]) -> Iterator[Account]:
    """Yield the accounts of those entries that have one."""
    for entry in entries:
        account = account_of(entry, receipts.get(entry.id))
        if account is not None:
            yield account


def ids_of(entry: Entry) -> list[str]:
    """Return the ids of the passages that an entry is about."""
    ids = entry.kwargs.get("ids")
    return [str(one) for one in ids] if isinstance(ids, list) else []


def order_of(entry: Entry) -> Order:
    """Read an entry's order as the task does. Raises BadOrderError where it fills nothing."""
    _, order = read_order(entry.kwargs.get("ids"), entry.kwargs.get("data"))
    if not isinstance(order, Order):
        raise BadOrderError(f"entry {entry.id!r} fills nothing")
    return order


def rows_before(entry: Entry) -> set[str]:
    """Return the ids of the passages that had a row when the entry was planned."""
    ids = entry.meta.get("rows_before")
    return {str(one) for one in ids} if isinstance(ids, list) else set()
