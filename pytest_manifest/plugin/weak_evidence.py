"""Say of how many entries a green report tells no more than that their jobs ended well.

Such an entry has no ``expect``, and no test of the user's is given its receipt: the job may have
returned anything. A test that is given it counts, whatever it asserts, and so does one of the whole
run, which is given all receipts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pytest_manifest.analysis.advice import ENOUGH
from pytest_manifest.errors import DispatchError, ManifestError
from pytest_manifest.text import middle, plural, printable, short_path

if TYPE_CHECKING:
    from pytest_manifest.plugin.manifest_store import Selection
    from pytest_manifest.reporting.run_report import Notices
    from pytest_manifest.run import Run

_NAMED: Final = 3
_ID_LIMIT: Final = 60


@dataclass(frozen=True, slots=True)
class WeakEvidence:
    """The number of a manifest's selected entries that expect nothing, unseen by any test.

    ``first``: the ids of the first of them.
    """

    selected: int
    weak: int
    first: Sequence[str]

    @property
    def message(self) -> str:
        """Return the sentence that says what is weak, and what to do."""
        expect, receipts, them = (
            ("expects", "its receipt", "it")
            if self.weak == 1
            else ("expect", "their receipts", "them")
        )
        return (
            f"{self.weak} of {plural(self.selected, 'entry')} {expect} no more than that the "
            f"job ends, and no test looks at {receipts} ({self._examples}): give {them} 'expect', "
            f"or a test that verifies {them}"
        )

    @property
    def _examples(self) -> str:
        shown = [repr(middle(printable(entry), _ID_LIMIT)) for entry in self.first]
        return ", ".join(shown) + (", ..." if self.weak > len(shown) else "")


def find_weak_evidence(selection: Selection, path: Path) -> WeakEvidence:
    """Look through a manifest's selected entries. Raises ManifestError where its file has changed.

    Reads the file once, unless tests of the user's see all of them: 0.1 s for 100,000 entries.
    """
    manifests, subjects = selection.manifests, selection.subjects[path]
    verified: Set[str] = selection.verified.get(path, frozenset())
    manifest = manifests.load(path)
    selected = len(subjects)
    unseen: Set[str] | None = None
    if path in selection.verified_whole or len(verified) == selected:
        return WeakEvidence(selected, 0, ())
    if manifests.options.aggregate is not None:
        every = manifests.options.shard is None and selected == len(manifests.groups(path))
        unseen = None if every else frozenset(selection.entries(path))
        selected = len(manifest) if unseen is None else len(unseen)
    elif verified or selected < len(manifest):
        unseen = subjects - verified
    weak, first = manifest.expecting_nothing(unseen, most=_NAMED)
    return WeakEvidence(selected, weak, first)


def refuse_weak_evidence(selection: Selection) -> None:
    """Raise DispatchError where a selected entry has weak evidence, as --manifest-strict wants it.

    One is enough, however few entries there are.
    """
    root = selection.manifests.options.root
    found = {path: find_weak_evidence(selection, path) for path in selection.files}
    weak = [f"{short_path(path, root)}: {one.message}" for path, one in found.items() if one.weak]
    if weak:
        raise DispatchError(
            f"nothing was sent: {'; '.join(weak)}; without --manifest-strict (manifest_strict) "
            "they are sent as they are"
        )


def warn_of_weak_evidence(selection: Selection, runs: Iterable[Run]) -> None:
    """Add to each run's warnings what is weak in it, where there are entries enough."""
    for run in runs:
        run.warnings += _findings(selection, run.manifest.path.resolve())


def preview_weak_evidence(selection: Selection, notices: Notices) -> None:
    """Add a notice for each manifest whose run would get such a warning."""
    for path in selection.files:
        name = short_path(path, selection.manifests.options.root)
        notices += [f"{name}: {finding}" for finding in _findings(selection, path)]


def _findings(selection: Selection, path: Path) -> Sequence[str]:
    """Return what is weak in a manifest, if anything.

    A few entries that somebody tries out are seen one by one, so nothing is said of them.
    """
    with contextlib.suppress(ManifestError):  # of a file that was changed meanwhile others tell
        found = find_weak_evidence(selection, path)
        return [found.message] if found.weak and found.selected >= ENOUGH else []
    return []
