"""Turn gaps into entries, for ``plan.py``."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Final

from pydantic import JsonValue

from pytest_manifest import PlanBuilder
from pytest_manifest.errors import PlanError
from tasks.environment import from_environment
from tasks.filling.order import FieldName, Order, PlannedModel
from tasks.filling.prompts import PROMPTS
from tasks.filling.settings import FillingSettings
from tasks.movie_bible.bible import MovieBible
from tasks.movie_bible.fields import FIELDS
from tasks.text_model.base import BATCH, STANDARD
from tasks.text_model.choosing import SDKS, identify, read_settings
from tasks.text_model.ends import end_of
from tasks.text_model.prices import PriceTable, today
from tasks.text_model.settings import GOOGLE_GENAI, OFFLINE, TextModelSettings, TierChoice
from workflows.gap_fill.batches import (
    Batch,
    Estimate,
    Estimator,
    batches,
    entry_id,
    estimate,
    facts,
)
from workflows.gap_fill.corpus import corpus_path, parse_mapping, read_corpus
from workflows.gap_fill.gaps import (
    EXAMPLES,
    KINDS,
    Found,
    Selection,
    Tally,
    gaps_of_corpus,
    gaps_of_database,
)
from workflows.gap_fill.misspelled import note_misspelled
from workflows.gap_fill.pricing import Pricing
from workflows.gap_fill.where import parse_where

TASK: Final = "tasks.rag.process_batch_task"
SUBMIT: Final = "tasks.rag.submit_batch_task"
COLLECT: Final = "tasks.rag.collect_batch_task"
SECONDS: Final = 600.0
FLEX_SECONDS: Final = 1800.0
"""The usual time of an entry, of calls that are answered at once and of those that wait."""

SIZE: Final = 20
TOKENS: Final = 8000
JOB_SIZE: Final = 500
JOB_TOKENS: Final = 1_000_000
"""Passages and input tokens of an entry, of calls and of a batch job of the service."""

RESENDS: Final = 1
"""How often the harness sends a batch again whose worker died: what is committed is not redone."""
SAID_OF_TIERS: Final = {
    "batch": (
        "tier batch: at half the price; jobs of the service take up to a day: run it with "
        "--manifest-deadline=30h, or go on later with --manifest-resume"
    ),
    "flex": "tier flex: at half the price; calls may take a quarter of an hour, or be turned away",
    "flex-or-standard": (
        "tier flex: at half the price, and at the whole one where flex turns a call away or takes "
        "too long: the estimate is that of the whole one"
    ),
}


@dataclass(frozen=True, slots=True)
class Wish:
    """The plan's options, converted. ``timeout`` is in seconds, ``max_tokens`` in input tokens.

    None as ``size``, ``max_tokens`` or ``timeout`` is what is usual at the model's tier.
    """

    corpus: str | None
    mapping: str | None
    size: int | None
    max_tokens: int | None
    limit: int | None
    only: FieldName | None
    where: str | None
    timeout: float | None
    replace_models: bool
    cap: float | None
    remove_orphans: bool

    def seconds(self, model: PlannedModel) -> float:
        """Return how long an entry may take: flex calls are answered within minutes."""
        if self.timeout is not None:
            return self.timeout
        return SECONDS if model.tier in {STANDARD, BATCH} else FLEX_SECONDS

    def bounds(self, model: PlannedModel) -> tuple[int, int]:
        """Return the most passages and input tokens of an entry: of a batch job many more."""
        size, tokens = (JOB_SIZE, JOB_TOKENS) if model.tier == BATCH else (SIZE, TOKENS)
        return self.size or size, self.max_tokens or tokens


@dataclass(slots=True)
class Planner:
    """Adds entries that fill gaps by one ``order``, and adds up what they will take."""

    plan: PlanBuilder
    order: Order
    estimator: Estimator
    timeout: float
    passages: int = 0
    tokens_in: int = 0
    tokens_out: int = 0

    def add(self, number: int, batch: Batch) -> None:
        expected = estimate(batch, self.estimator)
        self._refuse_beyond_cap(number, batch, expected.cost)
        self.passages += len(batch.items)
        self.tokens_in += expected.tokens_in
        self.tokens_out += expected.tokens_out
        documents = [found.document for found in batch.items if found.document is not None]
        order = self.order.model_copy(update={"documents": documents})
        kwargs: dict[str, JsonValue] = {
            "ids": [*batch.ids],
            "data": order.model_dump(exclude_defaults=True),
        }
        whose: dict[str, JsonValue] = {"model": order.model.name, "prompt": order.prompt}
        if order.model.tier != BATCH:
            self._add_filling(TASK, "fill", number, batch, expected, kwargs, whose, [])
            return
        submit = entry_id("submit", number, batch.ids)
        self.plan.add(
            SUBMIT,
            id=submit,
            kwargs=kwargs,
            timeout=self.timeout,
            retries=RESENDS,
            idempotent=True,
            tags=["submit"],
            cost=None if expected.cost is None else 0.0,
            expect={"result": whose},
        )
        kwargs = {**kwargs, "submitted_by": submit}
        self._add_filling(COLLECT, "collect", number, batch, expected, kwargs, whose, [submit])

    def _add_filling(
        self,
        task: str,
        kind: str,
        number: int,
        batch: Batch,
        expected: Estimate,
        kwargs: dict[str, JsonValue],
        whose: dict[str, JsonValue],
        after: list[str],
    ) -> None:
        """Add the entry that writes the rows, and tells what they have cost."""
        self.plan.add(
            task,
            id=entry_id(kind, number, batch.ids),
            kwargs=kwargs,
            timeout=self.timeout,
            retries=RESENDS,
            idempotent=True,
            tags=["gap_fill"],
            cost=expected.cost,
            meta=facts(batch, expected),
            expect={"result": {"unfilled": [], **whose}},
            **({"after": after} if after else {}),
        )

    def _refuse_beyond_cap(self, number: int, batch: Batch, cost: float | None) -> None:
        cap = self.order.cap
        if cap is not None and cost is not None and cost > cap:
            raise PlanError(
                f"{entry_id('fill', number, batch.ids)} is estimated to cost {cost:.4g}, and cap "
                f"is {cap:g}; plan smaller entries (--manifest-plan-opt batch=N), or a larger cap"
            )


def plan_repair(plan: PlanBuilder, bible: MovieBible, wish: Wish) -> None:
    """Add one entry a batch of gaps, and say what was found. Raises PlanError and its like."""
    settings, filling = read_settings(), from_environment(FillingSettings)
    prompt = PROMPTS.load(filling.prompt, filling.prompts)
    table = PriceTable.load(settings.prices)
    order = Order(
        fields=list(FIELDS) if wish.only is None else [wish.only],
        prompt=prompt.version,
        prompt_digest=prompt.digest,
        model=_planned_model(settings),
        replace_models=wish.replace_models,
        cap=wish.cap,
    )
    note_misspelled(plan)
    pricing = Pricing(table, order.model)
    if pricing.unknown:
        plan.refuse_budget(pricing.no_price())
        if wish.cap is not None:
            raise PlanError(
                f"cap={wish.cap:g}, and {pricing.no_price()}; name a price table with "
                "TEXT_MODEL_PRICES, or leave the cap out"
            )
    selection = Selection(order, parse_where(wish.where))
    planner = Planner(
        plan, order, Estimator(prompt, pricing.price, filling.per_call), wish.seconds(order.model)
    )
    tally = Tally()
    size, max_tokens = wish.bounds(order.model)
    with closing(_all_gaps(bible, wish, selection, tally)) as found:
        chosen = batches(
            islice(found, wish.limit),
            planner.estimator,
            size=size,
            max_tokens=max_tokens,
        )
        for number, batch in enumerate(chosen, 1):
            planner.add(number, batch)
        limited = planner.passages == wish.limit
        _note_gaps(plan, tally, limited=limited)
        if limited and next(found, None) is not None:
            planned = counted(planner.passages, "passage")
            plan.note(f"limit: {planned} planned, and there are more gaps")
    if wish.corpus is not None and not tally.passages:
        raise PlanError(f"{wish.corpus}: holds no documents; name a corpus that does")
    _note_orphans(plan, tally, _orphans(plan, bible, wish), wish)
    if planner.passages:
        _note_model(planner, pricing)
        _note_uncollected(plan, bible)
        if order.model.provider in SDKS and settings.key is None:
            plan.note("no key is set here; the workers need GEMINI_API_KEY")


def _note_uncollected(plan: PlanBuilder, bible: MovieBible) -> None:
    for run, passages in bible.jobs.uncollected().items():
        plan.note(
            f"batch jobs of run {run} are not collected, with {counted(passages, 'passage')}: "
            "go on with --manifest-resume, as what is planned anew is bought twice"
        )


def _planned_model(settings: TextModelSettings) -> PlannedModel:
    provider, name = identify(settings)
    tier: TierChoice = STANDARD if provider == OFFLINE else settings.service_tier
    if tier == BATCH and provider != GOOGLE_GENAI:
        raise PlanError(
            f"TEXT_MODEL_SERVICE_TIER is batch, and {provider} has no batch jobs; unset it, or set "
            f"TEXT_MODEL={GOOGLE_GENAI}"
        )
    return PlannedModel(provider=provider, name=name, accept=list(settings.accepted), tier=tier)


def _all_gaps(
    bible: MovieBible, wish: Wish, selection: Selection, tally: Tally
) -> Generator[Found]:
    if wish.corpus is not None and wish.remove_orphans:
        raise PlanError(
            "orphans=remove goes by the database alone, and a corpus may bring their passages "
            "back; plan the removal by itself, without corpus=..."
        )
    if wish.corpus is None:
        if wish.mapping is not None:
            raise PlanError("fields=... says how a corpus names its fields; add corpus=PATH")
        if bible.count_passages() == 0:
            raise PlanError(
                "the database holds no passages; load a corpus with 'python -m "
                "workflows.gap_fill.corpus load PATH', or name one with --manifest-plan-opt "
                "corpus=PATH ('sample' is the one that comes with this project)"
            )
        return gaps_of_database(bible, selection, tally)
    mapping = None if wish.mapping is None else parse_mapping(wish.mapping)
    documents = read_corpus(corpus_path(wish.corpus), mapping=mapping)
    return gaps_of_corpus(bible, documents, selection, tally)


def _orphans(plan: PlanBuilder, bible: MovieBible, wish: Wish) -> tuple[int, list[str]]:
    """Count passages that have rows but do not exist; return the count and a few of their ids.

    Where they are to be removed, the plan gets one entry for each batch of them.
    """
    count = 0
    examples: list[str] = []
    names = bible.orphans()
    number = 0
    while chunk := list(islice(names, wish.size or SIZE)):
        count += len(chunk)
        examples += chunk[: EXAMPLES - len(examples)]
        number += 1
        if wish.remove_orphans:
            plan.add(
                TASK,
                id=entry_id("orphans", number, chunk),
                kwargs={"ids": chunk, "data": {"action": "remove_orphans"}},
                timeout=wish.timeout or SECONDS,
                retries=RESENDS,
                idempotent=True,
                tags=["orphans"],
                cost=0.0,
                expect={"result": {"living": []}},
            )
    return count, examples


def _note_gaps(plan: PlanBuilder, tally: Tally, *, limited: bool) -> None:
    looked_at = counted(tally.passages, "passage")
    if limited:
        looked_at = f"of the first {looked_at}"
    if tally.matching != tally.passages:
        looked_at += f", {tally.matching:,} of them as asked for"
    if not tally.gaps:
        plan.note(f"no gap: {looked_at}, and nothing is missing")
    else:
        kinds = ", ".join(f"{n:,} {KINDS[kind]}" for kind, n in sorted(tally.gaps.items()))
        plan.note(f"gaps: {looked_at}; {kinds}")
    if tally.complete_elsewhere:
        plan.note(
            f"complete and not loaded: {counted(tally.complete_elsewhere, 'document')}; "
            "'python -m workflows.gap_fill.corpus load PATH' brings that in"
        )


def _note_orphans(
    plan: PlanBuilder, tally: Tally, orphans: tuple[int, list[str]], wish: Wish
) -> None:
    count, examples = orphans
    if count:
        gone = counted(count, "passage")
        what = (
            "removed"
            if wish.remove_orphans
            else "kept; --manifest-plan-opt orphans=remove removes them"
        )
        plan.note(f"orphans, rows without a passage: of {gone}{_like(examples, count)}: {what}")
    if tally.gone:
        plan.note(
            f"rows beyond the corpus: of {counted(tally.gone, 'passage')}"
            f"{_like(tally.gone_examples, tally.gone)}"
        )


def _like(examples: list[str], count: int) -> str:
    return f" ({', '.join(examples)}{', ...' if count > len(examples) else ''})"


def counted(number: int, noun: str) -> str:
    """Return ``1 passage`` or ``2,000 passages``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _note_model(planner: Planner, pricing: Pricing) -> None:
    model, plan = planner.order.model, planner.plan
    tokens = planner.tokens_in, planner.tokens_out
    plan.note(
        f"model {model.name} ({model.provider}), prompt {planner.order.prompt}: about "
        f"{tokens[0]:,} tokens in and {tokens[1]:,} out"
    )
    if model.tier != STANDARD:
        plan.note(SAID_OF_TIERS[model.tier])
    if model.accept:
        plan.note(f"answers of {', '.join(model.accept)} count too")
    end = end_of(model.name, today(), model.accept)
    if end is not None:
        plan.note(end)
    for warning in pricing.warnings:
        plan.note(warning)
    if planner.order.cap is not None:
        plan.note(f"each entry may cost {planner.order.cap:g} USD at most")
    plan.note(f"in USD, at the list prices of {pricing.table.as_of}: {pricing.others(*tokens)}")
