"""A batch of Celery jobs as a test suite: plan, dispatch, verify, report.

The map, top to bottom; a floor imports only what stands below it:

    cli         the command manifest: a first scaffold, entries, old runs, the stack that stays
    plugin      pytest: hooks, options, fixtures, collection, the loop, xdist. Says when
    reporting   terminal, progress, JUnit, Allure, GitHub, pages. Reads runs and ledgers alone
    testing     beside it, for tests of planners and verifiers: plans, receipts made by hand
    run         one dispatch: schedule, sender, loop, recovery, verdicts; audit and resume
    stack       the private stack, its supervisor, the stack in memory; reaching an existing one
    broker, results, worker
                publishing, preflight, locating; receipts read back; what runs in Celery's workers
    analysis, verdict
                what a run amounts to, how two differ; a receipt held against its entry: pure rules
    ledger, manifest, planning, schema
                one SQLite file a run; the codec; the plan builder; the formats
    bindings, compat, console, errors, ini, log, processes, redaction, text, urls, variables
                the ground: single modules, and private parts of other packages

The names below are loaded when they are first used: importing this package must stay cheap, because
every worker and every pytest process does. PYTEST_DONT_REWRITE: it has no assertions for users.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pytest_manifest.analysis.records import EntryRecord as EntryRecord
    from pytest_manifest.manifest import Manifest as Manifest
    from pytest_manifest.planning import PlanBuilder as PlanBuilder
    from pytest_manifest.plugin.fixtures import planning_fixture as planning_fixture
    from pytest_manifest.plugin.verdict_reader import ManifestRun as ManifestRun
    from pytest_manifest.redaction.texts import manifest_secret as manifest_secret
    from pytest_manifest.reporting.run_page.sections import PageSection as PageSection
    from pytest_manifest.schema import Entry as Entry
    from pytest_manifest.schema import Receipt as Receipt
    from pytest_manifest.schema.summary import RunSummary as RunSummary
    from pytest_manifest.worker import current_job as current_job
    from pytest_manifest.worker import evidence as evidence
    from pytest_manifest.worker import instrument as instrument

_HOME: Final = {
    "Entry": "pytest_manifest.schema",
    "EntryRecord": "pytest_manifest.analysis.records",
    "Manifest": "pytest_manifest.manifest",
    "ManifestRun": "pytest_manifest.plugin.verdict_reader",
    "PageSection": "pytest_manifest.reporting.run_page.sections",
    "PlanBuilder": "pytest_manifest.planning",
    "Receipt": "pytest_manifest.schema",
    "RunSummary": "pytest_manifest.schema.summary",
    "current_job": "pytest_manifest.worker",
    "evidence": "pytest_manifest.worker",
    "instrument": "pytest_manifest.worker",
    "manifest_secret": "pytest_manifest.redaction.texts",  # nosec B105  # the name of a module
    "planning_fixture": "pytest_manifest.plugin.fixtures",
}

__all__ = [*_HOME]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
