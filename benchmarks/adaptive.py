"""Adaptive against fixed concurrency, under a service that refuses above a limit that moves.

    python -m benchmarks.adaptive [--seconds=N] [--rounds=N] [--latency=SECONDS] [--gemini]

A service answers each call after 0.5 s. How many calls it answers at a time moves: 4, 12, 6 and 2,
each for ``--seconds`` (10); what is beyond that it refuses at once, without a time to come again.
Callers with the policy of retries as by default ask as fast as they may for as long as the limits
last:

* adaptive: 24 threads, and ``TEXT_MODEL_MOST_AT_ONCE=24``, shared by a Valkey server;
* fixed: 2, 6 and 12 threads, without a limit: the least, the mean, and the most that is answered.

The service is an object of this process, so that the figures are those of the concurrency and not
of the processors; ``--gemini`` takes the real SDK (google-genai) and a local server, a process of
its own, that speaks Gemini's wire format.

All ways are measured in turn in each round. Told are the calls that were answered, as a share of
what the service would have answered at best, those that were refused, for each that was answered,
and those that were given up after six attempts; and the ratios of adaptive to each fixed number
within a round (medians).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from tasks.text_model.base import TextAnswer, TextModel, TextRequest
from tasks.text_model.choosing import open_limiter
from tasks.text_model.failures import ModelFailure, RateLimited, Stopped
from tasks.text_model.retrying import CallCounts, RetryPolicy, call
from tasks.text_model.settings import TextModelSettings
from tests.services import valkey_server
from tests.workflows.gemini_server.script import Script
from tests.workflows.gemini_server.server import KEY
from tests.workflows.text_requests import text_request

ROOT: Final = Path(__file__).parents[1]
LIMITS: Final = (4, 12, 6, 2)
MOST: Final = 24
WAYS: Final[Mapping[str, int]] = {"adaptive": 0, "fixed 2": 2, "fixed 6": 6, "fixed 12": 12}
"""Threads of each way that has a fixed number."""


@dataclass(frozen=True, slots=True)
class Result:
    """Calls that were answered, refused, and given up."""

    answered: int
    refused: int
    given_up: int

    @property
    def refusals(self) -> float:
        """Refused calls for each that was answered."""
        return self.refused / max(1, self.answered)


class Service:
    """A model that answers so many calls at a time as the script says by now."""

    provider = "service"

    def __init__(self, script: Script) -> None:
        self.name = uuid.uuid4().hex
        self._script = script
        self._began = time.monotonic()
        self._under_way = 0
        self._lock = threading.Lock()

    def generate(self, request: TextRequest) -> TextAnswer:  # noqa: ARG002 - as the seam has it
        """Answer after the script's latency, or refuse at once."""
        with self._lock:
            most = self._script.most(time.monotonic() - self._began)
            if most is not None and self._under_way >= most:
                raise RateLimited("too many calls at a time")
            self._under_way += 1
        time.sleep(self._script.latency)
        with self._lock:
            self._under_way -= 1
        return TextAnswer("{}", 1, 1, self.name)

    def close(self) -> None:
        """Do nothing: no connection is held."""


@contextmanager
def gemini(script: Script) -> Iterator[TextModel]:
    """The real SDK, and a server that follows the script from its first call on."""
    from tasks.text_model.google_genai import GoogleGenaiModel

    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(script.model_dump(mode="json"), file)
        file.flush()
        command = [sys.executable, "-m", "tests.workflows.gemini_server", "--script", file.name]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                url = process.stdout.readline().strip()
                settings = TextModelSettings(
                    choice="google-genai",
                    given_name=f"gemini-{uuid.uuid4().hex}",
                    key=SecretStr(KEY),
                    base_url=url,
                )
                with closing(GoogleGenaiModel(settings, SecretStr(KEY))) as model:
                    yield model
            finally:
                process.terminate()


def measure(model: TextModel, threads: int, seconds: float, redis: str) -> Result:
    """Ask for so long; ``threads``: 0 for adaptive."""
    settings = TextModelSettings(most_at_once=None if threads else MOST, limits_url=redis)
    limiter, counts, stop = open_limiter(settings, model), CallCounts(), threading.Event()
    policy, request = RetryPolicy.of(settings), text_request({"k": "A text."})
    number = threads or MOST
    answered, given_up = [0] * number, [0] * number

    def ask(which: int) -> None:
        while not stop.is_set():
            try:
                call(model, request, policy=policy, limiter=limiter, counts=counts, stop=stop)
                answered[which] += not stop.is_set()
            except Stopped:
                return
            except ModelFailure:
                given_up[which] += 1

    with closing(limiter), ThreadPoolExecutor(number) as pool:
        asking = [pool.submit(ask, which) for which in range(number)]
        time.sleep(seconds)
        stop.set()
        for one in asking:
            one.result()
    return Result(sum(answered), len(counts.refused), sum(given_up))


def one_way(threads: int, script: Script, redis: str, *, real: bool) -> Result:
    """Measure a way with a service of its own, for as long as all limits last."""
    seconds = script.at_once_for * len(LIMITS)
    if not real:
        return measure(Service(script), threads, seconds, redis)
    with gemini(script) as model:
        return measure(model, threads, seconds, redis)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="for which each limit lasts")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latency", type=float, default=0.5, help="seconds that a call takes")
    parser.add_argument("--gemini", action="store_true", help="by the real SDK and a local server")
    given = parser.parse_args()
    script = Script(latency=given.latency, at_once=LIMITS, at_once_for=given.seconds, retry=None)
    with valkey_server() as redis:
        rounds = [
            {way: one_way(n, script, redis, real=given.gemini) for way, n in WAYS.items()}
            for _ in range(given.rounds)
        ]
    tell(rounds, best=sum(LIMITS) * given.seconds / given.latency)


def tell(rounds: list[dict[str, Result]], best: float) -> None:
    """Print the table; ``best``: the calls that the service would have answered."""
    for way in WAYS:
        results = [one[way] for one in rounds]
        share = statistics.median(one.answered for one in results) / best
        refusals = statistics.median(one.refusals for one in results)
        given_up = statistics.median(one.given_up for one in results)
        print(
            f"{way:<9}{share:>6.0%} of what can be answered, {refusals:.2f} refused for each "
            f"answered, {given_up:.0f} given up"
        )
    for way in list(WAYS)[1:]:
        ratios = [one["adaptive"].answered / max(1, one[way].answered) for one in rounds]
        refused = statistics.median(
            one["adaptive"].refused / max(1, one[way].refused) for one in rounds
        )
        print(
            f"adaptive against {way}: {statistics.median(ratios):.2f} times the answers "
            f"({min(ratios):.2f} to {max(ratios):.2f}), {refused:.2f} times the refusals"
        )


if __name__ == "__main__":
    main()
