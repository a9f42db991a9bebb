"""Make planning fixtures: session-scoped pytest fixtures that return a frozen manifest."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from pytest_manifest.errors import ManifestToolError
from pytest_manifest.plugin.plans import fixture_name
from pytest_manifest.plugin.session import manifest_session

if TYPE_CHECKING:
    from pytest_manifest.manifest import Manifest

PlanFunction = Callable[..., None]


def planning_fixture(name: str, *, rerun: bool = True) -> Callable[[PlanFunction], PlanFunction]:
    """Make a function a planning fixture named ``WORKFLOW:MODE``.

    The function's first parameter receives the :class:`~pytest_manifest.PlanBuilder`, further
    positional ones are pytest fixtures by name, keyword-only ones are the plan's options, converted
    by their annotations. The fixture is called ``plan_WORKFLOW_MODE`` and returns the frozen
    :class:`~pytest_manifest.manifest.Manifest`, or None for an empty plan. ``rerun=False`` marks
    costly work: its manifest is not dispatched a second time unless the user insists.
    """
    from pytest_manifest.planning import plan_spec

    def decorate(function: PlanFunction) -> PlanFunction:
        spec = plan_spec(name, function, rerun=rerun)

        def planned(request: pytest.FixtureRequest) -> Manifest | None:
            __tracebackhide__ = True  # a planner's traceback begins with the planner
            try:
                return manifest_session(request.config).plans.evaluate(spec, request)
            except ManifestToolError as error:
                refusal = str(error)
            pytest.fail(refusal, pytrace=False)  # outside "except", so that no cause is shown

        planned.__doc__ = function.__doc__
        planned.__name__ = fixture_name(spec)
        planned.__module__ = function.__module__
        planned.manifest_plan = spec  # type: ignore[attr-defined]  # pytest's wrapper copies it: how plans are found
        return pytest.fixture(scope="session", name=fixture_name(spec))(planned)

    return decorate
