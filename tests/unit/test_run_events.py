"""What somebody is told of a run, found by its figures: each event once, and never contents."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date

import pytest

from pytest_manifest.analysis.digest import make_digest, write_digest
from pytest_manifest.analysis.dispositions import ACCEPTANCE, Acceptance, Disposition
from pytest_manifest.analysis.run_events import EarlierRuns, RunEvents, earlier_runs, text_of
from pytest_manifest.schema import VerdictStatus
from pytest_manifest.schema.run_event import EventLink, RunEvent
from tests.unit.following_support import MadeRun, Make


class Followed:
    """A run, and what is told of it."""

    def __init__(self, run: MadeRun, earlier: EarlierRuns | None = None) -> None:
        self.run, self.reader = run, run.reader()
        links = [EventLink(name="CI", at="https://ci.example/1")]
        self.events = RunEvents(run.path.parents[2], links, earlier=earlier)

    def see(self, exit_status: int | None = None) -> list[RunEvent]:
        found = self.reader.look()
        return self.events.see(found, exit_status, had_failed=self.reader.had_failed)

    def names(self) -> list[str]:
        return [one.event for one in self.see()]


@pytest.fixture
def follow() -> Iterator[Callable[..., Followed]]:
    """Follows a run until the test is over."""
    made: list[Followed] = []

    def follow(run: MadeRun, earlier: EarlierRuns | None = None) -> Followed:
        made.append(Followed(run, earlier))
        return made[-1]

    yield follow
    for one in made:
        one.reader.close()


Follow = Callable[..., Followed]


def test_the_first_failure_is_told_once(make: Make, follow: Follow) -> None:
    run = make()
    seen = follow(run)
    run.do("e0", "e1")
    assert seen.names() == []
    run.do("e2", status="failed", error="card 4711 was refused")
    (event,) = seen.see()
    assert event.event == "first_failure"
    assert event.title == "m.jsonl: first failure, after 3 entries"
    assert event.is_bad
    run.do("e3", status="failed", error="card 4712 was refused")
    assert seen.names() == []


def test_a_failure_that_is_accepted_is_none_to_be_told_of(
    make: Make, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is counted apart, and so it is in the run's status, until it is corrected."""
    known = Disposition(1, "the bank knows", date(2027, 1, 1), entry="e2")
    monkeypatch.setattr(ACCEPTANCE, "now", Acceptance([known], date(2026, 12, 1)))
    run = make(entries=4)
    seen = follow(run)
    run.do("e0", "e1")
    run.do("e2", status="failed", error="card 4711 was refused")
    assert seen.names() == []
    assert seen.reader.look().accepted == 1
    run.do("e3", status="failed", error="card 4712 was refused")
    assert seen.names() == ["first_failure"]
    run.stop("finished")
    (event,) = seen.see(1)
    assert event.title.startswith("m.jsonl: 1 of 4 entries failed, 1 accepted, in ")
    verdict = "1 of 4 entries failed, 1 accepted, 2 passed"
    assert seen.reader.look().verdict == verdict
    run.judge("e2")
    assert seen.reader.look().accepted == 0


def test_it_has_causes_counts_and_links_and_no_contents(make: Make, follow: Follow) -> None:
    """What an error says may be a card's number; an entry's id may be a customer's name."""
    run = make()
    seen = follow(run)
    run.do("e0", status="failed", error="card 4711 was refused")
    run.do("e1", status="failed", error="card 4712 was refused")
    (event,) = seen.see()
    assert [(one.title, one.count) for one in event.causes] == [("Refused", 2)]
    for text in (event.model_dump_json(), text_of(event)):
        assert "refused" not in text
        assert "e0" not in text.replace(run.run, "")
    assert text_of(event).splitlines()[:3] == [
        "2 of 10 entries done: failed 2",
        "2 x Refused",
        "CI: https://ci.example/1",
    ]


def test_a_resumed_run_does_not_tell_its_old_failures_anew(make: Make, follow: Follow) -> None:
    run = make()
    run.do("e0", status="failed")
    run.stop("stopped")
    run.after(60)
    run.begin()
    seen = follow(run)
    assert seen.names() == []
    run.do("e1", status="failed")
    assert seen.names() == []


def test_a_failure_of_the_time_without_pytest_is_told_by_who_resumes(
    make: Make, follow: Follow
) -> None:
    """Nobody was there who could have told of it; what was accepted was not told of, either."""
    run = make()
    run.do("e0")
    run.stop("stopped")
    run.after(60)
    run.begin()
    run.do("e1", status="failed")
    assert follow(run).names() == ["first_failure"]


def test_silence_is_a_stall_and_its_end_a_recovery(make: Make, follow: Follow) -> None:
    """Where no job has ended yet, a first one may take ten minutes."""
    run = make()
    seen = follow(run)
    run.send("e0", "e1")
    run.after(599)
    assert seen.names() == []
    run.after(2)
    (stalled,) = seen.see()
    assert (stalled.event, stalled.is_bad) == ("stalled", True)
    assert "Nothing was heard for" in stalled.title
    run.after(60)
    assert seen.names() == []
    run.start("e0")
    (recovered,) = seen.see()
    assert (recovered.event, recovered.is_bad) == ("recovered", False)


def test_a_job_that_takes_as_long_as_others_is_no_stall(make: Make, follow: Follow) -> None:
    run = make()
    seen = follow(run)
    run.send("e0", "e1")
    run.start("e0")
    run.after(400)
    run.judge("e0", runtime=400.0)
    run.start("e1")
    run.after(700)
    assert seen.names() == []
    run.after(200)
    assert seen.names() == ["stalled"]


def test_a_pytest_that_is_gone_has_stalled(make: Make, follow: Follow) -> None:
    run = make()
    seen = follow(run)
    run.do("e0")
    run.lock.release()
    (event,) = seen.see()
    assert event.event == "stalled"
    assert event.state == "left"
    assert "Its pytest is gone" in event.title


def test_a_run_that_takes_longer_than_others_is_late_once(make: Make, follow: Follow) -> None:
    run = make()
    seen = follow(run, EarlierRuns(usual=300.0))
    run.do("e0")
    run.after(360)
    assert "late" not in seen.names()
    run.after(1)
    assert "late" in seen.names()
    run.after(1)
    assert "late" not in seen.names()


@pytest.mark.parametrize(("before", "usual"), [(2, None), (3, 29.0), (12, 115.5)])
def test_late_is_what_is_beyond_the_last_ten_runs(
    make: Make, before: int, usual: float | None
) -> None:
    """The 95th percentile of what they took; of fewer than three nothing is known."""
    for number in range(1, before + 1):
        run = make(number=number, entries=1)
        run.send("e0")
        begun = run.now
        run.start("e0")
        run.after(number * 10)
        run.judge("e0", "passed" if number < before else "failed", sent_at=begun, started_at=begun)
        run.stop()
        write_digest(make_digest(run.path), run.path)
    last = make(number=before + 1, entries=1)
    found = earlier_runs(last.run, last.path, last.manifest.path)
    assert found.usual == (None if usual is None else pytest.approx(usual))
    assert found.bad == 1


def test_a_run_that_passes_after_one_that_failed_has_recovered(make: Make, follow: Follow) -> None:
    run = make(entries=1)
    seen = follow(run, EarlierRuns(bad=3))
    run.do("e0")
    run.stop()
    events = seen.see(0)
    assert [one.event for one in events] == ["recovered", "finished"]
    assert events[0].title == "m.jsonl: all passed again, 3 had failed in the run before"


@pytest.mark.parametrize(
    ("status", "exit_status", "title"),
    [
        ("passed", 0, "m.jsonl: all 2 entries passed, in 0 s"),
        ("failed", 1, "m.jsonl: 1 of 2 entries failed, in 0 s"),
        ("cancelled", 1, "m.jsonl: 0 of 2 entries failed, 1 neither passed nor failed, in 0 s"),
    ],
)
def test_the_end_is_told_as_pytest_judges_it(
    make: Make, follow: Follow, status: VerdictStatus, exit_status: int, title: str
) -> None:
    run = make(entries=2)
    seen = follow(run)
    run.do("e0")
    run.do("e1", status=status)
    run.stop()
    event = seen.see(exit_status)[-1]
    assert (event.event, event.title) == ("finished", title)
    assert event.is_bad == bool(exit_status)
    assert event.exit_status == exit_status
    assert seen.see(exit_status) == []


def test_only_what_is_wanted_is_told(make: Make) -> None:
    run = make(entries=2)
    run.do("e0", "e1", status="failed")
    with run.reader() as reader:
        found = reader.look()
    events = RunEvents(run.path.parent, wanted=["finished"])
    assert [one.event for one in events.see(found, 1)] == ["finished"]
