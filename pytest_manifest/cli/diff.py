"""Say what changed from one run to another: ``manifest diff``."""

from __future__ import annotations

import shutil
import sys

from pytest_manifest.analysis import comparison
from pytest_manifest.cli.output import say, write_json
from pytest_manifest.cli.stored_run import StoredRun
from pytest_manifest.reporting.terminal_layout import Sheet
from pytest_manifest.reporting.terminal_statistics import comparison_lines


def run(before: StoredRun, after: StoredRun, *, json: bool, verbose: bool) -> None:
    """Print what changed from the run ``before`` to the run ``after``."""
    found = _compared(before, after)
    if json:
        write_json(comparison.comparison_document(found))
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


def _compared(before: StoredRun, after: StoredRun) -> comparison.Comparison:
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
