"""Run one dispatch of one manifest, from its first message to its last verdict."""

from pytest_manifest.run.audit import Audit, audit_run
from pytest_manifest.run.dispatch import Dispatch, dispatch_run
from pytest_manifest.run.exports import ledger_of_receipts
from pytest_manifest.run.resume import Resume, preview, resume_run
from pytest_manifest.run.resume_rules import Decision, describe_decisions
from pytest_manifest.run.run import Run
from pytest_manifest.run.send_queue import refuse_beyond
from pytest_manifest.run.settings import EarlierRuns, FailureLimit, RunSettings, WorkerLoss
from pytest_manifest.run.strategy import Strategy

__all__ = [
    "Audit",
    "Decision",
    "Dispatch",
    "EarlierRuns",
    "FailureLimit",
    "Resume",
    "Run",
    "RunSettings",
    "Strategy",
    "WorkerLoss",
    "audit_run",
    "describe_decisions",
    "dispatch_run",
    "ledger_of_receipts",
    "preview",
    "refuse_beyond",
    "resume_run",
]
