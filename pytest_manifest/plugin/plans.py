"""Find the planning fixtures of a session, and evaluate them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import closing
from difflib import get_close_matches
from inspect import getattr_static
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from pytest_manifest.errors import PlanError
from pytest_manifest.plugin.builtin_tests import placeholder
from pytest_manifest.plugin.context import PluginContext, user_errors

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
                # Statically: an object of the app's may answer every question, or raise at any.
                spec = getattr_static(value, "manifest_plan", None)
                if isinstance(spec, PlanSpec):
                    self._known[spec.name] = spec
        with user_errors():
            spec = self._named(name)
            convert_options(spec, options)
            present = self._options.setdefault(spec.name, options)
            if present != options:
                raise PlanError(
                    f"plan {spec.name} was asked for with options {dict(present)} and "
                    f"{dict(options)}; a session plans each mode once"
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
                f"there is no plan {name!r}: no planning fixture is known; name them in the root "
                "conftest.py, like pytest_plugins = ['workflows.NAME.plan'], or run 'manifest init'"
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
            try:
                fixtures = [request.getfixturevalue(name) for name in spec.fixtures]
                spec.function(builder, *fixtures, **values)
            except RuntimeError as error:
                if "Database access not allowed" not in str(error):
                    raise
                raise PlanError(  # pytest-django's own advice is meant for tests
                    f"plan {spec.name} reads Django's database, which pytest-django blocks outside "
                    "of tests; ask for the fixture django_db_blocker, not a mark or the fixture "
                    "db, and read within 'with django_db_blocker.unblock():'"
                ) from error
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
        coordination, spec = self._context.coordination, self.find(name, options)

        def make() -> Path | None:
            made = self.evaluate(session, spec, collecting=True)
            return None if made is None else made.path

        path = make() if coordination is None else coordination.planned_once(spec.name, make)
        return None if path is None else self._manifests.load(path)

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
            error = call.excinfo.value
            if isinstance(error, pytest.fail.Exception):
                raise pytest.UsageError(str(error))
            if isinstance(error, pytest.skip.Exception):
                raise pytest.UsageError(f"plan {spec.name} was skipped: {error}")
            if collecting:
                raise pytest.Collector.CollectError(
                    f"plan {spec.name} failed:\n{report.longreprtext}"
                )
            log_failure(item, report)
            raise session.Failed(f"plan {spec.name} failed; nothing was dispatched")
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


# Synthetic items: by these a fixture is evaluated where no test of the user's asks for it. Only
# public hooks are used, so that a fixture that raises is reported like any other.


class SyntheticItem(pytest.Function):
    """Stand for no file: reports call the item by its name alone."""

    @property
    def nodeid(self) -> str:
        # Reporters expect a part before the colons in every test's id.
        return f"manifest::{self.name}"

    def reportinfo(self) -> tuple[os.PathLike[str] | str, int | None, str]:
        return self.config.rootpath, 0, self.name


def synthetic_item(
    session: pytest.Session, name: str, body: Callable[..., None], *fixtures: str
) -> pytest.Function:
    """Make an item that asks for ``fixtures`` and, run as a test, calls ``body`` with them."""
    function = placeholder(name, body, fixtures)
    item: SyntheticItem = SyntheticItem.from_parent(session, name=name, callobj=function)
    return item


def do_nothing(**_values: object) -> None:
    """Serve as the body of an item that is evaluated for its fixtures alone."""


def set_up(item: pytest.Function) -> tuple[pytest.TestReport, pytest.CallInfo[None]]:
    """Evaluate an item's fixtures, keeping those of session scope.

    Returns the report of the set-up, which is not logged yet, and the call with its exception.
    """
    call_hook = _hooks_around(item)

    def evaluate() -> None:
        __tracebackhide__ = True
        call_hook("pytest_runtest_setup", item=item)

    call = pytest.CallInfo.from_call(evaluate, when="setup", reraise=(KeyboardInterrupt,))
    report: pytest.TestReport = call_hook("pytest_runtest_makereport", item=item, call=call)
    keeper = synthetic_item(item.session, "session", do_nothing)
    call_hook("pytest_runtest_teardown", item=item, nextitem=keeper)
    return report, call


def log_failure(item: pytest.Function, report: pytest.TestReport) -> None:
    """Report a set-up that failed to all reporters, as a test's: with a start and a finish."""
    hook = item.config.hook
    report.nodeid = item.nodeid  # pytest has made the report with the item's name alone
    hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    hook.pytest_runtest_logreport(report=report)
    hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)


def _hooks_around(item: pytest.Function) -> Callable[..., Any]:
    """Return what calls the hooks around a test, without plugins that hook
    ``pytest_runtest_protocol`` as well.

    A synthetic item goes through no protocol, as it is no test: it may be set up while tests are
    being collected, and must neither be timed nor run again nor shown. A plugin that prepares in
    the protocol what its other hooks need (as pytest-json-report does) would find nothing prepared.
    Nor are conftest.py files called outside the item's folder and its parents.
    """
    manager, folders = item.config.pluginmanager, (item.path, *item.path.parents)
    left_out = [
        one.plugin
        for one in item.config.hook.pytest_runtest_protocol.get_hookimpls()
        if not one.function.__module__.startswith(("_pytest.", "pytest_manifest."))
    ]
    for plugin in manager.get_plugins():
        file = Path(getattr(plugin, "__file__", None) or "-")
        is_conftest = isinstance(plugin, ModuleType) and file.name == "conftest.py"
        left_out += [plugin] if is_conftest and file.parent not in folders else []

    def call(name: str, **arguments: object) -> Any:
        __tracebackhide__ = True
        return manager.subset_hook_caller(name, left_out)(**arguments)

    return call
