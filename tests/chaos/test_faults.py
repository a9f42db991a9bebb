"""Each fault, at random moments: right verdicts, in time, and nothing run twice unsaid."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.chaos import report
from tests.chaos.scenario import Scenario, play
from tests.chaos.scenarios import SCENARIOS

FAULT_VARIABLE = "MANIFEST_CHAOS_FAULT"
pytestmark = [pytest.mark.chaos, pytest.mark.live, pytest.mark.timeout(300)]


def marks(scenario: Scenario) -> tuple[pytest.MarkDecorator, ...]:
    return (pytest.mark.rabbitmq,) if scenario.setup.kind == "rabbitmq" else ()


@pytest.mark.parametrize(
    "scenario",
    [
        pytest.param(one, id=one.name, marks=marks(one))
        for one in SCENARIOS
        if os.environ.get(FAULT_VARIABLE, "") in ("", one.name)
    ],
)
def test_fault(
    scenario: Scenario,
    seed: int,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    """Every entry has, within the bound, a verdict that its own count of executions bears out."""
    rabbitmq = ""
    if scenario.setup.kind == "rabbitmq":
        rabbitmq = request.getfixturevalue("rabbitmq_url")
    played = play(scenario, seed, tmp_path / "project", rabbitmq)
    report.check(played, request.node)
