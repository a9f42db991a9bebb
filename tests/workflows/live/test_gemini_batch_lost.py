"""Batch jobs that the service does not find: bought again only where they are not there."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import pytest

from tasks.filling.job_watching import JobTimes
from tasks.movie_bible.bible import MovieBible
from tasks.text_model.failures import ModelNotFound, RateLimited
from tasks.text_model.jobs import BatchJobs, KeyedReply
from tests.workflows.gemini_server import GeminiServer
from tests.workflows.gemini_support import nobody_else as nobody_else
from tests.workflows.jobs_support import SUBMIT, EntryRig, check_cost, check_rows, ids_of
from tests.workflows.live.test_gemini_batch import bible as bible
from tests.workflows.live.test_gemini_batch import jobs as jobs
from tests.workflows.live.test_gemini_batch import server as server
from tests.workflows.live.test_gemini_batch import use

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("nobody_else")]


def raises(failure: Exception) -> Callable[..., NoReturn]:
    """What fails, whatever it is asked."""

    def fail(*_: object) -> NoReturn:
        raise failure

    return fail


@pytest.mark.ring(1)
@pytest.mark.parametrize("settle", [600.0, 0.0])
def test_a_job_that_is_not_known_at_first_is_not_bought_again(
    server: GeminiServer, jobs: BatchJobs, bible: MovieBible, settle: float
) -> None:
    """The service has just created it, or its list has it."""
    use(server, faults=["unseen"])
    rig = EntryRig(bible, jobs, ids_of(20), JobTimes(poll=0.0, patience=600, settle=settle))
    rig.submit()
    report = rig.collect()
    assert report.unfilled == {}
    assert report.failures == {}
    assert len(server.jobs.jobs) == 1
    check_cost(server, bible, [report], 20)


def test_a_job_that_somebody_has_deleted_is_lost(
    server: GeminiServer, jobs: BatchJobs, bible: MovieBible
) -> None:
    """Its requests are made by another one."""
    rig = EntryRig(bible, jobs, ids_of(20), JobTimes(poll=0.0, patience=600, settle=0.0))
    rig.submit()
    server.jobs.jobs.clear()
    report = rig.collect()
    assert report.unfilled == {}
    assert report.failures == {"job_lost": 4}
    check_rows(bible, 20)


def test_a_service_of_which_nothing_is_there_has_lost_no_job(
    server: GeminiServer, jobs: BatchJobs, bible: MovieBible, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at a wrong address, or behind a proxy that answers 404: it ends the entry, and no job."""
    rig = EntryRig(bible, jobs, ids_of(20), JobTimes(poll=0.0, patience=600, settle=0.0))
    rig.submit()
    for name in ("get", "named"):
        monkeypatch.setattr(jobs, name, raises(ModelNotFound("404 Not Found")))
    with pytest.raises(ModelNotFound):
        rig.collect(1)
    monkeypatch.undo()
    report = rig.collect(2)
    assert report.unfilled == {}
    assert len(server.jobs.jobs) == 1
    check_cost(server, bible, [report], 20)


@pytest.mark.parametrize(("patience", "bought"), [(600.0, 1), (0.0, 2)])
def test_answers_that_are_not_there_are_waited_for_as_long_as_a_job(
    server: GeminiServer,
    jobs: BatchJobs,
    bible: MovieBible,
    monkeypatch: pytest.MonkeyPatch,
    patience: float,
    bought: int,
) -> None:
    """They are paid for; the job says that it has ended, and the file is not found."""
    use(server, polls=0)
    replies, away = jobs.replies, [1, 2, 3] if patience else [1]

    def not_found(name: str) -> list[KeyedReply]:
        if away:
            away.pop()
            raise ModelNotFound("404 Not Found")
        return replies(name)

    monkeypatch.setattr(jobs, "replies", not_found)
    rig = EntryRig(bible, jobs, ids_of(20), JobTimes(poll=0.0, patience=patience, settle=0.0))
    rig.submit()
    assert rig.collect().unfilled == {}
    assert len(server.jobs.jobs) == bought


@pytest.mark.ring(1)
def test_a_refused_job_is_asked_for_again_after_a_poll_at_most(
    bible: MovieBible, jobs: BatchJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the service asks for: a message that waits too long is delivered twice."""
    refused = RateLimited("429", retry_after=7200.0)
    monkeypatch.setattr(jobs, "create", raises(refused))
    rig = EntryRig(bible, jobs, ids_of(20), JobTimes(poll=60.0, patience=600, settle=600))
    assert rig.purchase(SUBMIT, 1).submit(rig.ids, rig.order) == 60.0
