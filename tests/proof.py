"""Put together what holds each promise: ``python -m tests.proof``, or ``make proof``.

The figures are those of the tables that the other commands have written; nothing is run. Written
into the page of the promises with ``--write``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from typing import Final

from pytest_manifest.text import plural
from tests.broken_records import MUTATIONS
from tests.mutants.judging import changed_since
from tests.nodes import Node
from tests.owners import PROMISES as OWNED
from tests.owners import read
from tests.page_tables import FAULTS, PROMISES, put, rows, taken

NAMES: Final = ("S1", "S2", "S3", "S4", "S5", "S6", "L1")
IN_CHAOS: Final[Mapping[str, str]] = {
    "S1": "double runs",
    "S2": "double runs",
    "S3": "recovered",
    "S4": "wrong",
    "S5": "wrong",
    "S6": "no verdict",
    "L1": "hangs",
}
"""The column of the chaos suite's table in which a broken promise would be counted."""
NONE: Final = "-"


def meant(text: str) -> set[str]:
    """Return the promises that ``S1-S6``, ``S2, S4``, ``L1`` or ``all`` means."""
    if text == "all":
        return set(NAMES)
    found: set[str] = set()
    for part in re.split(r",\s*", text):
        first, _, last = part.partition("-")
        if first in NAMES:
            found |= set(NAMES[NAMES.index(first) : NAMES.index(last or first) + 1])
    return found


def number(cell: str) -> int:
    """Return the whole number that a cell has; 0 where it has none."""
    return int(cell.replace(",", "") or 0) if re.fullmatch(r"[\d,]+", cell) else 0


def in_model(promise: str) -> str:
    """Tell in how many states a promise holds, and how many broken rules are found to break it."""
    mine = [one for one in rows(PROMISES, "model") if promise in meant(one["promise"])]
    states = sum(number(one["states"]) for one in mine if one["found"] == "holds")
    broken = sum(one["found"] == "broken" for one in mine)
    return f"{states:,} states; {broken} broken rules found" if states else NONE


def in_simulation() -> str:
    """Tell how many steps were played; every promise is held at each of them."""
    found = re.search(r"([\d,]+) steps in ([\d,]+) programs", taken(PROMISES, "simulation"))
    return f"{found[1]} steps" if found else NONE


def in_chaos(promise: str) -> str:
    """Tell how many rounds there were, and how many times the promise was broken in them.

    "2 (store)": where the fault breaks what the promise takes for granted, here of the store.
    """
    column = IN_CHAOS[promise]
    mine = [one for one in rows(FAULTS, "chaos") if one["fault"] == "all" and column in one]
    if not mine:
        return NONE
    rounds = sum(number(one["rounds"]) for one in mine)
    granted = [one[column] for one in mine if not re.fullmatch(r"[\d,]+", one[column])]
    broken = [str(sum(number(one[column]) for one in mine)), *granted]
    return f"{rounds} rounds, {' and '.join(broken)} {column}"


def in_check(promise: str) -> str:
    """Tell in how many ways a record is broken for a test, each of which the check must see."""
    return plural(sum(one[0] == promise for one in MUTATIONS.values()), "way")


def in_mutants(promise: str) -> str:
    """Tell how many mutants of the modules that keep a promise are killed.

    Modules that have changed since their mutants were tried do not count.
    """
    every = [one for one in rows(PROMISES, "mutants") if promise in meant(one["promise"])]
    if not every:
        return NONE
    changed = changed_since()
    mine = [one for one in every if one["module"].strip("`") not in changed]
    made = sum(number(one["mutants"]) - number(one["equivalent"]) for one in mine)
    killed = sum(number(one["killed"]) for one in mine)
    idle = sum(one["mutants"] == "not run" for one in mine)
    left_out = [f"{idle} not run"] if idle else []
    left_out += [f"{len(every) - len(mine)} changed since"] if len(mine) < len(every) else []
    others = f"; of {plural(len(every), 'module')} {', '.join(left_out)}" if left_out else ""
    return f"{killed:,} of {made:,}{others}"


def owner(promise: str) -> str:
    """Name the test that owns a promise."""
    return f"`{Node.read(read()[OWNED][promise]).function}`"


def table() -> str:
    """Make the table in Markdown."""
    head = ("promise", "model", "simulation", "chaos", "check", "mutants killed", "owner")
    lines = [head, ("---",) * len(head)]
    lines += [
        (
            *(one, in_model(one), in_simulation(), in_chaos(one)),
            *(in_check(one), in_mutants(one), owner(one)),
        )
        for one in NAMES
    ]
    return "\n".join(map(_line, lines))


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> int:
    """Print the table, and write it where that is asked for."""
    text = table()
    print(text)
    if "--write" in sys.argv[1:]:
        put(PROMISES, "proof", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
