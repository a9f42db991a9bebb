"""Collect manifest files, and parametrize tests by the entries that they verify."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_manifest.bindings import (
    BESIDE_GROUPS,
    BUILTIN_ENTRY,
    BUILTIN_GROUP,
    NO_ENTRY,
    OUR_ARGUMENTS,
    EntryId,
    GroupName,
    ManifestName,
    RawId,
)
from pytest_manifest.compat.pytest import fixtures_of_definition, turn_into
from pytest_manifest.plugin import fixtures, verification
from pytest_manifest.plugin.interrupts import take_signals
from pytest_manifest.plugin.option_values import refuse_name
from pytest_manifest.plugin.session import ManifestSession, manifest_session
from pytest_manifest.text import short_path

if TYPE_CHECKING:
    from pytest_manifest.manifest import Manifest
    from pytest_manifest.schema import Entry


class EntryItem(pytest.Function):
    """Run the built-in test of an entry; its location is the entry's line in the manifest."""

    def reportinfo(self) -> tuple[os.PathLike[str] | str, int | None, str]:
        value = self.callspec.params[BUILTIN_ENTRY]
        line = 1
        if isinstance(value, EntryId):
            line = manifest_session(self.config).load(value.binding.manifest).line_of(value)
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
        group = manifest_session(self.config).groups(self.path)[name]
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
        return verification

    def funcnamefilter(self, name: str) -> bool:
        return name in ("entry", "entries")

    def collect(self) -> Iterator[pytest.Item | pytest.Collector]:
        state = manifest_session(self.config)
        try:
            manifest = state.load(self.path)
        except pytest.UsageError as error:
            raise self.CollectError(str(error)) from None
        state.add_file(self.path.resolve())
        sharded = state.options.shard is not None
        count = len(state.share(manifest)) if sharded else len(manifest)
        if count == len(state.covered.get(manifest.path.resolve(), ())):
            return
        single = state.options.aggregate is None
        test = verification.entry if single else verification.entries
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


def collection_arguments(state: ManifestSession, paths: Sequence[Path]) -> list[str]:
    """Return the paths to collect for these manifests when the user names none.

    These are the verify.py of each manifest's workflow, then the manifests themselves, whose
    built-in tests take the entries that no verify.py verifies.
    """
    arguments: list[str] = []
    for path in paths:
        workflow = state.load(path).header.workflow
        verify = state.options.workflows / (workflow or "-") / "verify.py"
        if workflow and verify.is_file() and str(verify) not in arguments:
            arguments.append(str(verify))
    return arguments + [str(path) for path in paths]


def generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize tests that ask for the plugin's fixtures.

    Raises CollectError for a user's mistake.
    """
    try:
        _parametrize_ours(metafunc)
    except pytest.UsageError as error:
        raise pytest.Collector.CollectError(str(error)) from None


def _parametrize_ours(metafunc: pytest.Metafunc) -> None:
    if BUILTIN_ENTRY in metafunc.fixturenames:
        _by_entry(metafunc, BUILTIN_ENTRY, builtin=True)
    elif BUILTIN_GROUP in metafunc.fixturenames:
        _by_group(metafunc)
    elif _is_ours(metafunc, "entry"):
        if manifest_session(metafunc.config).options.aggregate is None:
            _by_entry(metafunc, "entry", builtin=False)
        else:
            metafunc.parametrize("entry", [BESIDE_GROUPS], ids=[BESIDE_GROUPS], indirect=True)
    elif _is_ours(metafunc, "manifest"):
        _by_manifest(metafunc)


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


def _by_entry(metafunc: pytest.Metafunc, argument: str, *, builtin: bool) -> None:
    state = manifest_session(metafunc.config)
    manifests = _manifests_for(state, metafunc)
    if manifests is None:
        return
    several = len(manifests) > 1
    values: list[object] = []
    ids: list[RawId] = []
    for manifest in manifests:
        path = manifest.path.resolve()
        covered = state.covered.setdefault(path, set())
        chosen = _chosen(state, metafunc, manifest)
        for entry in chosen:
            if builtin and entry.id in covered:
                continue
            tags = _tags(metafunc.config, tuple(entry.tags)) if entry.tags else ()
            values.append(EntryId(entry.id, path, tags))
            ids.append(RawId(f"{path.stem}:{entry.id}" if several else entry.id))
            if not builtin:
                covered.add(entry.id)
    _parametrize(metafunc, argument, values, ids)


def _by_group(metafunc: pytest.Metafunc) -> None:
    state = manifest_session(metafunc.config)
    node = metafunc.definition.getparent(ManifestFile)
    assert node is not None
    path = node.path.resolve()
    names = [group.name for group in state.groups(path)]
    values = [GroupName(name, path) for name in names]
    metafunc.parametrize(BUILTIN_GROUP, values, ids=[RawId(name) for name in names], indirect=True)


def beside_groups(session: pytest.Session) -> str | None:
    """Return the error message for a selected test of single entries under --manifest-aggregate.

    Such a test would not run its own checks, and a group that passes must not hide that. Returns
    None where there is no such test.
    """
    state = manifest_session(session.config)
    item = next((item for item in session.items if _has_param(item, BESIDE_GROUPS)), None)
    if item is None:
        return None
    name = short_path(state.files[0], state.options.root) if state.files else "FILE"
    rule = f"--manifest-aggregate={state.options.aggregate}"
    test = item.nodeid.removesuffix(f"[{BESIDE_GROUPS}]")
    return (
        f"{test} verifies each entry by itself, and {rule} has one test for many of them, which "
        "looks at their verdicts alone: leave it out, or name the manifest to have the verdicts "
        f"alone: pytest --manifest={name} {rule} {name}"
    )


def _by_manifest(metafunc: pytest.Metafunc) -> None:
    state = manifest_session(metafunc.config)
    manifests = _manifests_for(state, metafunc)
    if manifests is None:
        return
    values: list[object] = []
    ids: list[RawId] = []
    for manifest in manifests:
        if next(iter(_chosen(state, metafunc, manifest)), None) is not None:
            path = manifest.path.resolve()
            values.append(ManifestName(path.stem, path))
            ids.append(RawId(path.stem))
    _parametrize(metafunc, "manifest", values, ids)


def _parametrize(
    metafunc: pytest.Metafunc, argument: str, values: list[object], ids: list[RawId]
) -> None:
    if values:
        metafunc.parametrize(argument, values, ids=ids, indirect=True)
    else:
        # pytest would make an empty parameter set a skipped test without a reason.
        # :func:`drop_unneeded` removes this one.
        metafunc.parametrize(argument, [NO_ENTRY], ids=[NO_ENTRY], indirect=True)


def drop_unneeded(report: pytest.CollectReport) -> None:
    """Remove the tests without an entry from the report, as :func:`_parametrize` marked them."""
    if report.result is not None:
        report.result = [node for node in report.result if not _is_unneeded(node)]


def _is_unneeded(item: object) -> bool:
    return _has_param(item, NO_ENTRY)


def _has_param(item: object, word: str) -> bool:
    """Check whether one of the plugin's fixtures has this marker word as the test's parameter."""
    callspec = getattr(item, "callspec", None)
    return callspec is not None and any(
        type(value) is str and value == word and name in OUR_ARGUMENTS
        for name, value in callspec.params.items()
    )


def _manifests_for(state: ManifestSession, metafunc: pytest.Metafunc) -> list[Manifest] | None:
    """Return the manifests that a test verifies.

    Where there is none the test is parametrized as a skipped one that names the reason, and None is
    returned.
    """
    node = metafunc.definition.getparent(ManifestFile)
    if node is not None:
        return [state.load(node.path)]
    mark = metafunc.definition.get_closest_marker("manifest")
    if mark is not None:
        return _marked(state, metafunc, mark)
    workflow = _workflow_of(state, metafunc.definition.path)
    found = [
        manifest
        for manifest in map(state.load, state.files)
        if workflow is None or manifest.header.workflow == workflow
    ]
    if found:
        return found
    whose = f" of workflow {workflow!r}" if workflow else ""
    _say_why_not(metafunc, f"no manifest{whose} was given; add --manifest=FILE")
    return None


def _marked(
    state: ManifestSession, metafunc: pytest.Metafunc, mark: pytest.Mark
) -> list[Manifest] | None:
    """Return the manifest that ``@pytest.mark.manifest(...)`` names: a plan's, or a file.

    Returns None, with the test skipped, for an empty plan and where no test runs. Raises
    pytest.UsageError where the mark is wrong or the file is missing.
    """
    if len(mark.args) != 1 or not isinstance(mark.args[0], str):
        raise pytest.UsageError(
            f"{metafunc.definition.nodeid}: write @pytest.mark.manifest('WORKFLOW:MODE') "
            "or @pytest.mark.manifest('FILE.jsonl')"
        )
    name = mark.args[0]
    if name.endswith(".jsonl"):
        path = state.options.root / name
        if not path.is_file():
            raise pytest.UsageError(f"{metafunc.definition.nodeid}: there is no manifest {path}")
        return [state.load(path)]
    if not state.options.may_dispatch:
        # A session that only shows its collection must not run planners: they may be costly.
        _say_why_not(metafunc, f"plan {name} is made when the tests run")
        return None
    take_signals(metafunc.config, state)
    manifest = state.plan(metafunc.definition.session, name, mark.kwargs, collecting=True)
    if manifest is None:
        _say_why_not(metafunc, f"plan {name} is empty: there is nothing to do")
        return None
    return [manifest]


def _say_why_not(metafunc: pytest.Metafunc, reason: str) -> None:
    argument = next(
        name for name in (BUILTIN_ENTRY, "entry", "manifest") if name in metafunc.fixturenames
    )
    param = pytest.param(None, marks=pytest.mark.skip(reason=reason))
    metafunc.parametrize(argument, [param], ids=["no-manifest"], indirect=True)


def _workflow_of(state: ManifestSession, path: Path) -> str | None:
    """Return the workflow whose folder a test file lies in; None outside of all of them."""
    try:
        parts = path.relative_to(state.options.workflows).parts
    except ValueError:
        return None
    return parts[0] if len(parts) > 1 else None


def _chosen(
    state: ManifestSession, metafunc: pytest.Metafunc, manifest: Manifest
) -> Iterator[Entry]:
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
    sharded = state.options.shard is not None
    for entry in manifest.some(state.share_in_order(manifest)) if sharded else manifest:
        if all(
            _matches(chosen.get("task"), (entry.task,)) and _matches(chosen.get("tag"), entry.tags)
            for chosen in filters
        ):
            yield entry


def _matches(patterns: str | Sequence[str] | None, values: Sequence[str]) -> bool:
    if patterns is None:
        return True
    listed = [patterns] if isinstance(patterns, str) else patterns
    return any(fnmatchcase(value, pattern) for value in values for pattern in listed)


@cache
def _tags(config: pytest.Config, tags: tuple[str, ...]) -> tuple[str, ...]:
    """Return an entry's tags as one tuple shared by all entries with the same tags.

    Registers each tag as a marker, as pytest's ``--strict-markers`` refuses ``-m`` with unknown
    names.
    """
    manifest_session(config).has_tags = True
    for tag in tags:
        _register(config, tag)
    return tuple(tag for tag in tags if tag)


@cache
def _register(config: pytest.Config, tag: str) -> None:
    if not set(tag) & set(":("):  # pytest ends a marker's name at these
        config.addinivalue_line("markers", f"{tag}: a tag of manifest entries")
