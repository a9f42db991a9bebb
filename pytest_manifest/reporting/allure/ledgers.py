"""Read entries and receipts from the ledgers of this session's runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_manifest.analysis.reading import read_some
from pytest_manifest.analysis.records import EntryRecord
from pytest_manifest.ledger import Ledger, RunInfo
from pytest_manifest.manifest import Manifest
from pytest_manifest.reporting.run_report import RunReport
from pytest_manifest.schema import Receipt


@dataclass(frozen=True, slots=True)
class _Page:
    ledger: Ledger
    info: RunInfo


class Ledgers:
    """Read the runs' ledgers by their manifests' files; open each read-only when first needed."""

    def __init__(self, report: RunReport) -> None:
        self._report = report
        self._pages: dict[Path, _Page] = {}

    def close(self) -> None:
        for page in self._pages.values():
            page.ledger.close()
        self._pages.clear()

    def info(self, manifest: Path) -> RunInfo | None:
        """Return what the ledger says of this manifest's run; None if the manifest has no run."""
        page = self._page(manifest)
        return None if page is None else page.info

    def records(self, manifest: Manifest, entries: Sequence[str]) -> dict[str, EntryRecord]:
        """Return these entries' records by id. Raises ManifestToolError if one cannot be read."""
        page = self._page(manifest.path)
        found = read_some(None if page is None else page.ledger, manifest, entries)
        return {record.id: record for record in found}

    def receipt(self, manifest: Path, task_id: str) -> Receipt | None:
        """Return the last receipt of an attempt, None if it has none."""
        page = self._page(manifest)
        found = [] if page is None else page.ledger.events.receipts(task_id)
        return found[-1][1] if found else None

    def _page(self, manifest: Path) -> _Page | None:
        if manifest not in self._pages:
            path = self._report.ledgers().get(manifest)
            if path is None:
                return None
            ledger = Ledger.open(path)
            self._pages[manifest] = _Page(ledger, ledger.info.read())
        return self._pages[manifest]
