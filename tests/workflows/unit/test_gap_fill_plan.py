"""What is planned for which gaps, without any stack."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path
from types import MappingProxyType

import pytest
from pydantic import JsonValue

from pytest_manifest.errors import DispatchError, ManifestToolError, PlanError
from pytest_manifest.manifest import read_manifest
from pytest_manifest.planning import PlanBuilder
from pytest_manifest.schema import Entry
from pytest_manifest.testing import plan, plan_notes
from tasks.filling.prompts import PROMPTS, output_tokens
from tasks.movie_bible.bible import MovieBible, NewAnnotation
from tasks.movie_bible.documents import Document
from tasks.movie_bible.fields import text_digest
from tasks.text_model.failures import TextModelError
from tasks.text_model.prices import PRICES, today
from tests.workflows.crud_load import ROOT
from tests.workflows.filling_support import (
    PROMPT,
    ScriptedModel,
    batch_of,
    bible_at,
    documents,
    order,
)
from tests.workflows.movie_bible.jobs import job, request
from workflows.gap_fill import planning
from workflows.gap_fill.batches import entry_id
from workflows.gap_fill.plan import gap_fill_repair, pytest_manifest_sending
from workflows.gap_fill.pricing import pricings_of, refuse_unknown_price, warnings_of


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a developer has set says nothing here."""
    for name in list(os.environ):
        if name.startswith(("GEMINI_", "GOOGLE_", "TEXT_MODEL")):
            monkeypatch.delenv(name)


@pytest.fixture
def bible(tmp_path: Path) -> Iterator[MovieBible]:
    with bible_at(tmp_path, documents(45)) as opened:
        yield opened


def ids_of(entries: list[Entry]) -> list[list[JsonValue]]:
    return [list(entry.kwargs["ids"]) for entry in entries]  # type: ignore[arg-type]  # lists


def passages_of(entries: list[Entry]) -> list[JsonValue]:
    return [one for ids in ids_of(entries) for one in ids]


def data_of(entry: Entry) -> Mapping[str, JsonValue]:
    data = entry.kwargs["data"]
    assert isinstance(data, dict)
    return data


def notes(bible: MovieBible, **options: JsonValue) -> str:
    """What the planner says, for a preview."""
    return "\n".join(plan_notes(gap_fill_repair, bible, **options))


def fill(bible: MovieBible, ids: list[str], **changes: object) -> None:
    batch_of(bible, ScriptedModel(name="extractive-1")).run(ids, order(**changes))


def corpus_at(path: Path, docs: list[Document]) -> str:
    path.write_text("\n".join(json.dumps({"id": d.id, "text": d.text}) for d in docs) + "\n")
    return str(path)


def test_batches_by_number(bible: MovieBible) -> None:
    entries = plan(gap_fill_repair, bible, batch=20)
    assert [len(ids) for ids in ids_of(entries)] == [20, 20, 5]
    assert passages_of(entries) == [one.id for one in documents(45)]
    assert entries[0].id == "fill-00001:film-0001/plot..film-0020/plot"
    assert entries[0].task == "tasks.rag.process_batch_task"
    assert entries[0].meta["rows_before"] == []
    assert entries[0].idempotent


def test_batches_by_tokens(bible: MovieBible) -> None:
    by_number = plan(gap_fill_repair, bible, batch=1000)
    by_tokens = plan(gap_fill_repair, bible, batch=1000, max_tokens=2000)
    assert len(by_number) < len(by_tokens) < 45
    assert all(int(str(entry.meta["tokens_in"])) <= 2000 for entry in by_tokens)


def test_a_passage_beyond_the_tokens_is_a_batch_of_its_own(bible: MovieBible) -> None:
    bible.load([Document("film-0002/plot", "very long " * 3000)])
    sizes = [len(ids) for ids in ids_of(plan(gap_fill_repair, bible, max_tokens=3000))]
    assert sizes[:2] == [1, 1]


def test_the_same_gaps_give_the_same_entries(bible: MovieBible) -> None:
    assert plan(gap_fill_repair, bible) == plan(gap_fill_repair, bible)


def test_it_is_not_to_be_bought_twice() -> None:
    assert gap_fill_repair.manifest_plan.rerun is False  # type: ignore[attr-defined]  # the plugin's mark


def test_limit_only_and_where(bible: MovieBible) -> None:
    entries = plan(gap_fill_repair, bible, limit=3, only="mood", where="year>=1910")
    assert ids_of(entries) == [["film-0010/plot", "film-0011/plot", "film-0012/plot"]]
    assert data_of(entries[0])["fields"] == ["mood"]
    assert "limit: 3 passages planned, and there are more gaps" in notes(bible, limit=3)
    assert "gaps: of the first 3 passages; 3 without a row" in notes(bible, limit=3)
    assert "more gaps" not in notes(bible, limit=45)


def test_every_kind_of_gap_is_found_and_named(bible: MovieBible, tmp_path: Path) -> None:
    ids = [one.id for one in documents(6)]
    fill(bible, ids)  # 1 complete
    fill(bible, ["film-0008/plot"], fields=["summary"])  # lacks fields
    bible.load([Document("film-0002/plot", "a new text")])  # stale text
    bible.write([row(3, values={"mood": None})])
    bible.write([row(4, digest="0" * 64)])
    bible.write([row(7, version="movie-bible/0")])
    said = notes(bible)
    assert "45 passages; 2 with a row that lacks fields, 37 without a row, " in said
    assert "2 filled by another prompt, 1 filled from a text that has changed" in said
    planned = passages_of(plan(gap_fill_repair, bible))
    assert set(planned) == {one.id for one in documents(45)} - {ids[0], ids[4], ids[5]}


def row(
    number: int,
    *,
    version: str = PROMPT.version,
    digest: str = PROMPT.digest,
    values: Mapping[str, JsonValue] = MappingProxyType({"mood": "tense"}),
) -> NewAnnotation:
    """A row of a passage's present text."""
    return NewAnnotation(
        f"film-{number:04d}/plot",
        version,
        values,
        prompt_digest=digest,
        text_digest=text_digest(f"text {number}"),
    )


def test_what_people_have_completed_is_no_gap(bible: MovieBible) -> None:
    given: dict[str, JsonValue] = {"summary": "S.", "themes": [], "characters": [], "mood": "odd"}
    bible.load([Document("film-0001/plot", "text 1", given=given)])
    assert "film-0001/plot" not in passages_of(plan(gap_fill_repair, bible))


def test_rows_of_another_model_are_gaps_only_where_they_are_to_be_replaced(
    bible: MovieBible, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(bible, [one.id for one in documents(45)])
    monkeypatch.setenv("GEMINI_API_KEY", "k")
    assert plan(gap_fill_repair, bible) == []
    entries = plan(gap_fill_repair, bible, replace_models=True)
    assert sum(map(len, ids_of(entries))) == 45
    assert data_of(entries[0])["model"] == {
        "provider": "google-genai",
        "name": "gemini-3.5-flash-lite",
    }
    assert entries[0].meta["rows_before"] == entries[0].kwargs["ids"]
    assert "no key is set" not in notes(bible, replace_models=True)
    monkeypatch.delenv("GEMINI_API_KEY")
    monkeypatch.setenv("TEXT_MODEL", "google-genai")
    assert "no key is set here; the workers need" in notes(bible, replace_models=True)


def test_a_model_that_there_is_not_is_refused(
    bible: MovieBible, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEXT_MODEL_NAME", "gemini-3.5-flash")
    with pytest.raises(ManifestToolError, match="no key is set, so it would be the offline model"):
        plan(gap_fill_repair, bible)
    monkeypatch.setenv("TEXT_MODEL", "gemini")
    with pytest.raises(ManifestToolError, match="'gemini', which is no model; set it to google-g"):
        plan(gap_fill_repair, bible)


def test_a_model_of_ones_own_is_planned_under_its_own_name(
    bible: MovieBible, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEXT_MODEL", "tests.workflows.filling_support:own_model")
    entries = plan(gap_fill_repair, bible)
    assert data_of(entries[0])["model"] == {"provider": "scripted", "name": "own-1"}


def test_whose_answers_count_is_planned(bible: MovieBible, monkeypatch: pytest.MonkeyPatch) -> None:
    """It travels with the batch, and the preview says it."""
    monkeypatch.setenv("GEMINI_API_KEY", "k")
    assert "accept" not in data_of(plan(gap_fill_repair, bible)[0])["model"]  # type: ignore[operator]  # an object
    monkeypatch.setenv("TEXT_MODEL_ACCEPT", "gemini-3.5-flash, unnamed")
    assert data_of(plan(gap_fill_repair, bible)[0])["model"] == {
        "provider": "google-genai",
        "name": "gemini-3.5-flash-lite",
        "accept": ["gemini-3.5-flash", "unnamed"],
    }
    assert "answers of gemini-3.5-flash, unnamed count too" in notes(bible)


def test_a_model_whose_end_is_announced_is_said(
    bible: MovieBible, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", "k")
    assert "the end of" not in notes(bible)
    monkeypatch.setenv("TEXT_MODEL_NAME", "gemini-2.5-flash")
    monkeypatch.setattr(planning, "today", lambda: date(2026, 11, 30))
    assert "announced for 2026-12-01 (ai.google.dev" in notes(bible)
    monkeypatch.setattr(planning, "today", lambda: date(2026, 12, 1))
    with pytest.raises(TextModelError, match=r"has ended on 2026-12-01 .* plan for gemini-3\.5"):
        notes(bible)
    monkeypatch.setenv("TEXT_MODEL_ACCEPT", "gemini-2.5-flash")
    assert "and is accepted all the same" in notes(bible)


def test_what_the_model_refuses_is_said_at_the_plan(
    bible: MovieBible, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", "k")
    monkeypatch.setenv("TEXT_MODEL_THINKING_TOKENS", "0")
    with pytest.raises(ManifestToolError, match="takes a level, no number"):
        plan(gap_fill_repair, bible)


@pytest.mark.parametrize(
    ("tier", "share", "said"),
    [
        ("flex", 0.5, "tier flex: at half the price; calls may take"),
        ("flex-or-standard", 1.0, "the estimate is that of the whole one"),
    ],
)
def test_the_tier_is_planned(
    bible: MovieBible, monkeypatch: pytest.MonkeyPatch, tier: str, share: float, said: str
) -> None:
    """With its price, which is the whole one where calls may fall back, and time for its calls."""
    monkeypatch.setenv("GEMINI_API_KEY", "k")
    usual = plan(gap_fill_repair, bible)[0]
    assert (usual.timeout, usual.cost is not None) == (600, True)
    monkeypatch.setenv("TEXT_MODEL_SERVICE_TIER", tier)
    entry = plan(gap_fill_repair, bible)[0]
    model = data_of(entry)["model"]
    assert isinstance(model, dict)
    assert model["tier"] == tier
    assert entry.cost == pytest.approx(share * (usual.cost or 0), rel=1e-6)
    assert entry.timeout == 1800
    assert plan(gap_fill_repair, bible, timeout=60)[0].timeout == 60
    assert said in notes(bible)


def test_a_tier_without_a_price_is_said(
    bible: MovieBible, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", "k")
    monkeypatch.setenv("TEXT_MODEL_SERVICE_TIER", "flex")
    document = json.loads(PRICES.read_bytes())
    del document["models"]["gemini-3.5-flash-lite"]["shares"]
    (tmp_path / "p.json").write_text(json.dumps(document))
    monkeypatch.setenv("TEXT_MODEL_PRICES", str(tmp_path / "p.json"))
    assert plan(gap_fill_repair, bible)[0].cost is None
    assert "no price is known for gemini-3.5-flash-lite at the tier flex" in notes(bible)


def test_batch_jobs_are_planned_as_pairs(
    bible: MovieBible, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One entry submits, one collects after it; rows, price and expectations are the second's."""
    monkeypatch.setenv("GEMINI_API_KEY", "k")
    (usual, *_) = plan(gap_fill_repair, bible, batch=45, max_tokens=100_000)
    monkeypatch.setenv("TEXT_MODEL_SERVICE_TIER", "batch")
    submit, collect = plan(gap_fill_repair, bible)
    assert [submit.task, collect.task] == [
        "tasks.rag.submit_batch_task",
        "tasks.rag.collect_batch_task",
    ]
    assert submit.id == "submit-00001:film-0001/plot..film-0045/plot"
    assert collect.id == "collect-00001:film-0001/plot..film-0045/plot"
    assert (submit.after, collect.after) == ([], [submit.id])
    assert dict(collect.kwargs) == {**submit.kwargs, "submitted_by": submit.id}
    assert submit.cost == 0.0
    assert collect.cost == pytest.approx((usual.cost or 0) / 2, rel=1e-6)
    assert (list(submit.tags), list(collect.tags)) == (["submit"], ["gap_fill"])
    assert (submit.timeout, collect.timeout) == (600, 600)
    assert collect.meta["passages"] == 45
    assert "tier batch: at half the price; jobs of the service take up to a day" in notes(bible)


def test_a_batch_job_is_larger_than_a_batch_of_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """500 passages, unless something else is asked for."""
    monkeypatch.setenv("GEMINI_API_KEY", "k")
    monkeypatch.setenv("TEXT_MODEL_SERVICE_TIER", "batch")
    with bible_at(tmp_path, documents(600)) as many:
        sizes = [len(ids) for ids in ids_of(plan(gap_fill_repair, many))]
        assert sizes == [500, 500, 100, 100]
        assert len(plan(gap_fill_repair, many, batch=100)) == 12


def test_what_batch_jobs_have_and_nobody_has_collected_is_said(
    bible: MovieBible, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planned anew it would be bought twice."""
    monkeypatch.setenv("GEMINI_API_KEY", "k")
    assert "not collected" not in notes(bible)
    pending = job()
    bible.jobs.intend(pending, [request("a", pending, "film-0001/plot", "film-0002/plot")])
    assert "batch jobs of run R are not collected, with 2 passages" in notes(bible)


def test_what_has_no_batch_jobs_is_refused(
    bible: MovieBible, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A factory's model, where it is planned."""
    monkeypatch.setenv("TEXT_MODEL", "tests.workflows.filling_support:own_model")
    monkeypatch.setenv("TEXT_MODEL_SERVICE_TIER", "batch")
    with pytest.raises(PlanError, match="has no batch jobs"):
        plan(gap_fill_repair, bible)


def test_the_offline_model_has_no_tier(bible: MovieBible, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXT_MODEL_SERVICE_TIER", "flex")
    entry = plan(gap_fill_repair, bible)[0]
    assert data_of(entry)["model"] == {"provider": "offline", "name": "extractive-1"}
    assert (entry.cost, entry.timeout) == (0.0, 600)


def test_what_people_have_written_since_is_loaded_and_not_bought(
    bible: MovieBible, tmp_path: Path
) -> None:
    """The corpus was completed by hand after it was loaded."""
    lines: list[dict[str, JsonValue]] = [
        {"id": "film-0001/plot", "text": "text 1", "summary": "By hand.", "mood": "odd"},
        {"id": "film-0002/plot", "text": "text 2", "summary": "s", "themes": ["a"]},
    ]
    lines[1] |= {"characters": [], "mood": "odd"}
    path = tmp_path / "c.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (entry,) = plan(gap_fill_repair, bible, corpus=str(path))
    assert entry.kwargs["ids"] == ["film-0001/plot"]
    carried = data_of(entry)["documents"]
    assert isinstance(carried, list)
    assert len(carried) == 1
    assert entry.meta["tokens_out"] == output_tokens(("themes", "characters"))
    assert "complete and not loaded: 1 document" in notes(bible, corpus=str(path))


def test_cost_is_estimated_at_the_price_of_the_model(
    bible: MovieBible, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", "k")
    entries = plan(gap_fill_repair, bible)
    assert all(entry.cost and entry.cost > 0 for entry in entries)
    assert "list prices of 20" in notes(bible)
    monkeypatch.setenv("TEXT_MODEL_NAME", "nobody-knows")
    assert all(entry.cost is None for entry in plan(gap_fill_repair, bible))
    assert "no price is known for nobody-knows: name a price table" in notes(bible)


def test_a_model_that_may_answer_is_part_of_the_price(
    bible: MovieBible, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dearest counts, and one without a price makes all of it unknown."""
    monkeypatch.setenv("GEMINI_API_KEY", "k")
    cheap = plan(gap_fill_repair, bible)[0].cost
    monkeypatch.setenv("TEXT_MODEL_ACCEPT", "gemini-3.5-flash unnamed")
    dear = plan(gap_fill_repair, bible)[0].cost
    assert cheap is not None
    assert dear is not None
    assert dear > 2 * cheap
    monkeypatch.setenv("TEXT_MODEL_ACCEPT", "gemini-9")
    assert plan(gap_fill_repair, bible)[0].cost is None
    assert "no price is known for gemini-9" in notes(bible)


def test_old_prices_are_said(
    bible: MovieBible, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """From 90 days on; of what is free there is nothing to say."""
    monkeypatch.setenv("TEXT_MODEL_PRICES", str(tmp_path / "p.json"))
    document = json.loads(PRICES.read_bytes())
    for days, said in ((90, False), (91, True)):
        document["as_of"] = (today() - timedelta(days=days)).isoformat()
        (tmp_path / "p.json").write_text(json.dumps(document))
        monkeypatch.setenv("GEMINI_API_KEY", "k")
        assert (f"{days} days ago: check them" in notes(bible)) is said
        monkeypatch.delenv("GEMINI_API_KEY")
        assert "check them" not in notes(bible)


def test_a_cap_travels_with_each_entry(bible: MovieBible, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", "k")
    entries = plan(gap_fill_repair, bible, cap=0.5)
    assert {data_of(entry)["cap"] for entry in entries} == {0.5}
    assert "each entry may cost 0.5 USD at most" in notes(bible, cap=0.5)
    with pytest.raises(PlanError, match=r"is estimated to cost .*cap is 0\.0001; plan smaller"):
        plan(gap_fill_repair, bible, cap=0.0001)
    monkeypatch.setenv("TEXT_MODEL_NAME", "nobody-knows")
    with pytest.raises(PlanError, match=r"cap=1, and no price is known for nobody-knows"):
        plan(gap_fill_repair, bible, cap=1)


def test_a_budget_is_refused_where_the_price_is_not_known(
    bible: MovieBible, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the plan, and at the dispatch of a manifest that was planned before."""
    monkeypatch.setenv("GEMINI_API_KEY", "k")
    spec = gap_fill_repair.manifest_plan  # type: ignore[attr-defined]  # the plugin's mark
    with closing(PlanBuilder(spec, {})) as builder:
        spec.function(builder, bible)
        builder.check_cost(1.0)
    monkeypatch.setenv("TEXT_MODEL_NAME", "nobody-knows")
    with closing(PlanBuilder(spec, {})) as builder:
        spec.function(builder, bible)
        builder.check_cost(None)
        with pytest.raises(PlanError, match=r"--manifest-budget is 1, and no price is known for"):
            builder.check_cost(1.0)


def test_a_budget_is_refused_for_a_manifest_of_an_unknown_price(
    bible: MovieBible, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the table that holds when it is sent has it; without a budget it is sent."""
    manifest = read_manifest(ROOT / "manifests" / "gap_fill_01.jsonl")
    pytest_manifest_sending(manifest, manifest.ids, 1.0)
    monkeypatch.setenv("GEMINI_API_KEY", "k")
    monkeypatch.setenv("TEXT_MODEL_NAME", "nobody-knows")
    unknown = plan(gap_fill_repair, bible)
    with pytest.raises(DispatchError, match=r"nothing was sent: .*no price is known for nobody"):
        refuse_unknown_price(manifest, unknown, 1.0)
    refuse_unknown_price(manifest, [], 1.0)  # where all of it is reused
    (pricing,) = pricings_of(unknown)
    assert pricing.warnings == warnings_of(unknown)
    assert warnings_of(unknown) == [
        "no price is known for nobody-knows: name a price table with TEXT_MODEL_PRICES"
    ]
    monkeypatch.setenv("TEXT_MODEL_PRICES", "/no/such/table.json")
    (told,) = warnings_of(unknown)
    assert "the price table cannot be read" in told
    assert warnings_of([unknown[0].model_copy(update={"kwargs": {}})]) == []
    assert warnings_of([]) == []


def test_another_prompt_makes_every_row_a_gap(
    bible: MovieBible, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(bible, [one.id for one in documents(45)])
    assert plan(gap_fill_repair, bible) == []
    (tmp_path / "prompts" / "mine").mkdir(parents=True)
    (tmp_path / "prompts" / "mine" / "1.md").write_text("Do.\n---\n$orders\n$passages")
    monkeypatch.setenv("GAP_FILL_PROMPTS", str(tmp_path / "prompts"))
    monkeypatch.setenv("GAP_FILL_PROMPT", "mine")
    assert "45 filled by another prompt" in notes(bible)
    data = data_of(plan(gap_fill_repair, bible)[0])
    assert data["prompt"] == "mine/1"
    assert data["prompt_digest"] == PROMPTS.load("mine/1", tmp_path / "prompts").digest


def test_a_corpus_beside_the_database(bible: MovieBible, tmp_path: Path) -> None:
    """What is not loaded, or has changed, travels with its batch; what is gone is said."""
    fill(bible, [one.id for one in documents(4)])
    docs = [
        Document("film-0001/plot", "text 1"),  # complete
        Document("film-0002/plot", "changed"),
        Document("new/plot", "new"),
        Document("film-0009/plot", "text 9"),  # in the database, without a row
    ]
    corpus = corpus_at(tmp_path / "c.jsonl", docs)
    (entry,) = plan(gap_fill_repair, bible, corpus=corpus)
    assert entry.kwargs["ids"] == ["film-0002/plot", "new/plot", "film-0009/plot"]
    carried = data_of(entry)["documents"]
    assert isinstance(carried, list)
    told = [(one["id"], one["replaces"]) for one in carried if isinstance(one, dict)]
    assert told == [("film-0002/plot", text_digest("text 2")), ("new/plot", None)]
    assert entry.meta["gaps"] == {"no_row": 1, "not_loaded": 1, "stale_text": 1}
    said = notes(bible, corpus=corpus)
    assert "rows beyond the corpus: of 2 passages (film-0003/plot, film-0004/plot)" in said


def test_documents_that_people_have_completed_need_only_loading(
    bible: MovieBible, tmp_path: Path
) -> None:
    line = {"id": "x", "text": "t", "summary": "s", "themes": ["a"], "characters": [], "mood": "m"}
    path = tmp_path / "c.jsonl"
    path.write_text(json.dumps(line) + "\n")
    assert plan(gap_fill_repair, bible, corpus=str(path)) == []
    assert "complete and not loaded: 1 document;" in notes(bible, corpus=str(path))


def test_names_of_another_corpus_are_mapped(bible: MovieBible, tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text("slug,body\na,A text.\n")
    (entry,) = plan(gap_fill_repair, bible, corpus=str(path), fields="id=slug,text=body")
    assert entry.kwargs["ids"] == ["a"]
    with pytest.raises(PlanError, match="add corpus=PATH"):
        plan(gap_fill_repair, bible, fields="id=slug")


def test_orphans_stay_unless_they_are_to_go(bible: MovieBible) -> None:
    bible.write([NewAnnotation(f"gone-{n}", PROMPT.version, {"mood": "tense"}) for n in range(3)])
    assert "orphans, rows without a passage: of 3 passages (gone-0, gone-1, gone-2): kept" in notes(
        bible
    )
    assert not any(entry.tags == ["orphans"] for entry in plan(gap_fill_repair, bible))
    entries = plan(gap_fill_repair, bible, orphans="remove", batch=2)
    chosen = [entry for entry in entries if entry.tags == ["orphans"]]
    assert ids_of(chosen) == [["gone-0", "gone-1"], ["gone-2"]]
    assert data_of(chosen[0]) == {"action": "remove_orphans"}
    with pytest.raises(PlanError, match="plan the removal by itself"):
        plan(gap_fill_repair, bible, orphans="remove", corpus="sample")


def test_a_row_without_its_passage_counts_as_there_when_the_corpus_brings_it_back(
    bible: MovieBible, tmp_path: Path
) -> None:
    bible.write([NewAnnotation("back", PROMPT.version, {"mood": "tense"})])
    corpus = corpus_at(tmp_path / "c.jsonl", [Document("back", "here again")])
    (entry,) = plan(gap_fill_repair, bible, corpus=corpus)
    assert entry.meta["rows_before"] == ["back"]


def test_an_empty_database_says_how_to_fill_it(tmp_path: Path) -> None:
    with (
        bible_at(tmp_path) as empty,
        pytest.raises(PlanError, match=r"python -m workflows.gap_fill.corpus load PATH"),
    ):
        plan(gap_fill_repair, empty)


def test_an_empty_corpus_is_refused(bible: MovieBible, tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text("")
    with pytest.raises(PlanError, match="holds no documents"):
        plan(gap_fill_repair, bible, corpus=str(tmp_path / "c.jsonl"))


def test_a_text_that_was_changed_alone_is_a_gap(bible: MovieBible, tmp_path: Path) -> None:
    """By SQL, without its digest."""
    fill(bible, [one.id for one in documents(45)])
    with closing(sqlite3.connect(tmp_path / "bible.sqlite3")) as connection, connection:
        connection.execute("UPDATE passage SET text = 'new' WHERE id = 'film-0003/plot'")
    (entry,) = plan(gap_fill_repair, bible)
    assert entry.kwargs["ids"] == ["film-0003/plot"]


def test_no_gap_is_said_and_nothing_is_planned(bible: MovieBible) -> None:
    fill(bible, [one.id for one in documents(45)])
    assert plan(gap_fill_repair, bible) == []
    assert notes(bible) == "no gap: 45 passages, and nothing is missing"
    assert "45 passages, 1 of them as asked for" in notes(bible, where="id=film-0001/plot")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "batch"),
        ({"max_tokens": 5}, "max_tokens"),
        ({"only": "plot"}, "only"),
        ({"limit": 0}, "limit"),
        ({"where": "x"}, "is no condition"),
        ({"corpus": "/no/such/file.jsonl"}, "no such"),
        ({"corpus": ""}, "names no corpus"),
    ],
)
def test_bad_options_are_refused(
    bible: MovieBible, options: dict[str, JsonValue], message: str
) -> None:
    with pytest.raises(PlanError, match=message):
        plan(gap_fill_repair, bible, **options)


def test_ids_of_entries_stay_short() -> None:
    long = "x" * 150
    assert len(entry_id("fill", 1, [long, long])) < 200
    assert entry_id("fill", 7, ["a"]) == "fill-00007:a"


def test_the_committed_manifest_is_what_is_planned(tmp_path: Path) -> None:
    """``manifests/gap_fill_01.jsonl`` carries the first gaps of the sample corpus with it."""
    committed = read_manifest(ROOT / "manifests" / "gap_fill_01.jsonl")
    with bible_at(tmp_path) as empty:
        fresh = plan(gap_fill_repair, empty, corpus="sample", limit=10, batch=5)
    assert list(committed) == fresh
    assert committed.header.rerun is False
