"""How much work it is to find what does not fit together in a ledger."""

from __future__ import annotations

from pathlib import Path

from pytest_manifest.ledger import Descendant, Ledger, invariants
from tests.reports import add_receipts, add_starts, announced
from tests.unit.ledger_support import INFO, receipt, start, verdict


def work_of(folder: Path, number: int) -> dict[str, int]:
    """Count the thousands of steps that SQLite takes for each query, where one job has told of so
    many things of each kind."""
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    folder.mkdir()
    with Ledger.create(folder / "run.sqlite", INFO) as ledger, ledger.transaction():
        ledger.attempts.plan([("t-a", "a", 1, 0)])
        ledger.verdicts.record([(verdict("a"), receipt("a", children=number))])
        add_starts(ledger, (start("t-a", f"x{n}") for n in range(number)))
        add_receipts(ledger, (("t-a", f"x{n}", receipt("a")) for n in range(number)))
        ledger.descendants.add(
            Descendant(f"d{n}", "t-a", "t-a", "jobs.t", "call", fulfils=f"k{n}")
            for n in range(number)
        )
        ledger.events.add(
            announced("t-a", f"k{n}", "t-a", "link", "jobs.t", 1, [f"d{n}"], is_off=False)
            for n in range(number)
        )
    found = {}
    with Ledger.open(folder / "run.sqlite") as ledger:
        ledger.invariants._db.connection.set_progress_handler(step, 1000)
        for name, query in vars(invariants).items():
            if name[0] != "_" and str(query).lstrip().startswith(("SELECT", "WITH")):
                before = steps
                list(ledger.invariants.rows(query))
                found[name] = steps - before
    return found


def test_the_work_grows_with_the_record(tmp_path: Path) -> None:
    """And not with its square, however much one job has started, announced or told."""
    some, twice = work_of(tmp_path / "some", 500), work_of(tmp_path / "twice", 1000)
    assert len(some) >= 20
    assert sum(some.values()) > 50
    assert {name for name, steps in twice.items() if steps > 2.7 * some[name] + 20} == set()
