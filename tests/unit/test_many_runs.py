"""Rules of a history, one by one; ``test_cli_history`` has all of them together."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from benchmarks.history import digest_of, says_slower, told
from pytest_manifest.analysis.many_runs import growth, over_time
from pytest_manifest.schema.over_time import ManifestOverTime
from pytest_manifest.schema.run_digest import (
    DigestEntry,
    DigestIds,
    DigestWorker,
    RunDigest,
)

MB = 1 << 20


def red(name: str, work: str = "w") -> DigestEntry:
    return DigestEntry(id=name, task="shop.task000", verdict="failed", work=work)


def run(n: int, there: Sequence[str], *listed: DigestEntry, **more: object) -> RunDigest:
    """A run with these entries, of which some are listed."""
    ids = DigestIds.of(there)
    return digest_of(n, [1.0], listed).model_copy(update={"ids": ids, **more})


def history(*runs: RunDigest) -> ManifestOverTime:
    return over_time([runs]).manifests[0]


def test_who_is_where_its_namesake_is_has_not_become_it() -> None:
    """The same work twice in a manifest is two entries; the same under another id is one."""
    both = history(run(1, ["a", "b"], red("a")), run(2, ["a", "b"], red("b")))
    assert [(one.id, one.states) for one in both.entries] == [("b", ".F"), ("a", "F.")]
    renamed = history(run(1, ["a"], red("a")), run(2, ["b"], red("b")), run(3, ["b"]))
    assert [(one.id, one.formerly, one.states) for one in renamed.entries] == [("b", ["a"], "FF.")]
    other = history(run(1, ["a"], red("a")), run(2, ["b"], red("b", "other")))
    assert [(one.id, one.states) for one in other.entries] == [("b", "-F")]


@pytest.mark.parametrize(
    ("runs", "states"),
    [
        ([("a", ""), ("a", ""), ("b", "b")], "..F"),
        ([("a", "a"), ("b", ""), ("b", "")], "F.."),
        ([("a", ""), ("b", "b"), ("c", ""), ("d", "")], ".F.."),
        ([("a", "a"), ("", ""), ("b", "")], "F-."),
        # The same work twice in a run identifies none of the two, in whichever it is.
        ([("ad", "a"), ("b", ""), ("a", "")], "F-."),
        ([("a", "a"), ("bd", ""), ("a", "")], "F-."),
    ],
)
def test_what_passed_under_another_id_keeps_its_history(
    runs: Sequence[tuple[str, str]], states: str
) -> None:
    """Entries of one work, by the letter that each is called, of which one may be red."""
    made = []
    for n, (there, failed) in enumerate(runs, 1):
        works = DigestIds.of(["w"] if len(there) == 1 else [])
        made.append(run(n, there, *map(red, failed), works=works))
    (one,) = history(*made).entries
    assert one.states == states


def test_what_was_cancelled_is_absent_and_what_is_not_listed_is_not_known() -> None:
    cancelled = red("a").model_copy(update={"verdict": "cancelled"})
    found = history(
        run(1, ["a"], red("a")), run(2, ["a"], cancelled), run(3, ["a"], unlisted=1), run(4, ["a"])
    )
    (one,) = found.entries
    assert (one.states, one.kind, one.runs) == ("F-?.", "one bad run", 2)


def test_another_celery_of_the_workers_is_a_change_where_both_are_known() -> None:
    found = history(
        *(run(n, ["a"], celery=one) for n, one in enumerate((None, "5.6.2", "5.7.0", None), 1))
    )
    said = [[(one.what, one.before, one.after) for one in run.changes] for run in found.runs]
    assert said == [[], [], [("celery", "5.6.2", "5.7.0")], []]


def test_half_of_a_run_says_nothing_of_single_entries() -> None:
    """Nor do its times count, nor those of a part."""
    there = [f"e{n}" for n in range(20)]
    all_red = [red(one, one) for one in there]
    few = run(2, there, *all_red, entries=20, outcomes={"failed": 20})
    found = history(run(1, there), few, run(3, there))
    assert [one.incident for one in found.runs] == [False, True, False]
    assert found.entries == []
    for update in ({"partial": "stopped"}, {"outcomes": {"failed": 500}, "entries": 500}):
        slow = [digest_of(n, [2.0]).model_copy(update=update) for n in range(31, 41)]
        usual = [digest_of(n, [1.0 + n / 1000]) for n in range(1, 31)]
        assert history(*usual, *slow).tasks[0].slower is None


@pytest.mark.parametrize(
    ("memory", "grows"),
    [
        ([100, 110, 150, 190, 230], True),
        ([100, 200, 200, 200, 200], False),
        ([100, 110, 110, 110, 230], False),
        ([100, 110, 115, 120, 125], False),
        ([1000, 1010, 1030, 1050, 1070], False),
    ],
)
def test_growing_is_what_grows_in_each_quarter(memory: list[int], *, grows: bool) -> None:
    """By 32 MiB and a fifth of what it was; what it takes at first is no growth."""
    one = DigestWorker(worker="w", jobs=40, memory=[mark * MB for mark in memory])
    assert bool(growth(one)) is grows
    assert not grows or growth(one) == pytest.approx(4 * MB, rel=0.01)


def test_no_wolf_is_cried() -> None:
    """In hundred histories of which ``benchmarks.history`` takes a thousand."""
    rng = random.Random(3)
    assert sum(says_slower(told(rng, 6, 40)) for _ in range(50)) <= 2
    found = (told(rng, 6, 40, changed_in=38).tasks[0].slower for _ in range(50))
    assert sum(one is not None for one in found) >= 44
