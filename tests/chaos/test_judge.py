"""The judge of chaos runs: it must see every flaw that it is there for."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos import executions, report
from tests.chaos.executions import Counted, Execution
from tests.chaos.judge import Evidence, Outcome, judge, unlike_reports
from tests.chaos.record import Announced, Told
from tests.chaos.workload import Allowed, Group, build, kinds, late, late_safe, plain, safe

PLAIN = {"e": plain(1)}


def counted(*whats: str, tasks: str = "1", pid: int = 7) -> Counted:
    """Executions of one entry: "start" and "end"; one attempt unless ``tasks`` names more."""
    found, numbers = Counted(), iter(tasks.ljust(len(whats), tasks[-1]))
    for at, what in enumerate(whats):
        one = Execution(what, float(at), "e", next(numbers), 0, pid)
        (found.starts if what == "start" else found.ends).append(one)
    return found


def judged(
    kind: str | None, count: Counted, evidence: Mapping[str, object] | None = None
) -> Outcome:
    """The outcome of one entry with this verdict and count."""
    verdicts = {} if kind is None else {"e": Told(kind, "Why.", 5.0)}
    fields = {"members": PLAIN} | dict(evidence or {})
    return judge("fault", 1, Evidence(verdicts=verdicts, counted={"e": count}, **fields))  # type: ignore[arg-type]  # fields by name


ONCE = counted("start", "end")


def test_one_execution_that_passed_is_good() -> None:
    """No flaw, and the verdict is counted."""
    outcome = judged("passed", ONCE, {"injected": 2.0})
    assert outcome.flaws == []
    assert outcome.verdicts == {"passed": 1}
    assert outcome.seconds == 3.0


@pytest.mark.parametrize("kind", [None, "pending"])
def test_no_final_verdict_is_lost(kind: str | None) -> None:
    """Neither none at all nor a pending one is an answer."""
    assert judged(kind, ONCE).lost


def test_pending_is_a_verdict_where_the_fault_leaves_no_worker() -> None:
    """Of what never began; not of what did."""
    members = {"members": {"e": plain(1, never=kinds("pending"))}}
    assert not judged("pending", counted(), members).flaws
    assert judged("pending", ONCE, members).wrong


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("passed", counted()),
        ("passed", counted("start")),
        ("lost", ONCE),
        ("crashed", ONCE),
        ("crashed", counted("start")),
        ("skipped", ONCE),
    ],
)
def test_a_verdict_against_the_count_is_wrong(kind: str, count: Counted) -> None:
    """Whatever no rule of the entry allows for what was counted."""
    assert judged(kind, count).wrong


def test_passed_without_an_end_is_wrong_even_where_it_was_aimed_at() -> None:
    """No fault makes a job pass that did not run."""
    members = {"e": plain(1, aimed=kinds("passed"))}
    assert judged("passed", counted(), {"members": members, "aimed": frozenset("e")}).wrong


def test_the_rules_of_the_fault_hold() -> None:
    """A job that was cut off may be crashed where the fault kills, and only there."""
    members = {"e": plain(1, cut=kinds("crashed"))}
    assert not judged("crashed", counted("start"), {"members": members}).flaws


def test_a_job_that_ends_as_pytest_kills_what_it_has_started_may_be_cut() -> None:
    """Told a second time to end; before that, and after it has ended, that is no excuse."""
    members = {"e": plain(1, cut=kinds("unknown"))}
    assert not judged("unknown", ONCE, {"members": members, "hurried": (0.9, 2.0)}).flaws
    assert judged("unknown", ONCE, {"members": members, "hurried": (1.6, 2.0)}).wrong
    assert judged("unknown", ONCE, {"members": members, "hurried": (0.1, 0.9)}).wrong


def test_a_job_whose_process_was_killed_as_it_began_may_be_delivered_again() -> None:
    """Its acknowledgement had not left the worker; a third time, or later, that is a double run."""
    twice = counted("start", "start", "end")
    assert judged("duplicated", twice).doubles
    assert not judged("duplicated", twice, {"hits": [(7, 1.1)]}).doubles
    assert judged("duplicated", twice, {"hits": [(7, 31.0)]}).doubles
    assert judged("duplicated", twice, {"hits": [(8, 1.1)]}).doubles
    assert judged("passed", twice, {"hits": [(7, 1.1)]}).flaws
    assert judged("duplicated", counted("start", "start", tasks="12"), {"hits": [(7, 1.1)]}).doubles


def test_a_job_killed_right_behind_its_end_may_be_crashed() -> None:
    """Its receipt may never have left the process; half a minute later that is no excuse."""
    members = {"e": plain(1, cut=kinds("crashed"))}
    hits = {"members": members, "hits": [(7, 1.1)]}
    assert not judged("crashed", ONCE, hits).flaws
    # Its worker's kill is what is noted, which it outlives by a moment.
    assert not judged("crashed", ONCE, hits | {"hits": [(7, 0.9)]}).flaws
    assert judged("crashed", ONCE, hits | {"hits": [(7, 0.4)]}).wrong
    assert judged("crashed", ONCE, hits | {"hits": [(7, 31.0)]}).wrong
    assert judged("crashed", ONCE, hits | {"hits": [(8, 1.1)]}).wrong


def test_a_job_killed_between_its_announcement_and_its_first_line_may_be_crashed() -> None:
    """That much was said of it; not where nobody was killed, nor another, nor before."""
    late_ = {"members": {"e": late(1, never=kinds("lost"), cut=kinds("crashed"))}}
    said = late_ | {"announced": [Announced("e", "1", 7, 1.0)], "hits": [(7, 1.1)]}
    assert not judged("crashed", counted(), said).flaws
    assert not judged("lost", counted(), said).flaws
    assert not judged("duplicated", ONCE, said).flaws
    assert judged("duplicated", ONCE, said | {"announced": []}).wrong
    others: list[dict[str, object]] = [
        {"announced": []},
        {"announced": [Announced("another", "1", 7, 1.0)]},
        {"hits": []},
        {"hits": [(8, 1.1)]},
        {"hits": [(7, 0.4)]},
        {"members": {"e": late(1, never=kinds("lost"))}},
    ]
    for other in others:
        assert judged("crashed", counted(), said | other).wrong, other
    assert judged("crashed", ONCE, said | {"hits": [(7, 31.0)]}).wrong


TWICE = counted("start", "end", "start", "end")


def test_a_second_run_of_a_plain_job_is_a_double_run() -> None:
    """Also where it is declared duplicated, unless the fault itself made it run twice."""
    assert judged("duplicated", TWICE).doubles
    assert judged("passed", TWICE, {"forced": True}).doubles
    assert not judged("duplicated", TWICE, {"forced": True}).flaws


def test_a_second_run_after_the_end_of_pytest_is_a_double_run() -> None:
    """A first one is none; nor does it make a verdict wrong that was true when it was told."""
    assert judged("passed", ONCE, {"afterwards": {"e": TWICE}}).doubles
    late_ = {"members": {"e": plain(1, never=kinds("timed_out"))}, "afterwards": {"e": ONCE}}
    assert not judged("timed_out", counted(), late_).flaws


def test_a_second_attempt_counts_for_a_plain_job_only() -> None:
    """What is idempotent may be sent again."""
    attempts = counted("start", "start", "end", tasks="122")
    assert judged("passed", attempts).doubles
    assert not judged("passed", attempts, {"members": {"e": safe(1)}}).flaws


def test_a_redelivered_job_must_be_called_so() -> None:
    """A late-acked job that ran twice in one attempt is duplicated, unless it may do so."""
    assert judged("passed", TWICE, {"members": {"e": late(1)}}).doubles
    assert not judged("duplicated", TWICE, {"members": {"e": late(1)}}).flaws
    assert not judged("passed", TWICE, {"members": {"e": late_safe(1)}}).flaws


TREE = Group("tree", 1, Allowed(never=kinds("lost"), cut=kinds("crashed")), shape="loop")
NAMES_TWIG = (
    "The job passed, but its descendant 'chaos.twig' (id of e/2), started by 'it', crashed: ..."
)


def of_tree(*twigs: Counted) -> dict[str, Counted]:
    """What an entry's job counted, once, and each of what it started."""
    found = {"e": once(), **{f"e/{number}": one for number, one in enumerate(twigs, 1)}}
    for key, one in found.items():
        one.starts = [replace(line, task_id=f"id of {key}") for line in one.starts]
    return found


def judged_tree(
    kind: str, twigs: Sequence[Counted], sentence: str = "Why.", **evidence: object
) -> Outcome:
    """The outcome of an entry that starts three, with this verdict and these counts."""
    fields: dict[str, object] = {"members": {"e": TREE}} | evidence
    verdicts = {"e": Told(kind, sentence, 5.0)}
    return judge("fault", 1, Evidence(verdicts=verdicts, counted=of_tree(*twigs), **fields))  # type: ignore[arg-type]  # fields by name


def once() -> Counted:
    return counted("start", "end")


def test_a_tree_passes_where_all_of_it_ran_once() -> None:
    """Not where one was cut off or never began, nor is it then anything else."""
    assert not judged_tree("passed", [once(), once(), once()]).flaws
    for other in (counted("start"), counted()):
        assert judged_tree("passed", [once(), other, once()]).wrong
    assert judged_tree("crashed", [once(), once(), once()]).wrong
    assert judged_tree("lost", [once(), once(), once()]).wrong


def test_a_tree_is_what_became_of_one_that_did_not_run_as_it_should() -> None:
    """The sentence must not name another one."""
    cut = [once(), counted("start"), once()]
    assert not judged_tree("crashed", cut, NAMES_TWIG).flaws
    assert judged_tree("lost", cut).wrong
    assert judged_tree("crashed", [counted("start"), once(), once()], NAMES_TWIG).wrong
    assert not judged_tree("lost", [once(), counted(), once()]).flaws


def test_one_of_a_tree_that_ran_twice_is_a_double_run() -> None:
    """It must be called so, and its fault must have made it."""
    twice = [once(), counted("start", "end", "start", "end"), once()]
    assert judged_tree("duplicated", twice).doubles
    assert not judged_tree("duplicated", twice, forced=True).flaws
    assert judged_tree("passed", twice, forced=True).doubles


def test_a_tree_without_a_verdict_is_lost() -> None:
    """A pending one is none."""
    assert judged_tree("pending", [once(), once(), once()]).lost


def test_more_damage_than_the_fault_can_do_is_wrong() -> None:
    """Each verdict may be allowed, and all of them together may not."""
    members = {"e": plain(1, cut=kinds("crashed"))}
    assert judged("crashed", counted("start"), {"members": members, "damage": 0}).wrong


def test_reports_must_agree_with_the_ledger() -> None:
    """What the JUnit file shows is what the ledger says, or the terminal corrects it."""
    told = {"e": Told("duplicated", "Twice.", 1.0), "f": Told("lost", "Gone.", 1.0)}
    assert unlike_reports(told, {"e": "failed", "f": "error"}, "", 1) == []
    correction = "'e' was passed at first and is duplicated"
    shown = {"e": "passed", "f": "error"}
    assert unlike_reports(told, shown, "", 1)
    assert unlike_reports(told, shown, correction, 0)
    assert unlike_reports(told, shown, correction, 1) == []
    assert unlike_reports(told, shown, correction.replace("'e'", "'ee'"), 1)
    late_ = {"e": Told("passed", "Once more.", 1.0)}
    correction = "'e' was timed_out at first and is passed"
    assert unlike_reports(late_, {"e": "failed"}, correction, 1) == []


def test_the_same_seed_makes_the_same_manifest(tmp_path: Path) -> None:
    """A round can be played again."""
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        build(tmp_path / folder, (plain(5), safe(5)), random.Random(seed))
    texts = [(tmp_path / folder / "m.jsonl").read_text("utf-8") for folder in "abc"]
    assert texts[0] == texts[1] != texts[2]


def test_jobs_that_run_are_found(tmp_path: Path) -> None:
    """A start without its end, also where the same job was begun before."""
    rows = [("start", 1), ("end", 1), ("start", 2)]
    lines = [f"{what}\t{at}.0\te\tid\t0\t{pid}\n" for at, (what, pid) in enumerate(rows)]
    (tmp_path / "executions.log").write_text("".join(lines), encoding="utf-8")
    assert [one.pid for one in executions.running(tmp_path)] == [2]


def test_the_table_has_a_row_a_fault() -> None:
    """Rounds, verdicts, times and flaws of each, and of all."""
    rounds = [
        Outcome("kill", 1, {"passed": 2}, 1.0, {"executed": 2, "there": 1}),
        Outcome("kill", 2, {"passed": 1, "lost": 1}, 3.0, {"executed": 1, "lost": 1}, wrong=["e"]),
        Outcome("drop", 1, {"lost": 2}, recovered=["e"], breaks="store"),
        Outcome("cut", 1, {"passed": 2}),
    ]
    properties = [(report.PROPERTY, one.as_property()) for one in rounds]
    table = report.rows(report.outcomes(properties))
    assert table[0][:5] == ("cut", "1", "2 passed", "-", "-")
    assert table[1][5:7] == ("0 = 0 + 0 + 0 + 0", "1 (store)")
    assert table[2][:5] == ("kill", "2", "3 passed, 1 lost", "2.0", "3.0")
    assert table[2][5:] == ("5 = 3 + 1 + 0 + 1", "0", "1", *"000000")
    assert table[3][0] == "all"
    assert report.markdown(table).count("\n") == 6


@pytest.mark.parametrize(
    "column", ["wrong", "lost", "recovered", "doubles", "unaccounted", "record", "hangs", "other"]
)
def test_what_is_in_a_column_of_flaws_is_a_flaw(column: str) -> None:
    """What was called lost and came is none where the fault broke what that takes for granted."""
    assert Outcome("cut", 1, **{column: ["e"]}).flaws  # type: ignore[arg-type]  # fields by name
    excused = Outcome("cut", 1, breaks="store", **{column: ["e"]})  # type: ignore[arg-type]  # fields by name
    assert bool(excused.flaws) == (column != "recovered")
