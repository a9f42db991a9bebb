"""Plan the filling of gaps, ``--manifest-plan=gap_fill``.

The same gaps give the same entries: nothing here is random, and by the clock go prices alone, where
they hold for a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import pytest
from pydantic import Field, FiniteFloat

from pytest_manifest import PlanBuilder, planning_fixture

if TYPE_CHECKING:
    from pytest_manifest.manifest import Manifest
    from pytest_manifest.run import Run
    from tasks.movie_bible.bible import MovieBible

# An option that does not hold these is refused with a sentence before anything is planned.
Count = Annotated[int, Field(ge=1)]
BatchSize = Annotated[int, Field(ge=1, le=1000)]
Tokens = Annotated[int, Field(ge=100)]
Dollars = Annotated[FiniteFloat, Field(gt=0)]
Seconds = Annotated[FiniteFloat, Field(ge=1, le=86_400)]
FieldName = Literal["summary", "themes", "characters", "mood"]


@pytest.fixture(scope="session")
def movie_bible() -> Iterator[MovieBible]:
    """Open the database of films and passages that this process's settings name."""
    from tasks.movie_bible.bible import MovieBible

    bible = MovieBible.open()
    yield bible
    bible.close()


@planning_fixture("gap_fill:repair", rerun=False)
def gap_fill_repair(
    plan: PlanBuilder,
    movie_bible: MovieBible,
    *,
    corpus: str | None = None,
    fields: str | None = None,
    batch: BatchSize = 20,
    max_tokens: Tokens = 8000,
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
    """Refuse a budget where the model has no price: nothing would keep to it."""
    if budget is not None and manifest.header.workflow == "gap_fill":
        from workflows.gap_fill.pricing import refuse_unknown_price

        refuse_unknown_price(manifest, manifest.some(entries), budget)


def pytest_manifest_dispatched(run: Run) -> None:
    """Have the run's summary say that prices are old, or not known."""
    if run.manifest.header.workflow == "gap_fill":
        from workflows.gap_fill.pricing import warnings_of

        run.warnings += warnings_of(run.manifest)


__all__ = [
    "gap_fill_repair",
    "movie_bible",
    "pytest_manifest_dispatched",
    "pytest_manifest_sending",
]
