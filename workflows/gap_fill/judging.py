"""Turn rows into entries of a judge, for ``plan.py``: a sample, its batches, and controls."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import chain, groupby
from pathlib import Path
from typing import Final

from pydantic import JsonValue

from pytest_manifest import PlanBuilder
from pytest_manifest.errors import PlanError
from pytest_manifest.manifest import Manifest, read_manifest
from pytest_manifest.schema import Entry
from tasks.environment import from_environment
from tasks.filling.order import PlannedModel
from tasks.filling.prompts import PROMPTS
from tasks.filling.report import usd
from tasks.filling.settings import FillingSettings
from tasks.judging.equipment import identify_judge, model_settings
from tasks.judging.grades import Row, is_of_another_text
from tasks.judging.order import JudgeOrder
from tasks.judging.rubric import OUTPUT_TOKENS, RUBRICS, Rubric, row_tokens
from tasks.judging.settings import Chosen, JudgingSettings
from tasks.movie_bible.bible import MovieBible
from tasks.movie_bible.fields import values_digest
from tasks.movie_bible.records import ScannedPassage
from tasks.text_model.accepting import same_model
from tasks.text_model.choosing import SDKS
from tasks.text_model.ends import end_of
from tasks.text_model.prices import PriceTable
from tasks.text_model.settings import OFFLINE
from workflows.gap_fill.accounts import ids_of, order_of
from workflows.gap_fill.batches import entry_id
from workflows.gap_fill.misspelled import note_misspelled
from workflows.gap_fill.planning import RESENDS, counted
from workflows.gap_fill.pricing import JUDGE_TASK, Pricing
from workflows.gap_fill.spoiling import GROSS, rank, spoil_some_way
from workflows.gap_fill.where import Where, parse_where

KINDS: Final = ("judge", "second")
"""How the entries of the first and of the second judge are named and tagged."""
CONTROL: Final = "control"
DRAWN_FOR_CONTROLS: Final = 4
"""So many times as many rows are drawn, as not each can be spoiled."""
CONTROLS_FOUND: Final = 0.7
"""Share of the controls that a judge must grade below the bar, else it grades nothing."""


@dataclass(frozen=True, slots=True)
class JudgeWish:
    """The plan's options, converted; ``timeout`` is in seconds.

    ``at_least`` and ``agreement`` are what the tests ask for; they read them in the header.
    """

    of: str | None
    where: str | None
    sample: int
    seed: int
    size: int
    bar: int
    at_least: float
    agreement: float | None
    controls: int
    timeout: float


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row that may be graded, without its texts."""

    rank: str
    passage: str
    prompt: str
    digest: str
    tokens: int
    by: tuple[str, ...]
    """The models that may have written it: the one that was asked, and the one that answered."""

    def __lt__(self, other: Candidate) -> bool:
        return (self.rank, self.prompt) < (other.rank, other.prompt)


@dataclass(slots=True)
class JudgePlanner:
    """Adds the entries of one judge; ``number`` is 0 for the first, 1 for the second."""

    plan: PlanBuilder
    wish: JudgeWish
    rubric: Rubric
    judge: PlannedModel
    pricing: Pricing | None
    """None: it costs nothing."""
    number: int
    population: int
    per_call: int
    cost: float | None = 0.0

    @property
    def kind(self) -> str:
        return KINDS[self.number]

    @property
    def control_id(self) -> str:
        return f"{CONTROL}-{self.number + 1}:{self.judge.name}"

    def add_control(self, prompt: str, spoiled: Sequence[tuple[Row, str, JsonValue]]) -> None:
        """Add the entry that tries the judge on spoiled rows before it is asked for others.

        ``spoiled``: copies of rows, the true digest of each, and how it was spoiled.
        """
        values: dict[str, JsonValue] = {row.passage: dict(row.values) for row, _, _ in spoiled}
        control: JsonValue = {
            "bar": self.wish.bar,
            "at_least": CONTROLS_FOUND,
            "values": values,
        }
        self._add(
            self.control_id,
            prompt,
            {row.passage: digest for row, digest, _ in spoiled},
            [row_tokens(row) for row, _, _ in spoiled],
            tags=[CONTROL],
            after=[],
            more={"spoiled": {row.passage: kind for row, _, kind in spoiled}},
            control=control,
        )

    def add(self, number: int, batch: Sequence[Candidate], *, controlled: bool) -> None:
        self._add(
            entry_id(self.kind, number, [one.passage for one in batch]),
            batch[0].prompt,
            {one.passage: one.digest for one in batch},
            [one.tokens for one in batch],
            tags=["judge", self.kind] if self.number else ["judge"],
            after=[self.control_id] if controlled else [],
            more={"population": self.population},
        )

    def _add(
        self,
        name: str,
        prompt: str,
        rows: dict[str, str],
        tokens: Sequence[int],
        *,
        tags: list[str],
        after: list[str],
        more: dict[str, JsonValue],
        control: JsonValue = None,
    ) -> None:
        calls = -(-len(rows) // self.per_call)
        tokens_in = sum(tokens) + calls * self.rubric.overhead_tokens()
        tokens_out = len(rows) * OUTPUT_TOKENS
        cost = self._cost(tokens_in, tokens_out)
        self.cost = None if cost is None or self.cost is None else self.cost + cost
        order = JudgeOrder.model_validate(
            {
                "prompt": prompt,
                "rubric": self.rubric.version,
                "rubric_digest": self.rubric.digest,
                "judge": self.judge,
                "control": control,
            }
        )
        digests: dict[str, JsonValue] = {**rows}
        self.plan.add(
            JUDGE_TASK,
            id=name,
            kwargs={"rows": digests, "data": order.model_dump(exclude_defaults=True)},
            timeout=self.wish.timeout,
            retries=RESENDS,
            idempotent=True,
            after=after,
            tags=tags,
            cost=cost,
            meta={"rows": len(rows), "tokens_in": tokens_in, "tokens_out": tokens_out, **more},
            expect={
                "result": {"ungraded": [], "model": self.judge.name, "rubric": self.rubric.version}
            },
        )

    def _cost(self, tokens_in: int, tokens_out: int) -> float | None:
        if self.pricing is None:
            return 0.0
        price = self.pricing.price
        return None if price is None else usd(price.cost_nanos(tokens_in, tokens_out))


def plan_judging(plan: PlanBuilder, bible: MovieBible, wish: JudgeWish) -> None:
    """Add entries that grade a sample of rows, by each judge. Raises PlanError and its like."""
    settings = from_environment(JudgingSettings)
    note_misspelled(plan)
    rubric = RUBRICS.load(settings.rubric, settings.rubrics)
    _refuse_one_judge_twice(settings.chosen)
    _refuse_agreement_of_one(wish, settings.chosen)
    population, outdated, sample = _sample(bible, wish)
    if outdated:
        verb = "is of a text that has" if outdated == 1 else "are of texts that have"
        plan.note(
            f"{counted(outdated, 'row')} {verb} changed since, and not graded: have them filled "
            "anew (--manifest-plan=gap_fill)"
        )
    if not sample:
        plan.note("no row: there is nothing to grade" + (f" of {wish.of}" if wish.of else ""))
        return
    chosen = f"{counted(len(sample), 'row')} of {population:,}, by seed {wish.seed}"
    plan.note(f"rows: {chosen if len(sample) < population else counted(population, 'row')}")
    spoiled = _controls(bible, sample, wish)
    per_call = from_environment(FillingSettings).per_call
    for number, one in enumerate(settings.chosen):
        judge = _planned_judge(one)
        pricing = _pricing(one, judge)
        planner = JudgePlanner(plan, wish, rubric, judge, pricing, number, population, per_call)
        if spoiled:
            planner.add_control(sample[0].prompt, spoiled)
        for at, batch in enumerate(_batches(sample, wish.size), 1):
            planner.add(at, batch, controlled=bool(spoiled))
        _note_judge(planner, sample)
    agree = "" if wish.agreement is None else f", and alpha to be {wish.agreement:g} at least"
    plan.note(
        f"asked for: grade {wish.bar} or better for {wish.at_least:.0%} of the rows, by the lower "
        f"bound of a 95 % interval{agree}"
    )


def _refuse_one_judge_twice(chosen: Sequence[Chosen]) -> None:
    judges = [identify_judge(one) for one in chosen]
    if len(judges) == 2 and _is_same_judge(*judges):
        raise PlanError(
            f"both judges are {judges[0][1]} ({judges[0][0]}), which agrees with itself; "
            "set GAP_FILL_SECOND_JUDGE_NAME to another one, or GAP_FILL_SECOND_JUDGE=none"
        )


def _is_same_judge(first: tuple[str, str], second: tuple[str, str]) -> bool:
    """Return whether two judges are one model: by either SDK, and in whatever version."""
    providers = {first[0], second[0]}
    alike = len(providers) == 1 or providers <= SDKS.keys()
    return alike and _is_same(first[1], second[1])


def _is_same(one: str, other: str) -> bool:
    return same_model(one, other) or same_model(other, one)


def _refuse_agreement_of_one(wish: JudgeWish, chosen: Sequence[Chosen]) -> None:
    if wish.agreement is not None and len(chosen) < 2:
        raise PlanError(
            f"agreement={wish.agreement:g} is asked for, and there is no second judge to agree; "
            "unset GAP_FILL_SECOND_JUDGE, or leave agreement out"
        )


def _planned_judge(chosen: Chosen) -> PlannedModel:
    provider, name = identify_judge(chosen)
    accept = [] if provider == OFFLINE else list(model_settings(chosen).accepted)
    return PlannedModel(provider=provider, name=name, accept=accept)


def _pricing(chosen: Chosen, judge: PlannedModel) -> Pricing | None:
    if judge.provider == OFFLINE:
        return None
    return Pricing(PriceTable.load(model_settings(chosen).prices), judge)


def _sample(bible: MovieBible, wish: JudgeWish) -> tuple[int, int, list[Candidate]]:
    """Return how many rows there are, and those that are drawn, in order of prompt and id.

    Rows of texts that have changed are none of these; their number is the second one. Only as many
    as are drawn are in memory.
    """
    where = parse_where(wish.where)
    count = outdated = 0

    def counting() -> Iterator[Candidate]:
        nonlocal count, outdated
        for one in _scanned(bible, wish):
            candidate = _candidate(one, where, wish.seed)
            if candidate is None:
                continue
            if is_of_another_text(one):
                outdated += 1
                continue
            count += 1
            yield candidate

    drawn = heapq.nsmallest(wish.sample, counting())
    return count, outdated, sorted(drawn, key=lambda one: (one.prompt, one.passage))


def _scanned(bible: MovieBible, wish: JudgeWish) -> Iterator[ScannedPassage]:
    """Yield the passages of a filling's manifest with their rows, or those of the database."""
    if wish.of is None:
        settings = from_environment(FillingSettings)
        return bible.scan(PROMPTS.load(settings.prompt, settings.prompts).version)
    return chain.from_iterable(
        bible.scan_ids(ids_of(entry), order_of(entry).prompt).values()
        for entry in _filling_entries(_manifest(wish.of))
    )


def _manifest(name: str) -> Manifest:
    path = Path(name).expanduser()
    if not path.is_file():
        raise PlanError(f"of={name}: there is no such file; name the manifest of a filling")
    return read_manifest(path)


def _filling_entries(manifest: Manifest) -> Iterator[Entry]:
    found = False
    for entry in manifest:
        if "gap_fill" in entry.tags:
            found = True
            yield entry
    if not found:
        raise PlanError(
            f"of={manifest.path}: has no entry that fills rows; name the manifest of a filling "
            "(--manifest-plan=gap_fill)"
        )


def _candidate(passage: ScannedPassage, where: Where, seed: int) -> Candidate | None:
    row = passage.current
    if row is None or all(value is None for value in row.values.values()):
        return None
    if not where.matches(id=passage.id, kind=passage.kind, text=passage.text, film=passage.film):
        return None
    tokens = row_tokens(Row(passage.id, passage.text, row.values, passage.film))
    return Candidate(
        rank(seed, "sample", passage.id),
        passage.id,
        row.prompt_version,
        values_digest(row.values),
        tokens,
        tuple(name for name in (row.model, row.answered_by) if name),
    )


def _batches(sample: Sequence[Candidate], size: int) -> Iterator[Sequence[Candidate]]:
    """Yield batches of at most ``size`` rows; those of a batch are of one prompt."""
    for _, alike in groupby(sample, key=lambda one: one.prompt):
        rows = list(alike)
        for start in range(0, len(rows), size):
            yield rows[start : start + size]


def _controls(
    bible: MovieBible, sample: Sequence[Candidate], wish: JudgeWish
) -> list[tuple[Row, str, JsonValue]]:
    """Return spoiled copies of rows of the sample's first prompt, with digests and kinds.

    Rows without a summary are passed over, as they cannot be spoiled so that all would notice.
    """
    prompt = sample[0].prompt
    alike = [one for one in sample if one.prompt == prompt]
    number = DRAWN_FOR_CONTROLS * wish.controls
    drawn = heapq.nsmallest(number, alike, key=lambda one: rank(wish.seed, CONTROL, one.passage))
    stored = bible.scan_ids([one.passage for one in drawn], prompt)
    found: list[tuple[Row, str, JsonValue]] = []
    for turn, one in enumerate(drawn):
        passage, other = stored.get(one.passage), stored.get(drawn[(turn + 1) % len(drawn)].passage)
        if passage is None or passage.current is None or other is None or other.current is None:
            continue
        values, others = passage.current.values, other.current.values
        spoiled = spoil_some_way(values, others, GROSS, turn=turn)
        if spoiled is not None:
            row = Row(passage.id, passage.text, spoiled.values, passage.film)
            found.append((row, one.digest, spoiled.kind))
    return found[: wish.controls]


def _note_judge(planner: JudgePlanner, sample: Sequence[Candidate]) -> None:
    judge = planner.judge
    what = ("judge", "second judge")[planner.number]
    planner.plan.note(f"{what} {judge.name} ({judge.provider}), rubric {planner.rubric.version}")
    own = sum(any(_is_same(judge.name, name) for name in one.by) for one in sample)
    if own:
        planner.plan.note(
            f"{judge.name} has written {counted(own, 'row')} of these itself, and models grade "
            "their own work too well; set GAP_FILL_JUDGE_NAME to another one"
        )
    end = end_of(judge.name, datetime.now(timezone.utc).date(), judge.accept)
    if end is not None:
        planner.plan.note(end)
    if planner.pricing is not None:
        for warning in planner.pricing.warnings:
            planner.plan.note(warning)
        if planner.pricing.unknown:
            planner.plan.refuse_budget(planner.pricing.no_price())
