"""The promises hold in the model, and each broken rule breaks one; ``make model`` explores more."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.model.explore import (
    BROKEN,
    HOLDS,
    MODEL,
    UNTRUSTED,
    Exploration,
    explore,
    missing_tools,
)

QUICK = (BROKEN[0], BROKEN[2], BROKEN[10])
"""Broken rules that are found within a second."""


@pytest.fixture(scope="module", autouse=True)
def _tools() -> None:
    lacking = missing_tools()
    if lacking:
        missing(f"the model needs {' and '.join(lacking)}")


def test_the_promises_hold_with_a_crash(tmp_path: Path) -> None:
    """All that may happen to an entry, in every order, and one crash of a worker."""
    explored = explore(HOLDS[0], tmp_path)
    assert explored.is_whole
    assert explored.states > 100_000


@pytest.mark.parametrize("one", QUICK, ids=lambda one: one.name)
def test_a_broken_rule_breaks_its_promise(one: Exploration, tmp_path: Path) -> None:
    """Else the model would say nothing."""
    assert explore(one, tmp_path).is_red


def test_every_rule_of_the_model_is_broken_once() -> None:
    """A switch in the model that nothing explores is a promise that nothing holds."""
    text = MODEL.read_text("utf-8")
    for name, explorations in (("BROKEN", BROKEN), ("TRUSTED", UNTRUSTED)):
        switches = {int(number) for number in re.findall(rf"\b{name}\((\d+)\)", text)}
        assert switches == {one.rule or one.trust for one in explorations}


def test_without_its_tools_it_says_what_to_install(tmp_path: Path) -> None:
    """In a sentence, with a status of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.model"],
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (2, "", 1)
    assert "the model needs spin and gcc: apt-get install spin" in done.stdout
