"""Stub."""
from __future__ import annotations
from typing import Literal
from pytest_manifest.schema import Entry, Receipt, Verdict, VerdictKind
def judge(entry: Entry, receipt: Receipt | None, *, attempt: int | None, problem: VerdictKind | None = None, note: str = "") -> Verdict:
    if receipt is None:
        return Verdict(verdict=problem or "lost", entry=entry.id, attempt=attempt, sentence=note or "lost")
    ok = receipt.state == entry.expect.state
    return Verdict(verdict="passed" if ok else "failed", entry=entry.id, attempt=attempt, sentence=f"state {receipt.state}")
def explain(entry: Entry, receipt: Receipt | None, verdict: Verdict) -> str:
    return verdict.sentence
def outcome(kind: VerdictKind) -> Literal["passed", "failed", "error", "skipped"]:
    if kind == "passed": return "passed"
    return "error" if kind in ("lost", "unknown", "pending") else "skipped" if kind == "skipped" else "failed"
