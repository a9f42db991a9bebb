"""Show how a manifest's entries fared in its last runs, and what changed from one run to another.

Tell from an entry's last runs whether it is flaky, and whether it is getting slower.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import islice, pairwise
from pathlib import Path
from statistics import median
from typing import Final

from pydantic import JsonValue

from pytest_manifest.analysis import comparison
from pytest_manifest.cli.output import say, shown, write_json, write_rows, write_table
from pytest_manifest.cli.stored_run import StoredRun, pytest_command
from pytest_manifest.errors import LedgerError
from pytest_manifest.ledger import Ledger, find_runs
from pytest_manifest.ledger.rows import receipt_of
from pytest_manifest.ledger.verdicts import BATCH
from pytest_manifest.manifest import Manifest, id_and_task, read_manifest
from pytest_manifest.reporting.figures import Sheet, comparison_lines
from pytest_manifest.schema import VerdictStatus
from pytest_manifest.schema.statuses import BAD, SIGNS, outcome_of
from pytest_manifest.text import rate_text, seconds
from pytest_manifest.verdict.explanation import number_of

CHANGES: Final = 2
"""Changes between passed and not passed that make an entry flaky: one is a fault, or its mend."""
ENOUGH: Final = 4
"""Passed runs below which nothing is said of an entry's runtime."""


@dataclass(frozen=True, slots=True)
class EntryHistory:
    """An entry in several runs, oldest first.

    ``statuses``: None where a run does not have the entry, or has no verdict on it yet;
    ``runtimes``: seconds, None where unknown.
    """

    id: str
    task: str
    statuses: Sequence[VerdictStatus | None]
    runtimes: Sequence[float | None]

    @property
    def is_flaky(self) -> bool:
        """Return whether it passed and did not pass in turn."""
        outcomes = map(outcome_of, self.statuses)
        ended = [one == "passed" for one in outcomes if one in BAD or one == "passed"]
        return sum(one != other for one, other in pairwise(ended)) >= CHANGES

    @property
    def slowdown(self) -> float | None:
        """Return how many times slower the newer half of its passed runs is; None: it is not.

        The median must have grown by the factor and the seconds by which two runs are compared,
        and each newer run must have taken longer than the older half's median.
        """
        pairs = zip(self.statuses, self.runtimes, strict=True)
        known = [took for status, took in pairs if status == "passed" and took is not None]
        if len(known) < ENOUGH:
            return None
        older, newer = known[: len(known) // 2], known[len(known) // 2 :]
        before, now = median(older), median(newer)
        least = max(before * comparison.THRESHOLD, before + comparison.NOTICEABLE)
        return now / before if 0 < before < min(newer) and now >= least else None

    @property
    def fails(self) -> bool:
        """Return whether the newest verdict on it is not that it passed."""
        newest = next((one for one in reversed(self.statuses) if one is not None), None)
        return outcome_of(newest) in BAD


def show_history(
    file: Path, folder: Path, last: int, limit: int, *, everything: bool, json: bool
) -> None:
    """Print the runs, and the entries that failed last, are flaky or are getting slower."""
    manifest = read_manifest(file, lean=True)
    with ExitStack() as opened:
        ledgers = [
            opened.enter_context(Ledger.open(path)) for path in _runs(manifest, folder, last)
        ]
        if not ledgers:
            raise LedgerError(
                f"{file}: there is no run of it in {folder}; dispatch it with "
                f"{shlex.join(pytest_command())} --manifest={file}, or name another folder with "
                "--in"
            )
        for ledger in ledgers:
            ledger.check_types()
        described = [_described(ledger) for ledger in ledgers]
        if not json:
            _write_runs(file, described)
        matching = write_rows(
            (
                one
                for one in _histories(manifest, ledgers)
                if everything or one.fails or one.is_flaky or one.slowdown is not None
            ),
            json=json,
            head={"manifest": str(file), "runs": list(described)},
            name="entries",
            document=_document,
            title=[""],
            columns=("id", "task", "runs", "#last", "remark"),
            cells=_cells,
            limit=limit,
        )
    if not matching and not json:
        say("no entry fails, is flaky or is getting slower")


def _runs(manifest: Manifest, folder: Path, last: int) -> list[Path]:
    """Return the ledgers of the manifest's last runs, oldest first, each job counted once."""
    paths = find_runs(folder, manifest.path, manifest.sha256)
    merged: set[str] = set()
    counted: list[Path] = []
    for path in reversed(paths):
        with Ledger.open(path) as ledger:
            parts = {*ledger.info.merged()}
        if not parts & merged:  # else these were merged again, as after a shard has gone on
            counted.append(path)
            merged |= parts
    return [path for path in reversed(counted) if path.stem not in merged][-last:]


def _described(ledger: Ledger) -> dict[str, JsonValue]:
    info = ledger.info.read()
    return {
        "run": info.run,
        "created_at": info.created_at.isoformat(),
        "status": ledger.info.status,
        "entries": info.entries,
        "verdicts": {str(kind): count for kind, count in ledger.verdicts.counts().items()},
        "reused": sum(ledger.queries.reused_runs().values()),
        "descendants": number_of(ledger.trees.statuses()) if ledger.descendants.any() else 0,
    }


def _histories(manifest: Manifest, ledgers: Sequence[Ledger]) -> Iterator[EntryHistory]:
    """Yield each entry's history, in the manifest's order; memory does not grow with the runs."""
    lines = manifest.lines()
    while some := [id_and_task(line.raw) for line in islice(lines, BATCH)]:
        ids = [entry for entry, _ in some]
        stored = [list(ledger.queries.stored_entries(ids)) for ledger in ledgers]
        for (entry, task), of_runs in zip(some, zip(*stored, strict=True), strict=True):
            runtimes = [_runtime(one.receipt) for one in of_runs]
            yield EntryHistory(entry, task, [one.status for one in of_runs], runtimes)


def _runtime(stored: str | None) -> float | None:
    try:
        receipt = None if stored is None else receipt_of(stored)
    except ValueError:  # not of this program; its verdict stands all the same
        return None
    # What was reused ran in another run.
    return None if receipt is None or receipt.reused is not None else receipt.runtime


def _document(history: EntryHistory) -> JsonValue:
    return {**asdict(history), "flaky": history.is_flaky, "slowdown": history.slowdown}


def _write_runs(file: Path, described: Sequence[dict[str, JsonValue]]) -> None:
    number = len(described)
    say(f"{file}: {'the last run' if number == 1 else f'the last {number} runs, oldest first'}")
    numbers = [
        "entries",
        *(["descendants"] if any(one["descendants"] for one in described) else []),
    ]
    rows = []
    for one in described:
        cells = [str(one["run"]), str(one["created_at"])[:19], str(one["status"])]
        cells += (str(one[name]) for name in numbers)
        rows.append([*cells, _counts(one["verdicts"], one["reused"])])
    write_table(["run", "began", "status", *(f"#{name}" for name in numbers), "verdicts"], rows)


def _counts(verdicts: JsonValue, reused: JsonValue) -> str:
    assert isinstance(verdicts, dict)
    said = ", ".join(f"{count} {kind}" for kind, count in sorted(verdicts.items()))
    return f"{said} ({reused} reused)" if reused else said


def _cells(history: EntryHistory) -> tuple[str, ...]:
    letters = "".join(
        "-" if status is None else SIGNS[outcome_of(status)].letter for status in history.statuses
    )
    known = [runtime for runtime in history.runtimes if runtime is not None]
    remarks = ["flaky"] if history.is_flaky else []
    if history.slowdown is not None:
        remarks.append(f"slowing ({rate_text(history.slowdown)} times)")
    last = seconds(known[-1]) if known else ""
    return history.id, history.task, letters, last, ", ".join(remarks)


def show_changes(before: StoredRun, after: StoredRun, *, everything: bool, json: bool) -> None:
    """Print what changed from the run ``before`` to the run ``after``."""
    with before.read() as old, after.read() as new:
        found = comparison.compare_ledgers(old, before.manifest, new, after.manifest)
    if json:
        write_json(found.model_dump())
        return
    from rich.console import Console
    from rich.text import Text

    say(f"run {after.info.run} of {after.info.manifest}")
    unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    width, terminal = shutil.get_terminal_size().columns, sys.stdout.isatty()
    for line in comparison_lines(found, Sheet(width, terminal, rich=unicode, all=everything)):
        style = " ".join(name for name, is_on in line._asdict().items() if is_on is True)
        Console(width=width).print(Text(shown(line.text), style), soft_wrap=True)
