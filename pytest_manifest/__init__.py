"""A batch of Celery jobs as a test suite: plan, dispatch, verify, report.

The names below are loaded when they are first used: importing this package must stay cheap, because
every worker and every pytest process does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_manifest.face.planning_fixture import planning_fixture
    from pytest_manifest.planning import PlanBuilder

__all__ = ["PlanBuilder", "planning_fixture"]


def __getattr__(name: str) -> object:
    if name == "planning_fixture":
        from pytest_manifest.face.planning_fixture import planning_fixture

        return planning_fixture
    if name == "PlanBuilder":
        from pytest_manifest.planning import PlanBuilder

        return PlanBuilder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
