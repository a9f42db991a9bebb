"""Define the document of a run: what it ran, its outcome, and the files that it has left."""

from __future__ import annotations

from collections import Counter
from typing import Literal, TypeAlias

from pydantic import Field

from pytest_manifest.schema import fields
from pytest_manifest.schema.run_facts import Action, ThrottleCause
from pytest_manifest.schema.statuses import Outcome, VerdictStatus

FileKind = Literal["manifest", "ledger", "receipts", "log", "worker-log"]
Sign: TypeAlias = tuple[
    tuple[VerdictStatus, str | None, str | None, str | None, str | None], tuple[str, str] | None
]
"""Verdict, error, place, path and code of failures, and what was expected and found."""


class SummaryThrottle(fields.Document):
    """A cause that held sending back."""

    why: ThrottleCause
    """Its ``rate``, the length of a ``queue``, or the project's ``health``."""
    key: fields.Text = ""
    """The key that had to wait, like ``tenant=acme``; empty: all entries had to."""
    detail: fields.Text
    """In words, as of its last time."""
    times: fields.Count
    """How often it began."""
    began: fields.Time
    """When it began first."""
    ended: fields.Time | None = None
    """When it was over last; null: it goes on."""
    seconds: fields.Number = 0.0
    """For how long it was, all together."""


class SummaryAction(fields.Document):
    """An action of an operator on the run while it went on."""

    at: fields.Time
    """When it took effect."""
    action: Action
    """The action of ``manifest ctl``."""
    by: fields.Text
    """The user and the machine."""
    reason: fields.Text = ""
    """Why, as was given with it."""
    changed: bool = True
    """Whether it made a difference."""
    detail: fields.Text = ""
    """The limits that were set, or how many entries it was about."""


class SummaryRun(fields.Document):
    """The run: its plan, its status, its stack."""

    run: fields.Name
    """The run's id."""
    manifest: fields.Text
    """The manifest's file."""
    manifest_sha256: fields.Sha256
    """SHA-256 of the manifest's lines after its header."""
    workflow: fields.Text | None = None
    """The workflow that planned it."""
    mode: fields.Text | None = None
    """The workflow's mode."""
    shard: fields.Text | None = None
    """The shard of the manifest that was run, like ``2/8``."""
    merged: list[fields.Name] = Field(default_factory=list)
    """The runs that it was merged of."""
    key_limits: dict[fields.Text, fields.Count] = Field(default_factory=dict)
    """How many jobs might be in flight of each value of a key, by the key's name."""
    rates: dict[fields.Text, fields.Text] = Field(default_factory=dict)
    """How fast might be sent, like ``200/s``, by the key that it is of; empty: all together."""
    queue_depth: fields.Count | None = None
    """Beyond how many messages in a queue none were added."""
    throttled: list[SummaryThrottle] = Field(default_factory=list)
    """What held sending back."""
    actions: list[SummaryAction] = Field(default_factory=list)
    """What operators did while the run went on."""
    created_at: fields.Time
    """When the run was made."""
    status: Literal["running", "finished", "stopped", "detached"]
    """Whether all was judged, the run was stopped, or the workers go on without pytest."""
    error: fields.Text | None = None
    """Why the run gave up."""
    findings: list[fields.Text] = Field(default_factory=list)
    """What was noticed while it went on."""
    accepted: list[fields.Text] = Field(default_factory=list)
    """The risks with which it was sent, as ``manifest_accept`` allows that."""
    broker: fields.Text
    """The broker's URL, without its password."""
    backend: fields.Text
    """The result store's URL, without its password."""
    owned: bool
    """Whether the stack was started for this run."""
    version: fields.Text
    """The version of pytest-celery-manifest that has written this."""


class SummarySpread(fields.Document):
    """The spread of times, in seconds."""

    count: fields.Count
    """How many were measured."""
    p50: fields.Number
    """The median."""
    p95: fields.Number
    """The 95th percentile."""
    max: fields.Number
    """The longest."""
    total: fields.Number
    """All together."""


class SummaryTask(fields.Document):
    """The entries of one task."""

    task: fields.Name
    """The task's name."""
    count: fields.Count
    """How many entries it has."""
    passed: fields.Count
    """Those that did what was expected."""
    failed: fields.Count
    """Those whose expectations did not hold."""
    errors: fields.Count
    """Those that harness or stack could not tell of."""
    skipped: fields.Count
    """Those that were not sent, for a reason."""
    pending: fields.Count
    """Those without a verdict."""
    wait: SummarySpread | None
    """From the sending to the start."""
    runtime: SummarySpread | None
    """From the start to the end."""
    throughput: fields.Number | None
    """Jobs that ended, per second."""


class SummaryWorker(fields.Document):
    """The work of one worker process."""

    worker: fields.Text
    """Celery's name of the worker."""
    host: fields.Text | None
    """The host that it ran on."""
    pid: int | None
    """The process that ran the jobs."""
    jobs: fields.Count
    """How many jobs it has run, repeated ones counted each time."""
    busy: fields.Number
    """Seconds for which it ran them."""
    share: fields.Number
    """Its share of all busy seconds, from 0 to 1."""

    @property
    def place(self) -> str:
        """Return worker and pid as ``worker#pid``."""
        return self.worker if self.pid is None else f"{self.worker}#{self.pid}"


class SummaryCause(fields.Document):
    """Entries that went wrong in the same way."""

    title: fields.Text
    """The cause in a line."""
    kind: VerdictStatus
    """Their verdict."""
    error: fields.Text | None
    """The class of the exception."""
    place: fields.Text | None
    """The last frame of its traceback; where a descendant made them fail, that one's task."""
    path: fields.Text | None
    """Where the result differs from what was expected."""
    code: fields.Text | None = None
    """The code of the verdict's reason, where there is neither an error nor a difference."""
    expected: fields.Text | None
    """What was expected there of the first of them, shortened."""
    actual: fields.Text | None
    """What was found there instead, shortened."""
    count: fields.Count
    """How many they are."""
    examples: list[fields.Name]
    """Ids of the first three."""
    message: fields.Text
    """What the first of them says, shortened."""
    step: fields.Text = ""
    """What the verdict of the first of them advises to do."""

    @property
    def sign(self) -> Sign:
        """Return the values that its entries have in common, to group by."""
        pair = None
        if self.expected is not None and self.actual is not None:
            pair = self.expected, self.actual
        return (self.kind, self.error, self.place, self.path, self.code), pair


class SummaryOrigin(fields.Document):
    """The attempt of an earlier run that an entry was judged by."""

    run: fields.Name
    """The run's id."""
    entry: fields.Name
    """The id of its entry."""
    attempt: fields.Count
    """Which sending of it that was."""
    task_id: fields.Text
    """Celery's id of it."""


class SummaryEntry(fields.Document):
    """One entry."""

    id: fields.Name
    """The entry's id."""
    task: fields.Name
    """The task's name."""
    line: fields.Count
    """Its line in the manifest."""
    verdict: VerdictStatus | None
    """What it came to; null: nobody has judged it."""
    sentence: fields.Text | None
    """What happened, what is known, and what to do next."""
    task_id: fields.Text | None
    """Celery's id of the attempt that was judged."""
    attempts: fields.Count
    """How often it was sent."""
    wait: fields.Number | None
    """Seconds from the sending to the start."""
    runtime: fields.Number | None
    """Seconds from the start to the end."""
    place: fields.Text | None = None
    """Where that was, as ``worker#pid``; null: no worker has received it."""
    reused_from: SummaryOrigin | None = None
    """What it was judged by where an earlier run had sent it; null: this run has."""


class SummaryStep(fields.Document):
    """A task of the slowest tree."""

    task: fields.Name
    """The task's name."""
    task_id: fields.Name
    """Celery's id of it."""
    status: VerdictStatus | None
    """How it ended; null: not told, or the entry's own job."""
    wait: fields.Number | None = None
    """Seconds from its sending to its start."""
    start: fields.Number | None
    """Seconds from the start of the entry's job to this one's."""
    runtime: fields.Number | None
    """Seconds from its start to its end."""


class SummaryTree(fields.Document):
    """The entry whose job and descendants took longest together."""

    entry: fields.Name
    """The entry's id."""
    seconds: fields.Number
    """From the start of its job to the last end."""
    path: list[SummaryStep]
    """From its job to the descendant that ended last; of a long path the first and last six."""
    left_out: fields.Count
    """How many steps in the middle of the path are not listed."""


class SummaryFailedTree(fields.Document):
    """An entry some of whose descendants failed."""

    entry: fields.Name
    """The entry's id."""
    statuses: dict[str, fields.Count]
    """How many of its descendants ended how."""
    task: fields.Name
    """The task of the first that failed."""
    status: VerdictStatus
    """How that one ended."""
    sentence: fields.Text
    """What happened to it."""


class SummaryDescendants(fields.Document):
    """The tasks that the entries' jobs started, to any depth."""

    number: fields.Count = 0
    """How many there are."""
    statuses: dict[str, fields.Count] = Field(default_factory=dict)
    """How many of them ended how; ``skipped``: its parent could not send it, and it counts
    nowhere."""
    entries: fields.Count = 0
    """How many entries have some."""
    not_known: fields.Count = 0
    """Of how many entries they are not known, as their workers report nothing of them."""
    reasons: dict[str, fields.Count] = Field(default_factory=dict)
    """Of how many entries they are not known for which reason: ``stock`` (their workers send no
    receipts), ``older`` (they report nothing of descendants), ``fewer`` (not of all), ``silent``
    (workers of descendants report nothing)."""
    failed: list[SummaryFailedTree] = Field(default_factory=list)
    """Entries with descendants that failed, the first twenty."""
    more_failed: fields.Count = 0
    """How many further ones there are."""
    slowest: SummaryTree | None = None
    """The slowest tree; null: no descendant has ended."""


class SummaryStatistics(fields.Document):
    """The run in figures; durations in seconds."""

    entries: fields.Count
    """How many entries were selected."""
    reused: dict[str, fields.Count] = Field(default_factory=dict)
    """How many of them were not sent but judged by a job of an earlier run, by that run's id."""
    verdicts: dict[VerdictStatus, fields.Count]
    """How many entries have which verdict."""
    outcomes: dict[Outcome, fields.Count]
    """How many tests they make ``passed``, ``failed``, ``error``, ``skipped`` or ``pending``."""
    began: fields.Time | None
    """The first sending."""
    ended: fields.Time | None
    """The last end of a job, or of a descendant."""
    duration: fields.Number | None
    """For how long the run was worked on: from ``began`` to ``ended``, or to the stop that cut jobs
    off, without ``pauses``."""
    parts: fields.Count
    """How many parts that was in: a run is taken up again by ``--manifest-resume``."""
    pauses: fields.Number | None
    """From the last that was done in a part to the first in the next, all together."""
    throughput: fields.Number | None
    """Jobs that ended, per second of ``duration``."""
    wait: SummarySpread | None
    """From the sending to the start."""
    runtime: SummarySpread | None
    """From the start to the end."""
    retries: fields.Count
    """How often tasks asked Celery to retry them."""
    redeliveries: fields.Count
    """How many sendings the broker delivered more than once."""
    further_sendings: fields.Count
    """How many sendings were not an entry's first."""
    tasks: list[SummaryTask]
    """By task."""
    workers: list[SummaryWorker]
    """By worker process, the busiest first."""
    causes: list[SummaryCause]
    """Failures by cause, the largest first."""
    slowest: list[SummaryEntry]
    """The five entries that ran longest."""
    advice: list[fields.Text]
    """What would help, where a bottleneck shows."""
    descendants: SummaryDescendants
    """The tasks that the entries' jobs started."""


class SummaryCost(fields.Document):
    """The cost of the run, in the entries' unit."""

    total: fields.Number | None
    """All attempts together; null: no receipt tells a cost."""
    budget: fields.Number | None
    """What it may cost; null: not limited."""
    over_budget: bool
    """Whether the rest was not sent for want of money."""


class SummaryFile(fields.Document):
    """A file that the run has left."""

    kind: FileKind
    """What is in it."""
    path: fields.Text
    """Its path, from pytest's root folder where it lies below that."""
    bytes: fields.Count
    """Its size."""
    sha256: fields.Sha256 | None
    """Its checksum; null for what is still written to: ledger and log."""


class SummarySide(fields.Document):
    """One of two runs that are compared."""

    run: str
    """The run's id."""
    entries: fields.Count
    """How many entries it had."""
    passed: fields.Count
    """How many of them passed."""
    cost: fields.Number | None
    """What it has cost; null: no receipt has a cost."""


class SummaryChange(fields.Document):
    """An entry whose verdict changed; null: no such entry, or no verdict."""

    id: fields.Name
    """The entry's id."""
    task: fields.Name
    """The task's name."""
    before: VerdictStatus | None
    """What it came to in the earlier run."""
    after: VerdictStatus | None
    """What it came to in the later run."""
    sentence: fields.Text
    """The message of the later run's verdict."""


class SummaryTimeChange(fields.Document):
    """A task whose entries that passed took longer, or less long."""

    task: fields.Name
    """The task's name."""
    before: fields.Number
    """The median in the earlier run."""
    after: fields.Number
    """The median in the later run."""
    ratio: fields.Number
    """How many times as long that is."""
    samples_before: fields.Count
    """Of how many entries the earlier one is."""
    samples_after: fields.Count
    """Of how many entries the later one is."""
    same: bool
    """Whether these are the same entries; else all of each run, as they share none."""


class SummaryResultChange(fields.Document):
    """An entry that succeeded in both runs with other results."""

    id: fields.Name
    """The entry's id."""
    task: fields.Name
    """The task's name."""
    before: str
    """SHA-256 of the earlier result's JSON."""
    after: str
    """SHA-256 of the later result's JSON."""


class SummaryTreeChange(fields.Document):
    """An entry whose descendants differ in number or ends."""

    id: fields.Name
    """The entry's id."""
    before: dict[str, fields.Count]
    """How many ended how in the earlier run."""
    after: dict[str, fields.Count]
    """How many ended how in the later run."""


class SummaryComparison(fields.Document):
    """The changes since an earlier run; entries are in the later manifest's order."""

    before: SummarySide
    """The earlier run."""
    after: SummarySide
    """The later run."""
    newly_failing: list[SummaryChange]
    """Entries that fail now, and did not, or were not there."""
    fixed: list[SummaryChange]
    """Entries that failed, and pass now."""
    still_failing: list[SummaryChange]
    """Entries that fail in both."""
    added: list[fields.Name]
    """Entries that the earlier manifest had not."""
    removed: list[fields.Name]
    """Entries that the later manifest has not."""
    slower: list[SummaryTimeChange]
    """Tasks that take longer, the largest ratio first."""
    faster: list[SummaryTimeChange]
    """Tasks that take less long, the smallest ratio first."""
    changed_results: list[SummaryResultChange]
    """Entries that succeeded with other results."""
    changed_trees: list[SummaryTreeChange]
    """Entries of both runs whose descendants differ."""
    threshold: fields.Number
    """The ratio from which a task is slower, or faster."""
    samples: fields.Count
    """How many entries of a task that takes."""


class SummaryAccepted(fields.Document):
    """Failures that somebody knows: they fail no test."""

    text: fields.Text
    """By whom, until when and why they are accepted."""
    count: fields.Count
    """How many entries they are."""
    verdicts: dict[VerdictStatus, fields.Count]
    """Their verdicts."""
    examples: list[fields.Name]
    """The ids of the first three."""


class RunSummary(fields.Document):
    """A run that is over, in one document."""

    summary: fields.Version = 1
    """The version of this format."""
    run: SummaryRun
    """What was run, and where."""
    statistics: SummaryStatistics
    """The run in figures."""
    cost: SummaryCost
    """What it has cost."""
    comparison: SummaryComparison | None
    """How it differs from an earlier run (``--manifest-compare``); null: none was named."""
    files: list[SummaryFile]
    """What the run has left."""
    accepted: list[SummaryAccepted] = Field(default_factory=list)
    """Failures that are accepted, by the reasons; these entries are among the unfinished ones."""
    failed: list[SummaryEntry] = Field(default_factory=list)
    """Entries whose expectations do not hold, or that harness or stack could not tell of."""
    unfinished: list[SummaryEntry] = Field(default_factory=list)
    """Entries that were skipped, or have no verdict yet."""
    succeeded: list[SummaryEntry] = Field(default_factory=list)
    """Entries that did what was expected."""

    @property
    def accepted_verdicts(self) -> Counter[VerdictStatus]:
        """Return how many failures are accepted, by their verdicts."""
        return sum((Counter(one.verdicts) for one in self.accepted), Counter())
