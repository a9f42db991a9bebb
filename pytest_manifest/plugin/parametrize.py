"""Parametrize tests by the entries that they verify, and let tags select by ``-m`` and ``-k``.

Tags are no markers. A marker acts: a tag ``skip`` or ``xfail`` would hide an entry's failure, and
``timeout`` or ``usefixtures`` would break the session off.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_manifest import bindings
from pytest_manifest.compat.pytest import fixtures_of_definition, hide_labels, show_labels
from pytest_manifest.plugin import fixtures
from pytest_manifest.plugin.collection import ManifestFile
from pytest_manifest.plugin.manifest_store import ManifestStore
from pytest_manifest.plugin.session import ManifestSession, manifest_session

if TYPE_CHECKING:
    from pytest_manifest.manifest import Manifest
    from pytest_manifest.manifest.reader import Outline


def generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize tests that ask for the plugin's fixtures.

    Raises CollectError for a user's mistake.
    """
    try:
        _parametrize_ours(metafunc)
    except pytest.UsageError as error:
        raise pytest.Collector.CollectError(str(error)) from None


def _parametrize_ours(metafunc: pytest.Metafunc) -> None:
    if bindings.BUILTIN_ENTRY in metafunc.fixturenames:
        _by_manifests(metafunc, bindings.BUILTIN_ENTRY)
    elif bindings.BUILTIN_GROUP in metafunc.fixturenames:
        node = metafunc.definition.getparent(ManifestFile)
        assert node is not None
        path = node.path.resolve()
        groups = manifest_session(metafunc.config).manifests.groups(path)
        names = [bindings.GroupName(group.name, path) for group in groups]
        _parametrize(metafunc, bindings.BUILTIN_GROUP, names, names)
    elif _is_ours(metafunc, "entry"):
        if manifest_session(metafunc.config).context.options.aggregate is None:
            _by_manifests(metafunc, "entry")
        else:
            _parametrize(metafunc, "entry", [bindings.BESIDE_GROUPS], [bindings.BESIDE_GROUPS])
    elif _is_ours(metafunc, "manifest"):
        _by_manifests(metafunc, "manifest")


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
    builtin = argument == bindings.BUILTIN_ENTRY
    values: list[object] = []
    ids: list[str] = []
    for manifest in found:
        path = manifest.path.resolve()
        chosen = _chosen(state.manifests, metafunc, manifest)
        if argument == "manifest":
            if next(chosen, None) is not None:
                values.append(bindings.ManifestName(path.stem, path))
                ids.append(path.stem)
            continue
        covered = state.manifests.covered.setdefault(path, set())
        for entry in chosen:
            if builtin and entry.id in covered:
                continue
            tags = _tags(state.manifests, metafunc.config, entry.tags) if entry.tags else ()
            values.append(bindings.EntryId(entry.id, path, tags, builtin=builtin))
            ids.append(f"{path.stem}:{entry.id}" if len(found) > 1 else entry.id)
            if not builtin:
                covered.add(entry.id)
    # pytest would make an empty parameter set a skipped test without a reason.
    # ``collection.drop_unneeded`` removes this one.
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
    workflow = _workflow_of(manifests.options.workflows, metafunc.definition.path)
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
    if name.endswith(".jsonl"):
        path = state.context.options.root / name
        if not path.is_file():
            raise pytest.UsageError(f"{metafunc.definition.nodeid}: there is no manifest {path}")
        return [state.manifests.load(path)]
    if not state.context.options.may_dispatch:
        # A session that only shows its collection must not run planners: they may be costly.
        return f"plan {name} is made when the tests run"
    state.session_runs.take_signals()
    manifest = state.plans.plan(metafunc.definition.session, name, mark.kwargs)
    return f"plan {name} is empty: there is nothing to do" if manifest is None else [manifest]


def _workflow_of(workflows: Path, path: Path) -> str | None:
    """Return the workflow whose folder a test file lies in; None outside of all of them."""
    try:
        names = path.relative_to(workflows).parts
    except ValueError:
        return None
    return names[0] if len(names) > 1 else None


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
