"""Collect manifest files, and check what was collected."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import pytest

from pytest_manifest.bindings import (
    BESIDE_GROUPS,
    BUILTIN_ENTRY,
    BUILTIN_GROUP,
    NO_ENTRY,
    OUR_ARGUMENTS,
    EntryId,
    binding_of,
    bindings_of,
)
from pytest_manifest.compat.pytest import fixtures_of_definition, turn_into
from pytest_manifest.plugin import builtin_tests
from pytest_manifest.plugin.coordination import Collection
from pytest_manifest.plugin.manifest_store import ManifestStore, select
from pytest_manifest.plugin.option_conflicts import refuse_name
from pytest_manifest.plugin.session import ManifestSession, manifest_session
from pytest_manifest.plugin.synthetic import do_nothing
from pytest_manifest.text import short_path


class EntryItem(pytest.Function):
    """Run the built-in test of an entry; its location is the entry's line in the manifest."""

    def reportinfo(self) -> tuple[os.PathLike[str] | str, int | None, str]:
        value = self.callspec.params[BUILTIN_ENTRY]
        line = 1
        if isinstance(value, EntryId):
            manifests = manifest_session(self.config).manifests
            line = manifests.load(value.binding.manifest).line_of(value)
        return self.path, line - 1, self.name

    @cached_property
    def location(self) -> tuple[str, int | None, str]:
        assert isinstance(self.parent, ManifestFile)
        _, line, name = self.reportinfo()
        return self.parent.relative_path, line, name  # one path object for all tests of the file


class GroupItem(pytest.Function):
    """Run the test of a group of entries; its location is the line of the group's first entry."""

    def reportinfo(self) -> tuple[os.PathLike[str] | str, int | None, str]:
        name = str(self.callspec.params[BUILTIN_GROUP])
        group = manifest_session(self.config).manifests.groups(self.path)[name]
        return self.path, group.line - 1, self.getmodpath()


class ManifestFile(pytest.Module):
    """Collect a manifest's tests: one ``entry[ID]`` or ``entries[GROUP]`` each.

    An entry that another test verifies gets no ``entry[ID]``.
    """

    @cached_property
    def relative_path(self) -> str:
        """Return the file's path relative to pytest's root folder, as reports show it."""
        return os.path.relpath(self.path, self.config.rootpath)

    def _getobj(self) -> object:
        # The module that the built-in test lives in; a manifest is not Python.
        return builtin_tests

    def funcnamefilter(self, name: str) -> bool:
        return name in ("entry", "entries")

    def collect(self) -> Iterator[pytest.Item | pytest.Collector]:
        manifests = manifest_session(self.config).manifests
        try:
            manifest = manifests.load(self.path)
        except pytest.UsageError as error:
            raise self.CollectError(str(error)) from None
        manifests.add_file(self.path.resolve())
        if len(manifests.share(manifest)) == len(
            manifests.covered.get(manifest.path.resolve(), ())
        ):
            return
        single = manifests.options.aggregate is None
        test = builtin_tests.entry if single else builtin_tests.entries
        made = self.ihook.pytest_pycollect_makeitem(collector=self, name=test.__name__, obj=test)
        for item in made or ():
            # pytest makes the items, and no hook chooses their class.
            if type(item) is pytest.Function:
                turn_into(item, EntryItem if single else GroupItem)
            yield item


def collect_file(file_path: Path, parent: pytest.Collector) -> ManifestFile:
    """Make the collector of a manifest that the command line names.

    Raises CollectError where the file's name is not UTF-8.
    """
    try:
        refuse_name(file_path)
    except pytest.UsageError as error:
        raise pytest.Collector.CollectError(str(error)) from None
    node: ManifestFile = ManifestFile.from_parent(parent, path=file_path)
    return node


def collection_arguments(manifests: ManifestStore) -> list[str]:
    """Return the paths to collect when the user names none.

    These are the verify.py of each manifest's workflow, then the manifests themselves, whose
    built-in tests take the entries that no verify.py verifies.
    """
    arguments: list[str] = []
    for path in manifests.files:
        workflow = manifests.load(path).header.workflow
        verify = manifests.options.workflows / (workflow or "-") / "verify.py"
        if workflow and verify.is_file() and str(verify) not in arguments:
            arguments.append(str(verify))
    return arguments + [str(path) for path in manifests.files]


def drop_unneeded(report: pytest.CollectReport) -> None:
    """Remove the tests without an entry from the report, as ``parametrize`` marked them."""
    if report.result is not None:
        report.result = [node for node in report.result if not _has_param(node, NO_ENTRY)]


def _has_param(item: object, word: str) -> bool:
    """Check whether one of the plugin's fixtures has this marker word as the test's parameter."""
    callspec = getattr(item, "callspec", None)
    return callspec is not None and any(
        type(value) is str and value == word and name in OUR_ARGUMENTS
        for name, value in callspec.params.items()
    )


def record_collection(session: pytest.Session, state: ManifestSession) -> None:
    """Check the collected tests; in an xdist worker, report them to the controller.

    Raises pytest.UsageError for a problem, which an xdist worker leaves to the controller.
    """
    context = state.context
    problem = _unseen_override(session) or _beside_groups(session, state.manifests)
    if context.role == "worker" and context.coordination is not None:
        bindings = [binding_of(item) for item in session.items]
        worker = str(session.config.workerinput["workerid"])  # type: ignore[attr-defined]  # set by xdist in its workers
        context.coordination.publish_collection(worker, Collection(bindings, problem))
    elif problem is not None:
        raise pytest.UsageError(problem)
    if context.options.resume and session.config.option.collectonly:
        from pytest_manifest.plugin.dispatching import preview_resume

        preview_resume(session, state)
    if session.config.option.collectonly and session.config.option.verbose >= 0:
        from pytest_manifest.plugin.dispatching import preview_weak_evidence

        selection = select(state.manifests, bindings_of(session.items))
        preview_weak_evidence(selection, state.report.notices)


def _unseen_override(session: pytest.Session) -> str | None:
    """Return the error message for an override of ``dispatch`` below the root.

    Such an override would have no effect. Returns None where there is none.
    """
    seen: set[str] = set()
    for item in session.items:
        parent = item.parent
        if parent is None or parent.nodeid in seen or binding_of(item) is None:
            continue
        seen.add(parent.nodeid)
        for definition in fixtures_of_definition(_requesting(parent, "dispatch"), "dispatch"):
            if definition.baseid:
                return (
                    f"{definition.baseid} overrides the fixture 'dispatch', but dispatch happens "
                    "once for the whole session; move the override into the root conftest.py"
                )
    return None


def _requesting(parent: pytest.Collector, fixture: str) -> pytest.Function:
    """Make a test in the collector that asks for the fixture as its tests do; it is never run."""
    of_class = getattr(parent, "cls", None) is not None
    names = ("self", fixture) if of_class else (fixture,)
    item: pytest.Function = pytest.Function.from_parent(
        parent, name=fixture, callobj=builtin_tests.placeholder(fixture, do_nothing, names)
    )
    return item


def _beside_groups(session: pytest.Session, manifests: ManifestStore) -> str | None:
    """Return the error message for a selected test of single entries under --manifest-aggregate.

    Such a test would not run its own checks, and a group that passes must not hide that. Returns
    None where there is no such test.
    """
    item = next((item for item in session.items if _has_param(item, BESIDE_GROUPS)), None)
    if item is None:
        return None
    options, files = manifests.options, manifests.files
    name = short_path(files[0], options.root) if files else "FILE"
    rule = f"--manifest-aggregate={options.aggregate}"
    test = item.nodeid.removesuffix(f"[{BESIDE_GROUPS}]")
    return (
        f"{test} verifies each entry by itself, and {rule} has one test for many of them, which "
        "looks at their verdicts alone: leave it out, or name the manifest to have the verdicts "
        f"alone: pytest --manifest={name} {rule} {name}"
    )
