"""Make the table of docs/reference/versions.md from what the matrix has run.

``versions.py`` takes what ``nox`` has left in build/matrix into ``docs/reference/versions.json``,
cell by cell, and writes the page's table from that; ``versions.py --check`` compares the page.

Exit status: 0 when the page is current (or was written), 1 when it differs.
"""

# ruff: noqa: T201  (a command speaks on its standard output)

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
RUN: Final = ROOT / "build" / "matrix"
DATA: Final = ROOT / "docs" / "reference" / "versions.json"
PAGE: Final = ROOT / "docs" / "reference" / "versions.md"
BEGIN: Final = "<!-- made by scripts/versions.py: begin -->"
END: Final = "<!-- made by scripts/versions.py: end -->"

COLUMNS: Final = {
    "python": "Python",
    "celery": "Celery",
    "kombu": "kombu",
    "redis": "redis-py",
    "hiredis": "hiredis",
    "pytest": "pytest",
    "pytest-xdist": "xdist",
    "pydantic": "pydantic",
}
"""The heading of each package's column."""
SUITES: Final = ("contract", "unit", "plugin", "live")
ORDER: Final = ("min", "celery", "newest", "locked", "pre")

Cell = dict[str, Any]


def key(cell: Mapping[str, Any]) -> str:
    """Name a cell by its set of versions and Python's minor version."""
    return f"{cell['cell']} py{minor(cell['versions']['python'])}"


def minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def place(cell: Mapping[str, Any]) -> tuple[int, list[int]]:
    """Return what cells are sorted by: the kind, then the numbers in name and Python's version."""
    name = str(cell["cell"])
    numbers = re.findall(r"\d+", name + " " + minor(cell["versions"]["python"]))
    return ORDER.index(name.split()[0]), [int(number) for number in numbers]


def merged(cells: Mapping[str, Cell], runs: Iterable[Cell]) -> dict[str, Cell]:
    """Return the cells with those of these runs in their place.

    What a run has not run of a cell's suites stays where it is of the same versions.
    """
    result = dict(cells)
    for run in runs:
        before = cells.get(key(run), {})
        kept = before.get("suites", {}) if before.get("versions") == run["versions"] else {}
        result[key(run)] = {**run, "suites": {**kept, **run["suites"]}}
    return dict(sorted(result.items(), key=lambda one: place(one[1])))


def table(cells: Iterable[Cell]) -> str:
    """Return the table as Markdown, a row for each cell."""
    rows = [("cell", *COLUMNS.values(), *SUITES), ("---",) * (1 + len(COLUMNS) + len(SUITES))]
    for cell in cells:
        versions = [cell["versions"].get(name, "without") for name in COLUMNS]
        outcomes = [outcome(cell["suites"].get(suite)) for suite in SUITES]
        rows.append((cell["cell"], *versions, *outcomes))
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def outcome(suite: Mapping[str, int] | None) -> str:
    """Say what came of a suite: the number of its tests, or of those that failed."""
    if suite is None:
        return "not run"
    if suite["failed"]:
        return f"**{suite['failed']} of {suite['passed'] + suite['failed']} fail**"
    again = suite.get("again")
    return f"{suite['passed']} pass" + (f", {again} the second time" if again else "")


def page(text: str, cells: Collection[Cell]) -> str:
    """Return the page with this table between its marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    shown = table(cells) if cells else "No cell has been recorded yet."
    return f"{before}{BEGIN}\n\n{shown}\n\n{END}{after}"


def main() -> int:
    """Parse the command line and do what it says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing, fail if not current")
    check = parser.parse_args().check
    cells: dict[str, Cell] = json.loads(DATA.read_text("utf-8")) if DATA.exists() else {}
    if not check:
        runs = [json.loads(path.read_text("utf-8")) for path in sorted(RUN.glob("*.json"))]
        cells = merged(cells, runs)
        DATA.write_text(json.dumps(cells, indent=1) + "\n", "utf-8")
    text = PAGE.read_text("utf-8")
    wanted = page(text, cells.values())
    if check and wanted != text:
        print(f"{PAGE.relative_to(ROOT)} is not what {DATA.name} says: run scripts/versions.py")
        return 1
    if wanted != text:
        PAGE.write_text(wanted, "utf-8")
        print(f"{PAGE.relative_to(ROOT)}: written, {len(cells)} cells")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
