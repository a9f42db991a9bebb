"""Define the fixtures that a test may ask for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_manifest.bindings import BUILTIN_ENTRY, BUILTIN_GROUP, ManifestName, binding_of
from pytest_manifest.plugin.session import manifest_session

if TYPE_CHECKING:
    from pytest_manifest.manifest import Manifest
    from pytest_manifest.plugin.dispatching import Dispatch
    from pytest_manifest.plugin.verdict_reader import ManifestRun
    from pytest_manifest.schema import Entry, Receipt


@pytest.fixture(scope="session")
def dispatch(request: pytest.FixtureRequest) -> Iterator[Dispatch]:
    """Send what was selected, once a session, and end the runs when the session ends.

    Override it in the root conftest.py to prepare something before anything is sent; ask for this
    one with ``request.getfixturevalue("dispatch")`` when that is done.
    """
    from pytest_manifest.plugin.dispatching import Dispatch

    work = Dispatch(manifest_session(request.config))
    work.begin()
    yield work
    work.end()


@pytest.fixture
def manifest(request: pytest.FixtureRequest) -> Manifest:
    """Return the manifest that this test verifies, or that holds the entry it verifies."""
    param = getattr(request, "param", None)
    if isinstance(param, ManifestName):
        return manifest_session(request.config).load(param.path)
    binding = binding_of(request.node)
    if binding is None:
        raise pytest.UsageError(f"{request.node.nodeid}: there is no manifest for this test")
    return manifest_session(request.config).load(binding.manifest)


@pytest.fixture
def entry(request: pytest.FixtureRequest) -> Entry:
    """Return the entry that this test verifies."""
    binding = binding_of(request.node)
    if binding is None or binding.entry is None:
        raise pytest.UsageError(f"{request.node.nodeid}: there is no entry for this test")
    return manifest_session(request.config).load(binding.manifest)[binding.entry]


@pytest.fixture
def receipt(request: pytest.FixtureRequest, entry: Entry) -> Receipt | None:  # noqa: ARG001 - asking parametrizes
    """Return the entry's receipt; None where no receipt exists and the entry expected none."""
    return _receipt(request)


@pytest.fixture(name=BUILTIN_ENTRY)
def _builtin_entry() -> None:
    """Have pytest parametrize the built-in verification by entry.

    Its argument is filled in before fixtures are set up.
    """


@pytest.fixture(name=BUILTIN_GROUP)
def _builtin_group(request: pytest.FixtureRequest) -> str:
    """Return the name of the group that the built-in verification is for."""
    return str(request.param)


def _receipt(request: pytest.FixtureRequest) -> Receipt | None:
    book = manifest_session(request.config).verdicts
    binding = binding_of(request.node)
    if book is None or binding is None or binding.entry is None:
        raise pytest.UsageError(f"{request.node.nodeid}: nothing was dispatched for this test")
    settled = book.settled(binding)
    return None if settled is None else settled.receipt


@pytest.fixture
def manifest_run(request: pytest.FixtureRequest, manifest: Manifest) -> ManifestRun:
    """Return the whole run of a manifest, after every selected entry has its verdict."""
    state = manifest_session(request.config)
    if state.verdicts is None:
        raise pytest.UsageError(f"{request.node.nodeid}: nothing was dispatched for this test")
    run = state.verdicts.whole_run(manifest)
    # This session's budget counts, also where nothing is sent: by an audit, or when all has passed.
    return run if state.options.budget is None else replace(run, budget=state.options.budget)
