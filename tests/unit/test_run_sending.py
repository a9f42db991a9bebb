"""What the sender does with what becomes of a batch: the record, what is followed, what is left."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Final, cast

import pytest

from pytest_manifest.broker.attempt import Attempt, attempt_of
from pytest_manifest.broker.publisher import Publisher, PublishResult
from pytest_manifest.errors import StackError
from pytest_manifest.ledger import Ledger
from pytest_manifest.ledger.rows import SendState
from pytest_manifest.run import schedule as module
from pytest_manifest.run.fact_log import ClockWatch, FactLog
from pytest_manifest.run.inflight import PendingAttempts
from pytest_manifest.run.pressure import Health, Pressure
from pytest_manifest.run.schedule import REPEATS, Schedule, Sender
from pytest_manifest.schema import Entry
from pytest_manifest.schema.facts import Sending, SendResult
from pytest_manifest.verdict.problems import NeverTaken, NotMade, Refused, UnknownTask
from pytest_manifest.verdict.reasons import Problem
from tests.unit.ledger_support import INFO, MOMENT

BROKE: Final = "publishing failed: it broke"
Answer = Mapping[str, str | Problem]
"""What becomes of messages that the broker has not certainly taken, by their entry."""


class ScriptedPublisher:
    """Answers each batch by the next answer; looks at the record before."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.answers: list[Answer] = []
        self.batches: list[list[str]] = []

    def publish(self, attempts: Sequence[Attempt], sent_at: datetime) -> PublishResult:
        rows = [self.ledger.attempts.get(one.task_id) for one in attempts]
        assert {row and (row.state, row.sent_at) for row in rows} == {("intent", sent_at)}
        self.batches.append([one.entry.id for one in attempts])
        answer = self.answers.pop(0) if self.answers else {}
        result = PublishResult()
        for one in attempts:
            became = answer.get(one.entry.id, "certain")
            if isinstance(became, str):
                getattr(result, became).append(one.task_id)
            else:
                result.refused[one.task_id] = became
        if result.uncertain or result.unsent:
            result.error = BROKE
        return result


class Case:
    """A sender of attempts that are planned in a ledger, and its clock."""

    def __init__(
        self,
        ledger: Ledger,
        attempts: Sequence[Attempt],
        *,
        window: int = 10_000,
        queue_depth: int | None = None,
        count: Callable[[], tuple[str, int]] = lambda: ("celery", 0),
    ) -> None:
        self.ledger, self.attempts = ledger, {one.entry.id: one for one in attempts}
        self.now = 0.0
        self.publisher = ScriptedPublisher(ledger)
        self.window, self.queue_depth, self.count = window, queue_depth, count
        self.begin(attempts)

    def begin(self, attempts: Sequence[Attempt]) -> None:
        """Have a session send these: the first one, or another after it."""
        self.pending = PendingAttempts()
        self.schedule = Schedule(attempts)
        self.schedule.start()
        facts, health = FactLog(self.ledger), Health(None, [], [])
        pressure = Pressure(facts, {}, self.queue_depth, self.count, health=health, keys=None)
        self.sender = Sender(
            *(self.ledger, cast("Publisher", self.publisher), self.schedule, self.pending),
            *(self.window, facts, pressure, ClockWatch(self.ledger)),
        )

    def send(self, *answers: Answer) -> StackError | None:
        """Send one batch, to which this is the answer."""
        self.publisher.answers = list(answers)
        return self.sender.send_some()

    def send_all(self) -> list[int]:
        """Send as long as there is room; return how many messages each batch had."""
        before = len(self.publisher.batches)
        while self.sender.has_room:
            assert self.sender.send_some() is None
        return [len(one) for one in self.publisher.batches[before:]]

    def complete(self, number: int) -> None:
        for task_id in list(self.pending.by_task_id)[:number]:
            self.pending.complete(task_id)

    def of(self, entry: str) -> str:
        return self.attempts[entry].task_id

    def states(self) -> dict[str, tuple[SendState, str | None]]:
        return {row.entry: (row.state, row.note) for row in self.ledger.attempts.all()}

    def results(self, entry: str) -> list[tuple[int, str, str, bool]]:
        """The facts of what became of an entry's sendings; each follows that of the sending."""
        name = self.of(entry)
        sendings = [one for one in self.ledger.facts.of_kind(Sending) if one.job == name]
        found = [one for one in self.ledger.facts.of_kind(SendResult) if one.job == name]
        assert [one.number for one in sendings] == [one.number for one in found]
        assert {one.sent_at for one in sendings} <= {moment(at) for at in range(100)}
        return [(one.number, one.outcome, one.error, one.is_unmade) for one in found]


def moment(at: float) -> datetime:
    return MOMENT + timedelta(seconds=at)


def plan(ledger: Ledger, entries: Sequence[Entry]) -> list[Attempt]:
    made = [attempt_of(INFO.run, one, 1, place) for place, one in enumerate(entries)]
    ledger.attempts.plan([(a.task_id, a.entry.id, 1, n) for n, a in enumerate(made)])
    return made


def entries(number: int, **fields: object) -> list[Entry]:
    return [Entry.model_validate({"id": f"e{n}", "task": "t", **fields}) for n in range(number)]


@contextmanager
def case(folder: Path, of: Sequence[Entry], **given: object) -> Iterator[Case]:
    with Ledger.create(folder / "run.sqlite", INFO) as ledger, pytest.MonkeyPatch.context() as set_:
        made = Case(ledger, plan(ledger, of), **given)  # type: ignore[arg-type]  # passed on
        set_.setattr(module, "time", SimpleNamespace(monotonic=lambda: made.now))
        set_.setattr(module, "utc_now", lambda: moment(made.now))
        yield made


# Batches and the window


def test_a_small_batch_goes_first(tmp_path: Path) -> None:
    """Then such as cost little an entry."""
    with case(tmp_path, entries(521)) as made:
        assert made.send_all() == [20, 500, 1]
        assert made.sender.send_some() is None
        assert len(made.publisher.batches) == 3


@pytest.mark.parametrize(
    ("window", "most", "refill"),
    [(32, 500, 3), (5, 500, 1), (32, 2, 2)],
    ids=["a tenth", "less than ten", "no more than a batch"],
)
def test_a_full_window_is_filled_up_once_a_part_of_it_is_free(
    window: int, most: int, refill: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH", most)
    with case(tmp_path, entries(60), window=window) as made:
        assert sum(made.send_all()) == window == len(made.pending)
        for _ in range(refill - 1):
            made.complete(1)
            assert made.send_all() == []
        made.complete(1)
        assert made.send_all() == [refill]
        made.complete(1)
        made.sender.set_window(window)
        assert made.send_all() == [1]


def test_the_window_is_filled_while_it_was_never_full(tmp_path: Path) -> None:
    """By the last few messages, too."""
    with case(tmp_path, entries(60), window=32) as made:
        made.sender.send_some()
        assert len(made.pending) == 20
        made.sender.set_window(21)
        assert made.send_all() == [1]


def test_what_was_not_taken_does_not_count_as_in_its_queue(tmp_path: Path) -> None:
    with case(tmp_path, entries(9), queue_depth=3) as made:
        made.send({"e1": "unsent"})
        made.send()
        assert made.publisher.batches == [["e0", "e1", "e2"], ["e1"]]


def test_an_error_of_those_that_count_the_queues_is_returned(tmp_path: Path) -> None:
    error = StackError("the broker cannot be reached")

    def count() -> tuple[str, int]:
        raise error

    with case(tmp_path, entries(1), queue_depth=3, count=count) as made:
        assert made.sender.send_some() is error
        assert made.schedule.unsent() == {"e0"}


# What becomes of a batch


REFUSALS: Final[Mapping[str, tuple[Problem, str]]] = {
    "e3": (Refused(error="too large"), "too large"),
    "e4": (NotMade(error="raised"), "raised"),
    "e5": (UnknownTask(names=("tasks.t",)), UnknownTask(names=("tasks.t",)).phrase()),
}


def test_each_message_of_a_batch_has_its_own_end(tmp_path: Path) -> None:
    """In the record, among what is followed, and in what is still to be sent."""
    refused = {name: problem for name, (problem, _) in REFUSALS.items()}
    with case(tmp_path, entries(8)) as made:
        error = made.send({"e1": "uncertain", "e2": "unsent", **refused})
        assert str(error) == f"the broker failed while jobs were being sent: {BROKE}"
        assert made.states() == {
            "e0": ("sent", None),
            "e1": ("uncertain", BROKE),
            "e2": ("planned", BROKE),
            **{name: ("withheld", problem.phrase()) for name, problem in refused.items()},
            "e6": ("sent", None),
            "e7": ("sent", None),
        }
        assert {name: made.results(name) for name in made.attempts} == {
            "e0": [],
            "e1": [(1, "uncertain", BROKE, False)],
            "e2": [(1, "unsent", BROKE, False)],
            **{n: [(1, "refused", why, n == "e4")] for n, (_, why) in REFUSALS.items()},
            "e6": [],
            "e7": [],
        }
        followed = [one.entry.id for one in made.pending.by_task_id.values()]
        assert followed == ["e0", "e1", "e6", "e7"]
        assert made.sender.uncertain == {made.of("e1")}
        found = [(one.attempt.entry.id, one.why) for one in made.sender.refused()]
        assert (found, made.sender.refused()) == (list(refused.items()), [])
        made.send()
        assert made.publisher.batches[1:] == [["e2"]]
        assert made.results("e2") == [
            (1, "unsent", BROKE, False),
            (2, "published", "", False),
        ]


def test_all_that_there_is_of_what_was_sent_once_is_known_without_the_record(
    tmp_path: Path,
) -> None:
    """Of its only sending; of all others the record alone has it."""
    with case(tmp_path, entries(3)) as made:
        made.now = 7.0
        made.send({"e1": "uncertain"})
        flights = {one.entry.id: one for one in made.pending.by_task_id.values()}
        assert {(one.sent, one.sent_at) for one in flights.values()} == {(7.0, moment(7))}
        assert flights["e1"].facts is None
        for name in ("e0", "e2"):
            [loaded] = made.ledger.jobs.of_entry(name)
            known = flights[name].facts
            assert known is not None
            sending, result = known
            own, end = loaded.own.facts
            assert isinstance(own, Sending)
            assert isinstance(end, SendResult)
            assert sending == Sending(seq=own.seq, at=moment(7), number=1, sent_at=own.sent_at)
            assert result == SendResult(seq=end.seq, at=moment(7), number=1, outcome="published")


def test_a_second_attempt_is_judged_by_the_record(tmp_path: Path) -> None:
    """As the first one counts, too."""
    with Ledger.create(tmp_path / "run.sqlite", INFO) as ledger:
        [entry] = entries(1)
        plan(ledger, [entry])
        again = attempt_of(INFO.run, entry, 2)
        ledger.attempts.plan([(again.task_id, "e0", 2, 0, "failed")])
        made = Case(ledger, [again])
        made.send()
        [flight] = made.pending.by_task_id.values()
        assert (flight.number, flight.facts) == (2, None)


# Sent again


def test_a_message_that_got_lost_is_published_again_as_the_same_attempt(tmp_path: Path) -> None:
    """Of which sending a receipt is, nobody can tell; its deadline counts from the first try."""
    with case(tmp_path, entries(2, deadline=30)) as made:
        made.send({"e0": "uncertain"})
        lost, other = made.attempts["e0"], made.attempts["e1"]
        assert made.sender.resend(other) is False
        made.pending.complete(lost.task_id)
        assert made.sender.resend(lost) is True
        assert made.sender.resend(lost) is False
        made.now = 20.0
        assert made.send() is None
        flight = made.pending.by_task_id[lost.task_id]
        assert (flight.sent, flight.sent_at, flight.facts) == (20.0, None, None)
        assert made.results("e0") == [(1, "uncertain", BROKE, False), (2, "published", "", False)]
        assert made.results("e1") == []
        assert list(made.pending.overdue(29.9)) == []
        assert set(made.pending.overdue(30.0)) == {lost.task_id, other.task_id}


def test_a_message_is_published_again_no_more_often_than_that(tmp_path: Path) -> None:
    with case(tmp_path, entries(1)) as made:
        one = made.attempts["e0"]
        repeated = []
        for _ in range(5):
            made.send({"e0": "uncertain"})
            repeated.append(made.sender.resend(one))
        assert repeated == [True, True, True, False, False]
        assert REPEATS == 3
        assert [number for number, *_ in made.results("e0")] == [1, 2, 3, 4]


@pytest.mark.parametrize("what", ["closed", "cancelled"])
def test_nothing_is_published_again_once_sending_is_over(what: str, tmp_path: Path) -> None:
    with case(tmp_path, entries(1)) as made:
        made.send({"e0": "uncertain"})
        if what == "closed":
            made.schedule.close(Refused(error="enough"))
        else:
            made.schedule.cancelled.add("e0")
        assert made.sender.resend(made.attempts["e0"]) is False


@pytest.mark.parametrize(
    ("tries", "facts"),
    [
        (["unsent", "unsent"], [(1, "unsent")]),
        (["unsent", "unsent", "certain"], [(1, "unsent"), (2, "published")]),
        (["unsent", "uncertain"], [(1, "unsent"), (2, "uncertain")]),
        (["uncertain", "uncertain"], [(1, "uncertain"), (2, "uncertain")]),
        (["uncertain", "unsent", "unsent"], [(1, "uncertain"), (2, "unsent")]),
        (["certain"], []),
    ],
)
@pytest.mark.parametrize("is_resumed", [False, True])
def test_tries_of_which_the_broker_took_nothing_are_one(
    tries: Sequence[str], facts: object, is_resumed: bool, tmp_path: Path
) -> None:
    """Whichever session makes them."""
    with case(tmp_path, entries(2)) as made:
        one = made.attempts["e1"]
        for became in tries:
            made.send({"e1": became})
            made.sender.resend(one)
            if is_resumed:
                made.begin([made.attempts[name] for name in sorted(made.schedule.unsent())])
        assert [(number, outcome) for number, outcome, *_ in made.results("e1")] == facts


# Not taken in time


def test_what_the_broker_does_not_take_before_its_deadline_is_withdrawn(tmp_path: Path) -> None:
    """It counts from the first try; what has none waits."""
    of = [*entries(2, deadline=10), *entries(3)[2:]]
    with case(tmp_path, of) as made:
        for made.now in (0.0, 5.0):
            made.send(dict.fromkeys(made.attempts, "unsent"))
        assert made.sender.overdue(9.9) == []
        found = made.sender.overdue(10.0)
        never = NeverTaken(limit=10.0)
        assert {one.attempt.entry.id: one.why for one in found} == {"e0": never, "e1": never}
        assert made.sender.overdue(1e9) == []
        assert made.schedule.unsent() == {"e2"}


def test_what_got_lost_on_its_way_is_withdrawn_by_its_first_try(tmp_path: Path) -> None:
    """What reached nobody since may not be sent any more."""
    with case(tmp_path, entries(1, deadline=10)) as made:
        for made.now in (0.0, 5.0):
            made.send({"e0": "uncertain"})
            assert made.sender.resend(made.attempts["e0"])
        made.send({"e0": "unsent"})
        assert [one.attempt.entry.id for one in made.sender.overdue(10.0)] == ["e0"]


def test_a_deadline_counts_from_the_first_try(tmp_path: Path) -> None:
    """Of what the broker takes at last, too."""
    with case(tmp_path, entries(1, deadline=30)) as made:
        made.now = 1.0
        made.send({"e0": "unsent"})
        made.now = 20.0
        made.send()
        assert list(made.pending.overdue(30.9)) == []
        assert list(made.pending.overdue(31.0)) == [made.of("e0")]


def test_only_what_was_not_taken_has_the_error(tmp_path: Path) -> None:
    with case(tmp_path, entries(2)) as made:
        made.send({"e0": "unsent", "e1": "uncertain"})
        made.sender.resend(made.attempts["e1"])
        made.send({"e0": "uncertain"})
        assert made.results("e0")[1:] == [(2, "uncertain", BROKE, False)]
        assert made.results("e1")[1:] == [(2, "published", "", False)]


def test_what_is_taken_at_last_is_not_withdrawn(tmp_path: Path) -> None:
    """Nor what may be there."""
    with case(tmp_path, entries(2, deadline=10)) as made:
        made.send({"e0": "unsent", "e1": "uncertain"})
        made.now = 5.0
        made.send()
        assert made.sender.overdue(20.0) == []
        assert len(made.pending) == 2
