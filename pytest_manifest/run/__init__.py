"""Runs: one dispatch of one manifest, from its first message to its last verdict."""

from pytest_manifest.run.run import Run
from pytest_manifest.run.settings import RunSettings, WorkerLoss

__all__ = ["Run", "RunSettings", "WorkerLoss"]
