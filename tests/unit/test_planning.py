"""Plans: signatures, options, builders and files."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from pytest_manifest.errors import PlanError
from pytest_manifest.planning import PlanBuilder, convert_options, plan_spec, preview


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

    with pytest.raises(PlanError, match="'corpus' is required; add --plan-opt corpus=VALUE"):
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
    with pytest.raises(PlanError, match=r"m\.jsonl: holds a different manifest.*--plan-force"):
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
    seen = preview(manifest)
    assert dict(seen.tasks) == {("jobs.work", "default"): 2, ("jobs.other", "slow"): 1}
    assert (seen.longest_timeout, seen.cost) == (300.0, 0.5)
    assert preview(builder(1).freeze(None, tmp_path) or manifest).cost is None
