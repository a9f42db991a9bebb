"""Show how a manifest's entries fared in its last runs: ``manifest runs``.

Tell from an entry's last runs whether it is flaky, and whether it is getting slower.

Say what changed from one run to another: ``manifest diff``.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from statistics import median
from typing import Final

from pydantic import JsonValue

from pytest_manifest.analysis import comparison
from pytest_manifest.analysis.comparison import NOTICEABLE, THRESHOLD
from pytest_manifest.cli.output import say, write_json, write_rows_as_json, write_table
from pytest_manifest.cli.runs_folder import pytest_command
from pytest_manifest.cli.stored_run import StoredRun
from pytest_manifest.errors import LedgerError, PlanError
from pytest_manifest.ledger import Ledger, find_runs
from pytest_manifest.ledger.queries import BATCH
from pytest_manifest.ledger.rows import receipt_of
from pytest_manifest.manifest import Manifest, id_and_task, read_manifest
from pytest_manifest.reporting.terminal_layout import Sheet
from pytest_manifest.reporting.terminal_statistics import comparison_lines
from pytest_manifest.schema import VerdictStatus
from pytest_manifest.schema.statuses import BAD, SIGNS, outcome_of
from pytest_manifest.schema.summary import SummaryComparison
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
        ended = [
            outcome == "passed"
            for outcome in map(outcome_of, self.statuses)
            if outcome in BAD or outcome == "passed"
        ]
        return sum(one != other for one, other in pairwise(ended)) >= CHANGES

    @property
    def slowdown(self) -> float | None:
        """Return how many times slower the newer half of its passed runs is; None: it is not.

        The median must have grown by the factor and the seconds by which two runs are compared,
        and each newer run must have taken longer than the older half's median.
        """
        known = [
            runtime
            for status, runtime in zip(self.statuses, self.runtimes, strict=True)
            if status == "passed" and runtime is not None
        ]
        if len(known) < ENOUGH:
            return None
        older, newer = known[: len(known) // 2], known[len(known) // 2 :]
        before, now = median(older), median(newer)
        if before <= 0 or now < before * THRESHOLD or now - before < NOTICEABLE:
            return None
        return now / before if min(newer) > before else None

    @property
    def fails(self) -> bool:
        """Return whether the newest verdict on it is not that it passed."""
        newest = next((one for one in reversed(self.statuses) if one is not None), None)
        return outcome_of(newest) in BAD


"""How pytest abbreviates an outcome."""
ABSENT: Final = "-"


@dataclass(frozen=True, slots=True)
class Choice:
    """The shown part: of the ``last`` runs, these ``ids``, or ``everything``, at most ``limit``."""

    last: int
    ids: Collection[str] = ()
    everything: bool = False
    limit: int = 0

    def accepts(self, history: EntryHistory) -> bool:
        """Return whether the entry is shown: one that was asked for, or that is not well."""
        if self.ids:
            return history.id in self.ids
        remarkable = history.fails or history.is_flaky or history.slowdown is not None
        return self.everything or remarkable


def run(file: Path, folder: Path, choice: Choice, *, json: bool) -> None:
    """Print the runs, and the entries that failed last, are flaky or are getting slower."""
    manifest = read_manifest(file, lean=True)
    _check_ids(manifest, choice.ids)
    with ExitStack() as opened:
        ledgers = [
            opened.enter_context(Ledger.open(path)) for path in _runs(manifest, folder, choice.last)
        ]
        if not ledgers:
            raise LedgerError(
                f"{file}: there is no run of it in {folder}; dispatch it with "
                f"{shlex.join(pytest_command())} --manifest={file}, or name another folder with "
                "--runs"
            )
        for ledger in ledgers:
            ledger.check_types()
        described = [_described(ledger) for ledger in ledgers]
        counts = {"matching": 0, "shown": 0}
        histories = _limited(filter(choice.accepts, _histories(manifest, ledgers)), choice, counts)
        if json:
            head: dict[str, JsonValue] = {"manifest": str(file), "runs": list(described)}
            write_rows_as_json(head, "entries", map(_document, histories), counts)
            return
        _write_runs(file, described)
        say()
        write_table(("id", "task", "runs", "#last", "remark"), map(_cells, histories))
    _say_totals(counts)


def _check_ids(manifest: Manifest, ids: Collection[str]) -> None:
    """Raise PlanError where an entry is asked for that the manifest does not have."""
    if not ids:
        return
    missing = set(ids).difference(id_and_task(line.raw)[0] for line in manifest.lines())
    if missing:
        raise PlanError(
            f"{manifest.path}: there is no entry {min(missing)!r}; its ids are shown by "
            f"manifest show {manifest.path}"
        )


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
            statuses: list[VerdictStatus | None] = [one.status for one in of_runs]
            receipts = [one.receipt for one in of_runs]
            yield EntryHistory(entry, task, statuses, [_runtime(one) for one in receipts])


def _runtime(stored: str | None) -> float | None:
    try:
        receipt = None if stored is None else receipt_of(stored)
    except ValueError:  # not of this program; its verdict stands all the same
        return None
    # What was reused ran in another run.
    return None if receipt is None or receipt.reused is not None else receipt.runtime


def _limited(
    histories: Iterator[EntryHistory], choice: Choice, counts: dict[str, int]
) -> Iterator[EntryHistory]:
    for history in histories:
        counts["matching"] += 1
        if not choice.limit or counts["shown"] < choice.limit:
            counts["shown"] += 1
            yield history


def _document(history: EntryHistory) -> JsonValue:
    return {
        "id": history.id,
        "task": history.task,
        "statuses": list(history.statuses),
        "runtimes": list(history.runtimes),
        "flaky": history.is_flaky,
        "slowdown": history.slowdown,
    }


def _write_runs(file: Path, described: Sequence[dict[str, JsonValue]]) -> None:
    runs = (
        "the last run" if len(described) == 1 else f"the last {len(described)} runs, oldest first"
    )
    say(f"{file}: {runs}")
    with_trees = any(one["descendants"] for one in described)
    more = ("#descendants",) if with_trees else ()
    write_table(
        ("run", "began", "status", "#entries", *more, "verdicts"),
        [
            (
                str(one["run"]),
                str(one["created_at"])[:19],
                str(one["status"]),
                str(one["entries"]),
                *((str(one["descendants"]),) if with_trees else ()),
                _counts(one["verdicts"], one["reused"]),
            )
            for one in described
        ],
    )


def _counts(verdicts: JsonValue, reused: JsonValue) -> str:
    assert isinstance(verdicts, dict)
    said = ", ".join(f"{count} {kind}" for kind, count in sorted(verdicts.items()))
    return f"{said} ({reused} reused)" if reused else said


def _cells(history: EntryHistory) -> tuple[str, ...]:
    letters = "".join(
        ABSENT if status is None else SIGNS[outcome_of(status)].letter
        for status in history.statuses
    )
    known = [runtime for runtime in history.runtimes if runtime is not None]
    remarks = ["flaky"] if history.is_flaky else []
    if history.slowdown is not None:
        remarks.append(f"slowing ({rate_text(history.slowdown)} times)")
    last = seconds(known[-1]) if known else ""
    return history.id, history.task, letters, last, ", ".join(remarks)


def _say_totals(counts: dict[str, int]) -> None:
    left = counts["matching"] - counts["shown"]
    if left:
        say(f"and {left:,} more; --limit=0 shows all")
    elif not counts["matching"]:
        say("no entry fails, is flaky or is getting slower")


def show_changes(before: StoredRun, after: StoredRun, *, json: bool, verbose: bool) -> None:
    """Print what changed from the run ``before`` to the run ``after``."""
    found = _compared(before, after)
    if json:
        write_json(found.model_dump())
        return
    say(f"run {after.info.run} of {after.info.manifest}")
    terminal = sys.stdout.isatty()
    unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    width = shutil.get_terminal_size().columns
    sheet = Sheet(width, terminal, rich=unicode, all=verbose)
    if not terminal:
        for line in comparison_lines(found, sheet):
            say(line.text)
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(width=width)
    for line in comparison_lines(found, sheet):
        colours = {"bold": line.bold, "red": line.red, "yellow": line.yellow, "green": line.green}
        style = " ".join(name for name, on in colours.items() if on)
        console.print(Text(line.text, style=style), soft_wrap=True)


def _compared(before: StoredRun, after: StoredRun) -> SummaryComparison:
    with (
        before.records() as earlier,
        after.records() as later,
        before.read() as old,
        after.read() as new,
    ):
        return comparison.compare(
            earlier,
            later,
            before_run=before.info.run,
            after_run=after.info.run,
            known_before=before.manifest.ids,
            known_after=after.manifest.ids,
            trees=comparison.compare_trees(old.trees.by_entry(), new.trees.by_entry()),
        )
