"""Rounds, seeds, and the table at the end."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_manifest.text import plural
from tests import services
from tests.chaos import report
from tests.conftest import given_or_started

ROUNDS_VARIABLE = "MANIFEST_CHAOS_ROUNDS"
SEED_VARIABLE = "MANIFEST_CHAOS_SEED"
REPORT_VARIABLE = "MANIFEST_CHAOS_REPORT"
BEGAN = pytest.StashKey[float]()


def seeds() -> list[int]:
    """The seeds of this session: so many rounds, from a first one."""
    rounds, first = (int(os.environ.get(v, "1")) for v in (ROUNDS_VARIABLE, SEED_VARIABLE))
    return list(range(first, first + rounds))


@pytest.fixture(scope="session")
def rabbitmq_url() -> Iterator[str]:
    """Of a RabbitMQ of this process alone: rounds stop it, and other tests share theirs."""
    yield from given_or_started("MANIFEST_TEST_RABBITMQ_URL", services.rabbitmq_server())


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """Of a PostgreSQL of this process alone."""
    yield from given_or_started("MANIFEST_TEST_POSTGRES_URL", services.postgres_server())


def pytest_configure(config: pytest.Config) -> None:
    """Note when it began."""
    config.stash[BEGAN] = time.monotonic()


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
        minutes = max(1, round((time.monotonic() - terminalreporter.config.stash[BEGAN]) / 60))
        text = f"{circumstances(terminalreporter.config, minutes)}\n\n{report.markdown(table)}"
        Path(target).write_text(text, encoding="utf-8")


def circumstances(config: pytest.Config, minutes: int) -> str:
    """Say by which command, on what, and for how long the rounds were played."""
    numbers, at_a_time = seeds(), config.getoption("numprocesses", None) or 1
    first = f" SEED={numbers[0]}" if numbers[0] != 1 else ""
    words = f"Seeds {numbers[0]} to {numbers[-1]}" if len(numbers) > 1 else f"Seed {numbers[0]}"
    return (
        f"{words}, {plural(os.cpu_count() or 1, 'core')}, "
        f"{plural(at_a_time, 'round')} at a time, in {plural(minutes, 'minute')} "
        f"(`make chaos ROUNDS={len(numbers)}{first}`)."
    )
