"""Open what a batch works with once a process: the database, the model and its limits.

Each is kept for as long as the settings stay what they are, so a job pays only for its calls.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from pydantic import JsonValue

from pytest_manifest.errors import ManifestToolError
from tasks.environment import SettingsError, from_environment
from tasks.filling.asking import Asker
from tasks.filling.batch import Batch, Limits
from tasks.filling.job_purchase import JobLimits, Purchase
from tasks.filling.job_watching import JobTimes
from tasks.filling.order import Order
from tasks.filling.prompts import PROMPTS
from tasks.filling.report import Report, usd
from tasks.filling.settings import FillingSettings
from tasks.filling.writing import Provenance
from tasks.movie_bible.bible import MovieBible
from tasks.movie_bible.per_process import movie_bible
from tasks.text_model.base import BATCH, TextModel
from tasks.text_model.choosing import open_jobs, read_settings
from tasks.text_model.jobs import BatchJobs
from tasks.text_model.limits import NoLimit
from tasks.text_model.per_process import limiter_of, model_of
from tasks.text_model.prices import PriceTable
from tasks.text_model.retrying import Fallback, RetryPolicy
from tasks.text_model.settings import TextModelSettings, first_tier, last_tier


class ModelMismatchError(ManifestToolError):
    """A worker that has another model than the batch was planned, and priced, for."""


@dataclass(frozen=True)
class Equipment:
    """All that a batch needs. ``settings`` are those of the model, ``filling`` of the filling.

    ``timeout`` is in seconds, for one call.
    """

    bible: MovieBible
    asker: Asker
    settings: TextModelSettings
    filling: FillingSettings
    timeout: float

    def batch(self, provenance: Provenance, progress: Callable[[Report], None]) -> Batch:
        limits = Limits(
            concurrency=self.settings.concurrency,
            per_call=self.filling.per_call,
            asks_alone=self.filling.asks_alone,
            timeout=self.timeout,
        )
        return Batch(self.bible, self.asker, limits, provenance, progress)

    def seconds(self, time_limit: float | None) -> float:
        """Return the seconds that a batch may take if the worker kills it after ``time_limit`` s.

        The reserve is for committing finished answers; of a short limit it is a quarter at most.
        """
        if time_limit is None:
            return float("inf")
        return time_limit - min(self.filling.reserve, time_limit / 4)

    def document(self, report: Report) -> dict[str, JsonValue]:
        """Return the report with model, prompt and database; a cost of None is an unknown price."""
        known = self.asker.price is not None
        return {
            "provider": self.asker.model.provider,
            "model": self.asker.model.name,
            "prompt": self.asker.prompt.version,
            "prompt_digest": self.asker.prompt.digest,
            "database": self.bible.identity,
            "cost": usd(report.spent.cost_nanos) if known else None,
            **report.document(),
        }


@dataclass(frozen=True)
class JobEquipment:
    """All that a batch needs, and the batch jobs of its model."""

    all_else: Equipment
    jobs: BatchJobs

    def purchase(
        self, entry: str, whose: Provenance, told: Callable[[list[JsonValue]], None]
    ) -> Purchase:
        """Return the batch jobs of an entry, for a running job of it or of the one after it."""
        filling = self.all_else.filling
        settle = filling.job_settle + self.all_else.timeout  # the call that creates a job has that
        times = JobTimes(filling.poll, filling.job_patience, settle)
        limits = JobLimits(filling.per_call, filling.asks_alone)
        bible, asker = self.all_else.bible, self.all_else.asker
        return Purchase(bible, self.jobs, asker, times, limits, entry, whose, told)


def equip(order: Order) -> Equipment:
    """Open what the order asks for. Raises errors with a sentence where this worker cannot."""
    settings, filling = read_settings(), from_environment(FillingSettings)
    tier = first_tier(order.model.tier)
    asker = _asker(order, settings, filling, model_of(settings))
    return Equipment(movie_bible(), asker, settings, filling, settings.times(tier).timeout)


def equip_jobs(order: Order) -> JobEquipment:
    """Open what the order asks for, to be done by batch jobs. Raises errors as ``equip`` does."""
    settings, filling = read_settings(), from_environment(FillingSettings)
    jobs = _open_jobs(settings)
    asker = _asker(order, settings, filling, jobs)
    timeout = settings.times(BATCH).timeout
    equipment = Equipment(movie_bible(), asker, settings, filling, timeout)
    return JobEquipment(equipment, jobs)


def _asker(
    order: Order, settings: TextModelSettings, filling: FillingSettings, model: TextModel
) -> Asker:
    planned = order.model
    if (model.provider, model.name) != (planned.provider, planned.name):
        raise ModelMismatchError(
            f"the batch was planned for {planned.name} ({planned.provider}), and this worker is "
            f"set up for {model.name} ({model.provider}); nothing was asked: set TEXT_MODEL, "
            "TEXT_MODEL_NAME and the key alike where it is planned and where it is run"
        )
    prompt = PROMPTS.load(order.prompt, filling.prompts)
    PROMPTS.refuse_another(prompt, order.prompt_digest)
    tier = first_tier(planned.tier)
    asker = Asker(
        model=model,
        limiter=NoLimit() if tier == BATCH else limiter_of(settings),
        policy=RetryPolicy.of(settings, tier),
        prices=PriceTable.load(settings.prices),
        prompt=prompt,
        accepted=planned.accepted,
        tier=tier,
        fallback=None if tier == last_tier(planned.tier) else _fallback(settings),
    )
    if order.cap is not None and asker.price is None:
        raise SettingsError(
            f"the entry may cost {order.cap:g} USD at most, and this worker knows no price for "
            f"{model.name}; nothing was asked: name a price table with TEXT_MODEL_PRICES"
        )
    return asker


def _fallback(settings: TextModelSettings) -> Fallback:
    """Return how calls go on at the standard tier."""
    return Fallback(RetryPolicy.of(settings), settings.times().timeout)


@lru_cache(maxsize=1)
def _open_jobs(settings: TextModelSettings) -> BatchJobs:
    return open_jobs(settings)
