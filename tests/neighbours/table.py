"""The table of neighbours: its rows are what the tests run, and ``docs/evidence/neighbours.md``.

``python -m tests.neighbours.table`` writes the page.
"""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from tests.beside import ROOT, version_of

PAGE = ROOT / "docs" / "evidence" / "neighbours.md"


@dataclass(frozen=True)
class Row:
    """One neighbour: the options of the session beside it, and what to know of the two.

    ``needs``: other plugins that it brings. ``ini``: lines of pytest's configuration.
    """

    name: str
    command: str
    note: str
    needs: tuple[str, ...] = ()
    ini: str = ""

    @property
    def options(self) -> list[str]:
        return shlex.split(self.command)


ROWS = (
    Row(
        "pytest-asyncio",
        "-o asyncio_mode=auto",
        "A verification may be an `async def`. It takes `entry` and `receipt` like any other.",
    ),
    Row(
        "pytest-celery",
        "",
        "No fixture, marker or option has the same name, so one project can have both.",
        needs=("pytest-docker-tools",),
    ),
    Row(
        "pytest-cov",
        "--cov=jobs --cov-report=term",
        "The private stack's workers are measured too, once coverage.py (7.10 or newer) is told "
        'to follow them: `patch = ["subprocess"]` under `[tool.coverage.run]`, or `patch = '
        "subprocess` under `[run]` in `.coveragerc`.",
    ),
    Row(
        "pytest-django",
        "",
        "Results are read from the database that the workers use. A test of an entry that asks for "
        "`db` is warned, as it sees [the test database](../how-to/django.md).",
    ),
    Row(
        "pytest-html",
        "--html=report.html --self-contained-html",
        "Each entry is a row, with what its failure says.",
    ),
    Row(
        "pytest-json-report",
        "--json-report --json-report-file=report.json",
        "Each entry is a test, with its properties (`manifest_verdict`, `manifest_task_id`, ...) "
        "under `user_properties`.",
    ),
    Row(
        "pytest-randomly",
        "-p randomly -p no:cacheprovider",
        "Shuffles the tests, not the jobs, which go out in the manifest's order.",
    ),
    Row(
        "pytest-reportportal",
        "--reportportal",
        "Each entry is an item of the launch. Tested against a local server of its interface.",
        ini="rp_project = shop\nrp_api_key = key\nrp_launch = batch\nrp_endpoint = {endpoint}\n",
    ),
    Row(
        "pytest-rerunfailures",
        "--reruns 2",
        "A rerun looks at the same receipt once more and sends nothing. "
        "To send failed jobs again: `--lf`, or a retry in the task.",
    ),
    Row(
        "pytest-rich",
        "--rich",
        "Our progress line is off beside its live display. Its panel of a failure "
        "stays empty, our summary below has the cause. It ends with an internal error beside `-n` "
        "of pytest-xdist, with this plugin or without.",
    ),
    Row(
        "pytest-split",
        "--splits 1 --group 1",
        "Each group sends the jobs of its own tests only, by the time of verifications; "
        "[`--manifest-shard`](../how-to/shard-a-batch.md) deals out the jobs.",
    ),
    Row(
        "pytest-sugar",
        "",
        "Its progress bar counts entries; our progress line stands above it while jobs run.",
    ),
    Row(
        "pytest-timeout",
        "--timeout=2",
        "Its limit is for verifications alone. A job's own limit is its entry's `timeout`.",
    ),
    Row(
        "pytest-xdist",
        "-n 2",
        "The controller dispatches once; the xdist workers verify.",
    ),
    Row(
        "strict parametrization ids",
        "-o strict_parametrization_ids=true",
        "A setting of pytest 9.1: ids are those of the entries, which are unique.",
    ),
)

INTRODUCTION = """\
# Neighbours: other plugins in the same session

Plugins that people have beside this one. Each row is a session of a test: the same jobs, verdicts
and exit status as without the neighbour. `python -m tests.neighbours.table` writes this page.

| neighbour | tested with | what to know |
|---|---|---|
"""


def tested_with(row: Row) -> str:
    """The version of the row's neighbour, or of pytest for its own settings."""
    return f"pytest {version_of('pytest')}" if " " in row.name else version_of(row.name)


def page() -> str:
    """The text of the page."""
    return INTRODUCTION + "".join(_lines())


def _lines() -> Iterator[str]:
    for row in ROWS:
        note = " ".join(textwrap.dedent(row.note).split())
        yield f"| {row.name} | {tested_with(row)} | {note} |\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
