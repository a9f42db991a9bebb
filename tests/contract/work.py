"""The jobs of the contract, and how they are run on a stack."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from pytest_manifest.broker.attempt import attempt_of
from pytest_manifest.broker.publisher import Publisher
from pytest_manifest.ledger import EntryVerdict
from pytest_manifest.manifest import write_manifest
from pytest_manifest.run.dispatch import dispatch_run
from pytest_manifest.run.run import Run
from pytest_manifest.run.settings import RunSettings
from pytest_manifest.schema import Entry, Header
from pytest_manifest.testing import Stack
from pytest_manifest.urls import StackAddress
from tests.contract.stacks import OTHER_QUEUE, START_SECONDS
from tests.support import eventually

DEADLINE: Final = 90.0
HOLD: Final = 0.5
"""Seconds for which a job that is to expire, or to be revoked, is held back."""


def entry(name: str, task: str, *args: Any, **fields: Any) -> Entry:
    """A job of the contract's app."""
    return Entry(id=name, task=f"contract.{task}", args=list(args), **fields)


AT: Final = {"__type__": "datetime", "__value__": "2026-11-24T15:00:00+00:00"}
"""A time as kombu's JSON has it."""

WORK: Final[Mapping[str, Entry]] = {
    one.id: one
    for one in (
        entry("succeeds", "add", 1, 2, expect={"result": 3}),
        entry("wrong result", "add", 1, 2, expect={"result": 4}),
        entry("raises", "fail", "no"),
        entry(
            "expected failure",
            "fail",
            "no such item",
            expect={"state": "failed", "error": {"type": "ValueError", "match": "^no such"}},
        ),
        entry("retries", "flaky", 2, expect={"result": "after 2 retries"}),
        entry("retries in vain", "flaky", 9),
        entry("waits for a retry", "later", HOLD, 1, timeout=HOLD / 2),
        entry("backs off", "backs_off", timeout=1, expect={"result": "there"}),
        entry("held, then retries", "later", HOLD, 1, countdown=HOLD, timeout=HOLD / 2),
        entry("by a task", "replace", "task", expect={"result": 20}),
        entry("by a chain", "replace", "chain", expect={"result": 20}),
        entry("by a group", "replace", "group", expect={"result": [5, 10]}),
        entry("by a chord", "replace", "chord", expect={"result": 20}),
        entry("by what is replaced", "replace", "twice", expect={"result": 20}),
        entry("by a chain whose last is", "replace", "nested", expect={"result": 20}),
        entry("by a chain that fails", "replace", "in vain"),
        entry("by one that retries", "replace", "late", expect={"result": "after 1 retries"}),
        entry("ignored", "ignore"),
        entry("expected to be ignored", "ignore", expect={"state": "ignored"}),
        entry("rejected", "reject"),
        entry("unknown task", "no_such_task"),
        entry("expected to be unknown", "no_such_task", expect={"state": "unknown_task"}),
        entry("expired", "add", 1, 2, countdown=HOLD, expires=HOLD / 5),
        entry("revoked", "add", 1, 2, countdown=HOLD),
        entry("no JSON", "lock"),
        entry("a date", "dated", expect={"result": {"at": AT}}),
        entry("talks", "talk", "grüße", expect={"result": "grüße"}),
        entry("schema", "add", 1, 2, expect={"schema": {"type": "integer"}}),
        entry("schema broken", "add", 1, 2, expect={"schema": {"type": "string"}}),
        entry("other queue", "add", 1, 2, queue=OTHER_QUEUE, expect={"result": 3}),
        entry("routed", "routed", expect={"result": "routed"}),
        entry("priority", "add", 1, 2, priority=5, expect={"result": 3}),
        entry("corpus/Ærø::[☃]", "add", 1, 2, expect={"result": 3}),
        entry("countdown", "add", 1, 2, countdown=HOLD, expect={"result": 3}),
        entry("too long", "sleep", 0.4, timeout=0.1),
        entry("beyond its own limit", "limited", 1.0),
        entry("beyond the smaller limit", "limited", 1.0, timeout=60),
        entry("slow", "sleep", 0.2, expect={"max_runtime": 0.1}),
        entry("own call", "own_call"),
        entry("leaves", "leave"),
        entry("sends", "sends", expect={"result": "sent"}),
    )
}


class Outcomes(dict[str, EntryVerdict]):
    """Verdicts by entry id; ``facts``: what was recorded of each entry's attempts, in order."""

    facts: Mapping[str, str]


def run_all(stack: Stack, folder: Path) -> Outcomes:
    """Run all of it once, with one job revoked before it is sent."""
    run = run_work(stack.wait_broker(START_SECONDS), folder, WORK)
    assert run.error is None
    outcomes = Outcomes(verdicts_of(run))
    with run.read() as ledger:
        attempts = ledger.jobs.of_entries(list(WORK)).items()
    outcomes.facts = {
        name: "\n".join(str(fact) for one in some for fact in one.own.facts)
        for name, some in attempts
    }
    return outcomes


def run_work(
    address: StackAddress,
    folder: Path,
    work: Mapping[str, Entry],
    deadline: float = DEADLINE,
    **options: Any,
) -> Run:
    """Run these entries once, to the end of the run, which may have an error.

    ``options``: of :class:`RunSettings`.
    """
    manifest = write_manifest(folder / "contract.jsonl", Header(), work.values())
    settings = RunSettings(folder=folder / "runs", deadline=deadline, **options)
    run = dispatch_run(manifest, manifest.ids, address, settings)
    run.prepare(expected_workers=1)
    try:
        if "revoked" in work:
            place = list(work).index("revoked")
            revoke(address, attempt_of(run.info.run, work["revoked"], 1, place).task_id)
        run.start()
        run.ended.wait()
    finally:
        run.stop()
    return run


def verdicts_of(run: Run) -> dict[str, EntryVerdict]:
    """Give a run's verdicts by entry id."""
    with run.read() as ledger:
        return {one.verdict.entry: one for one in ledger.queries.all_verdicts()}


def revoke(address: StackAddress, task_id: str) -> None:
    """Revoke a job that nobody has got yet, and return when the worker knows of it."""
    with closing(Publisher(address, stream="", ttl=60)) as publisher:
        publisher.revoke([task_id])

        def known() -> bool:
            answers = publisher.control.call(
                {"revoked": {}}, timeout=5, enough=lambda found, _: any(found.values())
            )
            return any(task_id in str(ids) for ids in answers["revoked"].values())

        eventually(known, within=START_SECONDS, what="a worker that knows what is revoked")
