"""Plans: signatures, options, builders and files."""

from __future__ import annotations

import errno
import gc
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from pytest_manifest.errors import ManifestError, PlanError
from pytest_manifest.manifest import check_manifest, read_manifest
from pytest_manifest.planning import PlanBuilder, convert_options, plan_spec, preview
from pytest_manifest.testing import plan_notes


def sample(
    plan: PlanBuilder,
    engine: object,
    *,
    count: int = 3,
    ratio: float = 0.5,
    deep: bool = False,
    kind: Literal["a", "b"] = "a",
    limit: int | None = None,
    folder: Path = Path("x"),
) -> None:
    """A sample plan.

    More words.
    """


SPEC = plan_spec("demo:sample", sample)


def builder(count: int = 2, **fields: object) -> PlanBuilder:
    made = PlanBuilder(SPEC, {"count": count})
    for number in range(count):
        made.add("jobs.work", id=f"w-{number}", kwargs={"n": number}, **fields)
    return made


def test_a_signature_is_the_plans_declaration() -> None:
    """The builder comes first, then fixtures by name; keyword-only parameters are options."""
    assert SPEC.fixtures == ("engine",)
    assert list(SPEC.options) == ["count", "ratio", "deep", "kind", "limit", "folder"]
    assert SPEC.summary == "A sample plan."


@pytest.mark.parametrize("name", ["demo", "demo:", ":x", "a b:c", "demo:x:y", "demo/x:y"])
def test_a_plan_has_a_name_of_two_parts(name: str) -> None:
    """Names become file names, so what cannot be one is refused."""
    with pytest.raises(PlanError, match="name it WORKFLOW:MODE"):
        plan_spec(name, sample)


def test_a_plan_needs_a_builder_and_plain_parameters() -> None:
    """No parameters, and open-ended ones, are refused."""

    def nothing() -> None: ...

    def anything(plan: PlanBuilder, **options: int) -> None: ...

    with pytest.raises(PlanError, match="first parameter must be the plan builder"):
        plan_spec("a:b", nothing)
    with pytest.raises(PlanError, match="cannot be options"):
        plan_spec("a:b", anything)


def test_options_are_converted_by_their_annotations() -> None:
    """Text from a command line becomes what the planner declared."""
    given = {"count": "50", "ratio": "2", "deep": "yes", "kind": "b", "limit": "7", "folder": "y"}
    assert convert_options(SPEC, given) == {
        "count": 50,
        "ratio": 2.0,
        "deep": True,
        "kind": "b",
        "limit": 7,
        "folder": Path("y"),
    }
    assert convert_options(SPEC, {"limit": "none"})["limit"] is None
    assert convert_options(SPEC, {})["count"] == 3


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"cuont": "1"}, "unknown option 'cuont'; did you mean 'count'"),
        ({"zzz": "1"}, "known options: count, deep, folder, kind, limit, ratio"),
        ({"count": "many"}, "option count='many' is not valid"),
        ({"kind": "c"}, "option kind='c' is not valid"),
    ],
)
def test_bad_options_are_named(given: dict[str, str], sentence: str) -> None:
    """The option, its value and the known ones are in the sentence."""
    with pytest.raises(PlanError, match=sentence):
        convert_options(SPEC, {**given})


def test_a_required_option_is_asked_for() -> None:
    """An option without a default must be given."""

    def planner(plan: PlanBuilder, *, corpus: Path) -> None: ...

    with pytest.raises(
        PlanError, match="'corpus' is required; add --manifest-plan-opt corpus=VALUE"
    ):
        convert_options(plan_spec("a:b", planner), {})


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"id": "w-0"}, "entry id 'w-0' was added twice"),
        ({"id": "x", "timeot": 3}, "did you mean"),
        ({"id": "x", "timeout": -1}, "timeout"),
        ({"id": "a\nb"}, "entry 'a.nb'"),
        ({"id": "x", "kwargs": {"f": object()}}, "kwargs"),
    ],
)
def test_a_bad_entry_is_refused_when_it_is_added(fields: dict[str, object], sentence: str) -> None:
    """The planner's own line raises, and names entry and field."""
    made = builder()
    identity = fields.pop("id")
    with pytest.raises(PlanError, match=sentence):
        made.add("jobs.work", id=identity, **fields)  # type: ignore[arg-type]  # bad on purpose


def test_files_are_numbered_and_unchanged_plans_keep_theirs(tmp_path: Path) -> None:
    """The same plan finds its file; another gets the next free number."""
    first = builder(2).freeze(None, tmp_path)
    again = builder(2).freeze(None, tmp_path)
    other = builder(3).freeze(None, tmp_path)
    assert first is not None
    assert again is not None
    assert other is not None
    assert first.path == again.path == tmp_path / "demo_sample_01.jsonl"
    assert other.path == tmp_path / "demo_sample_02.jsonl"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "demo_sample_01.jsonl",
        "demo_sample_02.jsonl",
    ]


def test_other_parameters_are_another_plan(tmp_path: Path) -> None:
    """Equal entries from other options are kept apart: the header says what was asked for."""
    first = builder(2).freeze(None, tmp_path)
    changed = builder(2)
    changed.params["count"] = 99
    second = changed.freeze(None, tmp_path)
    assert first is not None
    assert second is not None
    assert second.path != first.path


def test_an_empty_plan_writes_nothing(tmp_path: Path) -> None:
    """No entries, no file, not even a folder."""
    assert builder(0).freeze(None, tmp_path / "plans") is None
    assert list(tmp_path.iterdir()) == []


def test_a_broken_file_in_the_way_is_not_taken_for_the_plan(tmp_path: Path) -> None:
    """A target that is no manifest is kept unless it is to be replaced."""
    target = tmp_path / "m.jsonl"
    target.write_text("precious notes\n")
    with pytest.raises(
        PlanError, match=r"m\.jsonl: holds a different manifest.*--manifest-plan-run=force"
    ):
        builder(2).freeze(target, tmp_path)
    assert target.read_text() == "precious notes\n"
    with pytest.raises(PlanError, match="is no manifest, and is not overwritten"):
        builder(2).freeze(target, tmp_path, force=True)
    assert target.read_text() == "precious notes\n"
    target.write_text('{"id": "a", "task": "t"}\n')
    replaced = builder(2).freeze(target, tmp_path, force=True)
    assert replaced is not None
    assert len(replaced) == 2


def test_a_preview_counts_by_task_and_queue(tmp_path: Path) -> None:
    """Entries by task and queue, the longest timeout, and the cost where entries carry one."""
    made = builder(2, cost=0.25, timeout=90)
    made.add("jobs.other", id="o", queue="slow")
    manifest = made.freeze(None, tmp_path)
    assert manifest is not None
    assert list(preview(manifest, lambda tasks: dict.fromkeys(tasks, "usual"), {})) == [
        f"plan demo:sample: 3 entries in {manifest.path}",
        "        1  jobs.other  queue slow",
        "        2  jobs.work   queue usual",
        "  longest timeout 300 s",
        "  estimated cost 0.5",
    ]
    plain = builder(1).freeze(None, tmp_path)
    assert plain is not None
    assert list(preview(plain, lambda _: {}, {"tenant": 2}))[1:] == [
        "        1  jobs.work  queue by the app's routes",
        "  longest timeout 300 s",
        "  key tenant: no entry has one, so a limit of 2 holds nothing back",
    ]


def test_the_type_of_a_fixture_may_be_known_to_type_checkers_only() -> None:
    namespace: dict[str, object] = {}
    exec(
        "from __future__ import annotations\n"
        "def planner(plan, engine: NotImported, *, count: int = 1): pass\n"
        "def broken(plan, *, count: NotImported = 1): pass\n",
        namespace,
    )
    planner, broken = namespace["planner"], namespace["broken"]
    assert callable(planner)
    assert callable(broken)
    assert convert_options(plan_spec("a:b", planner), {"count": "3"}) == {"count": 3}
    with pytest.raises(PlanError, match="import it outside of 'if TYPE_CHECKING'"):
        convert_options(plan_spec("a:b", broken), {"count": "3"})


def test_a_planner_may_say_something(tmp_path: Path) -> None:
    """Notes are kept in their order, a line each, and do not stand in the file."""
    made = builder(1)
    made.note("12 tokens")
    made.note("prices of\n2026-11")
    assert made.notes == ["12 tokens", "prices of", "2026-11"]
    manifest = made.freeze(None, tmp_path)
    assert manifest is not None
    assert "12 tokens" not in manifest.path.read_text("utf-8")
    assert manifest.sha256 == (builder(1).freeze(None, tmp_path) or manifest).sha256


def test_notes_can_be_tested_without_a_command_line() -> None:
    """By the planner, its fixtures and its options; an empty plan has them too."""

    def planner(plan: PlanBuilder, corpus: str, *, limit: int = 1) -> None:
        plan.note(f"{limit} of {corpus}")

    assert plan_notes(planner, "films", limit="3") == ["3 of films"]


def test_a_plan_beyond_the_budget_is_refused() -> None:
    """With how much, how many, and what to do; what is within it, to the cent, is not."""
    made = builder(3, cost=0.1)
    made.check_cost(0.3)
    made.check_cost(None)
    with pytest.raises(PlanError) as caught:
        made.check_cost(0.25)
    assert str(caught.value) == (
        "plan demo:sample: 3 entries are estimated to cost 0.3, and --manifest-budget is 0.25, so "
        "no manifest was written; plan less (--manifest-plan-opt limit=N), or allow more with a "
        "larger --manifest-budget"
    )


def test_a_budget_that_nothing_would_keep_to_is_refused() -> None:
    """Where the planner says so, with its reason; without a budget, or entries, nothing is."""
    made = builder(3)
    made.refuse_budget("no price is known for x")
    made.check_cost(None)
    with pytest.raises(PlanError) as caught:
        made.check_cost(5)
    assert str(caught.value) == (
        "plan demo:sample: --manifest-budget is 5, and no price is known for x, so nothing would "
        "keep to it, and no manifest was written; have the cost known, or leave --manifest-budget "
        "out"
    )
    empty = builder(0)
    empty.refuse_budget("no price is known for x")
    empty.check_cost(5)


def test_what_was_added_is_as_it_was_then(tmp_path: Path) -> None:
    """A planner may go on using what it has handed over."""
    made = builder(0)
    kwargs: dict[str, object] = {"n": 1}
    made.add("jobs.work", id="one", kwargs=kwargs)
    kwargs["n"] = 2
    manifest = made.freeze(None, tmp_path)
    assert manifest is not None
    assert manifest["one"].kwargs == {"n": 1}


def test_a_frozen_plan_is_what_reading_it_gives(tmp_path: Path) -> None:
    """Although it is not read again: entries, offsets, header, digest; named by us or by others."""
    for target in (None, tmp_path / "named.jsonl"):
        made = builder(2, cost=0.5)
        made.params["rate"] = 1.0
        made.add("jobs.work", id="last", after=["w-0", "w-1"])
        frozen = made.freeze(target, tmp_path)
        assert frozen is not None
        read = read_manifest(frozen.path)
        assert frozen.summary == read.summary
        assert list(frozen) == list(read)
        assert [frozen[name] for name in frozen.ids] == [read[name] for name in read.ids]


@pytest.mark.parametrize(
    ("waits", "fault"),
    [
        ({"a": ["b"], "b": []}, None),
        ({"a": ["b"], "b": ["a"]}, "entries wait for one another: 'a' (line 2) -> 'b' (line 3)"),
        ({"a": [], "b": ["a", "c"]}, "3: 'after' names 'c', which no entry here has"),
    ],
)
def test_entries_may_wait_for_later_ones_only_if_there_are(
    tmp_path: Path, waits: dict[str, list[str]], fault: str | None
) -> None:
    """What is not known when an entry is added is found when the plan is frozen."""
    made = builder(0)
    for name, after in waits.items():
        made.add("jobs.work", id=name, after=after)
    if fault is None:
        manifest = made.freeze(None, tmp_path)
        assert manifest is not None
        assert list(manifest.ids) == ["a", "b"]
    else:
        with pytest.raises(ManifestError) as caught:
            made.freeze(None, tmp_path)
        assert fault in str(caught.value)


def test_a_builder_goes_on_after_its_plan_was_frozen(tmp_path: Path) -> None:
    """What is added later comes behind what was there."""
    made = builder(2)
    first = made.freeze(None, tmp_path)
    made.add("jobs.work", id="later")
    second = made.freeze(None, tmp_path)
    assert first is not None
    assert second is not None
    assert [*first.ids, "later"] == list(second.ids)


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, as the system's temporary one."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


LARGE = "x" * 400_000


def test_nothing_is_left_behind_by_a_plan_that_is_not_made(scratch: Path, tmp_path: Path) -> None:
    """Neither by a planner that fails or is interrupted, nor by one whose plan is no manifest."""
    made = builder(0)
    for number in range(5):
        made.add("jobs.work", id=f"large-{number}", args=[LARGE])
    assert list(scratch.iterdir()) == [], "the file has a name"
    made.add("jobs.work", id="bad", after=["nobody"])
    with pytest.raises(ManifestError, match="nobody"):
        made.freeze(None, tmp_path / "plans")
    assert list((tmp_path / "plans").iterdir()) == []
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir()))
    del made
    gc.collect()
    assert len(list(descriptors.iterdir())) < before


def test_a_full_disk_is_told_of(
    scratch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the folder, and what may be done; half a line that got there is no part of the plan."""
    made = builder(1)
    whole = tempfile.SpooledTemporaryFile.write

    def write(file: tempfile.SpooledTemporaryFile[bytes], data: bytes) -> int:
        whole(file, data[:20])
        raise OSError(errno.ENOSPC, "No space left on device")

    def fails(act: Callable[[], object]) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(tempfile.SpooledTemporaryFile, "write", write)
            with pytest.raises(PlanError, match=r"scratch \(No space left on device\); free some"):
                act()

    def add(name: str) -> None:
        made.add("jobs.work", id=name, args=["x" * 100_000])

    fails(lambda: add("two"))
    assert len(made) == 1
    add("two")
    fails(lambda: add("three"))
    made.add("jobs.work", id="four")
    fails(lambda: made.freeze(None, tmp_path))
    manifest = made.freeze(None, tmp_path)
    assert manifest is not None
    assert list(manifest.ids) == ["w-0", "two", "four"]
    assert check_manifest(manifest.path).sha256 == manifest.sha256


def test_memory_stays_flat_however_long_a_plan_is(tmp_path: Path) -> None:
    """4,000 entries of 3 KB are 12 MB, of which only the ids are kept."""
    tracemalloc.start()
    try:
        made = builder(0)
        for number in range(4_000):
            made.add("jobs.work", id=f"w-{number}", args=["x" * 3000])
        manifest = made.freeze(None, tmp_path)
        assert manifest is not None
        assert "4000 entries" in next(preview(manifest, lambda _: {}, {}))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5e6
