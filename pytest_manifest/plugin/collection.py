"""Collect manifest files, parametrize tests by the entries that they verify, and check the outcome.

Tags select by ``-m`` and ``-k``, and are no markers. A marker acts: a tag ``skip`` or ``xfail``
would hide an entry's failure, and ``timeout`` or ``usefixtures`` would break the session off.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_manifest import bindings
from pytest_manifest.bindings import Binding, Subject
from pytest_manifest.compat.pytest import (
    fixtures_of_definition,
    hide_labels,
    show_labels,
    turn_into,
)
from pytest_manifest.plugin import builtin_tests, fixtures
from pytest_manifest.plugin.coordination import Collection
from pytest_manifest.plugin.manifest_store import ManifestStore, select
from pytest_manifest.plugin.plans import do_nothing
from pytest_manifest.plugin.run_options import refuse_name
from pytest_manifest.plugin.session import ManifestSession, manifest_session
from pytest_manifest.text import short_path

if TYPE_CHECKING:
    from pytest_manifest.manifest import Manifest
    from pytest_manifest.manifest.reader import Outline


class BuiltinItem(pytest.Function):
    """Run the built-in test of an entry, or of a group of entries.

    Its location is the line of the entry, or of the group's first one, in the manifest.
    """

    def reportinfo(self) -> tuple[os.PathLike[str] | str, int | None, str]:
        binding, file, line = bindings.binding_of(self), self.parent, 1
        assert isinstance(file, ManifestFile)
        if binding is not None and binding.group is not None:
            line = manifest_session(self.config).manifests.groups(self.path)[binding.group].line
        elif binding is not None:
            line = file.manifest.line_of(binding.entry or "")
        return self.path, line - 1, self.name

    @cached_property
    def location(self) -> tuple[str, int | None, str]:
        assert isinstance(self.parent, ManifestFile)
        _, line, name = self.reportinfo()
        return self.parent.relative_path, line, name  # one path object for all tests of the file


class ManifestFile(pytest.Module):
    """Collect a manifest's tests: one ``entry[ID]`` or ``entries[GROUP]`` each.

    An entry that another test verifies gets no ``entry[ID]``.
    """

    @cached_property
    def relative_path(self) -> str:
        """Return the file's path relative to pytest's root folder, as reports show it."""
        return os.path.relpath(self.path, self.config.rootpath)

    @cached_property
    def manifest(self) -> Manifest:
        """Return the manifest in the file. Raises pytest.UsageError with every fault of it."""
        return manifest_session(self.config).manifests.load(self.path)

    def _getobj(self) -> object:
        # The module that the built-in test lives in; a manifest is not Python.
        return builtin_tests

    def funcnamefilter(self, name: str) -> bool:
        return name in ("entry", "entries")

    def collect(self) -> Iterator[pytest.Item | pytest.Collector]:
        manifests = manifest_session(self.config).manifests
        try:
            manifest = self.manifest
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
                turn_into(item, BuiltinItem)
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
    """Remove the tests without an entry from the report, as :func:`generate_tests` marked them."""
    if report.result is not None:
        report.result = [node for node in report.result if not _has_param(node, bindings.NO_ENTRY)]


def _has_param(item: object, word: str) -> bool:
    """Check whether one of the plugin's fixtures has this marker word as the test's parameter."""
    params = bindings.params_of(item)
    return any(params.get(name) is word for name in bindings.OUR_ARGUMENTS)


def record_collection(session: pytest.Session, state: ManifestSession) -> None:
    """Check the collected tests; in an xdist worker, report them to the controller.

    Raises pytest.UsageError for a problem, which an xdist worker leaves to the controller.
    """
    context = state.context
    problem = _unseen_override(session) or _beside_groups(session, state.manifests)
    if context.role == "worker" and context.coordination is not None:
        found = [*map(bindings.binding_of, session.items)]
        worker = str(session.config.workerinput["workerid"])  # type: ignore[attr-defined]  # set by xdist in its workers
        context.coordination.publish_collection(worker, Collection(found, problem))
    elif problem is not None:
        raise pytest.UsageError(problem)
    if context.options.resume and session.config.option.collectonly:
        from pytest_manifest.plugin.dispatching import preview_resume

        preview_resume(session, state)
    if session.config.option.collectonly and session.config.option.verbose >= 0:
        from pytest_manifest.plugin.dispatching import preview_weak_evidence

        selection = select(state.manifests, bindings.bindings_of(session.items))
        preview_weak_evidence(selection, state.report.notices)


def _unseen_override(session: pytest.Session) -> str | None:
    """Return the error message for an override of ``dispatch`` below the root.

    Such an override would have no effect. Returns None where there is none.
    """
    seen: set[str] = set()
    for item in session.items:
        parent = item.parent
        if parent is None or parent.nodeid in seen or bindings.binding_of(item) is None:
            continue
        seen.add(parent.nodeid)
        names = ("dispatch",) if getattr(parent, "cls", None) is None else ("self", "dispatch")
        asks = builtin_tests.placeholder("dispatch", do_nothing, names)  # it is never run
        test: pytest.Function = pytest.Function.from_parent(parent, name="dispatch", callobj=asks)
        for definition in fixtures_of_definition(test, "dispatch"):
            if definition.baseid:
                return (
                    f"{definition.baseid} overrides the fixture 'dispatch', but dispatch happens "
                    "once for the whole session; move the override into the root conftest.py"
                )
    return None


def _beside_groups(session: pytest.Session, manifests: ManifestStore) -> str | None:
    """Return the error message for a selected test of single entries under --manifest-aggregate.

    Such a test would not run its own checks, and a group that passes must not hide that. Returns
    None where there is no such test.
    """
    item = next((item for item in session.items if _has_param(item, bindings.BESIDE_GROUPS)), None)
    if item is None:
        return None
    options, files = manifests.options, manifests.files
    name = short_path(files[0], options.root) if files else "FILE"
    rule = f"--manifest-aggregate={options.aggregate}"
    test = item.nodeid.removesuffix(f"[{bindings.BESIDE_GROUPS}]")
    return (
        f"{test} verifies each entry by itself, and {rule} has one test for many of them, which "
        "looks at their verdicts alone: leave it out, or name the manifest to have the verdicts "
        f"alone: pytest --manifest={name} {rule} {name}"
    )


# Parametrizing


def generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize tests that ask for the plugin's fixtures.

    Raises CollectError for a user's mistake.
    """
    names = metafunc.fixturenames
    asked = next(
        (one for one in (bindings.BUILTIN_ENTRY, bindings.BUILTIN_GROUP) if one in names), None
    )
    asked = asked or next((one for one in ("entry", "manifest") if _is_ours(metafunc, one)), None)
    if asked is None:
        return
    try:
        manifests = manifest_session(metafunc.config).manifests
        if asked == bindings.BUILTIN_GROUP:
            path = metafunc.definition.path.resolve()
            names = [group.name for group in manifests.groups(path)]
            of = [Binding(path, None, group=one, builtin=True) for one in names]
            _parametrize(metafunc, asked, [*map(Subject, names, of)], names)
        elif asked == "entry" and manifests.options.aggregate is not None:
            _parametrize(metafunc, asked, [bindings.BESIDE_GROUPS], [bindings.BESIDE_GROUPS])
        else:
            _by_manifests(metafunc, asked)
    except pytest.UsageError as error:
        raise pytest.Collector.CollectError(str(error)) from None


def _is_ours(metafunc: pytest.Metafunc, name: str) -> bool:
    """Check that the test would get the plugin's fixture, not a project's of that name."""
    if name not in metafunc.fixturenames:
        return False
    for definition in reversed(fixtures_of_definition(metafunc.definition, name)):
        if definition.func.__module__ == fixtures.__name__:
            return True
        if name not in definition.argnames:
            return False  # a project's own; an override that extends ours asks for it by that name
    return False


def _by_manifests(metafunc: pytest.Metafunc, argument: str) -> None:
    """Parametrize a test by the entries, or the manifests, that it verifies."""
    state = manifest_session(metafunc.config)
    found = _manifests_for(state, metafunc)
    if isinstance(found, str):
        skipped = pytest.param(None, marks=pytest.mark.skip(reason=found))
        _parametrize(metafunc, argument, [skipped], ["no-manifest"])
        return
    builtin, whole = argument == bindings.BUILTIN_ENTRY, "manifest_run" in metafunc.fixturenames
    values: list[object] = []
    ids: list[str] = []
    for manifest in found:
        path = manifest.path.resolve()
        chosen = _chosen(state.manifests, metafunc, manifest)
        if argument == "manifest":
            if next(chosen, None) is not None:
                values.append(Subject(path.stem, Binding(path, None, whole_run=whole)))
                ids.append(path.stem)
            continue
        covered = state.manifests.covered.setdefault(path, set())
        for entry in chosen:
            if builtin and entry.id in covered:
                continue
            tags = _tags(state.manifests, metafunc.config, entry.tags) if entry.tags else ()
            values.append(Subject(entry.id, Binding(path, entry.id, builtin=builtin), tags))
            ids.append(f"{path.stem}:{entry.id}" if len(found) > 1 else entry.id)
            if not builtin:
                covered.add(entry.id)
    # pytest would make an empty parameter set a skipped test without a reason.
    # :func:`drop_unneeded` removes this one.
    _parametrize(metafunc, argument, values or [bindings.NO_ENTRY], ids or [bindings.NO_ENTRY])


def _parametrize(
    metafunc: pytest.Metafunc, argument: str, values: Sequence[object], ids: Sequence[str]
) -> None:
    metafunc.parametrize(argument, values, ids=[*map(bindings.RawId, ids)], indirect=True)


def _manifests_for(state: ManifestSession, metafunc: pytest.Metafunc) -> Sequence[Manifest] | str:
    """Return the manifests that a test verifies; where there is none, why it is skipped."""
    manifests = state.manifests
    node = metafunc.definition.getparent(ManifestFile)
    if node is not None:
        return [manifests.load(node.path)]
    mark = metafunc.definition.get_closest_marker("manifest")
    if mark is not None:
        return _marked(state, metafunc, mark)
    workflow, test, folder = None, metafunc.definition.path, manifests.options.workflows
    if test.is_relative_to(folder) and test.parent != folder:
        workflow = test.relative_to(folder).parts[0]
    found = [
        manifest
        for manifest in map(manifests.load, manifests.files)
        if workflow is None or manifest.header.workflow == workflow
    ]
    whose = f" of workflow {workflow!r}" if workflow else ""
    return found or f"no manifest{whose} was given; add --manifest=FILE"


def _marked(
    state: ManifestSession, metafunc: pytest.Metafunc, mark: pytest.Mark
) -> Sequence[Manifest] | str:
    """Return the manifest that ``@pytest.mark.manifest(...)`` names: a plan's, or a file.

    For an empty plan, and where no test runs, returns why the test is skipped. Raises
    pytest.UsageError where the mark is wrong or the file is missing.
    """
    if len(mark.args) != 1 or not isinstance(mark.args[0], str):
        raise pytest.UsageError(
            f"{metafunc.definition.nodeid}: write @pytest.mark.manifest('WORKFLOW:MODE') "
            "or @pytest.mark.manifest('FILE.jsonl')"
        )
    name = mark.args[0]
    if name.endswith((".jsonl", ".yaml", ".yml")):
        path = state.options.root / name
        if not path.is_file():
            raise pytest.UsageError(f"{metafunc.definition.nodeid}: there is no manifest {path}")
        return [state.manifests.load(path)]
    if not state.options.may_dispatch:
        # A session that only shows its collection must not run planners: they may be costly.
        return f"plan {name} is made when the tests run"
    state.session_runs.take_signals()
    manifest = state.plans.plan(metafunc.definition.session, name, mark.kwargs)
    return f"plan {name} is empty: there is nothing to do" if manifest is None else [manifest]


def _chosen(
    manifests: ManifestStore, metafunc: pytest.Metafunc, manifest: Manifest
) -> Iterator[Outline]:
    """Yield the session's entries that the test's ``@pytest.mark.entries`` marks select.

    The marks filter by ``task``, ``mode`` and ``tag``; a session with --manifest-shard has the
    entries of its shard. Raises pytest.UsageError where a mark has another keyword.
    """
    filters = [dict(mark.kwargs) for mark in metafunc.definition.iter_markers("entries")]
    for chosen in filters:
        unknown = set(chosen) - {"task", "mode", "tag"}
        if unknown:
            raise pytest.UsageError(
                f"{metafunc.definition.nodeid}: @pytest.mark.entries knows task, mode and tag, "
                f"not {', '.join(sorted(unknown))}"
            )
    mode = manifest.header.mode or ""
    if not all(_matches(chosen.get("mode"), (mode,)) for chosen in filters):
        return
    sharded = manifests.options.shard is not None
    for entry in manifest.outlines(manifests.share(manifest) if sharded else None):
        if not filters or all(
            _matches(chosen.get("task"), (entry.task,)) and _matches(chosen.get("tag"), entry.tags)
            for chosen in filters
        ):
            yield entry


def _matches(patterns: str | Sequence[str] | None, values: Sequence[str]) -> bool:
    if patterns is None:
        return True
    listed = [patterns] if isinstance(patterns, str) else patterns
    return any(fnmatchcase(value, pattern) for value in values for pattern in listed)


def _tags(manifests: ManifestStore, config: pytest.Config, given: Sequence[str]) -> tuple[str, ...]:
    """Return an entry's tags as one tuple shared by all entries with the same tags.

    Registers each tag as a marker, as pytest's ``--strict-markers`` refuses ``-m`` with unknown
    names.
    """
    key = tuple(given)
    if key not in manifests.tags:
        manifests.tags[key] = tuple(tag for tag in key if tag)
        for tag in (one for one in key if one not in manifests.markers):
            manifests.markers.add(tag)
            if not set(tag) & set(":("):  # pytest ends a marker's name at these
                config.addinivalue_line("markers", f"{tag}: a tag of manifest entries")
    return manifests.tags[key]


@contextlib.contextmanager
def shown_to_selection(items: Sequence[pytest.Item]) -> Iterator[None]:
    """Show the tags of these tests to ``-m`` and ``-k`` within the block.

    pytest selects by all markers of a test, which it asks for without a name. Code that acts on a
    marker asks for it by name, and is given the markers alone.
    """
    tagged = [(item, tags) for item in items if (tags := bindings.tags_of(item))]
    for item, tags in tagged:
        item.extra_keyword_matches.update(tags)
        for tag in tags:
            if tag not in item.keywords:  # a marker of this name stays what it is
                item.keywords[tag] = True
        show_labels(item, tags)
    try:
        yield
    finally:
        for item, _ in tagged:  # may repeat an item: a test that the user names twice
            hide_labels(item)
