"""Declare the hooks that projects and other plugins may implement."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pytest

    from pytest_manifest.analysis.records import EntryRecord
    from pytest_manifest.manifest import Manifest
    from pytest_manifest.reporting.run_page.sections import PageSection
    from pytest_manifest.run.run import Run
    from pytest_manifest.schema.summary import RunSummary


def pytest_manifest_planned(config: pytest.Config, manifest: Manifest) -> None:
    """Act on a plan that was written to, or found unchanged in, a manifest file."""


def pytest_manifest_sending(
    config: pytest.Config, manifest: Manifest, entries: Sequence[str], budget: float | None
) -> None:
    """Refuse to send entries of a manifest, by raising a ManifestToolError.

    Called before a dispatch or a resume sends anything, in the process that does. ``entries`` are
    the ids of those selected that are not reused (--manifest-reuse), ``budget`` is what
    --manifest-budget allows, None for no limit.
    """


def pytest_manifest_dispatched(config: pytest.Config, run: Run) -> None:
    """Act on a run that has begun; its ledger exists. Called in the process that dispatches."""


def pytest_manifest_finished(config: pytest.Config, run: Run) -> None:
    """Act on a run that has ended, or was left to go on by itself.

    Its ledger and receipts are written.
    """


def pytest_manifest_sections(config: pytest.Config, run: Run) -> Sequence[PageSection] | None:
    """Return sections to be added to the page of a run, or None.

    Called where a page is written, when the run has ended, also for an audit.
    """


def pytest_manifest_report(
    config: pytest.Config, run: Run, summary: RunSummary, entries: Iterable[EntryRecord]
) -> None:
    """Make a report of a run that has ended, also of an audit.

    ``summary`` is the document of the run, whose lists of entries are empty. ``entries`` has the
    record of each, in the manifest's order; each iteration reads them from the ledger, so that they
    need no memory. What this raises is a warning of the run, and the session fails.
    """
