"""A small movie bible on SQLite, and models that answer as a test tells them to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ALL_COMPLETED, Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import pytest
from pydantic import JsonValue

from tasks.filling.asking import Asker
from tasks.filling.batch import Batch, Limits
from tasks.filling.order import Order, PlannedModel
from tasks.filling.prompts import PROMPTS, Prompt
from tasks.filling.report import Report
from tasks.filling.writing import Provenance
from tasks.movie_bible.bible import BibleSettings, MovieBible
from tasks.movie_bible.documents import Document, FilmFacts
from tasks.movie_bible.fields import FIELDS
from tasks.text_model.accepting import Accepted
from tasks.text_model.base import STANDARD, TextAnswer, TextRequest, Tier
from tasks.text_model.failures import ModelFailure
from tasks.text_model.limits import NoLimit
from tasks.text_model.prices import PriceTable
from tasks.text_model.retrying import SALVAGE_SECONDS, Fallback, RetryPolicy

PROMPT: Prompt = PROMPTS.load("movie-bible/1")
QUICK = RetryPolicy(attempts=3, first_wait=0.0, longest_wait=0.01)
TOKENS_IN, TOKENS_OUT = 101, 37

Item = dict[str, JsonValue]
Answering = Callable[[TextRequest, list[Item]], list[Item] | str]


def good_items(request: TextRequest) -> list[Item]:
    """A right item for every passage; its summary tells which text it is of."""
    return [
        {
            "key": one.key,
            "summary": f"About: {one.text}",
            "themes": ["a theme"],
            "characters": [],
            "mood": "tense",
        }
        for one in request.texts
    ]


@dataclass
class ScriptedModel:
    """Answers rightly, as ``change`` leaves it; ``change`` may raise a ModelFailure.

    ``answers_as`` is the name under which it answers, its own where it is None.
    """

    change: Answering | None = None
    provider: str = "scripted"
    name: str = "gemini-2.5-flash"
    answers_as: str | None = None
    cached: int = 0
    requests: list[TextRequest] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def generate(self, request: TextRequest) -> TextAnswer:
        with self._lock:
            self.requests.append(request)
        items: list[Item] | str = good_items(request)
        if self.change is not None and not isinstance(items, str):
            items = self.change(request, items)
        text = items if isinstance(items, str) else json.dumps({"items": items})
        name = self.name if self.answers_as is None else self.answers_as
        return TextAnswer(text, TOKENS_IN, TOKENS_OUT, name, self.cached, request.tier)

    def close(self) -> None:
        """Nothing is held."""

    @property
    def sizes(self) -> list[int]:
        """Passages of each call."""
        return [len(request.texts) for request in self.requests]


def own_model(settings: object) -> ScriptedModel:
    """A factory, as TEXT_MODEL may name one."""
    return ScriptedModel(name="own-1")


def documents(number: int, prefix: str = "film") -> list[Document]:
    """Plots of as many films; their texts are told apart by their numbers."""
    return [
        Document(
            f"{prefix}-{n:04d}/plot",
            f"text {n}",
            "plot",
            FilmFacts(f"{prefix}-{n:04d}", f"Film {n}", 1900 + n % 100, "A Director", ("A Name",)),
        )
        for n in range(1, number + 1)
    ]


def bible_at(folder: Path, loaded: Sequence[Document] = ()) -> MovieBible:
    """A new movie bible in a folder."""
    bible = MovieBible.open(BibleSettings(url=f"sqlite:///{folder / 'bible.sqlite3'}"))
    bible.load(loaded)
    return bible


def order(**changes: object) -> Order:
    """To fill all fields by the usual prompt."""
    values: dict[str, object] = {
        "fields": list(FIELDS),
        "prompt": PROMPT.version,
        "prompt_digest": PROMPT.digest,
        "model": PlannedModel(provider="scripted", name="gemini-2.5-flash"),
    }
    return Order.model_validate(values | changes)


def batch_of(
    bible: MovieBible,
    model: ScriptedModel,
    limits: Limits | None = None,
    *,
    provenance: Provenance | None = None,
    policy: RetryPolicy = QUICK,
    accepted: Accepted | None = None,
    progress: Callable[[Report], None] = lambda _: None,
    prices: PriceTable | None = None,
    tier: Tier = STANDARD,
    fallback: Fallback | None = None,
) -> Batch:
    """A batch of a run ``RUN`` at the project's prices, unless others are given."""
    table = prices or PriceTable.load()
    asker = Asker(model, NoLimit(), policy, table, PROMPT, accepted, tier, fallback)
    whose = provenance or Provenance("RUN", "ENTRY", 1)
    return Batch(bible, asker, limits or Limits(concurrency=2, per_call=4), whose, progress)


def raising(failure: ModelFailure, when: Callable[[TextRequest], bool]) -> Answering:
    """An answer, or the failure where ``when`` says so."""

    def answer(request: TextRequest, items: list[Item]) -> list[Item]:
        if when(request):
            raise failure
        return items

    return answer


class Ending:
    """The end of a batch's time, in turns instead of seconds, for the module that asks.

    Time is over as soon as ``over`` is set. ``waited_for`` is set when the answers that are on
    their way are waited for; where ``is_patient`` is false that takes no time.
    """

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, module: ModuleType, *, is_patient: bool = True
    ) -> None:
        self.over, self.waited_for = threading.Event(), threading.Event()
        self._is_patient = is_patient
        monkeypatch.setattr(module, "time", self)
        monkeypatch.setattr(module, "wait", self._wait)

    def monotonic(self) -> float:
        return 1000.0 if self.over.is_set() else 0.0

    def _wait(
        self,
        futures: Collection[Future[object]],
        timeout: float | None = None,
        return_when: str = ALL_COMPLETED,
    ) -> object:
        if timeout == SALVAGE_SECONDS:
            self.waited_for.set()
            return wait(futures, 20 if self._is_patient else 0, return_when)
        if futures and not self.over.is_set():
            # So that neither is waited for longer than the other one lasts.
            while not self.over.is_set() and not wait(futures, 0.01, return_when).done:
                continue
            timeout = 0 if self.over.is_set() else timeout
        return wait(futures, timeout, return_when)
