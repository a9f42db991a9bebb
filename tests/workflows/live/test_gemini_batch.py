"""Gaps filled by batch jobs, by the real SDK, from a service that fails in every way.

Without a stack: submitter and collector in this process, which are killed at random moments. Rows,
failures and cost are held against what the service itself has noted.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest
from pydantic import JsonValue

from tasks.filling.cap import CapReachedError
from tasks.filling.job_purchase import JobLimits, Open
from tasks.filling.job_watching import JobTimes
from tasks.filling.order import Order
from tasks.filling.report import Report
from tasks.filling.shares import Spent
from tasks.movie_bible.bible import MovieBible
from tasks.text_model.choosing import open_jobs
from tasks.text_model.failures import JobStuck, OtherModel
from tasks.text_model.jobs import BatchJobs
from tasks.text_model.settings import GOOGLE_GENAI
from tests.workflows.filling_support import PROMPT, bible_at, documents, order
from tests.workflows.gemini_server import GeminiServer, gemini_server
from tests.workflows.gemini_support import nobody_else as nobody_else
from tests.workflows.gemini_support import settings_of, show
from tests.workflows.jobs_support import (
    PLANNED,
    RUN,
    EntryRig,
    check_bought_once,
    check_cost,
    check_rows,
    ids_of,
)

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("nobody_else")]

PASSAGES: Final = int(os.environ.get("FAULT_PASSAGES", "100"))
"""How many passages the faults befall, ten in each entry."""
OF_JOBS: Final = {
    "swapped": "answer_swapped",
    "missing": "answer_missing",
    "doubled": "answer_doubled",
    "foreign": "answer_foreign",
    "expired": "job_expired",
    "failed": "job_failed",
    "cancelled": "job_cancelled",
}
"""The failure that must be told for each fault of a job."""
OF_CREATION: Final = ("lost", "lost_late", "refused")
OF_REQUESTS: Final = {
    "unavailable": "unavailable",
    "server_error": "server_failed",
    "malformed_json": "malformed_answer",
    "cut_off": "answer_cut_off",
    "empty": "empty_answer",
    "blocked_prompt": "prompt_blocked",
    "blocked_answer": "answer_blocked",
}
OF_ITEMS: Final = ("missing", "doubled", "foreign", "invalid")


@pytest.fixture(params=[10_000_000, 0], ids=["inline", "file"])
def inline_bytes(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def server() -> Iterator[GeminiServer]:
    """Nothing fails yet; a third of the prompts is billed as cached."""
    with gemini_server({"cached": 0.3}) as serving:
        yield serving


@pytest.fixture
def jobs(server: GeminiServer) -> Iterator[BatchJobs]:
    """Inline jobs."""
    opened = open_jobs(settings_of(GOOGLE_GENAI, server.url))
    yield opened
    opened.close()


@pytest.fixture
def bible(tmp_path: Path) -> Iterator[MovieBible]:
    """Twenty passages."""
    with bible_at(tmp_path, documents(20)) as opened:
        yield opened


def use(server: GeminiServer, **jobs: JsonValue) -> None:
    """Have jobs fail like this."""
    server.use({"cached": 0.3, "jobs": jobs})


def kinds(reports: list[Report]) -> Counter[str]:
    return sum((report.failures for report in reports), Counter())


def sums(reports: list[Report]) -> tuple[Spent, Spent]:
    """What was spent, and what of it stands in rows."""
    spent = sum((report.spent for report in reports), Spent())
    return spent, sum((report.in_rows for report in reports), Spent())


def test_every_fault(tmp_path: Path, inline_bytes: int) -> None:
    """Ten passages in each pair of entries; only what is missing is asked for again."""
    script: dict[str, JsonValue] = {
        "cached": 0.3,
        "jobs": {
            "faults": [*OF_JOBS, *OF_CREATION],
            "rates": {**dict.fromkeys(OF_JOBS, 0.05), **dict.fromkeys(OF_CREATION, 0.03)},
            "requests": dict.fromkeys([*OF_REQUESTS, *OF_ITEMS], 0.04),
            "seed": 1981,
            "away": 0.2,
            "page": 7,
        },
    }
    ids = ids_of(PASSAGES)
    with gemini_server(script) as server, bible_at(tmp_path, documents(PASSAGES)) as bible:
        jobs = open_jobs(settings_of(GOOGLE_GENAI, server.url, inline_bytes=inline_bytes))
        told: list[Report] = []
        names = [f"submit-{number:05d}" for number in range(PASSAGES // 10)]
        for number, name in enumerate(names):
            mine = ids[number * 10 : number * 10 + 10]
            rig = EntryRig(bible, jobs, mine, submit_entry=name, collect_entry=f"c-{number}")
            rig.submit()
            told.append(rig.collect())
        jobs.close()
        assert [name for report in told for name in report.unfilled] == []
        check_rows(bible, PASSAGES)
        check_bought_once(bible, server, names)
        check_cost(server, bible, told, PASSAGES)
        failures = kinds(told)
        assert {*OF_JOBS.values(), *OF_REQUESTS.values()} <= set(failures)
        anomalies = {kind for report in told for kind in report.anomalies}
        assert anomalies == {"missing", "doubled", "malformed"}
        form = "inline" if inline_bytes else "from a file"
        what = f"batch, {len(server.jobs.jobs)} jobs, {form}"
        show(what, PASSAGES, len(server.calls), failures, *sums(told))


class Killed(BaseException):
    """The process was killed."""


class Mortal:
    """Stands for an object whose user is killed at random: before a call of it, or after."""

    def __init__(self, of: object, chance: random.Random, share: float) -> None:
        self._of, self._chance, self._share = of, chance, share

    def __getattr__(self, name: str) -> object:
        found = getattr(self._of, name)
        if not callable(found):
            return found

        def call(*arguments: object, **more: object) -> object:
            self._perhaps(f"before {name}")
            result = found(*arguments, **more)
            self._perhaps(f"after {name}")
            return result

        return call

    def _perhaps(self, when: str) -> None:
        if self._chance.random() < self._share:
            raise Killed(when)


@pytest.mark.parametrize("seed", range(6))
def test_kills_at_random_moments(
    server: GeminiServer,
    jobs: BatchJobs,
    bible: MovieBible,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
) -> None:
    """Whoever comes after goes on where the killed one stopped: nothing is bought twice.

    Each call of the service and each transaction is a moment at which the process may end. What an
    attempt that was killed has settled is told by the next one.
    """
    chance = random.Random(f"kills:{seed}")
    use(server, seed=seed, rates={"lost": 0.2, "swapped": 0.1, "missing": 0.1, "expired": 0.1})
    rig = EntryRig(bible, jobs, ids_of(20), JobTimes(poll=0.0, patience=600, settle=0.0))
    whole = bible.jobs
    rig.jobs = Mortal(jobs, chance, 0.06)  # type: ignore[assignment]  # all of its methods
    monkeypatch.setattr(bible, "jobs", Mortal(whole, chance, 0.03))
    killed: Counter[str] = Counter()

    def living(action: str) -> Report | None:
        for attempt in range(1, 200):
            try:
                return getattr(rig, action)(attempt)  # type: ignore[no-any-return]  # by its name
            except Killed as error:
                killed[f"{action} {error}"] += 1
        raise AssertionError("killed 200 times")

    living("submit")
    last = living("collect")
    monkeypatch.setattr(bible, "jobs", whole)
    assert last is not None
    assert (last.unfilled, killed.total() > 0) == ({}, True)
    check_rows(bible, 20)
    check_bought_once(bible, server, [rig.submit_entry])
    check_cost(server, bible, rig.told(), 20)
    what = f"batch, {killed.total()} kills, {len(server.jobs.jobs)} jobs"
    show(what, 20, len(server.calls), kinds(rig.told()), *sums(rig.told()))


def test_submitting_again_creates_nothing(
    server: GeminiServer, jobs: BatchJobs, bible: MovieBible
) -> None:
    """By another attempt, before or after it is collected."""
    rig = EntryRig(bible, jobs, ids_of(20))
    rig.submit(1)
    rig.submit(2)
    assert rig.collect().unfilled == {}
    rig.submit(3)
    assert [job.display_name for job in server.jobs.jobs] == [f"{RUN}/submit-00001/1/1"]


@pytest.mark.parametrize("fault", ["lost", "lost_late", "unnamed"])
def test_a_job_of_whose_creation_nobody_heard_is_found(
    server: GeminiServer, jobs: BatchJobs, bible: MovieBible, fault: str
) -> None:
    """Also where the list has it only later; it is not created a second time."""
    use(server, faults=[fault])
    rig = EntryRig(bible, jobs, ids_of(20))
    rig.submit()
    assert rig.collect().unfilled == {}
    assert len(server.jobs.jobs) == 1


def test_two_that_collect_at_once_submit_once(
    server: GeminiServer, jobs: BatchJobs, bible: MovieBible, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is missing is asked for by one of them, whichever comes first."""
    use(server, faults=["expired"], polls=0)
    rig = EntryRig(bible, jobs, ids_of(20))
    rig.submit()
    one, other = rig.purchase("collect-00001", 1), rig.purchase("collect-00001", 1)
    gaps = one.gaps

    def after_the_other(ids: Sequence[str], order: Order) -> list[Open]:
        assert other.collect(ids, order) == 0.0
        return gaps(ids, order)

    monkeypatch.setattr(one, "gaps", after_the_other)
    assert one.collect(rig.ids, rig.order) == 0.0
    assert [job.number for job in bible.jobs.jobs(RUN, rig.submit_entry)] == [1, 2]
    monkeypatch.undo()
    assert rig.collect().unfilled == {}
    check_bought_once(bible, server, [rig.submit_entry])


def test_a_job_that_was_not_created_is_created_anew(
    server: GeminiServer, jobs: BatchJobs, bible: MovieBible
) -> None:
    """Once it has been looked for long enough."""
    use(server, faults=["vanished"])
    rig = EntryRig(bible, jobs, ids_of(20), JobTimes(poll=0.0, patience=600, settle=0.2))
    rig.submit()
    assert rig.collect().unfilled == {}
    assert server.jobs.seen["list"] > 1
    assert [one.state for one in bible.jobs.jobs(RUN, rig.submit_entry)] == ["absent", "ended"]


def test_a_job_that_comes_after_all_is_cancelled_and_read(
    server: GeminiServer, jobs: BatchJobs, bible: MovieBible
) -> None:
    """A list that lags behind has another job created; what the first one brings is paid, and told.

    It was answered before it could be cancelled.
    """
    use(server, faults=["lost_late", "expired"])
    rig = EntryRig(bible, jobs, ids_of(20), JobTimes(poll=0.0, patience=600, settle=0.0))
    rig.submit()
    report = rig.collect()
    assert report.unfilled == {}
    assert server.jobs.seen["cancel"] == 1
    assert {one.state for one in bible.jobs.jobs(RUN, rig.submit_entry)} == {"ended"}
    assert report.failures == {"job_expired": 4}
    check_rows(bible, 20)
    check_cost(server, bible, [report], 20)
    assert report.spent.cost_nanos > report.in_rows.cost_nanos


def test_a_stuck_job_is_cancelled_and_asked_for_again(
    server: GeminiServer, jobs: BatchJobs, bible: MovieBible
) -> None:
    """After the time that it is given."""
    use(server, faults=["stuck"], polls=0)
    rig = EntryRig(bible, jobs, ids_of(20), JobTimes(poll=0.0, patience=0.3, settle=600))
    rig.submit()
    report = rig.collect()
    assert report.unfilled == {}
    assert report.failures["job_cancelled"] == 4
    assert server.jobs.seen["cancel"] == 1
    check_rows(bible, 20)


@pytest.mark.ring(1)
@pytest.mark.parametrize(("fault", "patience"), [("ok", 0.0), ("lost_late", 600.0)])
def test_a_job_that_ends_before_it_can_be_cancelled_is_read(
    server: GeminiServer,
    jobs: BatchJobs,
    bible: MovieBible,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    patience: float,
) -> None:
    """The service refuses to cancel it; what it has answered is paid, and becomes rows."""
    use(server, faults=[fault, "expired"])
    cancel = jobs.cancel

    def too_late(name: str) -> None:
        while not jobs.get(name).has_ended:
            continue
        cancel(name)

    monkeypatch.setattr(jobs, "cancel", too_late)
    rig = EntryRig(bible, jobs, ids_of(20), JobTimes(poll=0.0, patience=patience, settle=0.0))
    rig.submit()
    report = rig.collect()
    assert server.jobs.seen["cancel"] >= 1
    assert report.unfilled == {}
    check_rows(bible, 20)
    check_cost(server, bible, [report], 20)


def test_a_job_that_is_cancelled_and_stays_is_not_bought_again(
    server: GeminiServer, jobs: BatchJobs, bible: MovieBible, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be answered, and billed: so it ends the entry, which says where to look."""
    use(server, faults=["stuck"])
    monkeypatch.setattr(jobs, "cancel", lambda _: None)
    rig = EntryRig(bible, jobs, ids_of(20), JobTimes(poll=0.0, patience=0.3, settle=600))
    rig.submit()
    with pytest.raises(JobStuck, match="look for it at the service"):
        rig.collect()
    assert len(server.jobs.jobs) == 1


def test_another_model_ends_it(server: GeminiServer, jobs: BatchJobs, bible: MovieBible) -> None:
    """At once; what it answered is paid at its own price, and makes no row."""
    use(server, requests={"other_model": 1.0})
    rig = EntryRig(bible, jobs, ids_of(4))
    rig.submit()
    with pytest.raises(OtherModel, match="TEXT_MODEL_ACCEPT"):
        rig.collect()
    assert bible.annotations(ids_of(4), PROMPT.version) == {}
    assert len(server.calls) == 1


def test_a_later_attempt_asks_for_what_was_given_up(
    server: GeminiServer, jobs: BatchJobs, bible: MovieBible
) -> None:
    """As --manifest-resume has it; each attempt tells of what it has bought itself."""
    use(server, faults=["expired", "expired"])
    limits = JobLimits(per_call=5, asks_alone=1)
    rig = EntryRig(bible, jobs, ids_of(20), limits=limits)
    rig.submit()
    first = rig.collect(1)
    assert {kind for kind, _ in first.unfilled.values()} == {"job_expired"}
    assert first.spent.cost_nanos == 0
    second = rig.collect(2)
    assert second.unfilled == {}
    check_cost(server, bible, [first, second], 20)
    third = rig.collect(3)
    assert (third.spent.cost_nanos, len(third.already)) == (0, 20)


def test_a_cap_leaves_out_what_would_pass_it(
    server: GeminiServer, jobs: BatchJobs, bible: MovieBible
) -> None:
    """What it allows is asked for and written; the rest is named by the error."""
    limited: Order = order(model=PLANNED, cap=0.0015)
    rig = EntryRig(bible, jobs, ids_of(20), order=limited)
    rig.submit()
    with pytest.raises(CapReachedError, match=r"of a cap of 0\.0015, .* 5 of 20 passages"):
        rig.collect()
    rows = bible.annotations(ids_of(20), PROMPT.version)
    assert (len(rows), len(server.calls)) == (5, 1)
