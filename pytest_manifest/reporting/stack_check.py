"""Write what ``--manifest-check`` found: as a table for people, or as one JSON document."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Final

from pytest_manifest.broker.checks import LEVEL_WIDTH, LEVELS, Level, StackCheck, table_rows
from pytest_manifest.broker.lint import is_of_project
from pytest_manifest.text import plural

SCHEMA: Final = "manifest-check/1"
COLOURS: Final[dict[Level, str]] = {
    "error": "31;1",
    "warning": "33",
    "unchecked": "36",
    "ok": "32",
}


def document(check: StackCheck) -> str:
    """Return the findings as JSON; the reference page has its table."""
    stack = {
        "kind": check.kind,
        "reason": check.reason,
        "broker": check.broker,
        "backend": check.backend,
        "app": check.app,
    }
    workers = [
        {
            "name": one.name,
            "pool": one.pool,
            "slots": one.slots,
            "queues": sorted(one.queues or ()),
            "tasks": [name for name in sorted(one.tasks) if is_of_project(name)],
            "receipts": bool(one.tasks) and not one.is_stock,
        }
        for one in check.workers
    ]
    findings = [
        {"level": one.level, "check": one.check, "message": one.message} for one in check.findings
    ]
    counts = {level: check.count(level) for level in LEVELS}
    whole = {
        "schema": SCHEMA,
        "ok": check.ok,
        "stack": stack,
        "workers": workers,
        "findings": findings,
        "counts": counts,
    }
    return json.dumps(whole, indent=2, ensure_ascii=False)


def table(check: StackCheck, words: str) -> Iterator[str]:
    """Yield the lines of the table, as wide as the terminal; ``words`` say which stack it is of."""
    colours = sys.stdout.isatty()
    yield f"manifest: {words}"
    for level, text in table_rows(check.findings):
        if colours:
            shown, rest = text[:LEVEL_WIDTH], text[LEVEL_WIDTH:]
            text = f"\033[{COLOURS[level]}m{shown}\033[0m{rest}"
        yield from text.split("\n")
    told = [
        plural(check.count(level), level) for level in ("error", "warning") if check.count(level)
    ]
    if unseen := check.count("unchecked"):
        told.append(f"{unseen} unchecked")
    yield f"{', '.join(told) or 'nothing to complain of'}; nothing was sent"
