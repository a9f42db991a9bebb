"""Find the planning fixtures of a session, and evaluate them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_manifest.errors import PlanError
from pytest_manifest.plugin.context import PluginContext, user_errors
from pytest_manifest.plugin.synthetic import do_nothing, log_failure, set_up, synthetic_item

if TYPE_CHECKING:
    from pytest_manifest.manifest import Manifest
    from pytest_manifest.planning import PlanSpec
    from pytest_manifest.plugin.manifest_store import ManifestStore


def fixture_name(spec: PlanSpec) -> str:
    """Return the pytest fixture's name: ``plan_WORKFLOW_MODE``, other characters as underscores."""
    text = f"plan_{spec.workflow}_{spec.mode}"
    return "".join(c if c.isalnum() else "_" for c in text)


class Plans:
    """Find planning fixtures by name, and evaluate each once in a session of several processes.

    ``target``: the file to write a plan to, None for one in the folder. ``planned``: the manifests
    that this process planned. ``is_empty``: the plan that the user asked for has nothing to do.
    ``notes``: those of each plan's function, shown beside its preview, by the plan's name.
    """

    def __init__(self, context: PluginContext, manifests: ManifestStore) -> None:
        self.target: Path | None = None
        self.planned: list[Manifest] = []
        self.is_empty = False
        self.notes: dict[str, list[str]] = {}
        self._context = context
        self._manifests = manifests
        self._known: dict[str, PlanSpec] = {}
        self._options: dict[str, Mapping[str, str]] = {}

    def find(self, name: str, options: Mapping[str, str]) -> PlanSpec:
        """Find the plan of this name among the planning fixtures of plugins and conftests.

        Raises pytest.UsageError for an unknown name or bad options, or where the plan has other
        options in this session.
        """
        from pytest_manifest.planning import PlanSpec, convert_options

        for plugin in self._context.config.pluginmanager.get_plugins():
            for value in list(getattr(plugin, "__dict__", {}).values()):
                spec = getattr(value, "__dict__", {}).get("manifest_plan")
                if isinstance(spec, PlanSpec):
                    self._known[spec.name] = spec
        with user_errors():
            spec = self._named(name)
            convert_options(spec, options)
            present = self._options.setdefault(spec.name, options)
            if present != options:
                raise PlanError(
                    f"plan {spec.name} was asked for with options {dict(present)} and "
                    f"{dict(options)} in one session; a session plans each mode once"
                )
        return spec

    def _named(self, name: str) -> PlanSpec:
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

    def write(self, spec: PlanSpec, request: pytest.FixtureRequest) -> Manifest | None:
        """Run the planning function and freeze its plan.

        Raises PlanError, with nothing written, where the plan is estimated to cost more than the
        budget.
        """
        from pytest_manifest.planning import PlanBuilder, convert_options

        __tracebackhide__ = True
        options = self._context.options
        values = convert_options(spec, self._options.get(spec.name, {}))
        with closing(PlanBuilder(spec, values)) as builder:
            with _database_explained(spec.name):
                fixtures = [request.getfixturevalue(name) for name in spec.fixtures]
                spec.function(builder, *fixtures, **values)
            # With --manifest-reuse it shows when the plan is run how much of it is sent.
            builder.check_cost(options.budget if options.reuse is None else None)
            self.notes[spec.name] = builder.notes
            force = options.plan_run == "force"
            return builder.freeze(self.target, options.plans, force=force)

    def plan(
        self, session: pytest.Session, name: str, options: Mapping[str, str]
    ) -> Manifest | None:
        """Return a plan's manifest; plan now unless another process of this session has done so.

        It is planned while tests are collected. Returns None for an empty plan. Raises
        pytest.UsageError for an unknown name or bad options, and a collection error where the
        planner raises.
        """
        coordination = self._context.coordination
        spec = self.find(name, options)
        if coordination is None:
            return self.evaluate(session, spec, collecting=True)
        with coordination.planning(spec.name) as known:
            if known.done:
                return None if known.path is None else self._manifests.load(known.path)
            manifest = self.evaluate(session, spec, collecting=True)
            known.finish(None if manifest is None else manifest.path)
            return manifest

    def evaluate(
        self, session: pytest.Session, spec: PlanSpec, *, collecting: bool = False
    ) -> Manifest | None:
        """Evaluate the planning fixture in this process, by an item that asks for it.

        Where the planner raises, raises session.Failed or, while ``collecting``, a collection
        error.
        """
        fixture = fixture_name(spec)
        item = synthetic_item(session, f"plan[{spec.name}]", do_nothing, fixture)
        report, call = set_up(item)
        if call.excinfo is not None:
            _raise_failure(item, spec, report, call.excinfo.value, collecting=collecting)
        manifest: Manifest | None = item.funcargs[fixture]  # type: ignore[assignment]  # the fixture's own type
        if manifest is not None:
            self._manifests.add(manifest)
            self.record(manifest)
        return manifest

    def record(self, manifest: Manifest) -> None:
        """Keep a plan for the summary, and call the hook ``pytest_manifest_planned``."""
        self.planned.append(manifest)
        config = self._context.config
        config.hook.pytest_manifest_planned(config=config, manifest=manifest)


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


def _raise_failure(
    item: pytest.Function,
    spec: PlanSpec,
    report: pytest.TestReport,
    error: BaseException,
    *,
    collecting: bool,
) -> None:
    """Raise what a failed planner means for the session, as :meth:`Plans.evaluate` says."""
    if isinstance(error, pytest.fail.Exception):
        raise pytest.UsageError(str(error))
    if isinstance(error, pytest.skip.Exception):
        raise pytest.UsageError(f"plan {spec.name} was skipped: {error}")
    if collecting:
        raise pytest.Collector.CollectError(f"plan {spec.name} failed:\n{report.longreprtext}")
    log_failure(item, report)
    raise item.session.Failed(f"plan {spec.name} failed; nothing was dispatched")
