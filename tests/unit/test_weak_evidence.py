"""Of how many entries a green run says no more than that their jobs end, and in which words."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pytest

from pytest_manifest.analysis.records import ENOUGH
from pytest_manifest.bindings import Binding
from pytest_manifest.errors import DispatchError
from pytest_manifest.manifest import read_manifest
from pytest_manifest.plugin import dispatching
from pytest_manifest.plugin.manifest_store import ManifestStore, Selection, select
from pytest_manifest.plugin.run_options import read_options
from pytest_manifest.reporting.run_report import Notices

ADVICE = (
    "9 of 12 entries expect no more than that the job ends, and no test looks at their receipts "
    "('b-0', 'b-1', 'b-2', ...): give them 'expect', or a test that verifies them"
)


def batch(name: str = "m.jsonl", *, bare: int, full: int = 0) -> Path:
    """Write entries b-0, b-1, ... that expect nothing, and f-0, f-1, ... that expect a result."""
    expected: Sequence[Mapping[str, object]] = [{}] * bare + [{"expect": {"result": 1}}] * full
    ids = [f"b-{n}" for n in range(bare)] + [f"f-{n}" for n in range(full)]
    rows = [{"id": id_, "task": "t", **more} for id_, more in zip(ids, expected, strict=True)]
    path = Path(name).resolve()
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


class Session:
    """A call of pytest in its folder, whose tests are given by what they verify."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self._pytester = pytester

    def store(self, *arguments: str) -> ManifestStore:
        (self._pytester.path / "pytest.ini").write_text("[pytest]\n", "utf-8")
        return ManifestStore(read_options(self._pytester.parseconfig(*arguments)))

    def selection(self, *paths: Path, tests: Iterable[Binding] = ()) -> Selection:
        """What is selected where our own test of each entry is, and these ``tests``."""
        given = list(tests)
        seen = {test.entry for test in given}
        ours = [
            Binding(path, entry, builtin=True)
            for path in paths
            for entry in read_manifest(path).ids
            if entry not in seen
        ]
        return select(self.store(*(f"--manifest={path}" for path in paths)), [*ours, *given])


@pytest.fixture
def session(pytester: pytest.Pytester) -> Session:
    return Session(pytester)


def finding(selection: Selection, path: Path) -> str:
    """What a run of this manifest is warned of; nothing for none."""
    return "; ".join(dispatching.findings(selection, path))


def test_weak_entries_are_counted_and_the_first_are_named(session: Session) -> None:
    path = batch(bare=9, full=3)
    assert finding(session.selection(path), path) == ADVICE


def test_one_entry_is_told_as_one(session: Session) -> None:
    path = batch(bare=1, full=ENOUGH)
    assert finding(session.selection(path), path) == (
        "1 of 11 entries expects no more than that the job ends, and no test looks at its receipt "
        "('b-0'): give it 'expect', or a test that verifies it"
    )


def test_a_few_entries_are_seen_one_by_one(session: Session) -> None:
    """From ten entries on it is said unasked."""
    few = batch("few.jsonl", bare=ENOUGH - 1)
    assert finding(session.selection(few), few) == ""
    enough = batch(bare=ENOUGH)
    assert finding(session.selection(enough), enough).startswith("10 of 10 entries expect")


def test_entries_that_all_expect_something_are_not_spoken_of(session: Session) -> None:
    path = batch(bare=0, full=ENOUGH)
    assert finding(session.selection(path), path) == ""


def test_an_entry_that_a_test_of_the_users_is_of_is_looked_at(session: Session) -> None:
    """Whatever the test asserts; entries that it leaves out stay weak."""
    path = batch(bare=ENOUGH)
    tests = [Binding(path, f"b-{n}") for n in range(0, ENOUGH, 2)]
    found = finding(session.selection(path, tests=tests), path)
    assert found.startswith("5 of 10 entries expect")
    assert "('b-1', 'b-3', 'b-5', ...)" in found
    every = [Binding(path, f"b-{n}") for n in range(ENOUGH)]
    assert finding(session.selection(path, tests=every), path) == ""


def test_a_test_of_the_whole_run_looks_and_one_of_the_file_does_not(session: Session) -> None:
    path = batch(bare=ENOUGH)
    whole, file_alone = Binding(path, None, whole_run=True), Binding(path, None)
    assert finding(session.selection(path, tests=[whole]), path) == ""
    assert finding(session.selection(path, tests=[file_alone]), path).startswith("10 of 10 entries")


def test_only_selected_entries_count(session: Session) -> None:
    """Of what is left out, be it by -k, nothing is said."""
    path = batch(bare=2, full=ENOUGH)
    full = [Binding(path, f"f-{n}", builtin=True) for n in range(ENOUGH)]
    store = session.store(f"--manifest={path}")
    one = select(store, [*full, Binding(path, "b-1", builtin=True)])
    assert finding(one, path).startswith("1 of 11 entries expects")
    assert "('b-1')" in finding(one, path)
    assert finding(select(store, full), path) == ""


def test_groups_of_entries_count_by_entry(session: Session) -> None:
    """A group that is left out is not counted."""
    path = batch(bare=12, full=8)
    store = session.store(f"--manifest={path}", "--manifest-aggregate=chunk:5")
    groups = [group.name for group in store.groups(path)]
    assert len(groups) == 4
    tests = [Binding(path, None, group=name, builtin=True) for name in groups]
    assert finding(select(store, tests), path).startswith("12 of 20 entries")
    rest = finding(select(store, tests[1:]), path)
    assert rest.startswith("7 of 15 entries expect")
    assert "'b-5', 'b-6', 'b-7'" in rest


def test_a_shard_counts_its_own_entries(session: Session) -> None:
    path = batch(bare=2 * ENOUGH)
    sharded = (f"--manifest={path}", "--manifest-shard=1/2")
    store = session.store(*sharded)
    tests = [Binding(path, entry, builtin=True) for entry in store.share(store.load(path))]
    assert finding(select(store, tests), path).startswith("10 of 10 entries")
    grouped = session.store(*sharded, "--manifest-aggregate=chunk:5")
    tests = [Binding(path, None, group=one.name, builtin=True) for one in grouped.groups(path)]
    assert finding(select(grouped, tests), path).startswith("10 of 10 entries")


def test_each_run_has_its_own_finding(session: Session) -> None:
    paths = (batch("a.jsonl", bare=ENOUGH), batch("b.jsonl", bare=1, full=ENOUGH))
    selection = session.selection(*paths)
    assert [finding(selection, path).split(" entr")[0] for path in paths] == ["10 of 10", "1 of 11"]


def test_a_preview_names_the_manifest(session: Session) -> None:
    path = batch(bare=9, full=3)
    notices = Notices()
    dispatching.preview_weak_evidence(session.selection(path), notices)
    assert notices == [f"m.jsonl: {ADVICE}"]


def test_where_it_is_refused_every_weak_manifest_is_named(session: Session) -> None:
    """One weak entry is enough, however few there are."""
    a, b, c = (
        batch("a.jsonl", bare=1),
        batch("b.jsonl", bare=0, full=1),
        batch("c.jsonl", bare=2),
    )
    with pytest.raises(DispatchError) as refused:
        dispatching.refuse_weak_evidence(session.selection(a, b, c))
    assert str(refused.value) == (
        "nothing was sent: a.jsonl: 1 of 1 entry expects no more than that the job ends, and no "
        "test looks at its receipt ('b-0'): give it 'expect', or a test that verifies it; c.jsonl: "
        "2 of 2 entries expect no more than that the job ends, and no test looks at their receipts "
        "('b-0', 'b-1'): give them 'expect', or a test that verifies them; without "
        "--manifest-strict (manifest_strict) they are sent as they are"
    )
    dispatching.refuse_weak_evidence(session.selection(b))
