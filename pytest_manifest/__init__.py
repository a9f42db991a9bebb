"""A batch of Celery jobs as a test suite: plan, dispatch, verify, report.

The map, top to bottom; a floor imports only what stands below it:

    plugin      pytest: hooks, options, fixtures, collection, the loop, xdist. Says when
    reporting   terminal, progress, JUnit, Allure, GitHub, pages. Reads runs and ledgers alone
    testing     for tests of planners and verifiers: a stack in memory, receipts made by hand
    merging     the ledgers of a manifest's shards made one
    run         one dispatch: schedule, sender, loop, recovery, verdicts; audit and resume
    analysis    what a run amounts to, and how two differ
    verdict     a receipt held against its entry: pure rules
    results     receipts read back: from the stream, from a result store
    worker      inside Celery's workers: receipts, logs, evidence
    broker      publishing, preflight, locating, remote control
    stack       the private stack, its supervisor and watchdog; reaching an existing one
    planning, ledger, manifest, schema    the plan builder, the ledger, the codec, the formats
    log, bindings, console, text, urls, variables, errors, compat

The names below are loaded when they are first used: importing this package must stay cheap, because
every worker and every pytest process does. PYTEST_DONT_REWRITE: it has no assertions for users.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pytest_manifest.manifest import Manifest
    from pytest_manifest.planning import PlanBuilder
    from pytest_manifest.plugin.planning_fixture import planning_fixture
    from pytest_manifest.plugin.verdict_reader import ManifestRun
    from pytest_manifest.schema import Entry, Receipt
    from pytest_manifest.worker import current_job, evidence, instrument

__all__ = [
    "Entry",
    "Manifest",
    "ManifestRun",
    "PlanBuilder",
    "Receipt",
    "current_job",
    "evidence",
    "instrument",
    "planning_fixture",
]

_HOME: Final = {
    "Entry": "pytest_manifest.schema",
    "Manifest": "pytest_manifest.manifest",
    "ManifestRun": "pytest_manifest.plugin.verdict_reader",
    "PlanBuilder": "pytest_manifest.planning",
    "Receipt": "pytest_manifest.schema",
    "current_job": "pytest_manifest.worker",
    "evidence": "pytest_manifest.worker",
    "instrument": "pytest_manifest.worker",
    "planning_fixture": "pytest_manifest.plugin.planning_fixture",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
