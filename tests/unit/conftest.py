"""No unit test depends on how fast a machine is: examples and their making take their time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from tests.unit.following_support import Make
    from tests.unit.resume_rig import ResumeRig
    from tests.unit.run_family import Family
    from tests.unit.tree_support import Trees

settings.register_profile(
    "patient", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("patient")


@pytest.fixture(autouse=True)
def _consistent_records() -> None:
    """Ledgers are written by hand here, to try one thing: they keep no promise."""


# Imported where they are needed: most tests need none of them.


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Makes runs that are written step by step, and closes them."""
    from tests.unit.following_support import MadeRun

    with ExitStack() as runs:
        yield lambda **given: runs.enter_context(closing(MadeRun(tmp_path, monkeypatch, **given)))


@pytest.fixture
def family() -> Iterator[Family]:
    """A run of one entry, whose job starts others."""
    from tests.unit.run_family import Family, entry
    from tests.unit.run_rig import Plan, rig

    with rig(Plan((entry(),))) as made:
        yield Family(made)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[ResumeRig]:
    """A run that can be resumed."""
    from tests.unit.resume_rig import resume_rig

    with resume_rig(tmp_path) as made:
        yield made


@pytest.fixture
def trees(tmp_path: Path) -> Iterator[Trees]:
    """A ledger of attempts with descendants."""
    from tests.unit.tree_support import Trees

    made = Trees(tmp_path / "run.sqlite")
    yield made
    made.ledger.close()
