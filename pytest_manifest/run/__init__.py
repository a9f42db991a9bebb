"""Run one dispatch of one manifest, from its first message to its last verdict."""

from pytest_manifest.run.audit import AuditRun, ledger_of_receipts
from pytest_manifest.run.budget import refuse_beyond
from pytest_manifest.run.resume import ResumeRun, describe_decisions, preview
from pytest_manifest.run.resume_rules import Decision, ResumeRules
from pytest_manifest.run.run import Run
from pytest_manifest.run.settings import FailureLimit, RunSettings, WorkerLoss

__all__ = [
    "AuditRun",
    "Decision",
    "FailureLimit",
    "ResumeRules",
    "ResumeRun",
    "Run",
    "RunSettings",
    "WorkerLoss",
    "describe_decisions",
    "ledger_of_receipts",
    "preview",
    "refuse_beyond",
]
