"""A made-up run for tests and benchmarks of the run page: records as a ledger would give them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Final
from uuid import NAMESPACE_OID, uuid5

from pydantic import JsonValue

from pytest_manifest.analysis.records import AttemptRecord, EntryRecord
from pytest_manifest.analysis.statistics import statistics
from pytest_manifest.analysis.tree_reading import (
    DescendantRecord,
    TaskFailure,
    TreeRecord,
    tree_of,
)
from pytest_manifest.ledger import RunInfo
from pytest_manifest.reporting.run_page.columns import TreeSource
from pytest_manifest.reporting.run_page.page import PageMetadata
from pytest_manifest.schema import (
    Entry,
    ErrorInfo,
    Expectations,
    Mismatch,
    Receipt,
    Verdict,
    VerdictStatus,
)
from pytest_manifest.schema.statuses import outcome_of
from pytest_manifest.schema.summary import RunSummary, SummaryCost, SummaryRun
from pytest_manifest.verdict.problems import ProcessEnded

RUN: Final = "20260317-214005-5f1c9a2e"
BEGAN: Final = datetime(2026, 3, 17, 21, 40, 5, tzinfo=timezone.utc)
HOSTILE: Final = (
    "</script><script>document.title='broken'</script>",
    "<!-- <script>",
    "<img src=x onerror=\"document.title='broken'\">",
    "\x1b[31mred\x1b[0m \x00 \u202egnp.exe \u2028 \ud800 \ufeff",
    "'\"&lt;b&gt; {{data}} ${1+1} ]]>",
)
TRACEBACK: Final = """Traceback (most recent call last):
  File "/srv/jobs/thumbnails.py", line 88, in render
    image = decode(source, limit=limit)
  File "/srv/jobs/decoding.py", line 41, in decode
    raise UnsupportedImageError(f"{name}: {bits} bits a channel")
jobs.decoding.UnsupportedImageError: {message}
"""
AGAIN: Final = 97
FIRST_AGAIN: Final = 5
"""Of so many entries this one was sent twice."""
CRASHED_AFTER: Final = 0.2
"""Seconds after which some first attempts end with their worker."""
TASKS: Final = ("images.thumbnail", "images.describe", "texts.translate", "texts.index")


def run_info(entries: int) -> RunInfo:
    """What the run is about."""
    return RunInfo(
        run=RUN,
        manifest=Path("manifests/nightly.jsonl"),
        sha256="0" * 64,
        workflow="catalogue",
        mode="nightly",
        entries=entries,
        created_at=BEGAN,
        broker="redis://127.0.0.1:6379/0",
        backend="redis://127.0.0.1:6379/0",
        is_private=True,
        stream_ttl=3600,
    )


def about(records: Iterable[EntryRecord], status: str = "finished", **more: Any) -> PageMetadata:
    """What a page of these records has beside them."""
    info: RunInfo = more.pop("info", run_info(0))
    found = statistics(records, info, more.pop("parts", ()))
    names = ("run", "workflow", "mode", "created_at", "broker", "backend")
    run = {name: getattr(info, name) for name in names}
    run |= {"manifest": str(info.manifest), "manifest_sha256": info.sha256, "status": status}
    run |= {"findings": list(more.pop("findings", ())), "owned": info.is_private, "version": "1"}
    cost = SummaryCost(total=found.cost, budget=None, over_budget=False)
    made = SummaryRun.model_validate(run)
    summary = RunSummary(run=made, statistics=found, cost=cost, comparison=None, files=[])
    return PageMetadata(summary, **more)


def sample_records(
    count: int, *, workers: int = 8, seed: int = 1, hostile: bool = False, bad: float = 0.02
) -> Iterator[EntryRecord]:
    """``count`` entries, worked off by ``workers`` processes; the same for the same seed.

    A share of ``bad`` fails, and some end by an error; ``hostile``: every text is one of HOSTILE.
    """
    rng = random.Random(seed)
    free = [0.3 + 0.02 * worker for worker in range(workers)]
    for number in range(count):
        worker = free.index(min(free))
        task = TASKS[min(3, int(rng.random() ** 1.5 * 4))]
        sent = number * 0.0004
        start = max(free[worker], sent + 0.002) + 0.001
        if number % AGAIN == FIRST_AGAIN:
            start += CRASHED_AFTER
        lasted = rng.lognormvariate(-1.6 + 0.35 * TASKS.index(task), 0.5)
        free[worker] = start + lasted
        luck = rng.random()
        kind: VerdictStatus = "passed"
        if luck < bad:
            kind = "failed"
        elif luck < bad * 1.3:
            kind = rng.choice(["lost", "timed_out", "crashed"])
        elif luck < bad * 1.4:
            kind = "skipped"
        work = _Work(4100 + worker, sent, start, lasted)
        yield _record(rng, number, task, kind, work, hostile=hostile)


@dataclass(frozen=True)
class _Work:
    """When a job was done, in seconds since the run began, and by which process."""

    pid: int
    sent: float
    start: float
    lasted: float

    @property
    def sent_at(self) -> datetime:
        return BEGAN + timedelta(seconds=self.sent)

    @property
    def received_at(self) -> datetime:
        return self.started_at - timedelta(milliseconds=2)

    @property
    def started_at(self) -> datetime:
        return BEGAN + timedelta(seconds=self.start)

    @property
    def finished_at(self) -> datetime:
        return BEGAN + timedelta(seconds=self.start + self.lasted)


def _record(
    rng: random.Random, number: int, task: str, kind: VerdictStatus, work: _Work, *, hostile: bool
) -> EntryRecord:
    nasty = HOSTILE[number % len(HOSTILE)] if hostile else ""
    raises = kind == "failed" and rng.random() < 0.6
    entry = _entry(number, task, nasty)
    verdict = _verdict(entry, kind, raises=raises, nasty=nasty)
    begun = kind not in ("lost", "skipped")
    ended = begun and kind != "crashed"
    digest = f"{rng.getrandbits(128):032x}"
    attempt = AttemptRecord(
        number=1,
        task_id=f"5f1c9a2e-{number:05}-1",
        kind=kind,
        sentence=verdict.sentence,
        reason=None,
        sent_at=None if kind == "skipped" else work.sent_at,
        received_at=work.received_at if begun else None,
        started_at=work.started_at if begun else None,
        finished_at=work.finished_at if ended else None,
        wait=work.start - work.sent if begun else None,
        runtime=work.lasted if ended else None,
        worker=f"celery@render-1{nasty}" if begun else None,
        host="render-1" if begun else None,
        pid=work.pid if begun else None,
        executions=1,
        redelivered=False,
        retries=0,
        cost=0.002 if task == "images.describe" and ended else None,
    )
    earlier = _earlier(attempt) if number % AGAIN == FIRST_AGAIN and begun else ()
    receipt = None
    if ended:
        receipt = _receipt(entry, attempt, number, kind, digest, raises=raises, nasty=nasty)
    return EntryRecord(
        entry=entry,
        line=number + 2,
        verdict=verdict,
        outcome=outcome_of(kind),
        receipt=receipt,
        attempts=(*earlier, attempt),
        error_place="decoding.py:41 in decode" if raises else None,
    )


def _entry(number: int, task: str, nasty: str) -> Entry:
    name = nasty.encode("utf-8", "replace").decode() if nasty else f"item {number}"
    printable = "".join(char for char in nasty if char.isprintable())[:150]
    return Entry(
        id=f"{printable}{task.partition('.')[2]}-{number:05}",
        task=task,
        args=[number],
        kwargs={"source": f"s3/catalogue/{number:06}.png", "name": name, "limit": 4096},
        tags=["nightly", "small" if number % 3 else "large", *([printable] if nasty else [])],
        meta={"owner": "catalogue", "note": name},
        expect=Expectations(result={"item": number, "width": 640, "height": 360}),
    )


def _receipt(
    entry: Entry,
    attempt: AttemptRecord,
    number: int,
    kind: VerdictStatus,
    digest: str,
    *,
    raises: bool,
    nasty: str,
) -> Receipt:
    result: dict[str, JsonValue] = {
        "item": number,
        "name": entry.kwargs["name"],
        "width": 640,
        "height": 360 if kind != "failed" else 361,
        "digest": digest,
    }
    lasted = attempt.runtime or 0.0
    return Receipt(
        run=RUN,
        entry=entry.id,
        attempt=1,
        task_id=attempt.task_id,
        task=entry.task,
        state="failed" if raises else "succeeded",
        result=None if raises else result,
        error=_error(number, nasty) if raises else None,
        worker=attempt.worker,
        host=attempt.host,
        pid=attempt.pid,
        queue="celery",
        sent_at=attempt.sent_at,
        received_at=attempt.received_at,
        started_at=attempt.started_at,
        finished_at=attempt.finished_at,
        wait=attempt.wait,
        runtime=lasted,
        executions=1,
        log=_log(number, lasted, nasty),
        cpu=lasted * 0.8,
        max_rss=180 * 2**20,
        code="py3.11:" + "a1" * 32,
    )


def _earlier(attempt: AttemptRecord) -> tuple[AttemptRecord, ...]:
    """A first attempt that a crash of its worker has ended."""
    assert attempt.started_at is not None
    began = attempt.started_at - timedelta(seconds=CRASHED_AFTER)
    crashed = replace(
        attempt,
        kind="crashed",
        sentence="The worker process ended while it ran the job.",
        task_id=f"{attempt.task_id}-0",
        started_at=began,
        finished_at=None,
        runtime=None,
        cost=None,
    )
    return (crashed,)


def _verdict(entry: Entry, kind: VerdictStatus, *, raises: bool, nasty: str) -> Verdict:
    sentences = {
        "passed": "The task succeeded on celery@render-1 and its result is what was expected.",
        "lost": "No worker and no queue has the job any more; it was sent once. "
        "Send it again with --manifest-resume.",
        "timed_out": "The task ran longer than its timeout of 300 s and was stopped.",
        "skipped": "It was not sent: 'ingest' did not pass, which it comes after.",
    }
    mismatches: list[Mismatch] = []
    sentence = sentences.get(kind, "")
    reason: dict[str, object] | None = None
    if kind == "crashed":
        why = ProcessEnded(worker="celery@render-1", exit_code=-9)
        sentence, reason = why.sentence(kind), why.document()
    if kind == "failed" and raises:
        sentence = (
            "The task failed on celery@render-1 with UnsupportedImageError where it was to succeed."
        )
        mismatches = [Mismatch(path="state", expected='"succeeded"', actual='"failed"')]
    elif kind == "failed":
        sentence = (
            "The task succeeded on celery@render-1, but result.height is 361 where 360 was "
            "expected."
        )
        mismatches = [Mismatch(path="result.height", expected="360", actual="361")]
    clean = nasty.encode("utf-8", "replace").decode()
    return Verdict(
        verdict=kind,
        entry=entry.id,
        attempt=1,
        sentence=sentence + clean,
        reason=reason,
        mismatches=mismatches,
    )


def _error(number: int, nasty: str) -> ErrorInfo:
    message = nasty or f"catalogue/{number:06}.png: 16 bits a channel"
    return ErrorInfo(
        type="UnsupportedImageError",
        message=message,
        traceback=TRACEBACK.replace("{message}", message),
    )


def _log(number: int, lasted: float, nasty: str) -> list[str]:
    return [
        f"21:40:07 INFO jobs.thumbnails: {nasty or f'item {number}'} opened, 2.1 MB",
        f"21:40:07 INFO jobs.thumbnails: scaled to 640 x 360 in {lasted * 1000:.0f} ms",
    ]


# Trees

BRANCHES: Final = ("pages.render", "pages.ocr", "pages.join")


def sample_tree(attempt: AttemptRecord, count: int = 30, seed: int = 1) -> TreeRecord:
    """What an attempt's job started: a chord of pages, of each a chain, then a body; one failed.

    ``count`` descendants; the same for the same seed.
    """
    rng = random.Random(f"{attempt.task_id} {seed}")
    assert attempt.started_at is not None
    made: list[DescendantRecord] = []
    free = [0.0, 0.0, 0.0]

    def grow(parent: str, task: str, how: str, sent: float, status: VerdictStatus) -> float:
        worker = free.index(min(free))
        start = max(free[worker], sent) + 0.003
        lasted = rng.lognormvariate(-2.2, 0.6)
        free[worker] = start + lasted
        made.append(
            _descendant(
                attempt, (len(made), worker), parent, task, how, (sent, start, lasted), status
            )
        )
        return start + lasted

    ends: list[tuple[float, str]] = []
    while len(made) < count - 4:
        bad = len(made) == count // 2
        end = grow(attempt.task_id, "pages.render", "chord", len(ends) * 0.01, "passed")
        if len(made) < count - 4:
            kind: VerdictStatus = "failed" if bad or len(made) == count // 2 else "passed"
            end = grow(made[-1].task_id, "pages.ocr", "chain", end - 0.002, kind)
        ends.append((end, made[-1].task_id))
    while len(made) < count:
        end, last = max(ends)
        ends.append((grow(last, "pages.join", "chord_body", end, "passed"), made[-1].task_id))
    return tree_of(attempt, made)


def _descendant(
    attempt: AttemptRecord,
    where: tuple[int, int],
    parent: str,
    task: str,
    how: str,
    times: tuple[float, float, float],
    status: VerdictStatus,
) -> DescendantRecord:
    sent, start, lasted = times
    number, process = where
    assert attempt.started_at is not None
    began = attempt.started_at
    failed = status == "failed"
    worker = f"celery@pages-{process + 1}"
    message = f"page {number}: no text layer"
    retries = int(number == 4)
    return DescendantRecord(
        task_id=str(uuid5(NAMESPACE_OID, f"{attempt.task_id} {number}")),
        parent=parent,
        task=task,
        how=how,
        status=status,
        sentence=f"The task raised ValueError: {message} on {worker}." if failed else None,
        spawned_at=began + timedelta(seconds=sent),
        started_at=began + timedelta(seconds=start),
        ended_at=began + timedelta(seconds=start + lasted),
        runtime=lasted,
        worker=worker,
        host="pages",
        pid=5200 + process,
        retries=retries,
        failure=TaskFailure(f"ValueError: {message}", TRACEBACK.replace("{message}", message), ())
        if failed
        else None,
    )


def sample_trees(every: int = 1, count: int = 30) -> TreeSource:
    """Trees of attempts that started, of every so-many-th one."""

    def read(attempts: Sequence[AttemptRecord], _limit: int) -> dict[str, TreeRecord]:
        return {
            one.task_id: sample_tree(one, count)
            for one in attempts
            if one.started_at is not None and int(one.task_id.split("-")[1]) % every == 0
        }

    return TreeSource(read)
