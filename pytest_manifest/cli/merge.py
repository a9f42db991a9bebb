"""Merge the ledgers of several runs of one manifest, and say how the result is judged."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pytest_manifest.cli import arguments
from pytest_manifest.cli.output import answer
from pytest_manifest.cli.stored_run import NAME, find_run, pytest_command, runs_folder
from pytest_manifest.text import plural, short_path

if TYPE_CHECKING:
    from pytest_manifest.run.merge import MergedRun


def merge(
    runs: arguments.RunIds,
    into: Annotated[
        Path | None,
        typer.Option(
            "--into", "-o", metavar="FOLDER", help="where to make it; default: beside the first"
        ),
    ] = None,
    folder: arguments.Folder = None,
    json: arguments.Json = False,
) -> None:
    """Make one run of several, such as shards.

    RUN is a run's id, the beginning of one, "last", or the path of a ledger.
    """
    from pytest_manifest.run.merge import merge as merge_ledgers

    merged = merge_ledgers([find_run(run, runs_folder(folder)) for run in runs], into)
    judged = merged.info.entries - merged.open
    command, hint = _judging(merged)
    answer(
        {
            "ledger": str(merged.ledger),
            "run": merged.info.run,
            "runs": merged.runs,
            "entries": merged.info.entries,
            "judged": judged,
            "warnings": list(merged.warnings),
            "next": shlex.join(command),
        },
        [
            f"merged {plural(merged.runs, 'run')} into {_short(merged.ledger)}",
            f"  {merged.info.entries:,} entries, {judged:,} of them with a final verdict",
            *(f"  {remark}" for remark in merged.warnings),
            *hint,
            f"to judge it, with any report: {shlex.join(command)}",
        ],
        json=json,
    )


def _judging(merged: MergedRun) -> tuple[list[str], list[str]]:
    """Return the command that judges and reports the merged run, and what must be done before."""
    folder = merged.ledger.parent.resolve()
    manifest = "FILE" if merged.manifest is None else _short(merged.manifest)
    command = [*pytest_command(), f"--manifest={manifest}", "--manifest-audit"]
    command.append(f"--manifest-run={merged.info.run}")
    known = runs_folder(None)
    if folder == known.resolve():
        return command, []
    if folder.name != NAME:
        hint = f"pytest finds it in {_short(known)} alone: move its files there, or merge with -o"
        return command, [hint]
    return [*command, "-o", f"manifest_dir={_short(folder.parent)}"], []


def _short(path: Path) -> str:
    """Shorten the path as a person would type it here."""
    return short_path(path.resolve(), Path.cwd())
