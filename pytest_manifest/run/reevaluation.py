"""Evaluate the verdicts of an earlier run again, by what the manifest says now."""

from __future__ import annotations

import contextlib
from collections.abc import Container, Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from pytest_manifest.ledger import BAD_ROW_ERRORS, AttemptRow, EntryVerdict, Ledger, Start, damaged
from pytest_manifest.ledger.queries import BATCH, StoredPass
from pytest_manifest.ledger.rows import moment, receipt_of
from pytest_manifest.manifest import Manifest, id_and_task
from pytest_manifest.run.changes import EarlierLines, change_of
from pytest_manifest.run.evaluation import AttemptEvaluator, Evaluated
from pytest_manifest.run.pending import PendingAttempt
from pytest_manifest.schema import Entry, Verdict
from pytest_manifest.schema.statuses import FIXED, OF_ITS_PROCESS, OPEN, OWN
from pytest_manifest.verdict import evaluate, problems


def reevaluate(
    ledger: Ledger,
    manifest: Manifest,
    before: Manifest | None,
    evaluator: AttemptEvaluator,
    only: Container[str] | None = None,
    *,
    by_other_keys: bool = False,
) -> Iterator[Evaluated]:
    """Judge final verdicts again by this manifest's expectations; yield those that differ.

    What has passed is judged by its receipt: that it says so is no proof. What has not passed is
    judged again where the manifest expects something else of it now, and what is forged where other
    keys are trusted now (``by_other_keys``): what excuses a job may have come since, and reaches
    not back. ``before`` is the manifest that the run was made of, where that is known; ``only`` are
    the entries to judge, all where it is None. Raises LedgerError where the ledger contradicts
    itself.
    """
    ledger.verdicts.refuse_contradictions()
    with contextlib.closing(manifest_lines(ledger, manifest, before)) as lines:
        while some := {line.entry: line for line in islice(lines, BATCH)}:
            if only is not None:
                some = {name: line for name, line in some.items() if name in only}
            # All of them before the first is judged: what follows from that is written meanwhile.
            other = {name for name, line in some.items() if not line.same}
            same = [name for name in some if name not in other]
            if by_other_keys:
                other.update(list(ledger.queries.ids_of_not_passed(same)))
            passed = list(ledger.queries.stored_passes(same))
            starts = ledger.events.starts_of([one.task_id for one in passed])
            for one in passed:
                started = starts.get(one.task_id, ())
                yield from _reevaluate_passed(
                    ledger, manifest, evaluator, some[one.entry], one, started
                )
            for name in (name for name in some if name in other):
                yield from _reevaluate_line(
                    ledger, manifest, evaluator, some[name], by_other_keys=by_other_keys
                )


def _reevaluate_passed(
    ledger: Ledger,
    manifest: Manifest,
    evaluator: AttemptEvaluator,
    line: EntryLine,
    one: StoredPass,
    starts: Sequence[Start],
) -> Iterator[Evaluated]:
    """Judge an entry recorded as passed by the line that the manifest has now."""
    entry = manifest.parse(line.raw, line.number)
    if one.receipt is None:
        if entry.expect.state in OF_ITS_PROCESS:
            why = problems.NoReceipt()
            yield evaluate(entry, None, attempt=one.attempt, problem="unknown", why=why), None
        return
    try:
        receipt, sent_at = receipt_of(one.receipt), moment(one.sent_at)
    except BAD_ROW_ERRORS as error:
        raise damaged(ledger.path, error) from error
    job = PendingAttempt(evaluator.run, entry, one.attempt, one.task_id, 0.0, sent_at)
    anew, evaluated = evaluator.evaluate(job, receipt, starts)
    if anew.verdict != "passed":
        yield anew, evaluated


@dataclass(frozen=True, slots=True)
class EntryLine:
    """Hold an entry's line of the manifest.

    ``old``: that of the run's own manifest, None: unknown, or the entry is new; ``same``: nothing
    about it can have changed.
    """

    number: int
    entry: str
    raw: bytes
    old: bytes | None
    same: bool


def manifest_lines(
    ledger: Ledger, manifest: Manifest, before: Manifest | None
) -> Generator[EntryLine, None, None]:
    same = ledger.info.read().sha256 == manifest.sha256
    with contextlib.ExitStack() as files:
        earlier: EarlierLines | None = None
        if before is not None and not same:
            earlier = files.enter_context(contextlib.closing(EarlierLines(before)))
        for number, _, raw in manifest.lines():
            entry, _ = id_and_task(raw)
            old = None if earlier is None else earlier.line(entry)
            yield EntryLine(number, entry, raw, old, same or old == raw)


def _reevaluate_line(
    ledger: Ledger,
    manifest: Manifest,
    evaluator: AttemptEvaluator,
    line: EntryLine,
    *,
    by_other_keys: bool,
) -> Iterator[Evaluated]:
    rows = ledger.attempts.of_entry(line.entry)
    if not rows:
        return
    row, one = rows[-1], ledger.verdicts.of_entry(line.entry)
    entry = manifest.parse(line.raw, line.number)
    old = entry if line.old is None or line.same else manifest.parse(line.old, line.number)
    change, words = change_of(entry, old)
    if change == "job" and row.state not in ("planned", "withheld"):  # also what was reused
        why = problems.OtherWork(changed=words)
        yield evaluate(entry, None, attempt=row.attempt, problem="unknown", why=why), None
    elif one is None or one.verdict.verdict in OPEN:
        return
    elif one.verdict.verdict in FIXED:
        if by_other_keys and one.verdict.verdict == "forged":
            yield from _reevaluate_verdict(evaluator, row, one, entry, old)
    elif not line.same:
        yield from _reevaluate_verdict(evaluator, row, one, entry, old)


def _reevaluate_verdict(
    evaluator: AttemptEvaluator, row: AttemptRow, settled: EntryVerdict, entry: Entry, old: Entry
) -> Iterator[Evaluated]:
    verdict = settled.verdict
    if settled.receipt is not None:
        job = PendingAttempt(evaluator.run, entry, row.attempt, row.task_id, 0.0, row.sent_at)
        anew, receipt = evaluator.evaluate(job, settled.receipt)
        anew = evaluator.final(job, anew)
        if anew != verdict:
            yield anew, receipt
    elif change_of(entry, old)[0] is not None:
        yield _reevaluate_problem(evaluator, row, settled, entry, old), None


def _reevaluate_problem(
    evaluator: AttemptEvaluator, row: AttemptRow, settled: EntryVerdict, entry: Entry, old: Entry
) -> Verdict:
    """Judge what has no receipt by other expectations, as of when it was judged."""
    verdict = settled.verdict
    status, expected = verdict.verdict, old.expect.state
    had_passed = status == "passed"
    if had_passed and expected != "succeeded" and expected != "ignored":
        status = expected  # what became of it was what the old expectations wanted
    seen = had_passed and entry.timeout == old.timeout and status in OWN
    seen = seen or evaluator.was_seen(entry, row.task_id, status)
    anew = evaluate(entry, None, attempt=verdict.attempt, problem=status, seen=seen)
    return verdict if anew.verdict == verdict.verdict else anew
