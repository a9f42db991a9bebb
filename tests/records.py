"""Hold the ledgers that a test leaves against what is promised of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from pytest_manifest.cli.stored_run import StoredRun
from pytest_manifest.errors import ManifestToolError
from pytest_manifest.run.audit import violations


def broken_promises(folder: Path) -> Iterator[str]:
    """Yield a line for each promise that the record of a run somewhere in the folder breaks.

    What is no ledger, or has lost its manifest, is no record.
    """
    for path in sorted(folder.rglob("*.sqlite")):
        try:
            stored = StoredRun.open(path)
        except ManifestToolError:
            continue
        yield from (f"{path.relative_to(folder)}: {one}" for one in broken_in(stored))


def broken_in(stored: StoredRun) -> Iterator[str]:
    """Yield a line for each promise that the record of one run breaks."""
    with stored.read() as ledger, closing(violations(ledger, stored.manifest)) as found:
        for one in found:
            yield f"{one.promise} {one.entry}: {one.sentence}"
