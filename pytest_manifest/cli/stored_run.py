"""Open a run that is over: its ledger, and the manifest that it was made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from pytest_manifest.analysis.reading import read_records
from pytest_manifest.analysis.records import EntryRecord
from pytest_manifest.cli.runs_folder import hide_secrets
from pytest_manifest.errors import LedgerError, ManifestError
from pytest_manifest.ledger import Ledger, RunInfo
from pytest_manifest.ledger.files import RunFiles
from pytest_manifest.manifest import Manifest, manifest_digest, read_manifest
from pytest_manifest.run.changes import kept_manifest


@dataclass(frozen=True)
class StoredRun:
    """A run as its ledger describes it, with the manifest that it was made of."""

    ledger_path: Path
    info: RunInfo
    manifest: Manifest
    warnings: Sequence[str] = ()
    error: None = None
    files: RunFiles = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "files", RunFiles(self.ledger_path))

    @classmethod
    def open(cls, path: Path) -> StoredRun:
        """Read a ledger's description. Raises LedgerError where it, or its manifest, is no more."""
        hide_secrets()
        with Ledger.open(path) as ledger:
            ledger.info.hide_secrets()
            ledger.check_types()
            info = ledger.info.read()
        return cls(path, info, _manifest(path, info))

    def read(self) -> AbstractContextManager[Ledger]:
        """Open the ledger for reading."""
        return Ledger.open(self.ledger_path)

    @contextmanager
    def records(self) -> Iterator[Iterator[EntryRecord]]:
        """Open the run's entries, in the manifest's order; they are read as they are asked for."""
        with self.read() as ledger, closing(read_records(ledger, self.manifest)) as records:
            yield records


def _manifest(path: Path, info: RunInfo) -> Manifest:
    """Return the manifest's file if it is as it was, else the run's copy.

    Another version of the file would tell of entries that the run did not have.
    """
    with suppress(ManifestError):
        if manifest_digest(info.manifest) == info.sha256:
            return read_manifest(info.manifest, lean=True)
    kept = kept_manifest(path, info.sha256)
    if kept is None:
        raise LedgerError(
            f"run {info.run}: the manifest that it was made of is not beside {path.name}, and "
            f"{info.manifest} is another version of it, or none; copy "
            f"{RunFiles(path).manifest(info.sha256).name} from where the run was made"
        )
    return kept
