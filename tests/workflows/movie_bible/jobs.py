"""What the movie bible promises of batch jobs, for every database."""

from __future__ import annotations

from datetime import datetime, timezone
from functools import partial

from tasks.movie_bible.bible import MovieBible, NewAnnotation
from tasks.movie_bible.fields import values_digest
from tasks.movie_bible.jobs import AskedPassage, StoredJob, StoredRequest
from tests.workflows.movie_bible.common import VALUES, at_once

NOW = datetime(2026, 11, 29, 5, 0, tzinfo=timezone.utc)


def job(number: int = 1, *, entry: str = "E") -> StoredJob:
    name = f"R/{entry}/1/{number}"
    return StoredJob(name, "R", entry, number, "intended", None, NOW, None, None)


def request(key: str, of: StoredJob, *passages: str) -> StoredRequest:
    asked = [
        AskedPassage(f"{key}-{number}", name, ("summary", "mood"), "d" * 64)
        for number, name in enumerate(passages, 1)
    ]
    return StoredRequest(key, of.display_name, "digest", tuple(asked))


def row(passage: str) -> NewAnnotation:
    return NewAnnotation(
        passage, "v1", VALUES, answered_by="m", service_tier="batch", attempt=2, cost_nanos=7
    )


class JobsContract:
    """A job is recorded once, its answers are settled once, and what is told is told once."""

    def test_a_job_is_recorded_with_its_requests(self, bible: MovieBible) -> None:
        """By their numbers and keys, apart from those of other entries."""
        requests = [request("a", job(), "f/1", "f/2"), request("b", job(), "f/3")]
        assert bible.jobs.intend(job(), requests)
        assert bible.jobs.intend(job(2), [request("c", job(2), "f/1")])
        assert bible.jobs.intend(job(entry="F"), [request("d", job(entry="F"), "f/1")])
        assert bible.jobs.jobs("R", "E") == [job(), job(2)]
        expected = [*requests, request("c", job(2), "f/1")]
        assert bible.jobs.requests("R", "E") == expected
        assert bible.jobs.jobs("another", "E") == []

    def test_one_of_many_at_once_records_and_one_creates(self, bible: MovieBible) -> None:
        """The others are told so, and leave nothing."""
        requests = [request(f"k{number}", job(), "f/1") for number in range(5)]
        won = at_once([partial(bible.jobs.intend, job(), [one]) for one in requests])
        assert sorted(won) == [False] * 4 + [True]
        assert len(bible.jobs.requests("R", "E")) == 1
        name = job().display_name
        claimed = at_once([partial(bible.jobs.claim, name, NOW)] * 5)
        assert sorted(claimed) == [False] * 4 + [True]
        assert bible.jobs.jobs("R", "E")[0].asked_at == NOW

    def test_a_job_is_changed(self, bible: MovieBible) -> None:
        bible.jobs.intend(job(), [request("a", job(), "f/1")])
        bible.jobs.change(job().display_name, state="created", service_name="batches/1")
        (found,) = bible.jobs.jobs("R", "E")
        assert (found.state, found.service_name, found.created_at) == ("created", "batches/1", NOW)

    def test_an_answer_is_settled_with_its_rows_once(self, bible: MovieBible) -> None:
        """The second one writes nothing; the account says what was written."""
        bible.jobs.intend(job(), [request("a", job(), "f/1")])
        assert bible.jobs.settle("a", "answered", {"bills": 1}, [row("f/1")])
        assert not bible.jobs.settle("a", "answered", {"bills": 2}, [row("f/1")])
        assert bible.annotations(["f/1"], "v1")["f/1"].revision == 1
        (settled,) = bible.jobs.requests("R", "E")
        assert (settled.outcome, settled.told_by) == ("answered", None)
        assert settled.account["bills"] == 1
        assert settled.account["rows"] == {
            "f/1": {
                "action": "inserted",
                "revision": 1,
                "digest": values_digest(VALUES),
                "fields": [*VALUES],
                "answered_by": "m",
                "service_tier": "batch",
                "attempt": 2,
                "share": [0, 0, 7, 0],
            }
        }

    def test_what_nobody_asked_for_is_recorded_once(self, bible: MovieBible) -> None:
        bible.jobs.intend(job(), [request("a", job(), "f/1")])
        for bills in (1, 2):
            bible.jobs.settle_foreign(job().display_name, 1, {"bills": bills})
        (foreign,) = [one for one in bible.jobs.requests("R", "E") if not one.passages]
        assert (foreign.outcome, foreign.account) == ("answer_foreign", {"bills": 1})

    def test_what_is_not_collected_is_counted_by_run(self, bible: MovieBible) -> None:
        """What is settled is not, nor what a job was to ask that the service has not."""
        requests = [request("a", job(), "f/1", "f/2"), request("b", job(), "f/3")]
        bible.jobs.intend(job(), requests)
        assert bible.jobs.uncollected() == {"R": 3}
        bible.jobs.settle("a", "answer_missing", {})
        assert bible.jobs.uncollected() == {"R": 1}
        bible.jobs.change(job().display_name, state="absent")
        assert bible.jobs.uncollected() == {}

    def test_what_is_told_is_told_by_one_attempt(self, bible: MovieBible) -> None:
        bible.jobs.intend(job(), [request("a", job(), "f/1"), request("b", job(), "f/2")])
        bible.jobs.settle("a", "answered", {})
        bible.jobs.tell(["a"], 3)
        assert [one.told_by for one in bible.jobs.requests("R", "E")] == [3, None]
