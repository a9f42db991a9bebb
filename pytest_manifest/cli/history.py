"""Show the runs of manifests over time: ``manifest history``, and what changed between two runs."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from pytest_manifest.analysis import comparison
from pytest_manifest.analysis.digest import all_digests, without_parts
from pytest_manifest.analysis.gates import Gate
from pytest_manifest.analysis.many_runs import by_manifest, over_time
from pytest_manifest.cli import FOUND, arguments
from pytest_manifest.cli.output import check_target, say, shown, warn, write_json, write_table
from pytest_manifest.cli.prune import age
from pytest_manifest.cli.stored_run import (
    StoredRun,
    hide_secrets,
    pytest_command,
    report_mode,
    runs_folder,
)
from pytest_manifest.errors import LedgerError
from pytest_manifest.reporting.figures import Sheet, comparison_lines
from pytest_manifest.schema.over_time import ManifestOverTime, RunsOverTime
from pytest_manifest.schema.run_digest import RunDigest
from pytest_manifest.text import rate_text, seconds

_RUNS: int = 10
"""Runs that a table has."""
_LETTERS: int = 40


def history(
    manifests: Annotated[
        list[Path] | None,
        typer.Argument(metavar="MANIFEST...", show_default=False, help="default: each that ran"),
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="AGE", help="runs that are younger, like 90d, 12h, 4w")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE.html", help="write a page")
    ] = None,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONDITION",
            help='end with 1 on "new failures", broken, flaky, slowing, growing, or like '
            '"p95(task) > 1.5 x median(10)"',
        ),
    ] = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="make the digests of runs again, of their ledgers")
    ] = False,
    limit: arguments.Limit = 50,
    force: arguments.Force = False,
    folder: arguments.Folder = None,
    json: arguments.Json = False,
) -> None:
    """Show how the runs of manifests went over time, and what is worth a look.

    By the digest of each run, which stays when "manifest prune" drops its ledger.
    """
    gates = [Gate(text) for text in fail_on or ()]  # refused before anything is written
    check_target(output, force=force, json=False)
    runs = runs_folder(folder)
    groups = _digests(manifests or [], runs, since, rebuild=rebuild)
    found = over_time(groups)
    known = sorted({task.task for one in found.manifests for task in one.tasks})
    for gate in gates:
        gate.check(known, list(chain.from_iterable(groups)))
    if output is not None:
        from pytest_manifest.reporting.history_page import write_history_page

        write_history_page(output, found, report_mode())
    if json:
        _write_document(found)
    elif output is None:
        for one in found.manifests:
            _write(one, limit)
    _check(gates, found, groups)


def _check(
    gates: Sequence[Gate], found: RunsOverTime, groups: Sequence[Sequence[RunDigest]]
) -> None:
    """Raise typer.Exit where a gate is broken, after saying how."""
    failed = [
        f"{one.manifest}: {said}"
        for one, digests in zip(found.manifests, groups, strict=True)
        for gate in gates
        for said in gate.broken_by(one, digests)
    ]
    for said in failed:
        warn(said)
    if failed:
        raise typer.Exit(FOUND)


def show_history(file: Path, folder: Path, last: int, limit: int, *, json: bool) -> None:
    """Print the last runs of a manifest, and what is worth a look in them."""
    found = over_time(_digests([file], folder, None, last=last))
    if json:
        _write_document(found)
        return
    for one in found.manifests:
        _write(one, limit)


def _digests(
    manifests: Sequence[Path],
    folder: Path,
    since: str | None,
    *,
    rebuild: bool = False,
    last: int | None = None,
) -> list[list[RunDigest]]:
    """Return the digests of each manifest's runs, oldest first. Raises LedgerError for none."""
    hide_secrets()
    found: dict[str, RunDigest] = {}
    for manifest in manifests or (None,):
        own = all_digests(folder, manifest, rebuild=rebuild)
        if manifest is not None and not own:
            raise _no_run(manifest, folder)
        found |= own
    first = datetime.min.replace(tzinfo=timezone.utc)
    if since is not None:
        first = datetime.now(timezone.utc) - age(since, "--since")
    kept = [one for one in without_parts(found.values()) if one.created_at >= first]
    if not kept:
        raise _no_run(manifests[0] if manifests else None, folder, since)
    return by_manifest(kept) if last is None else by_manifest(kept, last)


def _no_run(manifest: Path | None, folder: Path, since: str | None = None) -> LedgerError:
    what = f"{manifest}: there is no run of it in" if manifest else "no run in"
    return LedgerError(
        f"{what} {folder}{f' since {since} ago' if since else ''}; dispatch it with "
        f"{shlex.join(pytest_command())} --manifest={manifest or 'FILE'}, or name another folder "
        "with --in"
    )


def _write_document(found: RunsOverTime) -> None:
    write_json(found.model_dump(mode="json"))


def _write(found: ManifestOverTime, limit: int) -> None:
    first, last = found.runs[0], found.last
    number = len(found.runs)
    say(
        f"{found.manifest}: the last run"
        if number == 1
        else f"{found.manifest}: {number} runs, {first.at:%Y-%m-%d} to {last.at:%Y-%m-%d}"
    )
    say(f"{last.passed} of {last.entries} passed in the last run; {found.sentence}")
    for one in found.breaks[1:]:
        say(f"also: {one.sentence}")
    write_table(
        ("#", "run", "began", "#entries", "#passed", "#red", "#took", "what"),
        list(_run_rows(found)),
    )
    write_table(
        ("task", "#last", "#change", f"red in the last {min(number, _RUNS)}", "remark"),
        list(_task_rows(found)),
    )
    rows = list(_entry_rows(found))
    shown_rows = rows[:limit] if limit else rows
    write_table(("entry", "task", "runs", "what"), shown_rows)
    if len(rows) > len(shown_rows):
        say(f"and {len(rows) - len(shown_rows):,} more; --limit=0 shows all")
    for grown in found.growing:
        say(f"{grown.worker} grows by {grown.per_job / 1e6:.3g} MB a job since run {grown.since}")


def _run_rows(found: ManifestOverTime) -> Iterator[Sequence[str]]:
    for one in found.runs[-_RUNS:]:
        remarks = [f"partial: {one.partial}"] if one.partial else []
        remarks += ["incident"] if one.incident else []
        remarks += [f"{one.reused} reused"] if one.reused else []
        took = "" if one.duration is None else seconds(one.duration)
        yield (
            *(str(one.n), one.run, f"{one.at:%Y-%m-%d %H:%M}", str(one.entries)),
            *(str(one.passed), str(one.bad), took, ", ".join(remarks)),
        )


def _task_rows(found: ManifestOverTime) -> Iterator[Sequence[str]]:
    for one in found.tasks:
        known = [value for value in one.p50 if value is not None]
        last = seconds(known[-1]) if known else ""
        change = "" if one.change is None else f"{one.change - 1:+.0%}"
        red = " ".join("-" if bad is None else str(bad) for bad in one.bad[-_RUNS:])
        remark = ""
        if one.slower is not None:
            times, since = rate_text(one.slower.ratio), one.slower.since
            remark = f"{times} times as long since run {since}"
        yield one.task, last, change, red, remark


def _entry_rows(found: ManifestOverTime) -> Iterator[Sequence[str]]:
    for one in found.entries:
        what = {
            "broken": f"broken: red since run {one.since}",
            "flaky": f"flaky: red in {one.bad} of {one.runs} runs",
            "one bad run": f"red in run {one.since} alone",
            "mended": f"mended: red in {one.bad} runs, last in run {one.since}",
        }[one.kind]
        if one.formerly:
            what += f"; formerly {', '.join(one.formerly)}"
        yield one.id, one.task, one.states[-_LETTERS:], what


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
