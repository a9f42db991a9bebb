"""Each fault, at random moments: right verdicts, in time, and nothing run twice unsaid."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.chaos import report
from tests.chaos.conftest import ROUNDS_VARIABLE
from tests.chaos.scenario import Scenario, play
from tests.chaos.scenarios import SCENARIOS
from tests.chaos.scenarios_of_networks import NETWORKS
from tests.chaos.session_faults import PHASES
from tests.turns import part_of_the_day

DAYS = 3
"""In which the whole sample is played, a part each day."""
FAULT_VARIABLE = "MANIFEST_CHAOS_FAULT"
SAMPLED_NETWORKS = frozenset(
    {
        *("slices of a byte, pytest's broker", "half-closed, pytest's broker"),
        "silent peer, pytest's store",
    }
)
LONG = frozenset(
    {
        *("pool child killed, late", "worker killed, late", "worker killed under load"),
        *("broker killed, no aof", "broker frozen for good", "connections reset, all"),
        *("store frozen", "PostgreSQL frozen", "RabbitMQ frozen", "worker killed, rabbitmq"),
        *("worker killed, stock worker", "message removed, stock worker"),
        "pytest killed, worker in another namespace",
        *("trees, worker killed, late", "trees, worker killed, rabbitmq", "trees, broker killed"),
        "trees, pytest killed",
        *(f"ended by a signal, {phase}" for phase in PHASES),
        *({one.name for one in NETWORKS} - SAMPLED_NETWORKS),
    }
)
"""Kinds that are not in the sample: each takes as long as several, and has a quicker relative or
tests of its own there."""
pytestmark = [pytest.mark.chaos, pytest.mark.live, pytest.mark.timeout(900)]


def servers(scenario: Scenario) -> tuple[str, ...]:
    """What it shares with other rounds."""
    setup = scenario.setup
    return tuple(name for name in ("rabbitmq", "postgres") if name in (setup.kind, setup.sql))


def chosen() -> list[Scenario]:
    """The one that was asked for; all where rounds were; else the day's part of those that are
    quickly played."""
    name = os.environ.get(FAULT_VARIABLE)
    if name:
        return [one for one in SCENARIOS if one.name == name]
    if ROUNDS_VARIABLE in os.environ:
        return list(SCENARIOS)
    return part_of_the_day([one for one in SCENARIOS if one.name not in LONG], DAYS)


@pytest.mark.parametrize(
    "scenario",
    [
        pytest.param(one, id=one.name, marks=[getattr(pytest.mark, s) for s in servers(one)])
        for one in chosen()
    ],
)
def test_fault(
    scenario: Scenario,
    seed: int,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    """Every entry has, within the bound, a verdict that its own count of executions bears out."""
    urls = {name: request.getfixturevalue(f"{name}_url") for name in servers(scenario)}
    played = play(scenario, seed, tmp_path / "project", urls)
    report.check(played, request.node)


def test_what_is_left_out_of_the_sample_exists() -> None:
    assert {one.name for one in SCENARIOS} > LONG | SAMPLED_NETWORKS
