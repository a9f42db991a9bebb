"""Read a session's manifests, and find out which of their entries are this session's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from pytest_manifest.bindings import Binding
from pytest_manifest.plugin.context import user_errors
from pytest_manifest.text import short_path

if TYPE_CHECKING:
    from pytest_manifest.manifest import Manifest
    from pytest_manifest.manifest.partition import Groups
    from pytest_manifest.plugin.options import Options
    from pytest_manifest.plugin.verdict_reader import VerdictReader
    from pytest_manifest.reporting.run_report import Notices


class ManifestStore:
    """Keep the manifests of a session, each read and checked once.

    ``files``: the manifests that the session runs. ``covered``: the entries of each that tests of
    the user's verify. ``tags``: those of the collected entries that have
    some, each as the one tuple that such entries share; ``markers``: all that are registered.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.files: list[Path] = list(options.files) if not options.plan else []
        self.covered: dict[Path, set[str]] = {}
        self.tags: dict[tuple[str, ...], tuple[str, ...]] = {}
        self.markers: set[str] = set()
        self._manifests: dict[Path, Manifest] = {}
        self._resolve = cache(Path.resolve)
        """Each test asks, and the file system takes 10 us to answer."""
        self._groups: dict[Path, Groups] = {}
        self._shares: dict[Path, Sequence[str]] = {}

    def load(self, path: Path) -> Manifest:
        """Return the manifest in this file, read and checked whole at the first call.

        Raises pytest.UsageError with every fault of the file, or where its signature is required
        and does not hold.
        """
        from pytest_manifest.manifest import read_manifest
        from pytest_manifest.plugin.run_options import check_work_order

        path = self._resolve(path)
        if path not in self._manifests:
            with user_errors():
                lean = self.options.aggregate is not None
                manifest = read_manifest(path, lean=lean, is_new=True)
                check_work_order(manifest, self.options)
            self._manifests[path] = manifest
        return self._manifests[path]

    def loaded(self, path: Path) -> Manifest | None:
        """Return the manifest in this file, by its resolved path; None where it was not read."""
        return self._manifests.get(path)

    def add(self, manifest: Manifest) -> None:
        """Keep a manifest that was planned, so that its file is not read again."""
        self._manifests[manifest.path.resolve()] = manifest

    def add_file(self, path: Path) -> None:
        """Add a manifest, by its resolved path, to those that the session runs."""
        if path not in self.files:
            self.files.append(path)

    # Groups of entries, and shards

    def groups(self, path: Path) -> Groups:
        """Return the groups that ``--manifest-aggregate`` makes of the manifest's entries.

        They hold the entries of this session. Raises pytest.UsageError where they cannot be made.
        """
        from pytest_manifest.manifest.partition import Groups

        path = self._resolve(path)
        if path not in self._groups:
            manifest = self.load(path)
            assert self.options.aggregate is not None
            shard = self.options.shard
            share = None if shard is None else frozenset(self.share(manifest))
            with user_errors():
                mark = "" if shard is None else f"@{shard.part}"
                self._groups[path] = Groups(manifest, self.options.aggregate, share, mark)
        return self._groups[path]

    def share(self, manifest: Manifest) -> Sequence[str]:
        """Return the ids of this session's entries, those of its shard, in the manifest's order."""
        shard, path = self.options.shard, manifest.path.resolve()
        if shard is None:
            return manifest.ids
        if path not in self._shares:
            from pytest_manifest.manifest.partition import entries_of

            with user_errors():
                share = entries_of(shard, manifest)
            self._shares[path] = [entry for entry in manifest.ids if entry in share]
        return self._shares[path]

    @property
    def with_work(self) -> list[Manifest]:
        """Return the manifests that have entries of this session."""
        loaded = map(self.load, self.files)
        return [one for one in loaded if self.options.shard is None or self.share(one)]

    @property
    def shard_is_empty(self) -> bool:
        """Return whether this session's shard has no entry of any manifest."""
        return bool(self.options.shard and self.files and not self.with_work)

    def entries_of(self, path: Path, subjects: Set[str]) -> Sequence[str]:
        """Return the ids of the session's entries among ``subjects``, in the manifest's order.

        ``subjects`` are entries, or groups under --manifest-aggregate; none means all entries.
        """
        manifest = self.load(path)
        if self.options.aggregate is not None and subjects:
            groups = self.groups(path)
            every = len(subjects) == len(groups)
            subjects = set() if every else {one for name in subjects for one in groups.ids(name)}
        return (
            [one for one in manifest.ids if one in subjects] if subjects else self.share(manifest)
        )


@dataclass(frozen=True)
class Selection:
    """The entries that the collected tests verify.

    ``subjects``: by manifest, the entries or groups that were selected; an empty set means all.
    ``verified``: those of them that tests of the user's verify; ``verified_whole``: the manifests
    whose whole run such a test is given.
    """

    manifests: ManifestStore
    subjects: dict[Path, set[str]]
    verified: dict[Path, set[str]]
    verified_whole: Set[Path]

    def entries(self, path: Path) -> Sequence[str]:
        """Return the ids of a manifest's selected entries in its order."""
        return self.manifests.entries_of(path, self.subjects[path])


def select(manifests: ManifestStore, bindings: Sequence[Binding]) -> Selection:
    """Return which entries the collected tests verify.

    A test of a whole run selects no entry where other tests of its manifest do; alone it selects
    all.
    """
    chosen: dict[Path, set[str]] = {}
    verified: dict[Path, set[str]] = {}
    for binding in bindings:
        subjects = chosen.setdefault(binding.manifest, set())
        if binding.subject is not None:
            subjects.add(binding.subject)
            if not binding.builtin:
                verified.setdefault(binding.manifest, set()).add(binding.subject)
    whole = {binding.manifest for binding in bindings if binding.whole_run}
    selected = {path: found for path, found in chosen.items() if found or path in whole}
    return Selection(manifests, selected, verified, whole)


def report_unselected(selection: Selection, notices: Notices) -> None:
    """Add a notice for each manifest that has nothing to run in this session.

    Either the user gave paths that do not name it, or its shard has no entry.
    """
    manifests = selection.manifests
    shard, root = manifests.options.shard, manifests.options.root
    for path in manifests.files:
        name = short_path(path, root)
        if shard is not None and not manifests.share(manifests.load(path)):
            notices.append(
                f"{name}: {shard.words} has no entry, as there are too few; that is no failure"
            )
        elif path not in selection.subjects:
            notices.append(f"{name}: nothing of it was selected or sent; name it among the paths")


Test = TypeVar("Test")


class Waiting(Generic[Test]):
    """Tests, by the verdict that each of them waits for."""

    def __init__(self) -> None:
        self._by_subject: dict[tuple[Path, str], list[Test]] = {}
        self._by_run: dict[Path, list[Test]] = {}

    def __len__(self) -> int:
        return sum(map(len, (*self._by_subject.values(), *self._by_run.values())))

    def add(self, test: Test, binding: Binding | None) -> bool:
        """Add a test; return False where it waits for nothing."""
        if binding is not None and binding.subject is not None:
            self._by_subject.setdefault((binding.manifest, binding.subject), []).append(test)
        elif binding is not None and binding.whole_run:
            self._by_run.setdefault(binding.manifest, []).append(test)
        else:
            return False
        return True

    def due(self, reader: VerdictReader, *, over: bool) -> Iterator[list[Test]]:
        """Yield the tests whose verdict has come, those of one subject together.

        All that are left where no further verdict will come (``over``).
        """
        for subject in reader.refresh():
            if (found := self._by_subject.pop(subject, None)) is not None:
                yield found
        for manifest in list(self._by_run):
            if over or reader.is_ready(Binding(manifest, None, whole_run=True)):
                yield from ([test] for test in self._by_run.pop(manifest))
        if over:
            yield from self._by_subject.values()
            self._by_subject.clear()
