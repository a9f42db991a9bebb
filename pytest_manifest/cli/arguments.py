"""Declare the arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pytest_manifest.cli.stored_run import LAST, run_ids, runs_folder


def complete_run(incomplete: str) -> list[str]:
    """Complete the id of a run in the folder that pytest uses."""
    known = [LAST, *run_ids(runs_folder(None))]
    return [run for run in known if run.startswith(incomplete)]


RunId = Annotated[
    str, typer.Argument(metavar="RUN", autocompletion=complete_run, show_default=False)
]
RunIds = Annotated[
    list[str], typer.Argument(metavar="RUN...", autocompletion=complete_run, show_default=False)
]
Files = Annotated[list[Path], typer.Argument(metavar="FILE...", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="print JSON")]
Folder = Annotated[
    Path | None,
    typer.Option(
        "--in",
        metavar="FOLDER",
        help="where the runs are; default: .manifest/runs, or as pytest's manifest_dir says",
    ),
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="default: standard output")
]
Force = Annotated[bool, typer.Option("--force", help="replace a file that is there")]
Limit = Annotated[int, typer.Option(min=0, metavar="N", help="show so many at most; 0: all")]
