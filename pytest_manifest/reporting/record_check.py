"""Check the record of each run of a session for what is promised of it, once it is over."""

from __future__ import annotations

from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, Final

from pytest_manifest.reporting.run_report import RunReport, add_artifact
from pytest_manifest.text import plural, short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_manifest.ledger import Ledger
    from pytest_manifest.manifest import Manifest
    from pytest_manifest.run import Run
    from pytest_manifest.run.invariants import Violation

SHOWN: Final = 3
"""Broken promises that the summary names; ``manifest check`` names all."""


def check_record(report: RunReport, run: Run) -> None:
    """Have the summary say whether the run's record is consistent; the session fails if not.

    What is judged apart, by another manifest than the run's, is no record of it.
    """
    from pytest_manifest.run.consistency import record_size

    if run.ledger_path.parent != report.options.ledgers:
        return
    unchecked = report.writing("the run's record could not be checked", run, needed=False)
    with unchecked, run.read() as ledger:
        size = record_size(ledger)
        broken, number = _violations(ledger, _manifest(ledger, run))
        numbers = f"{plural(size.entries, 'entry')}, {plural(size.verdicts, 'verdict')}"
        said = "consistent" if not number else plural(number, "contradiction")
        add_artifact(report.config, "record", f"{said}: {numbers}", run.info.run)
        if number:
            report.lacks_artifacts = True
            run.warnings.append(_warning(run, broken, number))


def _violations(ledger: Ledger, manifest: Manifest) -> tuple[Sequence[Violation], int]:
    """Return the first violations, and how many there are."""
    from pytest_manifest.run.consistency import violations

    with closing(violations(ledger, manifest)) as found:
        first = list(islice(found, SHOWN))
        return first, len(first) + sum(1 for _ in found)


def _manifest(ledger: Ledger, run: Run) -> Manifest:
    """Return the manifest that the run was made of: the session's, or the copy beside the ledger.

    What a change left as it was is in the copy alone.
    """
    from pytest_manifest.run.changes import kept_manifest

    digest = ledger.info.read().sha256
    if digest == run.manifest.sha256:
        return run.manifest
    return kept_manifest(run.ledger_path, digest) or run.manifest


def _warning(run: Run, broken: Sequence[Violation], number: int) -> str:
    named = "; ".join(
        f"{one.promise}{f', entry {short(one.entry)}' if one.entry else ''}: {one.sentence}"
        for one in broken
    )
    more = f" (and {number - len(broken)} more)" if number > len(broken) else ""
    return (
        f"the run's record is not consistent, so this session fails: {named}{more}; "
        f"'manifest check {run.info.run}' names all of them; do not rely on the verdicts of these "
        "entries, and report this"
    )
