"""A user's code that mypy --strict must accept, and that works as typed."""

from __future__ import annotations

from pathlib import Path

import pytest_manifest
from pytest_manifest import (
    Entry,
    Manifest,
    ManifestRun,
    PlanBuilder,
    Receipt,
    current_job,
    evidence,
    planning_fixture,
)
from pytest_manifest.testing import MemoryStack, make_receipt, plan, run


@planning_fixture("typing:sample", rerun=False)
def sample(plan: PlanBuilder, corpus: Path, *, count: int = 3) -> None:
    """A planner as users write it."""
    for number in range(count):
        plan.add("jobs.work", id=f"w-{number}", args=[str(corpus)], timeout=30, tags=["slow"])


def verifier(entry: Entry, receipt: Receipt, manifest: Manifest) -> bool:
    """A test's body as users write it."""
    return receipt.entry == entry.id and manifest[entry.id].timeout >= (receipt.runtime or 0.0)


def summarise(chapter: str) -> dict[str, object]:
    """What stands in for a task in a test."""
    return {"chapter": chapter, "words": 7}


def planned(corpus: Path) -> list[str]:
    """A test of a planner as users write it."""
    return [entry.id for entry in plan(sample, corpus, count=2)]


def in_memory(entries: list[Entry]) -> dict[str, str]:
    """A test of a whole batch as users write it."""
    with MemoryStack("book:app", tasks={"book.summarise": summarise}, workers=2) as stack:
        return {name: one.verdict.verdict for name, one in run(entries, stack, deadline=5).items()}


def whole_run(manifest_run: ManifestRun) -> set[str]:
    return {receipt.worker or "" for receipt in manifest_run.receipts().values()}


def test_every_public_name_can_be_had() -> None:
    """What ``__all__`` promises is there, and other names are refused as in any module."""
    for name in pytest_manifest.__all__:
        assert getattr(pytest_manifest, name) is not None
    assert not hasattr(pytest_manifest, "no_such_name")


def test_evidence_outside_a_task_does_nothing() -> None:
    """A task's code can be called without a worker."""
    evidence(pool={"size": 5})
    assert current_job() is None


def test_the_sample_verifier_runs() -> None:
    """Entries and receipts are plain objects that a test can make."""
    entry = Entry(id="a", task="t", timeout=5)
    receipt = Receipt(run="r", entry="a", attempt=1, task_id="x", task="t", state="succeeded")
    assert receipt.entry == entry.id
    assert receipt.runtime is None
    assert planned(Path("corpus")) == ["w-0", "w-1"]
    made = make_receipt(entry, result=[1], runtime=2.0)
    assert (made.entry, made.result, made.runtime) == ("a", [1], 2.0)
