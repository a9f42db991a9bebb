"""Rounds, seeds, and the table at the end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.chaos import report

ROUNDS_VARIABLE = "MANIFEST_CHAOS_ROUNDS"
SEED_VARIABLE = "MANIFEST_CHAOS_SEED"
REPORT_VARIABLE = "MANIFEST_CHAOS_REPORT"


def seeds() -> list[int]:
    """The seeds of this session: so many rounds, from a first one."""
    rounds, first = (int(os.environ.get(v, "1")) for v in (ROUNDS_VARIABLE, SEED_VARIABLE))
    return list(range(first, first + rounds))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test that asks for a seed runs once for each."""
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", seeds(), ids=lambda seed: f"seed{seed}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the table, and write it where MANIFEST_CHAOS_REPORT says."""
    properties = [
        one
        for reports in terminalreporter.stats.values()
        for entry in reports
        if isinstance(entry, pytest.TestReport) and entry.when == "call"
        for one in entry.user_properties
    ]
    table = report.rows(report.outcomes(properties))
    if not table:
        return
    terminalreporter.write_sep("=", "chaos")
    for line in report.text(table):
        terminalreporter.write_line(line)
    target = os.environ.get(REPORT_VARIABLE)
    if target:
        Path(target).write_text(report.markdown(table), encoding="utf-8")
