"""How good rows are by a sample's grades, how far judges agree, and what of it is shown."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import JsonValue

from pytest_manifest.manifest import Manifest, write_manifest
from pytest_manifest.plugin.verdict_reader import ManifestRun
from pytest_manifest.schema import Entry, Header, Receipt
from pytest_manifest.testing import make_receipt
from tasks.movie_bible.bible import MovieBible
from tests.workflows.filling_support import bible_at, documents
from tests.workflows.judging_support import GOOD, RUBRIC, fill_rows, judge_order
from workflows.gap_fill import verify
from workflows.gap_fill.grades import faults_of_grades, grades_of, report_of
from workflows.gap_fill.quality import (
    Thresholds,
    agreement_of,
    agreement_sentence,
    quality_of,
    quality_sentence,
    thresholds_of,
)


def test_an_interval_is_wilson_s() -> None:
    """Of a population that is as good as endless: the values of the textbooks."""
    found = quality_of([5] * 8 + [1] * 2, bar=4, population=10**9)
    assert (found.good, found.graded, found.share) == (8, 10, 0.8)
    assert (found.low, found.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    none = quality_of([1] * 10, bar=4, population=10**9)
    assert (none.low, none.high) == pytest.approx((0.0, 0.2775), abs=1e-4)


def test_where_all_were_graded_nothing_is_left_to_chance() -> None:
    """And the more of them were, the narrower the interval."""
    grades = [5] * 8 + [1] * 2
    widths = [
        found.high - found.low
        for size in (10, 11, 20, 100, 10**6)
        for found in [quality_of(grades, 4, size)]
    ]
    assert widths[0] == 0
    assert widths == sorted(widths)
    assert quality_of(grades, 4, 3).population == 10


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_an_interval_holds_the_truth_as_often_as_it_says(share: float) -> None:
    """Of many samples of a small population, drawn by a seed."""
    population = [5] * round(300 * share) + [1] * (300 - round(300 * share))
    truth = sum(grade >= 4 for grade in population) / 300
    draw = random.Random(7)
    held = 0
    for _ in range(2000):
        found = quality_of(draw.sample(population, 60), 4, 300)
        held += found.low <= truth <= found.high
    assert held / 2000 > 0.92


def test_alpha_is_that_of_the_literature() -> None:
    """Two raters of a published example (Krippendorff 2011), and the ends of the scale."""
    one = [1, 2, 3, 3, 2, 1, 4, 1, 2]
    two = [1, 2, 3, 3, 2, 2, 4, 1, 2]
    found = agreement_of(list(zip(one, two, strict=True)), seed=1)
    assert found.alpha == pytest.approx(_by_hand(one, two), abs=1e-9)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.alpha <= found.high  # type: ignore[operator]  # it is defined
    assert agreement_of([(1, 1), (5, 5), (3, 3)], seed=1).alpha == 1.0
    against = agreement_of([(1, 5), (5, 1), (1, 5), (5, 1)], seed=1).alpha
    assert against is not None
    assert against < 0


def _by_hand(one: list[int], two: list[int]) -> float:
    """Alpha for ordinal grades by its definition, two grades for each row."""
    values = one + two
    counts = {grade: values.count(grade) for grade in range(1, 6)}

    def distance(a: int, b: int) -> float:
        low, high = min(a, b), max(a, b)
        between = sum(counts[grade] for grade in range(low, high + 1))
        return float((between - (counts[low] + counts[high]) / 2) ** 2)

    observed = sum(distance(a, b) for a, b in zip(one, two, strict=True)) / len(one)
    number = len(values)
    expected = sum(
        counts[a] * counts[b] * distance(a, b) for a in counts for b in counts if a != b
    ) / (number * (number - 1))
    return 1 - observed / expected


def test_the_same_seed_gives_the_same_interval() -> None:
    draw = random.Random(3)
    pairs = [(draw.randint(1, 5), draw.randint(1, 5)) for _ in range(80)]
    found = agreement_of(pairs, seed=5)
    assert found == agreement_of(pairs, seed=5)
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0 < found.high  # two that know nothing of one another


def test_of_grades_that_are_all_the_same_nothing_can_be_said() -> None:
    assert agreement_of([(5, 5)] * 9, seed=1).alpha is None
    assert agreement_of([], seed=1).alpha is None


# Receipts and tests


def judging(tag: str, name: str, model: str, digests: dict[str, str]) -> Entry:
    data: JsonValue = judge_order(judge={"provider": "offline", "name": model}).model_dump(
        exclude_defaults=True
    )
    return Entry.model_validate(
        {
            "id": name,
            "task": "tasks.judge.grade_rows_task",
            "kwargs": {"rows": digests, "data": data},
            "tags": ["judge"] if tag == "judge" else ["judge", "second"],
            "meta": {"population": 50},
        }
    )


def reported(entry: Entry, bible: MovieBible, grades: dict[str, int], **more: JsonValue) -> Receipt:
    data = entry.kwargs["data"]
    assert isinstance(data, dict)
    judge = data["judge"]
    assert isinstance(judge, dict)
    result: dict[str, JsonValue] = {
        "provider": "offline",
        "model": judge["name"],
        "rubric": RUBRIC.version,
        "rubric_digest": RUBRIC.digest,
        "database": bible.identity,
        "grades": {p: {"grade": g, "why": [f"grade {g}"]} for p, g in grades.items()},
    }
    return make_receipt(entry, result={**result, **more})


def manifest_of(folder: Path, entries: list[Entry], **params: JsonValue) -> Manifest:
    path = folder / "judge.jsonl"
    header = Header(workflow="gap_fill", mode="judge", params=params)
    return write_manifest(path, header, entries)


class Run:
    """Two judges that have graded 20 rows; each test changes something of it."""

    def __init__(self, folder: Path, bible: MovieBible) -> None:
        self.folder, self.bible = folder, bible
        self.digests = fill_rows(bible, [one.id for one in documents(20)])
        self.first = judging("judge", "judge-00001:a", "checks-1", self.digests)
        self.second = judging("second", "second-00001:a", "overlap-1", self.digests)

    def whole(
        self, first: list[int], second: list[int] | None = None, **params: JsonValue
    ) -> ManifestRun:
        manifest = manifest_of(self.folder, [self.first, self.second], **params)
        receipts = [reported(self.first, self.bible, self.named(first))]
        if second is not None:
            receipts.append(reported(self.second, self.bible, self.named(second)))
        return RunByHand(manifest, receipts)

    def named(self, grades: list[int]) -> dict[str, int]:
        return dict(zip(self.digests, grades, strict=True))


class RunByHand(ManifestRun):
    """A run whose receipts are given."""

    def __init__(self, manifest: Manifest, receipts: list[Receipt]) -> None:
        super().__init__(manifest, [], None, owned=True)
        object.__setattr__(self, "given", {one.entry: one for one in receipts})

    def receipts(self) -> dict[str, Receipt]:
        given: dict[str, Receipt] = self.given  # type: ignore[attr-defined]  # set above
        return given


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with bible_at(tmp_path, documents(20)) as bible:
        yield Run(tmp_path, bible)


def kept(properties: list[tuple[str, object]]) -> object:
    return lambda name, value: properties.append((name, value))


def test_quality_is_the_lower_bound_against_the_threshold(run: Run) -> None:
    """By the first judge; 20 rows of 50, all of them good, prove 87 %."""
    told: list[tuple[str, object]] = []
    note = kept(told)
    verify.test_quality(run.whole([5] * 20, at_least=0.85), note)  # type: ignore[arg-type]  # as pytest's
    assert told[0][1] == (
        "checks-1 graded 20 of 50 rows: 20 (100.0%) are 4 or better; 95 % interval 89.5% to 100.0%"
    )
    with pytest.raises(pytest.fail.Exception, match=r"the lower bound was to be 95\.0% at least"):
        verify.test_quality(run.whole([5] * 20, at_least=0.95), note)  # type: ignore[arg-type]  # as above
    with pytest.raises(pytest.fail.Exception, match=r"10 \(50\.0%\) are 4 or better"):
        verify.test_quality(run.whole([5, 3] * 10), note)  # type: ignore[arg-type]  # as above
    verify.test_quality(run.whole([5, 3] * 10, bar=3), note)  # type: ignore[arg-type]  # as above
    with pytest.raises(pytest.fail.Exception, match="no row was graded"):
        verify.test_quality(RunByHand(manifest_of(run.folder, [run.first]), []), note)  # type: ignore[arg-type]  # as above


def test_judges_are_held_to_one_another_where_that_is_asked_for(run: Run) -> None:
    told: list[tuple[str, object]] = []
    note = kept(told)
    apart = run.whole([1, 5] * 10, [5, 1] * 10)
    verify.test_judges_agree(apart, note)  # type: ignore[arg-type]  # as pytest's
    assert "checks-1 and overlap-1: Krippendorff's alpha -0." in str(told[0][1])
    asked = run.whole([1, 5] * 10, [5, 1] * 10, agreement=0.5)
    with pytest.raises(pytest.fail.Exception, match=r"and 0\.5 at least was asked for"):
        verify.test_judges_agree(asked, note)  # type: ignore[arg-type]  # as above
    verify.test_judges_agree(run.whole([1, 5] * 10, [1, 5] * 10, agreement=0.9), note)  # type: ignore[arg-type]  # as above
    with pytest.raises(pytest.skip.Exception, match="alpha is not defined"):
        verify.test_judges_agree(run.whole([5] * 20, [5] * 20, agreement=0.9), note)  # type: ignore[arg-type]  # as above
    with pytest.raises(pytest.skip.Exception, match="no row has the grades of two judges"):
        verify.test_judges_agree(run.whole([5] * 20), note)  # type: ignore[arg-type]  # as above


def test_grades_are_held_against_the_rows_as_they_are_now(run: Run) -> None:
    """A row that was changed or is gone since, a grade too few, too many, or of another judge."""
    good = reported(run.first, run.bible, run.named([5] * 20))
    report = report_of(good)
    assert report is not None
    assert faults_of_grades(run.first, report, run.bible) == []
    verify.test_grades_of_batch(run.first, good, run.bible)
    run.bible.remove_annotations(["film-0001/plot"])
    fill_rows(run.bible, ["film-0002/plot"], {**GOOD, "mood": "tense"})
    run.bible.load([replace(documents(4)[-1], text="another text")])
    grades = {**run.named([5] * 20), "stranger": 5}
    del grades["film-0003/plot"]
    strange = report_of(reported(run.first, run.bible, grades, model="judge-9"))
    assert strange is not None
    assert faults_of_grades(run.first, strange, run.bible) == [
        "model is 'judge-9', and 'checks-1' was expected",
        "film-0001/plot: its row is gone since it was graded",
        "film-0002/plot: its row was changed since it was graded",
        "film-0003/plot: has no grade",
        "film-0004/plot: its text was changed since its row was graded",
        "stranger: was graded and not asked for",
    ]
    with pytest.raises(pytest.fail.Exception, match="film-0002/plot: its row was changed"):
        verify.test_grades_of_batch(run.first, good, run.bible)
    other = reported(run.first, run.bible, run.named([5] * 20), database="another")
    with pytest.raises(pytest.fail.Exception, match="another database"):
        verify.test_grades_of_batch(run.first, other, run.bible)
    verify.test_grades_of_batch(run.first, None, run.bible)


def test_controls_are_no_rows(run: Run) -> None:
    control = run.first.model_copy(update={"id": "control-1:checks-1", "tags": ["control"]})
    manifest = manifest_of(run.folder, [run.first, control])
    receipts = [
        reported(run.first, run.bible, run.named([2] * 20)),
        reported(control, run.bible, run.named([5] * 20)),
    ]
    found = grades_of(manifest, receipts)
    assert (len(found.rows), found.population) == (20, 50)
    assert found.numbers(0) == [2] * 20
    assert found.pairs() == []


def test_thresholds_are_those_of_the_header() -> None:
    assert thresholds_of({}) == Thresholds()
    given: dict[str, JsonValue] = {"bar": 3, "at_least": 0.5, "agreement": None, "where": "x"}
    assert thresholds_of(given) == Thresholds(bar=3, at_least=0.5)


def test_sentences_say_how_sure_it_is(run: Run) -> None:
    grades = grades_of(
        manifest_of(run.folder, [run.first]), [reported(run.first, run.bible, run.named([4] * 20))]
    )
    assert "graded 20 rows: 20 (100.0%)" in quality_sentence(quality_of([4] * 20, 4, 20), "j", 4)
    found = agreement_of([(5, 5)] * 3, seed=1)
    assert "alpha is not defined, as all 3 rows" in agreement_sentence(found, grades)
