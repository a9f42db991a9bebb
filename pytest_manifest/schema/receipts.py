"""Define the documents of an attempt, receipts and verdicts, and read the costs in receipts."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

from pydantic import Field

from pytest_manifest.schema import fields
from pytest_manifest.schema.statuses import State, VerdictStatus
from pytest_manifest.schema.wire import amount


class ErrorInfo(fields.Document):
    """An error that a task raised."""

    type: fields.Text
    """The exception's class name."""
    message: fields.Text
    """The exception's message."""
    traceback: fields.Text | None = None
    """The worker's traceback as text."""


class Retried(fields.Document):
    """A try after which the task asked Celery to retry it. Times are UTC."""

    retries: fields.Count
    """How often it had been retried before."""
    started_at: fields.Time | None = None
    """When this try started."""
    ended_at: fields.Time | None = None
    """When it asked for the retry."""
    error: ErrorInfo | None = None
    """What the task was handling when it did, without its traceback."""


class Signature(fields.Document):
    """A worker's signature of its receipt: Ed25519, over what ``schema.signed`` makes of it."""

    key: fields.Sha256
    """The id of the key: the SHA-256 of the public one (DER)."""
    value: fields.Text
    """The signature, in base64."""
    rest: fields.Sha256 | None = None
    """The SHA-256 of what the worker reported beside the receipt."""
    filled: list[fields.Text] = Field(default_factory=list)
    """Fields that pytest has filled in since, by what it knows of the job's starts."""


class Reuse(fields.Document):
    """The later run that has a job's receipt count for an entry of its own, and sent that not."""

    run: fields.Identifier
    """The id of that run."""
    entry: fields.Name
    """The id of its entry."""
    at: fields.Time
    """When it was taken over."""


class Mismatch(fields.Document):
    """One place where a receipt differs from what was expected."""

    path: str
    """Where, like ``result.lifecycle[1]``."""
    expected: str
    """What was expected there, shortened."""
    actual: str
    """What was found there, shortened."""


class Judged(fields.Document):
    """A job's judgement by its run, in an exported receipts file: pytest says it, and no worker."""

    verdict: VerdictStatus
    """What the entry came to."""
    sentence: fields.Text | None = None
    """What happened; null where it passed."""
    reason: dict[str, object] | None = None
    """Why: a code, and what it is about; null where it passed."""
    mismatches: Annotated[list[Mismatch], fields.FirstFault] = Field(default_factory=list)
    """Where the receipt differs from the expectations."""
    manifest: fields.Sha256 | None = None
    """The digest of the manifest that the run had; null where it passed."""
    limit: fields.Figure | None = None
    """The time limit of the task itself, in seconds; null: it had none that is known."""


class Receipt(fields.Document):
    """The account of one attempt. Times are UTC.

    Older workers leave out the newer fields; a client older than the worker refuses them.
    """

    receipt: fields.Version = 1
    """The version of this format."""
    run: fields.Identifier
    """The run's id."""
    entry: fields.Name
    """The entry's id."""
    attempt: fields.Count
    """Which sending of the entry within the run this was."""
    task_id: fields.Name
    """Celery's id of this attempt."""
    task: fields.Name
    """The task's name."""
    state: State
    """How it ended."""
    source: fields.Source = "worker"
    """Who says so: the worker itself, the plain result store, or the harness."""
    result: fields.Json = None
    """What the task returned."""
    error: ErrorInfo | None = None
    """What the task raised."""
    worker: fields.Text | None = None
    """Celery's name of the worker."""
    host: fields.Text | None = None
    """The host that it ran on."""
    pid: fields.Whole | None = None
    """The process that ran it."""
    queue: fields.Text | None = None
    """The queue that it came from."""
    sent_at: fields.Time | None = None
    """When the dispatcher sent it."""
    received_at: fields.Time | None = None
    """When the worker took it."""
    started_at: fields.Time | None = None
    """When the task started."""
    finished_at: fields.Time | None = None
    """When the task ended."""
    wait: fields.Figure | None = None
    """Seconds from the sending to the start."""
    runtime: fields.Figure | None = None
    """Seconds from the start to the end."""
    executions: fields.Count = 0
    """How often it was started for the same retry number (Celery's own retries are no second
    execution); 0: not known."""
    redelivered: bool = False
    """Whether the broker delivered it more than once."""
    retries: fields.Count = 0
    """How often the task asked Celery to retry it."""
    retried: Annotated[list[Retried], fields.FirstFault] = Field(default_factory=list)
    """The tries before the last one: the latest of them, where there were many."""
    replaced: bool = False
    """Whether the task gave its job to another one (Celery's ``Task.replace``), which ended it."""
    children: fields.Count | None = None
    """How many tasks this one started itself; null: not told."""
    code: fields.Text | None = None
    """``py3.11:`` and the SHA-256 of the syntax tree of the module that defines the task."""
    args_sha256: fields.Sha256 | None = None
    """SHA-256 of the arguments as compact JSON with sorted keys."""
    result_sha256: fields.Sha256 | None = None
    """SHA-256 of the result, likewise."""
    log: Annotated[list[fields.Text], fields.FirstFault] = Field(default_factory=list)
    """The task's last log lines."""
    log_dropped: fields.Count = 0
    """How many earlier log lines were left out."""
    cpu: fields.Figure | None = None
    """CPU seconds that it used."""
    max_rss: fields.Whole | None = None
    """The process's memory high-water mark, in bytes."""
    evidence: fields.JsonObject = Field(default_factory=dict)
    """What the task itself added."""
    execution: fields.Text | None = None
    """The name of the execution, where the worker signs."""
    signature: Signature | None = None
    """The worker's signature, where it has a key."""
    reused: Reuse | None = None
    """The run that has reused it; all else is of the run that the job was sent in."""
    judged: Judged | None = None
    """How its run judged it, in an exported file."""

    @property
    def has_trace(self) -> bool:
        """Return whether something in it shows that the task's code was entered."""
        ran = (self.started_at, self.runtime, self.pid, self.cpu)
        earlier = self.retries or self.retried or self.replaced
        return bool(earlier) or any(one is not None for one in ran)


class Verdict(fields.Document):
    """A receipt held against its entry's expectations."""

    verdict: VerdictStatus
    """What it comes to."""
    entry: fields.Name
    """The entry's id."""
    attempt: fields.Count | None = None
    """The attempt that was judged."""
    sentence: str
    """What happened, what is known, and what to do next."""
    reason: dict[str, object] | None = None
    """Why: a code, and what it is about; the sentence says the same in words."""
    mismatches: Annotated[list[Mismatch], fields.FirstFault] = Field(default_factory=list)
    """Where the receipt differs from the expectations."""


class ExportedDescendant(fields.Document):
    """A task that a job has started, or another descendant of it, in an exported receipts file."""

    descendant: fields.Version = 1
    """The version of this format."""
    run: fields.Identifier
    """The run's id."""
    entry: fields.Name
    """The id of the entry whose job it descends from."""
    attempt: fields.Count
    """Which sending of the entry that was."""
    root: fields.Name
    """Celery's id of that attempt."""
    parent: fields.Name
    """Celery's id of the task that started it: the root, or another descendant."""
    task_id: fields.Name
    """Celery's id of it."""
    task: fields.Name
    """The task's name."""
    how: fields.Text
    """How it was started."""
    spawned_at: fields.Time | None = None
    """When its parent told that it was about to send it."""
    verdict: Verdict | None = None
    """How the run judged it; null: it has not ended."""
    receipt: Receipt | None = None
    """What its worker said of its end; null: nothing came."""


_DIGITS = 9


def actual_cost(receipt: Receipt) -> float | None:
    """Return the cost that a receipt reports of its job, or None if it reports none.

    The cost is the field ``cost``, a finite number from 0, of the evidence or else of the result,
    if that is a JSON object.
    """
    for place in (receipt.evidence, receipt.result):
        if isinstance(place, dict) and (told := amount(place.get("cost"))) is not None:
            return told
    return None


def exact(cost: float | None) -> Decimal:
    """Convert a cost to its decimal digits, so that three times 0.1 is 0.3; None becomes 0."""
    return Decimal(0) if cost is None else Decimal(str(cost))


def cost_text(cost: float | Decimal) -> str:
    """Format a cost for people: up to nine significant digits, without an exponent."""
    text = format(Decimal(f"{cost:.{_DIGITS}g}"), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
