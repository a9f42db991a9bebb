"""What the ledger knows of the run as a whole."""

from __future__ import annotations

import json
from typing import get_args

from pytest_manifest.errors import LedgerError
from pytest_manifest.ledger.file import LedgerFile
from pytest_manifest.ledger.rows import RunInfo, RunStatus, info_of


class RunFacts(LedgerFile):
    """Facts about the run: what it is about, how far it is, which manifest it has."""

    def info(self) -> RunInfo:
        rows = self._read("SELECT key, value FROM run")
        return info_of({key: str(value) for key, value in rows})

    @property
    def status(self) -> RunStatus:
        value = self.noted("status")
        if value not in get_args(RunStatus):
            raise LedgerError(f"{self.path}: the ledger holds an unknown run status {value!r}")
        return value  # type: ignore[return-value]  # checked against the literal's values above

    def set_status(self, status: RunStatus) -> None:
        self.note("status", status)

    def note(self, key: str, value: str) -> None:
        """Keep a fact about the run, such as the position in its receipts stream."""
        with self._writing() as db:
            db.execute("INSERT OR REPLACE INTO run VALUES (?, ?)", (key, value))

    def noted(self, key: str) -> str | None:
        row = self._read_one("SELECT value FROM run WHERE key = ?", (key,))
        return None if row is None else str(row[0])

    def set_digest(self, sha256: str) -> None:
        """The run goes on with a manifest of this digest; the one before is kept.

        Earlier ones are a JSON list, oldest first, noted under ``earlier_sha256``.
        """
        with self._writing():
            present = self.noted("sha256")
            if present == sha256:
                return
            earlier = [*json.loads(self.noted("earlier_sha256") or "[]"), present]
            self.note("earlier_sha256", json.dumps(earlier))
            self.note("sha256", sha256)
