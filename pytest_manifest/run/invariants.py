"""Hold a run's record against what must be so whatever its jobs did (docs/evidence/promises.md).

Each function reads the ledger and yields a sentence for each promise that the record breaks. None
of them shares a rule with what judges: a fault of that is what they are there to find.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from itertools import groupby, islice
from operator import itemgetter
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from pydantic_core import from_json

from pytest_manifest.broker.attempt import is_of_attempt
from pytest_manifest.errors import ManifestError
from pytest_manifest.ledger import RECEIPT_KEYS, Ledger
from pytest_manifest.ledger import invariants as queries
from pytest_manifest.ledger.invariants import Sending
from pytest_manifest.ledger.rows import BAD_ROW_ERRORS, damaged
from pytest_manifest.ledger.verdicts import BATCH
from pytest_manifest.manifest import Manifest, id_and_task
from pytest_manifest.schema import Entry, VerdictStatus, wire
from pytest_manifest.schema.statuses import ENDS, OF_ITS_PROCESS
from pytest_manifest.text import plural, seconds, short

Promise: TypeAlias = Literal["S1", "S2", "S3", "S4", "S5", "S6", "L1"]

_TIMEOUT: Final = float(Entry.model_fields["timeout"].default)
_Sentences: TypeAlias = Mapping[str, str]
"""What is said of the attempts that a query finds."""


class Violation(NamedTuple):
    """A promise that the record of a run breaks; ``entry``: "" where it is of none."""

    promise: Promise
    entry: str
    sentence: str


def broken_invariants(ledger: Ledger, manifest: Manifest) -> Generator[Violation, None, None]:
    """Yield what in a run's record cannot be, in constant memory.

    Raises LedgerError where the ledger, ManifestError where the manifest cannot be read.
    """
    yield from sendings(ledger)
    yield from repetitions(ledger, manifest)
    yield from losses(ledger)
    yield from passes(ledger, manifest)
    yield from trees(ledger, manifest)
    yield from corrections(ledger)
    yield from completeness(ledger, manifest)


def sendings(ledger: Ledger) -> Iterator[Violation]:
    """Check S1: each attempt is written down before it is sent, once, under its own id."""
    part = ledger.invariants
    yield from _broken(ledger, "S1", _SENDINGS)
    for one in part.sendings(queries.STRANGERS):
        said = f"a worker reports the task id {short(one.task_id)}, which this run never sent"
        yield Violation("S1", "", said)
    runs = ledger.info.task_runs()
    for one in part.sendings(queries.ATTEMPTS):
        if not is_of_attempt(one.task_id, runs.run_of(one.task_id), one.entry, one.attempt):
            yield _of("S1", one, "has a task id that is another's")


_SENDINGS: Final[_Sentences] = {
    queries.RUN_THOUGH_UNSENT: "was never sent by this record, and a worker reports it",
    queries.SENT_WITHOUT_TIME: "was sent, and was not recorded before that",
    queries.NUMBERED_TWICE: "is there twice, under two task ids",
    queries.MISSING_NUMBERS: "is there, and one before it is not",
    queries.REPEATED_WITHOUT_REASON: "was made without a recorded reason",
    queries.SENT_THOUGH_CANCELLED: "was sent after an operator had cancelled its entry",
    queries.REUSED_FROM_NOWHERE: (
        "is recorded as an earlier run's, and the record does not name that run"
    ),
}


def repetitions(ledger: Ledger, manifest: Manifest) -> Iterator[Violation]:
    """Check S2: one attempt ran of an entry that is not idempotent, unless more were asked for."""
    asked_for = ledger.info.sent_on_request()
    with closing(ledger.invariants.rows(queries.REPETITIONS)) as rows:
        for name, group in groupby(rows, key=itemgetter(0)):
            ran = [(task_id, number) for _, task_id, number, _, _, began in group if began]
            if name in manifest and not manifest[name].idempotent:
                unasked = [number for task_id, number in ran[1:] if task_id not in asked_for]
                if unasked:
                    both = f"{ran[0][1]} and {unasked[0]}"
                    said = f"is not idempotent, and its attempts {both} both began, unasked"
                    yield Violation("S2", name, said)


def losses(ledger: Ledger) -> Iterator[Violation]:
    """Check S3: what is called lost was begun by no worker, or its verdict says by which."""
    yield from _broken(ledger, "S3", _LOSSES)


_LOSSES: Final[_Sentences] = {
    queries.LOST_THOUGH_ENDED: "is called lost, and a worker reported its end",
    queries.LOST_THOUGH_BEGUN: "is called lost, and a worker had begun it",
}


def passes(ledger: Ledger, manifest: Manifest) -> Iterator[Violation]:
    """Check S4: what passed has one receipt to be believed, of this very sending, and ran once."""
    part = ledger.invariants
    for one in part.sendings(queries.PASSED_WITHOUT_RECEIPT):
        entry = _entry(manifest, one.entry)
        if entry is None or entry.expect.state in OF_ITS_PROCESS:
            yield _of("S4", one, "passed, and no receipt says so")
    yield from _broken(ledger, "S4", _PASSES)
    if not _is_signed(ledger):
        yield from _broken(ledger, "S4", _CONTRADICTED)
    for name, executions in part.rows(queries.REPEATED_EXECUTIONS):
        entry = _entry(manifest, name)
        if entry is not None and executions > entry.expect.executions:
            yield Violation("S4", name, f"passed, and its job was begun {executions} times")
    yield from _unearned_passes(ledger, manifest)


_PASSES: Final[_Sentences] = {
    queries.PASSED_THOUGH_UNSENT: "passed, and was never sent",
    queries.PASSED_BY_ANOTHER: ("passed by a receipt that is not its own, or is not in the record"),
    queries.PASSED_BY_ANOTHER_SENDING: "passed by a receipt of another sending",
}
_CONTRADICTED: Final[_Sentences] = {
    queries.PASSED_AND_CONTRADICTED: (
        "passed, and one of its executions is reported to end otherwise"
    )
}


def _is_signed(ledger: Ledger) -> bool:
    """Return whether signatures are asked for: an end that nobody signed contradicts nothing."""
    return ledger.info.get_meta(RECEIPT_KEYS) is not None


def _unearned_passes(ledger: Ledger, manifest: Manifest) -> Iterator[Violation]:
    """Hold the receipt of each pass against its line of the manifest."""
    limits: dict[str, float] = dict(ledger.invariants.rows(queries.LONGEST_LIMITS))
    with closing(manifest.lines()) as lines:
        while some := list(islice(lines, BATCH)):
            by_id = {id_and_task(line.raw)[0]: line.raw for line in some}
            for one in ledger.queries.stored_passes(by_id):
                if one.receipt is None:
                    continue
                try:
                    receipt = from_json(one.receipt)
                    why = _unearned(from_json(by_id[one.entry]), receipt, limits)
                except BAD_ROW_ERRORS as error:
                    raise damaged(ledger.path, error) from error
                if why:
                    yield Violation("S4", one.entry, f"passed{why}")


def _unearned(
    entry: Mapping[str, Any], receipt: Mapping[str, Any], limits: Mapping[str, float]
) -> str:
    """Return what of a receipt does not fit to the entry that passed by it; "" where all does."""
    expect = entry.get("expect", {})
    state, expected = receipt["state"], expect.get("state", "succeeded")
    limit = entry.get("timeout", _TIMEOUT)
    if state != expected and not (expected == "timed_out" and state in OF_ITS_PROCESS):
        return f", and its receipt says {short(state)}, not {short(expected)}"
    if expected != "timed_out" and (receipt.get("runtime") or 0) > limit:
        limit = max(limit, limits.get(entry["task"], 0))
        if receipt["runtime"] > limit:
            return f", and it ran for {seconds(receipt['runtime'])}, its limit is {seconds(limit)}"
    if receipt.get("executions", 0) > expect.get("executions", 1):
        return f", and its receipt counts {plural(receipt['executions'], 'execution')}"
    if _is_other_result(receipt):
        return " by a result that is not the one that its worker reported"
    if receipt.get("replaced"):  # Celery lets another task replace this one
        return ""
    if receipt.get("task") != entry["task"]:
        return f" by a receipt of the task {short(receipt.get('task'))}"
    arguments = receipt.get("args_sha256")
    if arguments is not None and not receipt.get("retries"):  # which may be with others
        sent = wire.arguments_sha256(entry.get("args", []), entry.get("kwargs", {}))
        if sent not in (None, arguments):
            return " by a receipt of other arguments"
    return ""


def _is_other_result(receipt: Mapping[str, Any]) -> bool:
    """Return whether a receipt has another result than its digest is of."""
    digest, result = receipt.get("result_sha256"), receipt.get("result")
    if digest is None or (result is None and receipt.get("evidence")):  # it may be left out
        return False
    return wire.json_sha256(result) not in (None, digest)


def trees(ledger: Ledger, manifest: Manifest) -> Iterator[Violation]:
    """Check S4: all that a passed entry's job started came to the end that the entry expects."""
    part = ledger.invariants
    with closing(part.rows(queries.UNSUCCESSFUL_DESCENDANTS)) as rows:
        for name, group in groupby(rows, key=itemgetter(0)):
            entry = _entry(manifest, name)
            if entry is None or _is_ignored(entry):
                continue
            some = entry.expect.of_descendants.outcome
            for _, status, task, task_id, has_end in group:
                is_end = _is_end(status, has_end=has_end)
                if some == "succeeded" or (some == "finished" and not is_end):
                    said = f"passed, and {_named(task, task_id)} is {status}"
                    yield Violation("S4", name, said)
                    break
    for name, said in _tree_faults(ledger):
        entry = _entry(manifest, name)
        if entry is None or not _is_ignored(entry):
            yield Violation("S4", name, f"passed{said}")


def _tree_faults(ledger: Ledger) -> Iterator[tuple[str, str]]:
    """Yield passed entries with what is wrong with their trees, unless they ignore these."""
    part = ledger.invariants
    for name, task, task_id, why in part.rows(queries.UNEARNED_DESCENDANTS):
        yield name, f"; {_named(task, task_id)} is recorded as passed, {why}"
    for name, number, known in part.rows(queries.FEWER_CHILDREN):
        of = plural(number, "task")
        yield name, f", and of the {of} that its job started {known} are known"
    for name, task, task_id, number, known in part.rows(queries.FEWER_CHILDREN_OF_DESCENDANTS):
        of = f"{plural(number, 'task')} that {_named(task, task_id)} started"
        yield name, f", and of the {of} {known} are known"
    for name, how, missing in part.rows(queries.UNFULFILLED):
        yield (
            name,
            f", and its tree has {plural(missing, 'announcement')} ({how}) without a report",
        )


def _named(task: str, task_id: str) -> str:
    return f"its descendant {short(task)} ({short(task_id)})"


def _is_end(status: VerdictStatus, *, has_end: bool) -> bool:
    # A task that its worker stopped at its limit has ended; what no worker has reported has not.
    return status in ENDS or (status == "timed_out" and has_end)


def _is_ignored(entry: Entry) -> bool:
    """Return whether nothing about what its job started matters to the entry."""
    expected = entry.expect.of_descendants
    return expected == type(expected)(outcome="ignored")


def corrections(ledger: Ledger) -> Iterator[Violation]:
    """Check S5: a verdict that was told was changed by what arrived later alone."""
    yield from _broken(ledger, "S5", _CORRECTIONS)
    runs = ledger.info.task_runs()
    # A session that goes on with a run judges it anew, by what the manifest expects then and by all
    # that has come, and one that trusts other keys by these; no correction says so.
    asked = _WITHIN_A_SESSION if _is_signed(ledger) else {**_WITHIN_A_SESSION, **_CHANGED}
    for query, said in asked.items():
        for one in ledger.invariants.sendings(query):
            if len(ledger.info.segments(runs.run_of(one.task_id))) < 2:
                yield _of("S5", one, said)
    yield from _broken(ledger, "S5", {queries.CORRECTED_TO_NOTHING: _OTHERWISE})


_CORRECTIONS: Final[_Sentences] = {
    queries.OTHER_DOCUMENTS: "has a verdict that says something else than its row",
    queries.CORRECTED_WITHOUT_EVIDENCE: (
        "was given one verdict and has another, and nothing arrived between"
    ),
}
_OTHERWISE: Final = "has a correction, and not the verdict that it names"
_WITHIN_A_SESSION: Final[_Sentences] = {queries.CORRECTED_OTHERWISE: _OTHERWISE}
_CHANGED: Final[_Sentences] = {
    queries.CHANGED_WITHOUT_CORRECTION: (
        "had another verdict, and no correction says that it changed"
    ),
}


def completeness(ledger: Ledger, manifest: Manifest) -> Iterator[Violation]:
    """Check S6 and L1: the entries are the manifest's, and each has one verdict at the end.

    An entry that was taken out of the manifest since is the run's as well.
    """
    info, status = ledger.info.read(), ledger.info.status
    number = ledger.attempts.count_entries()
    if number < info.entries:  # a resumed run may have others, too
        yield Violation(
            "S6", "", f"{plural(info.entries, 'entry')} were selected, and the record has {number}"
        )
    unknown = (name for name in ledger.queries.sent_entries() if name not in manifest)
    for name in unknown:
        yield Violation("S6", name, "was sent, and is not in the run's manifest")
    yield from _broken(ledger, "S6", _COMPLETENESS)
    if status == "finished":
        said = "has no verdict, and the run is recorded as finished"
        yield from _broken(ledger, "L1", {queries.UNJUDGED: said})


_COMPLETENESS: Final[_Sentences] = {
    queries.JUDGED_WITHOUT_ATTEMPT: "has a verdict, and the run does not have it",
    queries.SKIPPED_THOUGH_BEGUN: "is recorded as skipped, and a worker had begun it",
    queries.SUPERSEDED: "has a verdict, and was sent again since",
}


def _broken(ledger: Ledger, promise: Promise, sentences: _Sentences) -> Iterator[Violation]:
    """Yield a violation for each attempt that one of these queries finds."""
    for query, said in sentences.items():
        for one in ledger.invariants.sendings(query):
            yield _of(promise, one, said)


def _entry(manifest: Manifest, name: str) -> Entry | None:
    """Return an entry; None for what the manifest does not have, or has no longer as it was."""
    try:
        return manifest[name]
    except (KeyError, ManifestError):
        return None


def _of(promise: Promise, one: Sending, said: str) -> Violation:
    attempt = f"attempt {one.attempt} " if one.attempt else ""
    return Violation(promise, one.entry, f"{attempt}{said}")
