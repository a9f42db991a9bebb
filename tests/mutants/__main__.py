"""Run the tests against each mutant of the code that judges: ``python -m tests.mutants``.

Arguments are names of modules, like ``run.schedule``; without them all are run. ``--write`` puts
the figures into the page of the promises; ``--as-run`` runs nothing, and judges what the last run
has found.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.mutants.judging import (
    RAN,
    Judged,
    digest,
    judged,
    read_equivalent,
    read_outcome,
    row,
    rows_of,
    table,
)
from tests.mutants.modules import BY_NAME, JUDGES, Judge
from tests.page_tables import PROMISES, put, taken

FOLDER = Path("build/mutants")
TABLE = "mutants"
OPTIONS = {"--write", "--as-run"}


def run(judge: Judge, out: Path) -> None:
    """Run a module's mutants in a process of their own, which writes what became of them."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.unlink(missing_ok=True)
    out.with_suffix(".sha256").write_text(digest(judge), "utf-8")
    log = out.with_suffix(".log")
    with log.open("wb") as output:
        command = [sys.executable, "-m", "tests.mutants.running", judge.name, str(out)]
        code = subprocess.run(command, stdout=output, stderr=output, check=False).returncode
    if code or not out.exists():
        raise SystemExit(f"{judge.name}: its tests could not be run, see {log}")


def write(one: Judged) -> None:
    """Put a module's figures into the page; those of the other modules stay."""
    ran: dict[str, str] = json.loads(RAN.read_text("utf-8"))
    ran[one.judge.name] = (FOLDER / f"{one.judge.name}.sha256").read_text("utf-8")
    RAN.write_text(json.dumps(ran, indent=1, sort_keys=True) + "\n", "utf-8")
    known = rows_of(taken(PROMISES, TABLE))
    put(PROMISES, TABLE, table({**known, one.judge.name: row(one)}, JUDGES))


def main(arguments: list[str]) -> int:
    """Print what must not be; return 1 where there is such a thing, 2 for unknown arguments."""
    options = {one for one in arguments if one.startswith("--")}
    names = [one for one in arguments if one not in options] or list(BY_NAME)
    unknown = [*(options - OPTIONS), *(one for one in names if one not in BY_NAME)]
    if unknown:
        print(f"unknown: {', '.join(unknown)}; the modules are {', '.join(BY_NAME)}")
        return 2
    found = 0
    for name in names:
        out = FOLDER / f"{name}.json"
        if "--as-run" not in options:
            run(BY_NAME[name], out)
        one = judged(BY_NAME[name], read_outcome(out), read_equivalent(BY_NAME[name]))
        print(*one.faults, row(one), sep="\n", flush=True)
        found += len(one.faults)
        if "--write" in options:
            write(one)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
