"""What is planned for a judge, and what its task makes of it, without any stack."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import JsonValue

from pytest_manifest.errors import DispatchError, PlanError
from pytest_manifest.manifest import read_manifest, write_manifest
from pytest_manifest.schema import Entry, Header
from pytest_manifest.testing import plan, plan_notes
from tasks.filling.order import BadOrderError
from tasks.judging.batch import JudgeBatch, JudgeUnfitError, refuse_unfit
from tasks.judging.checks import CHECKS, OVERLAP, offline_judge
from tasks.judging.equipment import JudgeMismatchError, JudgeNameError, equip_judge, identify_judge
from tasks.judging.grades import Grade, Grading
from tasks.judging.order import read_judge_order
from tasks.judging.rubric import RubricError
from tasks.judging.settings import Chosen
from tasks.movie_bible.bible import MovieBible
from tasks.movie_bible.fields import values_digest
from tests.workflows.filling_support import bible_at, documents
from tests.workflows.judging_support import GOOD, RUBRIC, fill_rows, judge_order
from workflows.gap_fill.plan import gap_fill_judge, gap_fill_repair, pytest_manifest_sending
from workflows.gap_fill.pricing import pricings_of, refuse_unknown_price, warnings_of
from workflows.gap_fill.spoiling import GROSS

VARIABLES = [
    *("GEMINI_API_KEY", "GOOGLE_API_KEY", "TEXT_MODEL", "TEXT_MODEL_NAME"),
    *("GAP_FILL_JUDGE", "GAP_FILL_JUDGE_NAME", "GAP_FILL_SECOND_JUDGE"),
    *("GAP_FILL_SECOND_JUDGE_NAME", "GAP_FILL_RUBRIC", "GAP_FILL_RUBRICS"),
]


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a developer has set says nothing here."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def bible(tmp_path: Path) -> Iterator[MovieBible]:
    """45 passages, 40 of them with a row."""
    with bible_at(tmp_path, documents(45)) as opened:
        fill_rows(opened, [one.id for one in documents(40)])
        yield opened


def tagged(entries: list[Entry], tag: str) -> list[Entry]:
    return [entry for entry in entries if tag in entry.tags]


def rows_in(entries: list[Entry]) -> list[str]:
    found: list[str] = []
    for entry in entries:
        rows = entry.kwargs["rows"]
        assert isinstance(rows, dict)
        found += rows
    return found


def data_of(entry: Entry) -> Mapping[str, JsonValue]:
    data = entry.kwargs["data"]
    assert isinstance(data, dict)
    return data


def notes(bible: MovieBible, **options: JsonValue) -> str:
    return "\n".join(plan_notes(gap_fill_judge, bible, **options))


# The plan


def test_a_budget_is_refused_where_the_price_of_a_judge_is_not_known(
    bible: MovieBible, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When its manifest is sent, too; offline judges cost nothing, and ask nobody."""
    offline = plan(gap_fill_judge, bible)
    manifest = write_manifest(tmp_path / "m.jsonl", Header(), offline)
    refuse_unknown_price(manifest, offline, 1.0)
    monkeypatch.setenv("GEMINI_API_KEY", "k")
    monkeypatch.setenv("GAP_FILL_JUDGE", "google-genai")
    monkeypatch.setenv("GAP_FILL_JUDGE_NAME", "nobody-knows")
    entries = plan(gap_fill_judge, bible)
    assert [one.model.name for one in pricings_of(entries)] == ["nobody-knows"]
    with pytest.raises(DispatchError, match="no price is known for nobody-knows, so nothing"):
        refuse_unknown_price(manifest, entries, 1.0)
    assert warnings_of(entries) == [
        "no price is known for nobody-knows: name a price table with TEXT_MODEL_PRICES"
    ]


def test_each_judge_grades_the_same_rows_once(bible: MovieBible) -> None:
    entries = plan(gap_fill_judge, bible, batch=15)
    second = tagged(entries, "second")
    first = [entry for entry in tagged(entries, "judge") if entry not in second]
    assert [len(one.kwargs["rows"]) for one in first] == [15, 15, 10]  # type: ignore[arg-type]  # mappings
    assert rows_in(first) == rows_in(second) == [one.id for one in documents(40)]
    assert first[0].id == "judge-00001:film-0001/plot..film-0015/plot"
    assert second[0].id == "second-00001:film-0001/plot..film-0015/plot"
    assert [data_of(one)["judge"] for one in (first[0], second[0])] == [
        {"provider": "offline", "name": CHECKS},
        {"provider": "offline", "name": OVERLAP},
    ]
    assert {entry.meta["population"] for entry in first} == {40}
    assert {(entry.task, entry.cost, entry.idempotent) for entry in entries} == {
        ("tasks.judge.grade_rows_task", 0.0, True)
    }
    assert "rows: 40 rows\n" in notes(bible)
    assert plan(gap_fill_judge, bible) == plan(gap_fill_judge, bible)
    assert gap_fill_judge.manifest_plan.rerun is False  # type: ignore[attr-defined]  # the plugin's mark


def test_a_sample_is_drawn_by_seed_and_contains_a_smaller_one(bible: MovieBible) -> None:
    """Each row is as likely as any other: each is in some sample."""
    few = set(rows_in(tagged(plan(gap_fill_judge, bible, sample=8), "second")))
    more = set(rows_in(tagged(plan(gap_fill_judge, bible, sample=20), "second")))
    other = set(rows_in(tagged(plan(gap_fill_judge, bible, sample=8, seed=2), "second")))
    assert (len(few), len(more)) == (8, 20)
    assert few < more
    assert few != other
    drawn: set[str] = set()
    for seed in range(40):
        drawn |= set(rows_in(tagged(plan(gap_fill_judge, bible, sample=8, seed=seed), "second")))
    assert len(drawn) == 40
    assert "rows: 8 rows of 40, by seed 2" in notes(bible, sample=8, seed=2)


def test_a_judge_is_tried_before_it_is_asked_for_more(bible: MovieBible) -> None:
    """By spoiled copies of rows; all others wait for that, each for its own judge's."""
    entries = plan(gap_fill_judge, bible, controls=6)
    controls = tagged(entries, "control")
    assert [one.id for one in controls] == [f"control-1:{CHECKS}", f"control-2:{OVERLAP}"]
    assert {tuple(one.after) for one in controls} == {()}
    for entry in tagged(entries, "judge"):
        assert entry.after == [controls["second" in entry.tags].id]
    control = data_of(controls[0])["control"]
    assert isinstance(control, dict)
    values = control["values"]
    assert isinstance(values, dict)
    assert len(values) == 6
    assert all(one != GOOD for one in values.values())
    assert set(controls[0].meta["spoiled"].values()) <= set(GROSS)  # type: ignore[union-attr]  # a mapping
    without = plan(gap_fill_judge, bible, controls=0)
    assert not tagged(without, "control")
    assert {tuple(one.after) for one in without} == {()}


def test_one_judge_is_enough(bible: MovieBible, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAP_FILL_SECOND_JUDGE", "none")
    assert not tagged(plan(gap_fill_judge, bible), "second")
    assert "second judge" not in notes(bible)
    monkeypatch.delenv("GAP_FILL_SECOND_JUDGE")
    monkeypatch.setenv("GAP_FILL_JUDGE_NAME", OVERLAP)
    with pytest.raises(PlanError, match=r"both judges are overlap-1 \(offline\)"):
        plan(gap_fill_judge, bible)


def test_rows_of_one_filling_are_graded(
    bible: MovieBible, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the passages that its manifest names, by its prompt, those that ``where`` means."""
    fill_rows(bible, [one.id for one in documents(45)], {**GOOD, "mood": None})
    filling = plan(gap_fill_repair, bible, limit=10, batch=5)
    path = tmp_path / "fill.jsonl"
    write_manifest(path, Header(workflow="gap_fill", mode="repair"), filling)
    found = rows_in(tagged(plan(gap_fill_judge, bible, of=str(path)), "second"))
    assert found == [one.id for one in documents(10)]
    some = plan(gap_fill_judge, bible, of=str(path), where="id=film-0003/plot")
    assert rows_in(tagged(some, "second")) == ["film-0003/plot"]
    own = plan(gap_fill_judge, bible)
    write_manifest(path, Header(), own)
    with pytest.raises(PlanError, match="has no entry that fills rows"):
        plan(gap_fill_judge, bible, of=str(path))
    with pytest.raises(PlanError, match="there is no such file"):
        plan(gap_fill_judge, bible, of=str(tmp_path / "none.jsonl"))


def test_without_rows_nothing_is_planned(tmp_path: Path) -> None:
    with bible_at(tmp_path, documents(3)) as empty:
        assert plan(gap_fill_judge, empty) == []
        assert notes(empty) == "no row: there is nothing to grade"


def test_a_model_that_grades_its_own_rows_is_said(
    bible: MovieBible, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what it is about to cost."""
    monkeypatch.setenv("GEMINI_API_KEY", "a-key")
    monkeypatch.setenv("GAP_FILL_JUDGE", "google-genai")
    monkeypatch.setenv("GAP_FILL_JUDGE_NAME", "gemini-3.5-flash")
    fill_rows(bible, ["film-0001/plot"], provider="google-genai", model="gemini-3.5-flash")
    said = notes(bible)
    assert "judge gemini-3.5-flash (google-genai), rubric movie-bible/1" in said
    assert "gemini-3.5-flash has written 1 row of these itself" in said
    first = next(one for one in plan(gap_fill_judge, bible) if one.tags == ["judge"])
    assert first.cost is not None
    assert first.cost > 0
    monkeypatch.setenv("GAP_FILL_JUDGE_NAME", "a-model-without-a-price")
    assert "no price is known for a-model-without-a-price" in notes(bible)


def test_a_judge_that_answered_for_another_model_is_said(
    bible: MovieBible, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has written the rows as well as if it had been asked, by whichever SDK and version."""
    monkeypatch.setenv("GEMINI_API_KEY", "a-key")
    monkeypatch.setenv("GAP_FILL_JUDGE", "google-genai")
    monkeypatch.setenv("GAP_FILL_JUDGE_NAME", "gemini-3.5-flash")
    fill_rows(
        bible,
        ["film-0001/plot"],
        provider="google-generativeai",
        model="gemini-2.0-flash",
        answered_by="gemini-3.5-flash-001",
    )
    assert "gemini-3.5-flash has written 1 row of these itself" in notes(bible)


@pytest.mark.parametrize("name", ["gemini-3.5-flash", "gemini-3.5-flash-001"])
def test_one_model_by_both_sdks_is_one_judge(
    bible: MovieBible, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Its agreement with itself says nothing."""
    monkeypatch.setenv("GEMINI_API_KEY", "a-key")
    monkeypatch.setenv("GAP_FILL_JUDGE", "google-genai")
    monkeypatch.setenv("GAP_FILL_JUDGE_NAME", "gemini-3.5-flash")
    monkeypatch.setenv("GAP_FILL_SECOND_JUDGE", "google-generativeai")
    monkeypatch.setenv("GAP_FILL_SECOND_JUDGE_NAME", name)
    with pytest.raises(PlanError, match="which agrees with itself"):
        plan(gap_fill_judge, bible)


def test_agreement_of_one_judge_is_refused(
    bible: MovieBible, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its test would be skipped, and nothing be held to what was asked for."""
    monkeypatch.setenv("GAP_FILL_SECOND_JUDGE", "none")
    with pytest.raises(PlanError, match=r"agreement=0\.6 is asked for, and there is no second"):
        plan(gap_fill_judge, bible, agreement=0.6)


def test_a_budget_is_refused_for_a_judge_of_an_unknown_price(
    bible: MovieBible, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """At the plan, and where the manifest is sent; its summary says so, of each such judge."""
    monkeypatch.setenv("GEMINI_API_KEY", "k")
    monkeypatch.setenv("GAP_FILL_JUDGE", "google-genai")
    monkeypatch.setenv("GAP_FILL_JUDGE_NAME", "gemini-3.5-flash-lite")
    monkeypatch.setenv("GAP_FILL_SECOND_JUDGE", "google-genai")
    monkeypatch.setenv("GAP_FILL_SECOND_JUDGE_NAME", "nobody-knows")
    entries = plan(gap_fill_judge, bible)
    path = tmp_path / "grades.jsonl"
    write_manifest(path, Header(workflow="gap_fill", mode="judge"), entries)
    manifest = read_manifest(path)
    with pytest.raises(DispatchError, match=r"nothing was sent: .*no price is known for nobody"):
        pytest_manifest_sending(manifest, manifest.ids, 1.0)
    pytest_manifest_sending(manifest, manifest.ids, None)
    told = "no price is known for nobody-knows: name a price table with TEXT_MODEL_PRICES"
    assert warnings_of(manifest) == [told]
    assert told in notes(bible)
    monkeypatch.delenv("GAP_FILL_JUDGE")
    monkeypatch.setenv("GAP_FILL_JUDGE_NAME", CHECKS)
    monkeypatch.setenv("GAP_FILL_SECOND_JUDGE", "none")
    assert warnings_of(plan(gap_fill_judge, bible)) == []


def test_what_is_asked_for_is_said(bible: MovieBible) -> None:
    said = notes(bible, at_least=0.9, bar=3, agreement=0.6)
    assert "asked for: grade 3 or better for 90% of the rows" in said
    assert said.endswith(", and alpha to be 0.6 at least")


@pytest.mark.parametrize(
    "options",
    [{"sample": 0}, {"batch": 0}, {"bar": 6}, {"at_least": 2}, {"controls": -1}, {"seed": -1}],
)
def test_bad_options_are_refused(bible: MovieBible, options: dict[str, JsonValue]) -> None:
    with pytest.raises(PlanError, match=next(iter(options))):
        plan(gap_fill_judge, bible, **options)


# The task


def run_batch(bible: MovieBible, rows: dict[str, str], **changes: object) -> Grading:
    judge = offline_judge(CHECKS)
    assert judge is not None
    batch = JudgeBatch(bible, judge, RUBRIC)
    order = judge_order(**changes)
    return batch.run(rows, order, seconds=60, progress=lambda _: None)


def test_rows_that_are_not_what_was_planned_are_not_graded(bible: MovieBible) -> None:
    """A row that was changed, one that is gone, and a passage that is gone are named."""
    rows = fill_rows(bible, [one.id for one in documents(2)])
    rows |= {"film-0044/plot": "0" * 64, "nowhere": "0" * 64}
    rows |= {"film-0003/plot": values_digest({**GOOD, "mood": "tense"})}
    found = run_batch(bible, rows)
    assert sorted(found.grades) == ["film-0001/plot", "film-0002/plot"]
    assert {passage: kind for passage, (kind, _) in found.ungraded.items()} == {
        "film-0044/plot": "no_row",
        "nowhere": "no_passage",
        "film-0003/plot": "changed_since_planned",
    }


def test_a_row_of_a_text_that_has_changed_is_not_graded(bible: MovieBible) -> None:
    """It says nothing of what is there now; neither where it had changed before it was planned."""
    rows = fill_rows(bible, ["film-0001/plot", "film-0002/plot"])
    first, second = documents(2)
    bible.load([replace(first, text="another text")])
    found = run_batch(bible, rows)
    assert list(found.grades) == [second.id]
    assert found.ungraded[first.id][0] == "changed_since_planned"
    entries = plan(gap_fill_judge, bible)
    assert first.id not in rows_in(entries)
    assert second.id in rows_in(entries)
    assert "1 row is of a text that has changed since, and not graded" in notes(bible)


def test_a_report_is_plain_json(bible: MovieBible) -> None:
    judge = offline_judge(CHECKS)
    assert judge is not None
    found = Grading(grades={"a": Grade(2, ("wrong",))}, ungraded={"b": ("missing", "no item")})
    document = JudgeBatch(bible, judge, RUBRIC).document(found)
    assert document["grades"] == {"a": {"grade": 2, "why": ["wrong"]}}
    assert (document["ungraded"], document["reasons"]) == (["b: missing"], {"b": "no item"})
    assert (document["model"], document["cost"]) == (CHECKS, 0.0)


def test_a_judge_that_takes_spoiled_rows_for_good_ones_is_unfit() -> None:
    values: dict[str, object] = {name: {"mood": "tense"} for name in ("a", "b", "c", "d")}
    order = judge_order(control={"bar": 4, "at_least": 0.75, "values": values})
    low, high = Grade(2), Grade(4)
    refuse_unfit(Grading(grades={"a": low, "b": low, "c": low, "d": high}), order)
    with pytest.raises(JudgeUnfitError, match=r"of 4 rows .* graded 2 4 or better, c, d among"):
        refuse_unfit(Grading(grades={"a": low, "b": low, "c": high, "d": high}), order)
    refuse_unfit(Grading(), order)  # its entry fails for what is ungraded
    refuse_unfit(Grading(grades={"a": high}), judge_order())


def test_controls_are_graded_instead_of_the_rows(bible: MovieBible) -> None:
    rows = fill_rows(bible, ["film-0001/plot"])
    control = {"bar": 4, "at_least": 1, "values": {"film-0001/plot": {"mood": "blue"}}}
    [grade] = run_batch(bible, rows, control=control).grades.values()
    assert "mood" in grade.why[0]


@pytest.mark.parametrize(
    ("rows", "changes", "message"),
    [
        ({}, {}, "rows"),
        (["a"], {}, "rows"),
        ({"a": "0"}, {"judge": "x"}, "data.judge"),
        ({"a": "0"}, {"more": 1}, "data.more"),
        ({"a": "0"}, {"control": {"bar": 9, "at_least": 1, "values": {"a": {}}}}, "bar"),
        ({"a": "0"}, {"control": {"bar": 4, "at_least": 1, "values": {"b": {}}}}, "passages of"),
    ],
)
def test_an_order_that_is_none_is_refused(
    rows: JsonValue, changes: dict[str, JsonValue], message: str
) -> None:
    data = judge_order().model_dump(exclude_defaults=True) | changes
    with pytest.raises(BadOrderError, match=message):
        read_judge_order(rows, data)


def test_a_worker_with_another_judge_or_rubric_refuses(
    bible: MovieBible, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GAP_FILL_DATABASE_URL", f"sqlite:///{tmp_path / 'bible.sqlite3'}")
    with pytest.raises(JudgeMismatchError, match=r"is set up for checks-1 .* and overlap-1"):
        equip_judge(judge_order(judge={"provider": "offline", "name": "checks-9"}))
    with pytest.raises(RubricError, match="is not the one that was planned"):
        equip_judge(judge_order(rubric_digest="0" * 64))
    with pytest.raises(JudgeNameError, match="no offline judge 'checks-9'"):
        identify_judge(Chosen("offline", "checks-9"))
    assert equip_judge(judge_order()).judge.name == CHECKS
