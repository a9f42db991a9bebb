"""A language model as a judge: rubrics, requests, answers joined by key, and what goes wrong."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from tasks.judging import model_judge
from tasks.judging.equipment import model_settings
from tasks.judging.grades import Grading, Row
from tasks.judging.model_judge import OUT_OF_TIME, Asking, ModelJudge
from tasks.judging.rubric import RUBRICS, RubricError, read_grades, row_tokens
from tasks.judging.settings import Chosen
from tasks.movie_bible.documents import FilmFacts
from tasks.text_model.accepting import Accepted
from tasks.text_model.base import Billed, TextRequest
from tasks.text_model.failures import (
    MalformedAnswer,
    ModelFailure,
    PromptBlocked,
    ServerFailed,
    TooLong,
    Unauthorized,
)
from tasks.text_model.limits import NoLimit
from tasks.text_model.prices import PriceTable
from tests.workflows.filling_support import QUICK, Ending, Item
from tests.workflows.judging_support import RUBRIC, TEXT, GradingModel, keys_of, row_of, rows_of

PRICES = PriceTable.load()
PRICED = "gemini-2.5-flash"
SECONDS = 60.0


def judge_of(model: GradingModel, **changes: float) -> ModelJudge:
    asking = Asking(**{"concurrency": 2, "per_call": 4, **changes})  # type: ignore[arg-type]  # whole numbers
    accepted = Accepted(model.name)
    return ModelJudge(
        model, RUBRIC, PRICES, accepted, limiter=NoLimit(), policy=QUICK, asking=asking
    )


def graded(judge: ModelJudge, rows: list[Row], seconds: float = 60.0) -> Grading:
    return judge.grade(rows, seconds=seconds, progress=lambda _: None)


def marked(request: TextRequest, mark: str) -> bool:
    return mark in request.prompt


# Rubrics


def test_a_rubric_is_a_file_with_a_digest() -> None:
    assert RUBRICS.load("movie-bible") == RUBRIC
    assert (RUBRIC.version, len(RUBRIC.digest)) == ("movie-bible/1", 64)
    assert RUBRIC.overhead_tokens() > 100


@pytest.mark.parametrize(
    ("version", "content", "message"),
    [
        ("a b", "", "write it as NAME/NUMBER"),
        ("own/2", "Grade.\n---\n$rows\n", "has own/1; set GAP_FILL_RUBRIC"),
        ("other", "", "has none of that name"),
        ("own/1", "Grade.\n$rows\n", "no line '---'"),
        ("own/1", "Grade.\n---\nrows\n", r"must hold \$rows"),
        ("own/1", "Worth 5$.\n---\n$rows\n", r"must be written as '\$\$'"),
        ("own/1", "Grade.\n---\n$rows $row\n", r"\$row is not known there; use \$rows"),
        ("own/1", "Gr\udce4de.\n---\n$rows\n", "is not UTF-8"),
    ],
)
def test_a_rubric_that_is_none_is_refused(
    tmp_path: Path, version: str, content: str, message: str
) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "1.md").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(RubricError, match=message):
        RUBRICS.load(version, tmp_path)


def test_a_request_has_each_row_beside_its_passage() -> None:
    """Under keys that are new each time, so that no passage can name one."""
    film = FilmFacts("c", "Casablanca\n", 1942)
    asked = RUBRIC.ask([Row("p", TEXT, row_of().values, film)], timeout=3)
    again = RUBRIC.ask([row_of()], timeout=3)
    [key] = asked.by_key
    assert keys_of(asked.request) == [key]
    assert f"=== passage {key} ===\n{TEXT}\n" in asked.request.prompt
    assert "about the film Casablanca (1942) ===" in asked.request.prompt
    assert '"themes": ["war", "lost love"]' in asked.request.prompt
    assert key not in again.by_key
    assert "bleak, comic" in asked.request.instructions
    assert row_tokens(row_of()) > len(TEXT) / 4


# Answers


def test_grades_are_joined_by_key() -> None:
    """Of what is missing, doubled or malformed nothing is believed; strangers are passed over."""
    rows = rows_of(6)
    by_key = {f"k{number}": row for number, row in enumerate(rows, 1)}
    items: list[Item] = [
        {"key": "k3", "grade": 5, "why": ""},
        {"key": "k1", "grade": 2, "why": " summary: wrong "},
        {"key": "k4", "grade": 5},
        {"key": "k4", "grade": 1},
        {"key": "k5", "grade": 6, "why": ""},
        {"key": "k6", "grade": "5", "why": ""},
        {"key": "k9", "grade": 1, "why": ""},
    ]
    found = read_grades(json.dumps({"items": items}), by_key)
    assert {p: (g.grade, g.why) for p, g in found.grades.items()} == {
        "p-001": (2, ("summary: wrong",)),
        "p-003": (5, ()),
    }
    kinds = {passage: kind for passage, (kind, _) in found.problems.items()}
    assert kinds == {
        "p-002": "missing",
        "p-004": "doubled",
        "p-005": "malformed",
        "p-006": "malformed",
    }
    for text in ("no JSON", "[]", '{"items": 3}', "{}"):
        with pytest.raises(MalformedAnswer, match="no JSON object with a list"):
            read_grades(text, by_key)


# The judge


def test_rows_are_graded_a_few_in_a_call() -> None:
    """All calls are paid, and each is told of."""
    model = GradingModel(name=PRICED)
    told: list[int] = []
    found = judge_of(model).grade(
        rows_of(10), seconds=60, progress=lambda g: told.append(g.spent.cost_nanos)
    )
    assert sorted(found.grades) == [row.passage for row in rows_of(10)]
    assert {one.grade for one in found.grades.values()} == {4}
    assert sorted(model.sizes) == [2, 4, 4]
    price = PRICES.price(PRICED)
    assert price is not None
    each = price.cost_nanos(100, 10)
    assert each > 0
    assert (found.calls, found.spent.cost_nanos) == (3, 3 * each)
    assert told == [each, 2 * each, 3 * each]
    assert found.answered_by == {PRICED}


def test_without_a_price_a_cost_is_not_known() -> None:
    judge = judge_of(GradingModel())
    assert not judge.has_price
    assert graded(judge, rows_of(1)).spent.tokens_in == 100


def test_what_the_answer_lacks_is_asked_for_alone() -> None:
    """So many times, and then it is named; the others have their grades."""

    def without_second(request: TextRequest, items: list[Item]) -> list[Item]:
        mark = next(k for k in keys_of(request) if f"=== passage {k} ===\nbad" in request.prompt)
        return [item for item in items if item["key"] != mark]

    def sometimes(request: TextRequest, items: list[Item]) -> list[Item]:
        return without_second(request, items) if "\nbad" in request.prompt else items

    rows = [row_of("p-001"), row_of("p-002", "bad"), row_of("p-003")]
    model = GradingModel(sometimes)
    found = graded(judge_of(model, asks_alone=2), rows)
    assert sorted(found.grades) == ["p-001", "p-003"]
    assert found.ungraded == {"p-002": ("missing", "the answer has no item for it")}
    assert model.sizes == [3, 1, 1]


@pytest.mark.parametrize(
    ("failure", "kind", "calls_alone"),
    [
        (PromptBlocked("it would not read it"), "prompt_blocked", 3),
        (TooLong("too long"), "too_long", 1),
    ],
)
def test_a_call_that_may_be_divided_is_halved(
    failure: ModelFailure, kind: str, calls_alone: int
) -> None:
    """Down to the row that it fails for, which is given up."""

    def fails(request: TextRequest, items: list[Item]) -> list[Item]:
        if marked(request, "bad"):
            raise failure
        return items

    rows = [*rows_of(3), row_of("p-004", "bad")]
    model = GradingModel(fails)
    found = graded(judge_of(model), rows)
    assert sorted(found.grades) == ["p-001", "p-002", "p-003"]
    assert {passage: kind for passage, (kind, _) in found.ungraded.items()} == {"p-004": kind}
    assert (
        sum(
            size == 1 and marked(r, "bad")
            for size, r in zip(model.sizes, model.requests, strict=True)
        )
        == calls_alone
    )


def test_a_service_in_trouble_is_asked_again_and_then_given_up() -> None:
    def fails(request: TextRequest, items: list[Item]) -> list[Item]:
        raise ServerFailed("500: ask again")

    found = graded(judge_of(GradingModel(fails)), rows_of(2))
    assert {kind for kind, _ in found.ungraded.values()} == {"server_failed"}
    assert found.failures == {"server_failed": QUICK.attempts}


def grade_two(judge: ModelJudge, told: list[int]) -> None:
    """A row, and one that is marked as bad; what was paid is told."""
    rows = [row_of("p-001"), row_of("p-002", "bad")]
    judge.grade(rows, seconds=60, progress=lambda g: told.append(g.spent.tokens_in))


@pytest.mark.parametrize(
    "error", [Unauthorized("the key is refused"), ZeroDivisionError("own fault")]
)
def test_what_no_call_can_overcome_ends_the_batch(error: Exception) -> None:
    """What was paid until then was told."""
    told: list[int] = []

    def fails(request: TextRequest, items: list[Item]) -> list[Item]:
        if marked(request, "bad"):
            raise error
        return items

    judge = judge_of(GradingModel(fails), concurrency=1, per_call=1)
    with pytest.raises(ModelFailure, match=str(error)):
        grade_two(judge, told)
    assert told == [100, 100]


def test_what_is_answered_while_a_batch_ends_is_counted() -> None:
    """It is paid for, whatever another call has come to."""
    told: list[int] = []
    begun, failing = threading.Event(), threading.Event()

    def fails(request: TextRequest, items: list[Item]) -> list[Item]:
        if marked(request, "bad"):
            assert begun.wait(SECONDS)
            failing.set()
            raise Unauthorized("the key is refused")
        begun.set()
        assert failing.wait(SECONDS)
        time.sleep(0.1)  # the time of a call
        return items

    judge = judge_of(GradingModel(fails), per_call=1)
    with pytest.raises(Unauthorized):
        grade_two(judge, told)
    assert told == [0, 100]


def test_what_is_answered_just_after_its_time_is_graded() -> None:
    """The rest is named; a grade that came is no row without one."""

    def late(request: TextRequest, items: list[Item]) -> list[Item]:
        time.sleep(0.5)  # the time of a call
        return items[:1]

    found = graded(judge_of(GradingModel(late), per_call=2), rows_of(6), 0.2)
    assert sorted(found.grades) == ["p-001", "p-003"]
    assert sorted(found.ungraded) == ["p-002", "p-004", "p-005", "p-006"]
    assert {kind for kind, _ in found.ungraded.values()} == {OUT_OF_TIME}
    assert (found.calls, found.spent.tokens_in) == (2, 200)


def test_an_answer_that_is_no_json_is_counted_and_given_up() -> None:
    """After as many tries alone as it is given."""
    found = graded(judge_of(GradingModel(lambda *_: "no JSON"), asks_alone=2), rows_of(1))
    assert {kind for kind, _ in found.ungraded.values()} == {"malformed_answer"}
    assert found.failures == {"malformed_answer": 2}


def test_what_has_no_grade_when_time_is_over_is_named() -> None:
    """Nothing is asked that nobody would wait for."""
    model = GradingModel()
    found = graded(judge_of(model), rows_of(3), 0.0)
    assert found.grades == {}
    assert {kind for kind, _ in found.ungraded.values()} == {OUT_OF_TIME}
    assert list(found.ungraded) == ["p-001", "p-002", "p-003"]
    assert model.requests == []


class Two:
    """Two calls under way when the time of a judge ends: one that answers, and ``last``."""

    def __init__(self, ending: Ending) -> None:
        self.ending = ending
        self.hangs, self.released = threading.Event(), threading.Event()

    def answer(self, request: TextRequest, items: list[Item]) -> list[Item]:
        if marked(request, "last"):
            self.hangs.set()
            self.released.wait(20)
        else:
            self.hangs.wait(20)
            self.ending.over.set()
        return items


LAST = [row_of("p-001"), row_of("p-002", "last"), row_of("p-003")]


def test_an_answer_on_its_way_when_time_is_over_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For a moment: it is paid, so its grades count. What is asked for no more is named."""
    ending = Ending(monkeypatch, model_judge)
    two, told = Two(ending), list[int]()
    two.released = ending.waited_for
    judge = judge_of(GradingModel(two.answer, name=PRICED), per_call=1)
    found = judge.grade(LAST, seconds=60, progress=lambda g: told.append(g.spent.tokens_in))
    assert sorted(found.grades) == ["p-001", "p-002"]
    assert {one: kind for one, (kind, _) in found.ungraded.items()} == {"p-003": OUT_OF_TIME}
    assert (found.calls, found.unknown_bills, told) == (2, 0, [100, 200])


@pytest.mark.parametrize("ends", ["in time", "by a failure", "by its job"])
def test_a_call_that_is_not_waited_for_may_be_billed(
    monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    """However its judge ends; what is known of its cost is told as well."""
    ending = Ending(monkeypatch, model_judge, is_patient=False)
    two, told = Two(ending), list[tuple[int, int, int]]()

    def answer(request: TextRequest, items: list[Item]) -> list[Item]:
        if marked(request, "last") and sum(marked(one, "last") for one in model.requests) < 2:
            raise ServerFailed("500", billed=Billed(7, 0, PRICED))
        items = two.answer(request, items)
        if ends == "by a failure" and not marked(request, "last"):
            raise Unauthorized("the key is refused")
        return items

    def progress(found: Grading) -> None:
        told.append((found.calls, found.spent.tokens_in, found.unknown_bills))
        if ends == "by its job" and len(told) == 1:
            raise InterruptedError

    model = GradingModel(answer, name=PRICED)
    judge = judge_of(model, per_call=1)
    known = 7 if ends == "by a failure" else 107
    try:
        if ends == "in time":
            found = judge.grade(LAST, seconds=60, progress=progress)
            assert sorted(found.ungraded) == ["p-002", "p-003"]
        else:
            with pytest.raises((Unauthorized, InterruptedError)):
                judge.grade(LAST, seconds=60, progress=progress)
    finally:
        two.released.set()
    assert told[-1] == (2, known, 1)


def test_a_judge_is_asked_at_once_whatever_tier_its_rows_are_filled_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else one whose service has no such tier could not be opened."""
    monkeypatch.setenv("TEXT_MODEL_SERVICE_TIER", "batch")
    settings = model_settings(Chosen("mine:open_model", "mine-1"))
    assert (settings.provider, settings.name) == ("mine:open_model", "mine-1")
    assert settings.service_tier == "standard"
