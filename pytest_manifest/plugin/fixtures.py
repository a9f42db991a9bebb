"""Define the fixtures that a test may ask for, and make the planning fixtures of a project.

An idle session imports this module: nothing may be slow. PYTEST_DONT_REWRITE: it asserts nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_manifest.bindings import BUILTIN_ENTRY, BUILTIN_GROUP, Binding, binding_of
from pytest_manifest.errors import ManifestToolError
from pytest_manifest.plugin.session import ManifestSession, manifest_session

if TYPE_CHECKING:
    from pytest_manifest.manifest import Manifest
    from pytest_manifest.plugin.dispatching import SessionDispatch
    from pytest_manifest.plugin.verdict_reader import ManifestRun, VerdictReader
    from pytest_manifest.schema import Entry, Receipt


PlanFunction = Callable[..., None]


@pytest.fixture(scope="session")
def dispatch(request: pytest.FixtureRequest) -> Iterator[SessionDispatch]:
    """Send what was selected, once a session, and end the runs when the session ends.

    Override it in the root conftest.py to prepare something before anything is sent; ask for this
    one with ``request.getfixturevalue("dispatch")`` when that is done.
    """
    from pytest_manifest.plugin.dispatching import SessionDispatch

    def health() -> object:
        return request.getfixturevalue("manifest_health")

    runs = SessionDispatch(manifest_session(request.config), health)
    runs.begin()
    yield runs
    runs.end()


@pytest.fixture(scope="session")
def manifest_health() -> Callable[[], object] | None:
    """Return None: nobody says how well the services do that the jobs use.

    Override it in the root conftest.py to return a function that says "ok", "slow" or "stop".
    """
    return None


def _subject(request: pytest.FixtureRequest, what: str) -> tuple[ManifestSession, Binding]:
    """Return what the test verifies; raise pytest.UsageError where that is no such thing."""
    binding = binding_of(request.node)
    if binding is None or (what == "entry" and binding.entry is None):
        raise pytest.UsageError(f"{request.node.nodeid}: there is no {what} for this test")
    return manifest_session(request.config), binding


@pytest.fixture
def manifest(request: pytest.FixtureRequest) -> Manifest:
    """Return the manifest that this test verifies, or that holds the entry it verifies."""
    state, binding = _subject(request, "manifest")
    return state.manifests.load(binding.manifest)


@pytest.fixture
def entry(request: pytest.FixtureRequest) -> Entry:
    """Return the entry that this test verifies."""
    state, binding = _subject(request, "entry")
    return state.manifests.load(binding.manifest)[binding.entry or ""]


@pytest.fixture
def receipt(request: pytest.FixtureRequest, entry: Entry) -> Receipt | None:  # noqa: ARG001 - asking parametrizes
    """Return the entry's receipt; None where no receipt exists and the entry expected none."""
    _, binding = _subject(request, "entry")
    verdict = _verdicts(request).parsed(binding)
    return None if verdict is None else verdict.receipt


def _verdicts(request: pytest.FixtureRequest) -> VerdictReader:
    reader = manifest_session(request.config).verdicts
    if reader is None:
        raise pytest.UsageError(f"{request.node.nodeid}: nothing was dispatched for this test")
    return reader


@pytest.fixture(name=BUILTIN_ENTRY)
def _builtin_entry() -> None:
    """Have pytest parametrize the built-in verification by entry.

    Its argument is filled in before fixtures are set up.
    """


@pytest.fixture(name=BUILTIN_GROUP)
def _builtin_group(request: pytest.FixtureRequest) -> str:
    """Return the name of the group that the built-in verification is for."""
    return str(request.param)


@pytest.fixture(scope="session", name="manifest_secret")
def secret_registry() -> Callable[[str], str]:
    """Return the function that has a value hidden wherever this process shows it.

    It returns the value. Raises ValueError for one of less than four characters.
    """
    from pytest_manifest.redaction.texts import manifest_secret

    return manifest_secret


@pytest.fixture
def manifest_run(request: pytest.FixtureRequest, manifest: Manifest) -> ManifestRun:
    """Return the whole run of a manifest, after every selected entry has its verdict."""
    run = _verdicts(request).whole_run(manifest)
    # This session's budget counts, also where nothing is sent: by an audit, or when all has passed.
    budget = manifest_session(request.config).context.options.budget
    return run if budget is None else replace(run, budget=budget)


def planning_fixture(
    name: str, *, rerun: bool = True, default: bool = False
) -> Callable[[PlanFunction], PlanFunction]:
    """Make a function a planning fixture named ``WORKFLOW:MODE``.

    The function's first parameter receives the :class:`~pytest_manifest.PlanBuilder`, further
    positional ones are pytest fixtures by name, keyword-only ones are the plan's options, converted
    by their annotations. The fixture is called ``plan_WORKFLOW_MODE`` and returns the frozen
    :class:`~pytest_manifest.manifest.Manifest`, or None for an empty plan. ``rerun=False`` marks
    costly work: its manifest is not dispatched a second time unless the user insists.
    ``default=True``: of several modes this is the one that the workflow's name alone means.
    """
    from pytest_manifest.planning import plan_spec
    from pytest_manifest.plugin.plans import fixture_name

    def decorate(function: PlanFunction) -> PlanFunction:
        spec = plan_spec(name, function, rerun=rerun, default=default)

        def planned(request: pytest.FixtureRequest) -> Manifest | None:
            __tracebackhide__ = True  # a planner's traceback begins with the planner
            try:
                return manifest_session(request.config).plans.write(spec, request)
            except ManifestToolError as error:
                refusal = str(error)
            pytest.fail(refusal, pytrace=False)  # outside "except", so that no cause is shown

        planned.__doc__ = function.__doc__
        planned.__name__ = fixture_name(spec)
        planned.__module__ = function.__module__
        planned.manifest_plan = spec  # type: ignore[attr-defined]  # pytest's wrapper copies it: how plans are found
        return pytest.fixture(scope="session", name=fixture_name(spec))(planned)

    return decorate
