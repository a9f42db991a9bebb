"""Each fault, at random moments: right verdicts, in time, and nothing run twice unsaid."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.chaos import report
from tests.chaos.conftest import ROUNDS_VARIABLE
from tests.chaos.scenario import Scenario, play
from tests.chaos.scenarios import SCENARIOS

FAULT_VARIABLE = "MANIFEST_CHAOS_FAULT"
pytestmark = [pytest.mark.chaos, pytest.mark.live, pytest.mark.timeout(900)]


def servers(scenario: Scenario) -> tuple[str, ...]:
    """What it shares with other rounds."""
    setup = scenario.setup
    return tuple(name for name in ("rabbitmq", "postgres") if name in (setup.kind, setup.sql))


def chosen() -> list[Scenario]:
    """The one that was asked for; all where rounds were; else a sample that is quickly played."""
    name = os.environ.get(FAULT_VARIABLE, "")
    everything = bool(name) or ROUNDS_VARIABLE in os.environ
    return [one for one in SCENARIOS if name in ("", one.name) if everything or one.sampled]


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
