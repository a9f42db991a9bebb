"""Name the files of a run, all of them beside its ledger."""

from __future__ import annotations

import fnmatch
import os
import re
from dataclasses import dataclass
from pathlib import Path

from pytest_manifest.errors import LedgerError, no_access
from pytest_manifest.text import listed

WORKER_LOGS = "worker-*.log"
"""The pattern of the workers' logs in the folder of a stack."""
UNMADE = ".new"
"""What the name of a ledger ends with until it is whole."""
_UNMADE_RUN = re.compile(rf"\d{{8}}T\d{{6}}-[0-9a-f]{{8}}\.sqlite{re.escape(UNMADE)}")


@dataclass(frozen=True, slots=True)
class RunFiles:
    """Name the files of the run with this ledger."""

    ledger: Path

    @classmethod
    def of(cls, folder: Path, run: str) -> RunFiles:
        """Name the files of a run in this folder."""
        return cls(folder / f"{run}.sqlite")

    @property
    def unmade(self) -> Path:
        """Return where the ledger is written until it is whole."""
        return self.ledger.with_name(f"{self.ledger.name}{UNMADE}")

    @property
    def lock(self) -> Path:
        return self.ledger.with_suffix(".lock")

    @property
    def log(self) -> Path:
        return self.ledger.with_suffix(".log")

    @property
    def receipts(self) -> Path:
        """Return where the receipts are exported to."""
        return self.ledger.with_suffix(".receipts.jsonl")

    @property
    def summary(self) -> Path:
        """Return where the summary as a JSON document is."""
        return self.ledger.with_suffix(".summary.json")

    def worker_log(self, name: str) -> Path:
        """Return where a worker's log of this name is kept."""
        return self.ledger.with_suffix(f".{name}")

    @property
    def worker_logs_pattern(self) -> Path:
        """Return the path with a wildcard that all kept logs of workers match."""
        return self.worker_log(WORKER_LOGS)

    def worker_logs(self) -> list[Path]:
        """Return the logs of workers that were kept, sorted."""
        return sorted(self.ledger.parent.glob(self.worker_logs_pattern.name))

    def manifest(self, sha256: str) -> Path:
        """Return where the run keeps the manifest with this digest."""
        return self.ledger.with_suffix(f".{sha256[:12]}.manifest.jsonl")

    def all(self) -> list[Path]:
        """Return all files of the run, its ledger first: without it the others belong to none."""
        beside = sorted(self.ledger.parent.glob(f"{self.ledger.stem}.*"))
        return [self.ledger, *(path for path in beside if path != self.ledger)]

    def forget_manifest(self, sha256: str) -> None:
        """Stop counting the run as one of this manifest: rename its copy."""
        copy = self.manifest(sha256)
        copy.rename(copy.with_suffix(".given-up"))


def ledgers_in(folder: Path) -> list[Path]:
    """Return the ledgers in a folder, sorted by name, which is by age; none where it is missing.

    Raises LedgerError where it cannot be read: it may hold any.
    """
    return _files_in(folder, "*.sqlite")


def _files_in(folder: Path, pattern: str) -> list[Path]:
    # Not glob(): it takes a folder that may not be read for an empty one, or raises.
    try:
        names = os.listdir(folder)  # noqa: PTH208 - names, to be matched
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise LedgerError(
            f"{no_access(folder, error, 'read')}; have it readable for this one, or name another "
            "folder by the ini option manifest_dir"
        ) from error
    return sorted(folder / name for name in fnmatch.filter(names, pattern))


def unmade_runs(folder: Path) -> list[RunFiles]:
    """Name the files of the runs in a folder whose ledgers are being made, or never will be."""
    begun = _files_in(folder, f"*.sqlite{UNMADE}")
    named = [RunFiles(path.with_suffix("")) for path in begun if _UNMADE_RUN.fullmatch(path.name)]
    return [files for files in named if not files.ledger.exists()]


def find_ledger(folder: Path, run: str) -> Path | None:
    """Return the ledger of the run with this id, or of the only one whose id begins like that.

    None where there is none in the folder. Raises LedgerError where several begin like that.
    """
    exact = RunFiles.of(folder, run).ledger
    if "/" not in run and exact.is_file():
        return exact
    found = [path for path in reversed(ledgers_in(folder)) if run and path.stem.startswith(run)]
    if len(found) > 1:
        some = listed([path.stem for path in found], 5)
        raise LedgerError(f"{run!r} begins several runs ({some}); write more of the id")
    return found[0] if found else None


def runs_by_copy(folder: Path, sha256: str) -> list[Path]:
    """Return the ledgers in ``folder`` that have a copy of this manifest, readable or not, oldest
    first.

    Where there is no ledger nothing was sent.
    """
    copies = _files_in(folder, f"*.{sha256[:12]}.manifest.jsonl")
    ledgers = [RunFiles.of(folder, copy.name.split(".")[0]).ledger for copy in copies]
    return [path for path in ledgers if path.exists()]
