"""The page of the docs, made of ``results.json`` and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.contract.work import WORK
from tests.stacks.cells import CELLS, NAMES, Cell
from tests.stacks.outcomes import FACTS, statuses

ROOT: Final = Path(__file__).parents[2]
RESULTS: Final = Path(__file__).with_name("results.json")
PAGE: Final = ROOT / "docs" / "reference" / "stacks.md"
Results = Mapping[str, Mapping[str, Any]]

COLUMNS: Final = tuple(statuses())
HEAD: Final = f"""# Stacks

Which broker, result store and pool tell what, each cell run: {len(WORK)} jobs that end in every way
a job can end (returned, raised, retried, replaced by a chain or a chord, ignored, rejected,
revoked, expired, stopped by a time limit, `sys.exit`), on real servers, with a worker that is
instrumented (`-I pytest_manifest.worker`) and with a stock one. `make stacks` runs all of it anew
and writes this page.

**✓**: each of its jobs has the verdict that it should have. Another word is the verdict that some
had instead; [why](#where-a-verdict-is-another-one) stands below. **-**: it could not be asked for.
An app that sets `task_always_eager` has no row: [it is refused][eager].

[eager]: ../how-to/external-stack.md#tls-a-user-sentinel-sqs-and-others
"""
LACKS: Final = """
## What else a receipt tells

What each cell's receipts lack, of: {facts}. `memory` (the high-water mark of one job's process)
only a prefork pool has.
"""
WHY: Final = """
## Where a verdict is another one

The sentence that its user reads, once for each kind of job. Where no start of a job can be seen,
one that is replaced by others is `unknown` when these wait for some seconds behind other jobs:
another run on the same stack may have it passed. On brokers for which Celery has no event loop (a
folder, SQLAlchemy) it looks at time limits once a second, so a job beyond its limit that is over
before has passed on a stock worker, which tells no runtime. PostgreSQL as broker: [what kombu does
there][sql], so jobs that retry or start others may get no end on any prefork worker.

[sql]: ../how-to/external-stack.md#tls-a-user-sentinel-sqs-and-others
"""
SAID: Final = """
## What is said before anything is sent

"""


def page(results: Results) -> str:
    """Write the page as Markdown."""
    cells = {name: CELLS[name] for name in CELLS if name in results}
    missing = [_title(cell) for name, cell in CELLS.items() if name not in results]
    parts = [HEAD, _verdicts(cells, results)]
    parts += [f"\nNot run yet: {'; '.join(missing)}.\n"] if missing else []
    parts += [LACKS.format(facts=", ".join(FACTS))]
    parts += [_lacks(cells, results), WHY, _why(cells, results), SAID, _said(cells, results)]
    return "\n".join(part.rstrip() + "\n" for part in parts)


def _verdicts(cells: Mapping[str, Cell], results: Results) -> str:
    lines = [
        "| broker | result store | pool | worker | " + " | ".join(COLUMNS) + " |",
        "|---" * (4 + len(COLUMNS)) + "|",
    ]
    for name, cell in cells.items():
        told = results[name]
        marks = [_mark(cell, told, status) for status in COLUMNS]
        lines.append(f"| {' | '.join(_place(cell))} | {' | '.join(marks)} |")
    return "\n".join(lines)


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
    return ", ".join(f"`{word}`" for word in instead) or "✓"


def _lacks(cells: Mapping[str, Cell], results: Results) -> str:
    found: dict[str, list[str]] = {}
    for name, cell in cells.items():
        if not results[name]["error"]:
            lacking = ", ".join(results[name]["lacks"]) or "nothing"
            found.setdefault(lacking, []).append(_title(cell))
    lines = ["| lacks | cells |", "|---|---|"]
    lines += [f"| {lacking} | {'; '.join(titles)} |" for lacking, titles in sorted(found.items())]
    return "\n".join(lines)


def _title(cell: Cell) -> str:
    broker, store, pool, worker = _place(cell)
    return f"{broker} ({store}), {pool.replace('<br>', ' ')}, {worker}"


def _why(cells: Mapping[str, Cell], results: Results) -> str:
    found: dict[tuple[str, str], dict[str, list[str]]] = {}
    for name, cell in cells.items():
        for entry, (_, sentence) in results[name]["others"].items():
            jobs = found.setdefault((_shown(sentence), results[name]["others"][entry][0]), {})
            jobs.setdefault(entry, []).append(_title(cell))
        if results[name]["error"]:
            found.setdefault((_shown(results[name]["error"]), "no run"), {})["all"] = [_title(cell)]
    lines = ["| verdict | jobs | where | sentence |", "|---|---|---|---|"]
    for (sentence, status), jobs in found.items():
        where = dict.fromkeys(title for titles in jobs.values() for title in titles)
        lines.append(f"| `{status}` | {', '.join(jobs)} | {'; '.join(where)} | {sentence} |")
    return "\n".join(lines)


def _said(cells: Mapping[str, Cell], results: Results) -> str:
    found: dict[str, list[str]] = {}
    for name, cell in cells.items():
        for notice in results[name]["notices"]:
            found.setdefault(_shown(notice), []).append(_title(cell))
    lines = [f"- {'; '.join(titles)}: *{notice}*" for notice, titles in found.items()]
    return "\n".join(lines)


def _shown(sentence: str) -> str:
    return sentence.replace("|", "\\|").replace("\n", " ").replace("*", "\\*").replace("<", "&lt;")
