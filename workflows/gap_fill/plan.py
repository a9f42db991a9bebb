"""Plan the filling of gaps, ``gap_fill:repair``, and the grading of rows, ``gap_fill:judge``.

The same gaps give the same entries, and the same rows and seed the same sample: nothing here is
random, and by the clock go prices alone, where they hold for a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import pytest
from pydantic import Field, FiniteFloat

from pytest_manifest import PlanBuilder, planning_fixture

if TYPE_CHECKING:
    from pytest_manifest import PageSection
    from pytest_manifest.manifest import Manifest
    from pytest_manifest.run.run import Run
    from tasks.movie_bible.bible import MovieBible

# An option that does not hold these is refused with a sentence before anything is planned.
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]
BatchSize = Annotated[int, Field(ge=1, le=1000)]
Tokens = Annotated[int, Field(ge=100)]
Dollars = Annotated[FiniteFloat, Field(gt=0)]
Seconds = Annotated[FiniteFloat, Field(ge=1, le=86_400)]
Rows = Annotated[int, Field(ge=1, le=200)]
GradeNumber = Annotated[int, Field(ge=1, le=5)]
Controls = Annotated[int, Field(ge=0, le=50)]
Share = Annotated[FiniteFloat, Field(ge=0, le=1)]
Alpha = Annotated[FiniteFloat, Field(ge=-1, le=1)]
FieldName = Literal["summary", "themes", "characters", "mood"]


@pytest.fixture(scope="session")
def movie_bible() -> Iterator[MovieBible]:
    """Open the database of films and passages that this process's settings name."""
    from tasks.movie_bible.bible import MovieBible

    bible = MovieBible.open()
    yield bible
    bible.close()


@planning_fixture("gap_fill:repair", rerun=False, default=True)
def gap_fill_repair(
    plan: PlanBuilder,
    movie_bible: MovieBible,
    *,
    corpus: str | None = None,
    fields: str | None = None,
    batch: BatchSize | None = None,
    max_tokens: Tokens | None = None,
    limit: Count | None = None,
    only: FieldName | None = None,
    where: str | None = None,
    timeout: Seconds | None = None,
    replace_models: bool = False,
    cap: Dollars | None = None,
    orphans: Literal["keep", "remove"] = "keep",
) -> None:
    """Fill what a language model can fill in: summaries, themes, characters and moods."""
    # Loaded here: every pytest session of the project imports this module.
    from workflows.gap_fill.planning import Wish, plan_repair

    wish = Wish(
        corpus=corpus,
        mapping=fields,
        size=batch,
        max_tokens=max_tokens,
        limit=limit,
        only=only,
        where=where,
        timeout=timeout,
        replace_models=replace_models,
        cap=cap,
        remove_orphans=orphans == "remove",
    )
    plan_repair(plan, movie_bible, wish)


def pytest_manifest_sending(
    manifest: Manifest, entries: Sequence[str], budget: float | None
) -> None:
    """Refuse a budget where a model has no price: nothing would keep to it."""
    if budget is not None and _is_ours(manifest):
        from workflows.gap_fill.pricing import refuse_unknown_price

        refuse_unknown_price(manifest, manifest.some(entries), budget)


def pytest_manifest_dispatched(run: Run) -> None:
    """Have the run's summary say that prices are old, or not known."""
    if _is_ours(run.manifest):
        from workflows.gap_fill.pricing import warnings_of

        run.warnings += warnings_of(run.manifest)


def pytest_manifest_finished(run: Run) -> None:
    """Have the run's summary say where calls may have been billed that nobody has told of."""
    if _is_ours(run.manifest):
        from workflows.gap_fill.costs import incomplete_costs

        with run.read() as ledger:
            run.warnings += incomplete_costs(ledger)


def _is_ours(manifest: Manifest) -> bool:
    """Return whether a manifest fills gaps, or grades what was filled in."""
    return manifest.header.workflow == "gap_fill"


@planning_fixture("gap_fill:judge", rerun=False)
def gap_fill_judge(
    plan: PlanBuilder,
    movie_bible: MovieBible,
    *,
    of: str | None = None,
    where: str | None = None,
    sample: Count = 200,
    seed: Seed = 1,
    batch: Rows = 10,
    bar: GradeNumber = 4,
    at_least: Share = 0.8,
    agreement: Alpha | None = None,
    controls: Controls = 10,
    timeout: Seconds = 600,
) -> None:
    """Grade a sample of the rows that were filled in, by two judges."""
    from workflows.gap_fill.judging import JudgeWish, plan_judging

    wish = JudgeWish(
        of=of,
        where=where,
        sample=sample,
        seed=seed,
        size=batch,
        bar=bar,
        at_least=at_least,
        agreement=agreement,
        controls=controls,
        timeout=timeout,
    )
    plan_judging(plan, movie_bible, wish)


def pytest_manifest_sections(run: Run) -> Sequence[PageSection] | None:
    """Add grades and the worst rows to the page of a judge's run."""
    header = run.manifest.header
    if (header.workflow, header.mode) != ("gap_fill", "judge"):
        return None
    from workflows.gap_fill.worst_rows import quality_sections

    return quality_sections(run)


__all__ = [
    "gap_fill_judge",
    "gap_fill_repair",
    "movie_bible",
    "pytest_manifest_dispatched",
    "pytest_manifest_finished",
    "pytest_manifest_sections",
    "pytest_manifest_sending",
]
