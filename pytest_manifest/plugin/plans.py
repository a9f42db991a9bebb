"""Keep the planning fixtures that a session knows, and their options."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_manifest.errors import PlanError

if TYPE_CHECKING:
    from pytest_manifest.manifest import Manifest
    from pytest_manifest.planning import PlanSpec


def fixture_name(spec: PlanSpec) -> str:
    """Return the pytest fixture's name: ``plan_WORKFLOW_MODE``, other characters as underscores."""
    text = f"plan_{spec.workflow}_{spec.mode}"
    return "".join(c if c.isalnum() else "_" for c in text)


class Plans:
    """Find planning fixtures by name, and keep what they planned in this session."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.target: Path | None = None
        self.force = False
        self.budget: float | None = None
        self.notes: dict[str, list[str]] = {}
        """The notes of each plan's function, shown beside its preview, by the plan's name."""
        self._known: dict[str, PlanSpec] = {}
        self._options: dict[str, Mapping[str, str]] = {}

    def register(self, namespace: object) -> None:
        """Register the planning fixtures among a plugin's or module's attributes."""
        from pytest_manifest.planning import PlanSpec

        values: Iterable[object] = list(getattr(namespace, "__dict__", {}).values())
        for value in values:
            spec = getattr(value, "__dict__", {}).get("manifest_plan")
            if isinstance(spec, PlanSpec):
                self._known[spec.name] = spec

    def find(self, name: str) -> PlanSpec:
        """Return the plan called ``WORKFLOW:MODE``, or ``WORKFLOW`` where it has one mode.

        Raises PlanError that lists the known plans.
        """
        if name in self._known:
            return self._known[name]
        modes = [spec for spec in self._known.values() if spec.workflow == name]
        if len(modes) == 1:
            return modes[0]
        if modes:
            listed = "\n".join(f"  {spec.name}  {spec.summary}" for spec in modes)
            raise PlanError(f"workflow {name!r} has several modes; choose one:\n{listed}")
        if not self._known:
            raise PlanError(
                f"there is no plan {name!r}: no planning fixture is known; make them known in the "
                "root conftest.py, for example with pytest_plugins = ['workflows.NAME.plan']"
            )
        near = get_close_matches(name, self._known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        known = ", ".join(sorted(self._known))
        raise PlanError(f"there is no plan {name!r}{hint} known plans: {known}")

    def set_options(self, spec: PlanSpec, options: Mapping[str, str]) -> None:
        """Set and check a plan's options.

        Raises PlanError where one is not valid, or where the plan has other options in this
        session.
        """
        from pytest_manifest.planning import convert_options

        convert_options(spec, options)
        present = self._options.setdefault(spec.name, options)
        if present != options:
            raise PlanError(
                f"plan {spec.name} was asked for with options {dict(present)} and {dict(options)} "
                "in one session; a session plans each mode once"
            )

    def evaluate(self, spec: PlanSpec, request: pytest.FixtureRequest) -> Manifest | None:
        """Run the planning function and freeze its plan.

        Raises PlanError, with nothing written, where the plan is estimated to cost more than the
        budget.
        """
        from pytest_manifest.planning import PlanBuilder, convert_options

        __tracebackhide__ = True
        values = convert_options(spec, self._options.get(spec.name, {}))
        with closing(PlanBuilder(spec, values)) as builder:
            fixtures = [request.getfixturevalue(name) for name in spec.fixtures]
            spec.function(builder, *fixtures, **values)
            builder.check_cost(self.budget)
            self.notes[spec.name] = builder.notes
            return builder.freeze(self.target, self.folder, force=self.force)
