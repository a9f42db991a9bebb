"""Run the cells, two at a time, and write ``results.json`` and the page of the docs.

    python -m tests.stacks [--only WORD ...] [--missing] [--page] [--jobs N]

``--only``: the cells whose name has one of these words; the others stay as they were.
``--missing``: those that have no result yet. ``--page`` only writes the page anew. A cell whose
server is not installed is named and left as it was; one that fails ends with status 1, after all
others.
"""

from __future__ import annotations

import argparse
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.services import ServiceUnavailableError
from tests.stacks.cells import CELLS, Cell
from tests.stacks.outcomes import summary_of
from tests.stacks.page import PAGE, RESULTS
from tests.stacks.page import write as write_page
from tests.stacks.running import run_cell

_writing = threading.Lock()


def main() -> int:
    """Do what the command line says, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.stacks")
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD")
    parser.add_argument("--missing", action="store_true")
    parser.add_argument("--page", action="store_true")
    parser.add_argument("--jobs", type=int, default=2, metavar="N")
    options = parser.parse_args()
    results = read_results()
    asked = CELLS if not options.only else dict.fromkeys(_named(options.only))
    wanted = [
        CELLS[name]
        for name in asked
        if not options.page and not (options.missing and name in results)
    ]
    with ThreadPoolExecutor(options.jobs) as pool:
        done = list(pool.map(_run, wanted))
    failed = [cell.name for cell, is_well in zip(wanted, done, strict=True) if not is_well]
    results = read_results()
    write(results)
    print(f"{PAGE.name}: {len(results)} of {len(CELLS)} cells; failed: {failed or 'none'}")
    return 1 if failed else 0


def _named(words: list[str]) -> Iterator[str]:
    """Give the cells that each word means: the one of that name, or all that have it in theirs."""
    for word in words:
        yield from [word] if word in CELLS else (name for name in CELLS if word in name)


def read_results() -> dict[str, Any]:
    """Read what earlier runs have found; cells that are no more are dropped."""
    found: dict[str, Any] = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    return {name: found[name] for name in CELLS if name in found}


def write(results: dict[str, Any]) -> None:
    """Write results and page."""
    ordered = {name: results[name] for name in CELLS if name in results}
    text = json.dumps(ordered, indent=1, ensure_ascii=False)
    RESULTS.write_text(text + "\n", "utf-8")
    write_page(ordered)


def _run(cell: Cell) -> bool:
    try:
        told = summary_of(run_cell(cell))
    except ServiceUnavailableError as unavailable:
        print(f"{cell.name}: left out: {unavailable}", flush=True)
        return True
    except Exception as error:  # of one cell, and the next is another one
        print(f"{cell.name}: FAILED: {error}", flush=True)
        return False
    with _writing:
        write(read_results() | {cell.name: told})
    right = told["asked"] - len(told["others"])
    print(f"{cell.name}: {right} of {told['asked']} in {told['seconds']:.0f} s", flush=True)
    return True


if __name__ == "__main__":
    raise SystemExit(main())
