"""The page of the docs and its tables, made of ``results.json`` and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.contract.work import WORK
from tests.page_tables import as_csv
from tests.stacks.cells import CELLS, NAMES, Cell
from tests.stacks.outcomes import statuses

ROOT: Final = Path(__file__).parents[2]
RESULTS: Final = Path(__file__).with_name("results.json")
PAGE: Final = ROOT / "docs" / "evidence" / "stacks.md"
Results = Mapping[str, Mapping[str, Any]]

COLUMNS: Final = tuple(statuses())
MOST_NAMED: Final = 10
"""Cells of one kind that the page names."""
HEAD: Final = f"""# Stacks: what each broker, result store and pool can say

Each cell was run: {len(WORK)} jobs that end in every way a job can end, on real
servers, with a worker that is instrumented (`-I pytest_manifest.worker`) and with a stock one.
`make stacks` writes this page and its tables:
[each cell's verdicts](tables/stacks.csv),
[the sentence of each verdict that is another one](tables/stacks-why.csv), and
[what is said before anything is sent](tables/stacks-said.csv). [How to set up yours][eager].

[eager]: ../how-to/external-stack.md#tls-a-user-sentinel-sqs-and-others

"""
LACKS: Final = """
What a receipt lacks:

"""
WHY: Final = """
## Why

Where no start of a job can be seen, as from a stock worker, one that ends without a stored result
(ignored, handed on, exited) is `unknown`: it may have run.
`max_runtime` needs a worker that measures. Where no worker can be asked (SQS, SQLAlchemy), such a
job is `pending` until its time is over. With `rpc://` Celery has no chords; yaml and msgpack cannot
carry some values. Pools other than prefork cannot stop a job. On a folder and SQLAlchemy Celery
looks at time limits once a second. [What kombu does with PostgreSQL][eager].
"""


def page(results: Results) -> str:
    """Write the page as Markdown."""
    cells = {name: CELLS[name] for name in CELLS if name in results}
    missing = [_title(cell) for name, cell in CELLS.items() if name not in results]
    parts = [HEAD]
    for worker in ("instrumented", "stock"):
        mine = {name: cell for name, cell in cells.items() if cell.worker == worker}
        parts += [f"\n## With a worker that is {worker}\n\n", _differences(mine, results)]
        parts += [LACKS, _lacks(mine, results)]
    parts += [f"\nNot run yet: {'; '.join(missing)}.\n"] if missing else []
    return "".join([*parts, WHY])


def tables(results: Results) -> Mapping[str, str]:
    """Return the raw tables by the names of their files."""
    cells = {name: CELLS[name] for name in CELLS if name in results}
    head = ("broker", "result store", "pool", "worker")
    verdicts = [
        (*_place(cell), *(_mark(cell, results[name], status) for status in COLUMNS))
        for name, cell in cells.items()
    ]
    return {
        "stacks.csv": as_csv([(*head, *COLUMNS), *verdicts]),
        "stacks-why.csv": as_csv([("verdict", "jobs", "where", "sentence"), *_why(cells, results)]),
        "stacks-said.csv": as_csv([("where", "sentence"), *_said(cells, results)]),
    }


def write(results: Results) -> None:
    """Write the page and its tables."""
    PAGE.write_text(page(results), "utf-8")
    for name, text in tables(results).items():
        (PAGE.parent / "tables" / name).write_text(text, "utf-8")


def _differences(cells: Mapping[str, Cell], results: Results) -> str:
    found: dict[str, list[str]] = {}
    for name, cell in cells.items():
        marks = {status: _mark(cell, results[name], status) for status in COLUMNS}
        words = {status: mark for status, mark in marks.items() if mark not in ("as it is", "-")}
        by_mark: dict[str, list[str]] = {}
        for status, mark in words.items():
            by_mark.setdefault(mark, []).append(status)
        said = "; ".join(f"{', '.join(some)}: {mark}" for mark, some in by_mark.items())
        found.setdefault(said or "none", []).append(_title(cell))
    lines = ["| some jobs have another verdict | cells |", "|---|---|"]
    lines += [f"| {said} | {len(titles)}: {_where(titles)} |" for said, titles in found.items()]
    return "\n".join(lines) + "\n"


def _where(titles: Sequence[str]) -> str:
    """Name cells; of many only the brokers, as the table has each."""
    if len(titles) <= MOST_NAMED:
        return "; ".join(titles)
    brokers = dict.fromkeys(
        re.split(" with |, (?:prefork|threads|solo|gevent|eventlet)", title)[0] for title in titles
    )
    return f"on {'; '.join(brokers)}"


def _place(cell: Cell) -> tuple[str, str, str, str]:
    broker, store = NAMES.get(cell.broker, cell.broker), NAMES.get(cell.store, cell.store)
    variant = f"<br>{cell.variant}" if cell.variant else ""
    return broker, "the same" if broker == store else store, cell.pool + variant, cell.worker


def _mark(cell: Cell, told: Mapping[str, Any], status: str) -> str:
    if told["error"]:
        return "-"
    others = told["others"]
    entries = statuses()[status]
    if status == "revoked" and told["asked"] < len(WORK):
        return "-"
    instead = sorted({others[entry][0] for entry in entries if entry in others})
    return ", ".join(f"`{word}`" for word in instead) or "as it is"


def _lacks(cells: Mapping[str, Cell], results: Results) -> str:
    found: dict[str, list[str]] = {}
    for name, cell in cells.items():
        if not results[name]["error"]:
            lacking = ", ".join(results[name]["lacks"]) or "nothing"
            found.setdefault(lacking, []).append(_title(cell))
    most = max(map(len, found.values()), default=0)
    lines = ["| lacks | cells |", "|---|---|"]
    for lacking, titles in sorted(found.items()):
        where = "all others" if len(titles) == most else "; ".join(titles)
        lines.append(f"| {lacking} | {where} |")
    return "\n".join(lines) + "\n"


def _title(cell: Cell) -> str:
    """Name a cell by what is not usual of it: a store that is another one, another pool."""
    broker, store, pool, _ = _place(cell)
    parts = [broker] if store == "the same" else [f"{broker} with {store}"]
    parts += [pool.replace("<br>", " ")] if pool != "prefork" else []
    return ", ".join(parts)


def _why(cells: Mapping[str, Cell], results: Results) -> Iterator[tuple[str, ...]]:
    found: dict[tuple[str, str], dict[str, list[str]]] = {}
    for name, cell in cells.items():
        told = results[name]
        where = f"{_title(cell)}, {cell.worker}"
        for entry, (status, sentence) in told["others"].items():
            found.setdefault((sentence, status), {}).setdefault(entry, []).append(where)
        if told["error"]:
            found.setdefault((told["error"], "no run"), {})["all"] = [where]
    for (sentence, status), jobs in found.items():
        places = dict.fromkeys(title for titles in jobs.values() for title in titles)
        yield status, ", ".join(jobs), "; ".join(places), sentence


def _said(cells: Mapping[str, Cell], results: Results) -> Iterator[tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for name, cell in cells.items():
        for notice in results[name]["notices"]:
            found.setdefault(notice, []).append(f"{_title(cell)}, {cell.worker}")
    for notice, titles in found.items():
        yield "; ".join(titles), notice
