"""Find the planning fixtures of a session, and evaluate them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_manifest.errors import PlanError
from pytest_manifest.plugin.context import PluginContext, user_errors

if TYPE_CHECKING:
    from pytest_manifest.manifest import Manifest
    from pytest_manifest.planning import PlanSpec
    from pytest_manifest.plugin.manifest_store import ManifestStore
    from pytest_manifest.plugin.options import Options


def fixture_name(spec: PlanSpec) -> str:
    """Return the pytest fixture's name: ``plan_WORKFLOW_MODE``, other characters as underscores."""
    text = f"plan_{spec.workflow}_{spec.mode}"
    return "".join(c if c.isalnum() else "_" for c in text)


class Plans:
    """Find planning fixtures by name, and run their functions."""

    def __init__(self, options: Options) -> None:
        self.folder = options.plans
        self.target: Path | None = None
        """The file to write a plan to, None for one in the folder."""
        self.force = options.plan_run == "force"
        # With --manifest-reuse it shows when the plan is run how much of it is sent.
        self.budget = options.budget if options.reuse is None else None
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
        """Return the plan called ``WORKFLOW:MODE``, or ``WORKFLOW`` by its one or default mode.

        Raises PlanError that lists the known plans.
        """
        if name in self._known:
            return self._known[name]
        modes = [spec for spec in self._known.values() if spec.workflow == name]
        meant = [spec for spec in modes if spec.is_default] or modes
        if len(meant) == 1:
            return meant[0]
        if modes:
            listed = "\n".join(f"  {spec.name}  {spec.summary}" for spec in modes)
            raise PlanError(f"workflow {name!r} has several modes; choose one:\n{listed}")
        if not self._known:
            raise PlanError(
                f"there is no plan {name!r}: no planning fixture is known; make them known in the "
                "root conftest.py, for example with pytest_plugins = ['workflows.NAME.plan'], or "
                "have 'manifest init' write a first one"
            )
        near = get_close_matches(name, self._known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ";"
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
            with _database_explained(spec.name):
                fixtures = [request.getfixturevalue(name) for name in spec.fixtures]
                spec.function(builder, *fixtures, **values)
            builder.check_cost(self.budget)
            self.notes[spec.name] = builder.notes
            return builder.freeze(self.target, self.folder, force=self.force)


@contextmanager
def _database_explained(plan: str) -> Iterator[None]:
    """Raise PlanError where pytest-django blocks the database; its advice is meant for tests."""
    try:
        yield
    except RuntimeError as error:
        if "Database access not allowed" not in str(error):
            raise
        raise PlanError(
            f"plan {plan} reads Django's database, which pytest-django blocks outside of tests; "
            "no django_db mark helps, as a planning fixture is no test; have it ask for the "
            "fixture django_db_blocker, and read within 'with django_db_blocker.unblock():' (the "
            "fixture db would lead it to the test database, which your workers do not use)"
        ) from error


class PlanRunner:
    """Evaluate planning fixtures, each once in a session of one or more processes.

    ``planned``: the manifests that this process planned. ``is_empty``: the plan that the user asked
    for has nothing to do.
    """

    def __init__(self, context: PluginContext, manifests: ManifestStore) -> None:
        self.known = Plans(context.options)
        self.planned: list[Manifest] = []
        self.is_empty = False
        self._context = context
        self._manifests = manifests

    def find(self, name: str, options: Mapping[str, str]) -> PlanSpec:
        """Find the plan of this name among the planning fixtures of plugins and conftests.

        Raises pytest.UsageError for an unknown name or bad options.
        """
        for plugin in self._context.config.pluginmanager.get_plugins():
            self.known.register(plugin)
        with user_errors():
            spec = self.known.find(name)
            self.known.set_options(spec, options)
        return spec

    def plan(
        self,
        session: pytest.Session,
        name: str,
        options: Mapping[str, str],
        *,
        collecting: bool = False,
    ) -> Manifest | None:
        """Return a plan's manifest; plan now unless another process of this session has done so.

        Returns None for an empty plan. Raises pytest.UsageError for an unknown name or bad options;
        where the planner raises, session.Failed or, while ``collecting``, a collection error.
        """
        coordination = self._context.coordination
        spec = self.find(name, options)
        if coordination is None:
            return self._evaluate(session, spec, collecting=collecting)
        with coordination.planning(spec.name) as known:
            if known.done:
                return None if known.path is None else self._manifests.load(known.path)
            manifest = self._evaluate(session, spec, collecting=collecting)
            known.finish(None if manifest is None else manifest.path)
            return manifest

    def plan_alone(
        self, session: pytest.Session, name: str, options: Mapping[str, str]
    ) -> Manifest | None:
        """Return a plan's manifest as :meth:`plan` does, without a look at other processes."""
        return self._evaluate(session, self.find(name, options), collecting=False)

    def _evaluate(
        self, session: pytest.Session, spec: PlanSpec, *, collecting: bool
    ) -> Manifest | None:
        """Evaluate the planning fixture in this process, by an item that asks for it."""
        from pytest_manifest.plugin.synthetic import do_nothing, set_up, synthetic_item

        fixture = fixture_name(spec)
        item = synthetic_item(session, f"plan[{spec.name}]", do_nothing, fixture)
        report, call = set_up(item)
        if call.excinfo is not None:
            _raise_failure(item, spec, report, call, collecting=collecting)
        manifest: Manifest | None = item.funcargs[fixture]  # type: ignore[assignment]  # the fixture's own type
        if manifest is None:
            return None
        self._manifests.add(manifest)
        self.record(manifest)
        return manifest

    def record(self, manifest: Manifest) -> None:
        """Keep a plan for the summary, and call the hook ``pytest_manifest_planned``."""
        self.planned.append(manifest)
        config = self._context.config
        config.hook.pytest_manifest_planned(config=config, manifest=manifest)


def _raise_failure(
    item: pytest.Function,
    spec: PlanSpec,
    report: pytest.TestReport,
    call: pytest.CallInfo[None],
    *,
    collecting: bool,
) -> None:
    """Raise what a failed planner means for the session, as :meth:`PlanRunner.plan` says."""
    from pytest_manifest.plugin.synthetic import log_failure

    assert call.excinfo is not None
    if isinstance(call.excinfo.value, pytest.fail.Exception):
        raise pytest.UsageError(str(call.excinfo.value))
    if isinstance(call.excinfo.value, pytest.skip.Exception):
        raise pytest.UsageError(f"plan {spec.name} was skipped: {call.excinfo.value}")
    if collecting:
        raise pytest.Collector.CollectError(f"plan {spec.name} failed:\n{report.longreprtext}")
    log_failure(item, report)
    raise item.session.Failed(f"plan {spec.name} failed; nothing was dispatched")
