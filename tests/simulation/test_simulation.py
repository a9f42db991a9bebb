"""The simulation itself: a small search, the examples kept, and that it sees what is wrong."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from pytest_manifest.broker.locating.base import BrokerSnapshot, JobLocations, StartedOn, compare
from pytest_manifest.ledger.attempts import Attempts
from pytest_manifest.ledger.jobs import Jobs
from pytest_manifest.run import resume as resume_decisions
from pytest_manifest.run import search as recovery
from pytest_manifest.run.engine import Engine
from pytest_manifest.run.inflight import PendingAttempts
from pytest_manifest.run.locks import RunLock
from pytest_manifest.run.pressure import Health, _Bucket
from pytest_manifest.run.resume import Resume
from pytest_manifest.schema import Entry
from pytest_manifest.schema.run_facts import RunFacts, StoreFact, TaskFact
from pytest_manifest.verdict import belief
from tests.simulation import __main__ as command
from tests.simulation.__main__ import main
from tests.simulation.process import Process
from tests.simulation.program import Partner, Program, Step, draw
from tests.simulation.shrink import promise_of, shrink
from tests.simulation.simulation import play
from tests.simulation.situations import (
    ELSEWHERE,
    FAULTS,
    lines_of_the_page,
    never_reached,
    situations,
)

EXAMPLES = sorted(Path(__file__).with_name("examples").glob("*.json"))
SENT_AND_KILLED = (Step("crash", moments=6), Step("work"))


def plain(*names: str, idempotent: bool = False) -> tuple[Entry, ...]:
    return tuple(Entry(id=n, task="t", timeout=30.0, idempotent=idempotent) for n in names)


@pytest.mark.parametrize("number", range(12))
def test_no_promise_is_broken_wherever_pytest_dies(number: int) -> None:
    """A few programs; ``make simulate`` plays many."""
    assert play(draw(f"test:{number}")).violations == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_what_once_broke_a_promise_breaks_none_now(path: Path) -> None:
    """Each was found by a search, and made small."""
    assert play(Program.from_json(path.read_text("utf-8"))).violations == []


@pytest.mark.parametrize("moments", range(40))
def test_a_run_that_is_killed_anywhere_is_resumed_to_its_end(moments: int) -> None:
    """One entry, and pytest dies at one moment after the other."""
    program = Program(plain("a"), (Step("work"), Step("crash", moments=moments)), is_private=False)
    outcome = play(program)
    assert outcome.violations == []
    assert outcome.reached["session: resume"] + outcome.reached["session: dispatch"] > 1


def test_a_second_pytest_is_refused_while_the_first_lives() -> None:
    """It finds the run's lock held, and does nothing."""
    steps = tuple(Step("second", number=number, moments=5) for number in range(3))
    outcome = play(Program(plain("a"), steps))
    assert outcome.violations == []
    assert outcome.reached["session: refused beside another"] == 3


def test_who_is_dead_goes_on_for_nobody() -> None:
    """Not when a process comes to its end that it had made."""
    told: list[str] = []
    second: list[Process] = []

    def make_another(process: Process) -> None:
        second.append(Process("second", lambda _: told.append("second")))
        process.pause()
        told.append("the first, after its death")

    first = Process("first", make_another)
    first.go_on()
    first.kill()
    second[0].go_on()
    assert told == ["second"]
    assert second[0].is_over
    first.bury()


def test_a_program_is_read_as_it_was_written() -> None:
    """Else an example would show something else than what was found."""
    program = draw("any")
    assert Program.from_json(program.to_json()) == program


def test_the_same_program_comes_to_the_same_end() -> None:
    """Nothing of it is left to chance."""
    program = draw("test:1")
    first, second = play(program), play(program)
    assert (first.steps, first.reached) == (second.steps, second.reached)


# Broken on purpose


def violations_of(steps: Sequence[Step], *, entries: Sequence[Entry] = ()) -> set[str]:
    program = Program(tuple(entries or plain("a")), tuple(steps), is_private=False)
    return {promise_of(one) for one in play(program).violations}


def later(steps: Sequence[Step], *, partner: Partner) -> set[str]:
    """The promises that are broken where one entry's job runs as these steps say."""
    program = Program(plain("a"), tuple(steps), is_private=False, partner=partner)
    return {promise_of(one) for one in play(program).violations}


LIE = (Step("take", moments=8), Step("begin"), Step("lie"))
TOO_LONG = (Step("limit", number=0), Step("work", moments=13), Step("limit", number=1))


@pytest.mark.parametrize("partner", [None, "excused", "strict"])
@pytest.mark.parametrize("steps", [LIE, TOO_LONG])
def test_what_excuses_a_report_reaches_its_own_attempt(
    steps: Sequence[Step], partner: Partner
) -> None:
    """The other shard's store, clock and limits excuse nothing, nor do those of a later session."""
    assert later(steps, partner=partner) == set()


@pytest.mark.parametrize("steps", [LIE, TOO_LONG], ids=["store", "limit"])
def test_facts_of_another_run_that_excuse_all_are_seen(steps: Sequence[Step]) -> None:
    """S5: an emptied store, or a limit, of one shard counted for what another has sent."""
    run_facts = Jobs.run_facts

    def of_all(self: Jobs, run: str | None = None) -> RunFacts:
        own = run_facts(self, run)
        others = [fact for one in self._info.merged() for fact in run_facts(self, one).facts]
        limits = [replace(one, seq=0) for one in others if isinstance(one, TaskFact)]
        in_flight = own.first_start or 0
        store = [replace(one, seq=in_flight) for one in others if isinstance(one, StoreFact)]
        return replace(own, facts=(*own.facts, *limits, *store))

    with mock.patch.object(Jobs, "run_facts", of_all):
        assert "S5" in later(steps, partner="excused")


def test_an_intent_that_is_not_written_down_is_seen() -> None:
    """S1: the ledger before the broker."""
    mark = Attempts.mark

    def without_intent(self: Attempts, ids: object, state: str, **more: object) -> None:
        mark(self, ids, "planned" if state == "intent" else state, **more)  # type: ignore[arg-type]  # options as the callee names them

    with mock.patch.object(Attempts, "mark", without_intent):
        assert "S1" in violations_of([])


@contextmanager
def reckless_resume() -> Iterator[None]:
    """A resume that looks for nothing, and takes for never begun what has no receipt."""

    def nothing(_self: Resume, _engine: object) -> dict[str, str]:
        return {}

    def never(*_given: object, **_more: object) -> bool:
        return False

    with (
        mock.patch.object(Resume, "_locate", nothing),
        mock.patch.object(resume_decisions, "_may_have_run", never),
    ):
        yield


def test_a_resume_that_looks_for_nothing_is_seen() -> None:
    """S2: what was sent and has no receipt is searched before it is sent again."""
    with reckless_resume():
        assert "S2" in violations_of([Step("crash", moments=22)])


def test_a_lock_that_holds_nobody_off_is_seen() -> None:
    """S1: two pytests with one ledger."""
    with mock.patch.object(RunLock, "acquire"):
        assert violations_of([Step("second", moments=8)])


def test_silence_that_counts_as_a_no_is_seen() -> None:
    """S3: what a paused worker runs is nowhere else, and is not lost."""

    def silence(*looks: BrokerSnapshot, **more: Mapping[str, StartedOn]) -> JobLocations:
        found = compare(*looks, **more)  # type: ignore[arg-type]  # options as the callee names them
        return replace(found, missing=found.missing | found.unknown, unknown=frozenset())

    steps = [Step("take", moments=24), Step("begin"), Step("pause")]
    waiting = [Step("idle", number=3, moments=1)] * 8
    assert violations_of([*steps, *waiting]) == set()
    with mock.patch.object(recovery, "compare", silence):
        assert "S3" in violations_of([*steps, *waiting])


def test_a_receipt_that_is_held_against_nothing_is_seen() -> None:
    """S4: a result that was changed on its way is not the one of its digest."""
    changed = [Step("fate", number=5), Step("work", moments=24), Step("work")]
    assert violations_of(changed) == set()
    with mock.patch.object(belief, "contradiction", return_value=None):
        assert "S4" in violations_of(changed)


def test_an_end_before_all_is_judged_is_seen() -> None:
    """S6: a session that ends in good order leaves no entry without a verdict."""
    program = Program(plain("a", "b"), (Step("work", moments=24),), is_private=False, window=1)
    assert play(program).violations == []
    with mock.patch.object(Engine, "_finished", property(lambda _: True)):
        assert {promise_of(one) for one in play(program).violations} == {"S6"}


def test_a_wait_without_end_is_seen() -> None:
    """L1: what is neither searched for nor overdue is waited for as long as one likes."""
    gone = [Step("fate", number=0), Step("work", moments=24), Step("work")]
    assert violations_of(gone) == set()
    with (
        mock.patch.object(recovery.JobSearch, "tick", return_value=None),
        mock.patch.object(PendingAttempts, "overdue", return_value={}),
    ):
        assert "L1" in violations_of(gone)


def test_a_violation_is_made_small() -> None:
    """What has no part in it is left out."""
    steps = (Step("take"), Step("crash", moments=22), Step("go_on"))
    program = Program(plain("a", "b"), steps, ("resume",), is_private=False, kills=2)
    with reckless_resume():
        small = shrink(program)
    assert [len(small.entries), len(small.steps), len(small.sessions)] == [1, 1, 0]
    assert small.kills == 3


@pytest.mark.parametrize(
    ("place", "name", "broken", "program", "sentence"),
    [
        (Health, "allows", lambda *_: True, {"health": ("stop", "nonsense")}, "said stop"),
        (_Bucket, "take", lambda *_: None, {"rate": 0.1}, "were sent within"),
    ],
    ids=["health", "rate"],
)
def test_what_holds_nothing_back_is_found(
    place: object, name: str, broken: object, program: Mapping[str, Any], sentence: str
) -> None:
    """And nothing is found of the same program where it holds."""
    given = replace(Program(plain(*"abcd")), **program, steps=(Step("idle", moments=60),))
    assert play(given).violations == []
    with mock.patch.object(place, name, broken):
        assert sentence in " ".join(play(given).violations)


# What is counted


def test_every_line_of_the_page_is_reached_or_held_elsewhere() -> None:
    """A fault that is added to the page must be added here."""
    assert sorted([*FAULTS, *ELSEWHERE]) == sorted(lines_of_the_page())


def test_what_holds_a_line_elsewhere_is_there() -> None:
    """A folder of tests that is moved takes its lines with it."""
    assert all(Path(place).is_dir() for place in ELSEWHERE.values())


def test_what_was_never_reached_is_named() -> None:
    """One run of one entry reaches next to nothing."""
    missed = never_reached(situations(play(Program(plain("a"))).reached))
    assert "status 'passed'" not in missed
    assert {"status 'lost'", "fault 'pytest killed'"} <= set(missed)


@pytest.mark.parametrize("seconds", ["nan", "inf", "0", "-1"])
def test_a_search_that_would_end_at_once_or_never_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], seconds: str
) -> None:
    """By a sentence, before anything is played."""
    monkeypatch.setattr("sys.argv", ["make simulate", f"--seconds={seconds}"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "give a number more than 0" in capsys.readouterr().err


def figures_after(arguments: str, monkeypatch: pytest.MonkeyPatch, figures: Path) -> dict[str, Any]:
    """Search with these arguments, and return what was written down."""
    monkeypatch.setattr(command, "FIGURES", figures)
    monkeypatch.setattr("sys.argv", ["make simulate", *arguments.split()])
    main()
    found: dict[str, Any] = json.loads(figures.read_text("utf-8"))
    return found


def test_a_search_goes_on_where_the_last_one_ended_and_adds_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two parts of a search are the whole of it; other seeds and other code do not add up."""
    monkeypatch.setattr(command, "CHUNK", 2)
    monkeypatch.setenv("SIMULATION_PROCESSES", "1")
    figures = tmp_path / "figures.json"
    first = figures_after("--seed s --steps 1", monkeypatch, figures)
    more = first["steps"] + 1
    both = figures_after(f"--seed s --go-on --steps {more}", monkeypatch, figures)
    whole = play(draw("s:0")).reached + play(draw("s:1")).reached
    assert first["programs"] == 2
    assert Counter(first["reached"]) == whole
    assert both["programs"] == 4
    assert both["steps"] >= more
    assert both["seconds"] >= first["seconds"]
    monkeypatch.setattr(command, "code_digest", lambda: "another")
    for seed in ("s", "t"):
        monkeypatch.setattr("sys.argv", ["make simulate", "--go-on", "--seed", seed])
        with pytest.raises(SystemExit, match="2"):
            main()
    said = capsys.readouterr().err
    assert "the code has changed" in said
    assert "has no search of seed 't'" in said
