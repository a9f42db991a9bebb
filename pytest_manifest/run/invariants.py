"""Hold a run's record against what must be so whatever its jobs did (docs/explanation/promises.md).

Each function reads the ledger and yields a sentence for each promise that the record breaks. None
of them shares a rule with what judges: a fault of that is what they are there to find.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import groupby, islice
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from pytest_manifest.broker.attempt import is_of_attempt
from pytest_manifest.errors import ManifestError
from pytest_manifest.ledger import (
    BAD_ROW_ERRORS,
    RECEIPT_KEYS,
    Ledger,
    damaged,
)
from pytest_manifest.ledger.invariants import Repetition, Sending
from pytest_manifest.ledger.queries import BATCH
from pytest_manifest.manifest import Manifest, id_and_task
from pytest_manifest.schema import Entry, VerdictStatus, wire
from pytest_manifest.schema.statuses import ENDS, OF_ITS_PROCESS
from pytest_manifest.text import plural, seconds, short

Promise: TypeAlias = Literal["S1", "S2", "S3", "S4", "S5", "S6", "L1"]

_UNWRITTEN: Final = "was sent, and was not recorded before that"
_TIMEOUT: Final = float(Entry.model_fields["timeout"].default)
_OTHERWISE: Final = "has a correction, and not the verdict that it names"


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
    """S1: each attempt is written down before it is sent, once, under an id of its own."""
    part = ledger.invariants
    for one in part.run_though_unsent():
        yield _of("S1", one, "was never sent by this record, and a worker reports it")
    for one in part.sent_without_time():
        yield _of("S1", one, _UNWRITTEN)
    runs = ledger.info.task_runs()
    for one in part.numbered_twice():
        yield _of("S1", one, "is there twice, under two task ids")
    for one in part.missing_numbers():
        yield _of("S1", one, "is there, and one before it is not")
    for one in part.repeated_without_reason():
        yield _of("S1", one, "was made without a recorded reason")
    for one in part.strangers():
        yield Violation(
            "S1",
            "",
            f"a worker reports the task id {short(one.task_id)}, which this run never sent",
        )
    for one in part.reused_from_nowhere():
        yield _of(
            "S1", one, "is recorded as an earlier run's, and the record does not name that run"
        )
    for one in part.attempts():
        if not is_of_attempt(one.task_id, runs.run_of(one.task_id), one.entry, one.attempt):
            yield _of("S1", one, "has a task id that is another's")


def repetitions(ledger: Ledger, manifest: Manifest) -> Iterator[Violation]:
    """S2: of an entry that is not idempotent at most one attempt ran, unless that was asked for."""
    asked_for = ledger.info.sent_on_request()
    with closing(ledger.invariants.repetitions()) as rows:
        for name, group in groupby(rows, key=lambda row: row.entry):
            attempts = list(group)
            if name in manifest and not manifest[name].idempotent:
                yield from _repeated(name, [row for row in attempts if row.ran], asked_for)


def _repeated(
    name: str, ran: Sequence[Repetition], asked_for: frozenset[str]
) -> Iterator[Violation]:
    unasked = [row for row in ran[1:] if row.task_id not in asked_for]
    if unasked:
        numbers = " and ".join(str(row.attempt) for row in (ran[0], unasked[0]))
        yield Violation(
            "S2",
            name,
            f"is not idempotent, and its attempts {numbers} both began, unasked",
        )


def losses(ledger: Ledger) -> Iterator[Violation]:
    """S3: what is called lost was begun by no worker, or its verdict says by which."""
    for one in ledger.invariants.lost_though_ended():
        yield _of("S3", one, "is called lost, and a worker reported its end")
    for one in ledger.invariants.lost_though_begun():
        yield _of("S3", one, "is called lost, and a worker had begun it")


def passes(ledger: Ledger, manifest: Manifest) -> Iterator[Violation]:
    """S4: what passed has one receipt to be believed, of this very sending, and ran once."""
    part = ledger.invariants
    for one in part.passed_though_unsent():
        yield _of("S4", one, "passed, and was never sent")
    for one in part.passed_without_receipt():
        entry = _entry(manifest, one.entry)
        if entry is None or entry.expect.state in OF_ITS_PROCESS:
            yield _of("S4", one, "passed, and no receipt says so")
    for one in part.passed_by_another():
        yield _of("S4", one, "passed by a receipt that is not its own, or is not in the record")
    for one in part.passed_by_another_sending():
        yield _of("S4", one, "passed by a receipt of another sending")
    # Where signatures are asked for, an end that nobody has signed contradicts nothing.
    signed = ledger.info.get_meta(RECEIPT_KEYS) is not None
    for one in () if signed else part.passed_and_contradicted():
        yield _of("S4", one, "passed, and one of its executions is reported to end otherwise")
    for name, executions in part.repeated_executions():
        entry = _entry(manifest, name)
        if entry is not None and executions > entry.expect.executions:
            yield Violation("S4", name, f"passed, and its job was begun {executions} times")
    yield from _unearned_passes(ledger, manifest)


def _unearned_passes(ledger: Ledger, manifest: Manifest) -> Iterator[Violation]:
    """Hold the receipt of each pass against its line of the manifest."""
    limits = ledger.invariants.longest_limits()
    with closing(manifest.lines()) as lines:
        while some := list(islice(lines, BATCH)):
            by_id = {id_and_task(line.raw)[0]: line.raw for line in some}
            for one in ledger.queries.stored_passes(by_id):
                if one.receipt is None:
                    continue
                try:
                    receipt = json.loads(one.receipt)
                    why = _unearned(json.loads(by_id[one.entry]), receipt, limits)
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
    """S4: all that a passed entry's job has started came to the end that the entry expects."""
    part = ledger.invariants
    with closing(part.unsuccessful_descendants()) as rows:
        for name, group in groupby(rows, key=lambda row: row[0]):
            entry = _entry(manifest, name)
            if entry is None or _is_ignored(entry):
                continue
            some = entry.expect.of_descendants.outcome
            for _, status, task, task_id, has_end in group:
                is_end = _is_end(status, has_end=has_end)
                if some == "succeeded" or (some == "finished" and not is_end):
                    yield Violation(
                        "S4",
                        name,
                        f"passed, and its descendant {short(task)} ({short(task_id)}) is {status}",
                    )
                    break
    for name, task, task_id, why in part.unearned_descendants():
        entry = _entry(manifest, name)
        if entry is None or not _is_ignored(entry):
            yield Violation(
                "S4",
                name,
                f"passed; its descendant {short(task)} ({short(task_id)}) is recorded as "
                f"passed, {why}",
            )
    for name, number, known in part.fewer_children():
        entry = _entry(manifest, name)
        if entry is None or not _is_ignored(entry):
            of = plural(number, "task")
            said = f"passed, and of the {of} that its job started {known} are known"
            yield Violation("S4", name, said)
    for name, task, task_id, number, known in part.fewer_children_of_descendants():
        entry = _entry(manifest, name)
        if entry is None or not _is_ignored(entry):
            its = f"its descendant {short(task)} ({short(task_id)})"
            yield Violation(
                "S4",
                name,
                f"passed, and of the {plural(number, 'task')} that {its} started {known} are known",
            )
    for name, how, missing in part.unfulfilled():
        entry = _entry(manifest, name)
        if entry is None or not _is_ignored(entry):
            yield Violation(
                "S4",
                name,
                f"passed, and its tree has {plural(missing, 'announcement')} ({how}) without a "
                "report",
            )


def _is_end(status: VerdictStatus, *, has_end: bool) -> bool:
    # A task that its worker stopped at its limit has ended; what no worker has reported has not.
    return status in ENDS or (status == "timed_out" and has_end)


def _is_ignored(entry: Entry) -> bool:
    """Return whether nothing about what its job started matters to the entry."""
    expected = entry.expect.of_descendants
    return expected == type(expected)(outcome="ignored")


def corrections(ledger: Ledger) -> Iterator[Violation]:
    """S5: a verdict that was told was changed by what arrived later alone, and stands as told."""
    part = ledger.invariants
    for one in part.other_documents():
        yield _of("S5", one, "has a verdict that says something else than its row")
    for one in part.corrected_without_evidence():
        yield _of("S5", one, "was given one verdict and has another, and nothing arrived between")
    runs = ledger.info.task_runs()
    # A session that goes on with a run judges it anew, by what the manifest expects then and by all
    # that has come, and one that trusts other keys by these; no correction says so.
    for one in part.corrected_otherwise():
        if len(ledger.info.segments(runs.run_of(one.task_id))) < 2:
            yield _of("S5", one, _OTHERWISE)
    signed = ledger.info.get_meta(RECEIPT_KEYS) is not None
    for one in () if signed else part.changed_without_correction():
        if len(ledger.info.segments(runs.run_of(one.task_id))) < 2:
            yield _of("S5", one, "had another verdict, and no correction says that it changed")
    for one in part.corrected_to_nothing():
        yield _of("S5", one, _OTHERWISE)


def completeness(ledger: Ledger, manifest: Manifest) -> Iterator[Violation]:
    """S6 and L1: the run's entries are the manifest's, and each has one verdict, once it ended.

    An entry that was taken out of the manifest since is the run's as well.
    """
    part = ledger.invariants
    info, status = ledger.info.read(), ledger.info.status
    number = ledger.attempts.count_entries()
    if number < info.entries:  # a resumed run may have others, too
        yield Violation(
            "S6", "", f"{plural(info.entries, 'entry')} were selected, and the record has {number}"
        )
    unknown = (name for name in ledger.queries.sent_entries() if name not in manifest)
    for name in unknown:
        yield Violation("S6", name, "was sent, and is not in the run's manifest")
    for one in part.judged_without_attempt():
        yield _of("S6", one, "has a verdict, and the run does not have it")
    for one in part.skipped_though_begun():
        yield _of("S6", one, "is recorded as skipped, and a worker had begun it")
    for one in part.superseded():
        yield _of("S6", one, "has a verdict, and was sent again since")
    if status == "finished":
        for one in part.unjudged():
            yield _of("L1", one, "has no verdict, and the run is recorded as finished")


def _entry(manifest: Manifest, name: str) -> Entry | None:
    """Return an entry; None for what the manifest does not have, or has no longer as it was."""
    try:
        return manifest[name]
    except (KeyError, ManifestError):
        return None


def _of(promise: Promise, one: Sending, said: str) -> Violation:
    attempt = f"attempt {one.attempt} " if one.attempt else ""
    return Violation(promise, one.entry, f"{attempt}{said}")
