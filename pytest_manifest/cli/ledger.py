"""Run ``manifest-ledger``: work with ledgers without pytest."""

# ruff: noqa: T201 - printing is what a command is for

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pytest_manifest.cli import run_command

if TYPE_CHECKING:
    from pytest_manifest.run.merge import MergedRun

RUNS: Final = Path(".manifest", "runs")
"""Where pytest looks for runs, unless the ini option manifest_dir names another folder."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return 0 for success, 2 for a user's error."""
    return run_command("manifest-ledger", _parser().parse_args(argv))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="manifest-ledger", description="Work with the ledgers that runs have left."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    merge = commands.add_parser(
        "merge", help="make one ledger of those of a manifest's shards, to be judged as one run"
    )
    merge.add_argument("ledgers", nargs="+", type=Path, metavar="LEDGER", help="RUN.sqlite")
    merge.add_argument(
        "--into",
        type=Path,
        metavar="FOLDER",
        help="where to make it; default: beside the first ledger",
    )
    merge.set_defaults(run=_merge)
    return parser


def _merge(arguments: argparse.Namespace) -> int:
    from pytest_manifest.run.merge import merge

    merged = merge(arguments.ledgers, arguments.into)
    runs = "1 run" if merged.runs == 1 else f"{merged.runs} runs"
    judged = merged.info.entries - merged.open
    print(f"merged {runs} into {_short(merged.ledger)}")
    print(f"  {merged.info.entries:,} entries, {judged:,} of them with a final verdict")
    for remark in merged.warnings:
        print(f"  {remark}")
    for line in _what_next(merged):
        print(line)
    return 0


def _what_next(merged: MergedRun) -> Iterator[str]:
    """Yield how the merged run is judged and reported."""
    folder = merged.ledger.parent.resolve()
    manifest = "FILE" if merged.manifest is None else _short(merged.manifest)
    command = [
        "pytest",
        f"--manifest={manifest}",
        "--manifest-audit",
        f"--manifest-run={merged.info.run}",
    ]
    if folder != (Path.cwd() / RUNS).resolve():
        if folder.name != RUNS.name:
            yield f"pytest finds it in {RUNS} alone: move its files there, or merge with --into"
        else:
            command += ["-o", f"manifest_dir={_short(folder.parent)}"]
    yield f"to judge it, with any report: {shlex.join(command)}"


def _short(path: Path) -> str:
    """Shorten the path as a person would type it here."""
    full, here = path.resolve(), Path.cwd()
    return str(full.relative_to(here)) if full.is_relative_to(here) else str(full)


if __name__ == "__main__":
    sys.exit(main())
