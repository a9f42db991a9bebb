"""The rules of the product at their bounds: how late, how often, whose, and in which order."""

from __future__ import annotations

from datetime import timedelta

import pytest

from pytest_manifest.schema import Entry
from pytest_manifest.schema import facts as f
from tests.unit.judge_world import (
    BEGAN,
    FINISHES,
    IS_LATE,
    LIFETIME,
    OTHER_CODE,
    PASSED,
    REPEATABLE,
    TASK,
    Row,
    Step,
    World,
    about,
    an_entry,
    announced,
    child_ended,
    code,
    crash,
    dead,
    ended,
    gone,
    handed_on,
    judged,
    later,
    nowhere,
    of_root,
    other_place,
    passed_with,
    planned,
    recalled,
    report_of,
    result,
    run_over,
    seen,
    segment,
    sending,
    sent,
    set_back,
    several,
    spawned,
    started,
    store,
    stored,
    taken_up,
    time_over,
)

TWICE = an_entry(expect={"executions": 2})
BY_DEFAULT = Entry(id="e1", task=TASK)
MINUTES = timedelta(minutes=5)
FOUR = [started(f"x{n}", redelivered=n > 1, pid=n) for n in range(1, 5)]
OTHER_ARGUMENTS = {"args_sha256": "0" * 64}
TRIED = {"retried": [{"retries": 0}]}
CLONES = several(started("x1", pid=13), started("x2", pid=12))
"""Two executions of which nothing says which is the newer one, but their names."""

ASKED_AGAIN = [sent(), started(), handed_on()]


def at(seconds: float) -> dict[str, object]:
    return {"finished_at": BEGAN + timedelta(seconds=seconds)}


def nowhere_now() -> Step:
    """Find it nowhere by a search that is as of what was recorded last."""
    return lambda w: w.add(w.made(f.Nowhere, as_of=w.seq))


def of_exported(w: World) -> None:
    """Know nothing of the run's settings, nor of its tasks."""
    w.run.clear()


A = [
    Row(
        "A: a death that is reported as soon as the next is planned",
        [
            *(segment(kills=2), sent(), started(), nowhere(), planned("retry")),
            *(about("a1"), ended("crashed"), about("a2"), sending(), result(), crash("x2")),
        ],
        ("crashed", "died"),
        REPEATABLE,
    ),
    Row(
        "A: a death before the next was planned, of a job that is taken up after that",
        [
            *(segment(kills=2), sent(), dead("x1"), planned("retry"), about("a1"), taken_up()),
            *(about("a2"), sending(), result(), crash("x2")),
        ],
        ("quarantined", "kills_workers"),
        REPEATABLE,
    ),
    Row(
        "A: a job that was given up by the deaths of those before it, whatever it reports then",
        [
            *(segment(kills=2), sent(), dead("x1"), planned("retry")),
            *(sending(), result(), dead("x2"), recalled("poison"), ended("succeeded", "x2")),
            *(planned("retry"), segment(kills=3), sending(), result(), crash("x3")),
        ],
        ("quarantined", "kills_workers"),
        REPEATABLE,
    ),
    Row(
        "A: a descendant that is first reported after the run gave up goes on",
        passed_with(run_over("gave_up"), report_of("c"), started("y"), spawned("c")),
        ("pending", "awaits_tree"),
        is_final=False,
    ),
    Row(
        "A: a descendant that is found nowhere as soon as it was reported",
        passed_with(report_of("c"), started("y"), nowhere_now(), spawned("c")),
        ("lost", "by_descendant"),
    ),
]
B = [
    Row(
        "B1: refused, and taken up again",
        [planned(), sending(), result("refused", error="no"), taken_up()],
        ("pending", "problem"),
        is_final=False,
    ),
    Row(
        "B1: refused, and then taken by another broker",
        [planned(), sending(), result("refused", error="no"), sending(2), result(number=2)],
        ("pending", "problem"),
        is_final=False,
    ),
]
C = [
    Row(
        "C1: unsigned, as the run's deadline is over",
        [sent(), started(), ended(fault="not signed"), run_over()],
        ("forged", "unsigned"),
        signed_only=True,
    ),
    Row(
        "C1: unsigned, as an audit looks at it",
        [sent(), started(), ended(fault="not signed"), run_over("ended")],
        ("forged", "unsigned"),
        signed_only=True,
    ),
    Row(
        "C1: unsigned, as an audit sees it queued",
        [sent(), started(), ended(fault="not signed"), seen("queue"), run_over("ended")],
        ("pending", "in_queue"),
        signed_only=True,
        is_final=False,
    ),
    Row(
        "C2: of one of its messages, of which not all are known",
        [
            *(planned(), sending(is_known=False), result("uncertain"), nowhere()),
            *(sending(2), result(number=2), started()),
            ended(sent_at=BEGAN - timedelta(seconds=1)),
        ],
        PASSED,
    ),
    Row(
        "C2: without the time of its message, and older than that",
        [sent(), started(started_at=BEGAN - 2 * MINUTES), ended(sent_at=None)],
        ("forged", "before_sending"),
    ),
    Row(
        "C2: it has finished before it was sent",
        [sent(), started(), ended(finished_at=BEGAN - 2 * MINUTES)],
        ("forged", "before_sending"),
    ),
    Row(
        "C2: older by just as much as clocks may differ",
        [sent(), started(started_at=BEGAN - MINUTES), ended()],
        PASSED,
    ),
    Row(
        "C2: older by half a second more",
        [sent(), started(started_at=BEGAN - MINUTES - timedelta(seconds=0.5)), ended()],
        ("forged", "before_sending"),
    ),
    Row(
        "C2: older by just as much as clocks may differ and ours was set back",
        [sent(), set_back(60), started(started_at=BEGAN - 1.2 * MINUTES), ended()],
        PASSED,
    ),
    Row(
        "C2: the clock was set back after it was planned, and before it was sent",
        [
            *(planned(), set_back(600), sending(), result()),
            *(started(started_at=BEGAN - 4 * MINUTES), ended()),
        ],
        ("forged", "before_sending"),
    ),
    Row(
        "C2: the clock was set back while it ran, and the store alone has its end",
        [sent(), set_back(600), stored(finished_at=BEGAN - 2 * MINUTES)],
        PASSED,
    ),
    Row(
        "C2: the clock was set back after its end",
        [sent(), started(started_at=BEGAN - 2 * MINUTES), ended(), set_back(600)],
        ("forged", "before_sending"),
    ),
    Row(
        "C3: two results of one execution",
        [sent(), started(), ended(result=1), ended(result=2)],
        ("forged", "ends_differ"),
    ),
    Row(
        "C3: two results without digests",
        [
            *(sent(), started(), ended(result=1, result_sha256=None)),
            ended(result=2, result_sha256=None),
        ],
        ("forged", "ends_differ"),
    ),
    Row(
        "C3: two results that were left out",
        [
            *(sent(), started()),
            *(ended(result_sha256=one * 64, evidence={"result_omitted": 9}) for one in ("a", "b")),
        ],
        ("forged", "ends_differ"),
    ),
    Row(
        "C3: two ends of an execution, and a later one has died",
        [
            *(sent(), started(), started("x2", redelivered=True, pid=12)),
            *(ended(), ended("failed"), ended("crashed", "x2", cpu=None)),
        ],
        ("forged", "ends_differ"),
        TWICE,
    ),
    Row(
        "C4: an end of no start, beside one of nobody knows which execution",
        [sent(), ended("succeeded", None), ended()],
        ("forged", "end_without_start"),
    ),
    Row(
        "C4: the store was emptied after a sending that was refused",
        [
            *(planned(), sending(), result("refused"), store("emptied"), store("marked")),
            *(sending(2), result("published", 2), ended()),
        ],
        ("forged", "end_without_start"),
    ),
    Row(
        "C4: the store was intact and then emptied before it was sent",
        [store("intact"), store("emptied"), sent(), ended()],
        PASSED,
    ),
    Row(
        "C4: the store was emptied meanwhile, and is intact since",
        [sent(), store("emptied"), ended(), store("intact")],
        PASSED,
    ),
    Row(
        "C4: the store was intact meanwhile",
        [sent(), store("intact"), ended()],
        ("forged", "end_without_start"),
    ),
    Row(
        "C4: the store was emptied before it was sent, and nobody has looked since",
        [store("emptied"), sent(), ended()],
        PASSED,
    ),
    Row(
        "C4: the same, and it did not answer since",
        [store("emptied"), store("unreachable"), sent(), ended()],
        PASSED,
    ),
    Row(
        "C4: the store has not answered before it was sent",
        [store("unreachable"), sent(), ended()],
        ("forged", "end_without_start"),
    ),
    Row(
        "C4: the store was emptied before, and begins anew after the end",
        [store("emptied"), sent(), ended(), store("marked")],
        PASSED,
    ),
    Row(
        "C4: reported twice, of which the first look did not answer",
        [sent(), ended(), store("unreachable"), ended(), store("intact")],
        PASSED,
    ),
    Row(
        "C4: two executions on two hosts",
        [
            *(sent(), started(), started("x2", 12, host="h2", redelivered=True)),
            ended("succeeded", "x2"),
        ],
        ("duplicated", "duplicated"),
    ),
    Row(
        "C5: retried, as a start of another execution says",
        [
            *(sent(), CLONES, started("x3", retries=1)),
            ended("succeeded", "x1", retries=1, **OTHER_ARGUMENTS),
        ],
        ("forged", "other_arguments"),
        TWICE,
    ),
    Row(
        "C5: retried, as a start says, and its own is lost",
        [
            *(sent(), store("emptied"), started("x2", retries=1)),
            ended("succeeded", "x9", retries=1, **OTHER_ARGUMENTS),
        ],
        PASSED,
        TWICE,
    ),
    Row(
        "C5: replaced, where it has begun twice",
        [sent(), CLONES, ended("succeeded", "x2", replaced=True, task="tasks.other")],
        PASSED,
        TWICE,
    ),
    Row(
        "C5: retried by its own list of tries, where no start is known",
        [sent(), store("emptied"), ended(retries=1, **OTHER_ARGUMENTS, **TRIED)],
        PASSED,
    ),
    Row(
        "C5: retried, and neither a start nor a list of tries says so",
        [sent(), store("emptied"), ended(retries=1, **OTHER_ARGUMENTS)],
        ("forged", "other_arguments"),
    ),
    Row(
        "C5: replaced, where no start is known",
        [sent(), store("emptied"), ended(replaced=True, task="tasks.other")],
        PASSED,
    ),
]
D = [
    Row(
        "D1: its process knows better, also where it has measured nothing",
        [sent(), started(), ended(cpu=None), ended("crashed", cpu=None, pid=11)],
        PASSED,
    ),
    Row(
        "D1: the execution that was handed on decides",
        [
            *(sent(), store("emptied"), started("x1", hop=1)),
            *(ended("failed", "x1"), ended("succeeded", "x2")),
        ],
        ("failed", "raised"),
    ),
    Row(
        "D1: an execution counts by the latest of its reports, in whatever order",
        [
            *(sent(), store("emptied")),
            *(ended("crashed", "x2", cpu=None, redelivered=True), ended("succeeded", "x2")),
            ended("failed", "x1", started_at=BEGAN + timedelta(seconds=5)),
        ],
        PASSED,
        TWICE,
    ),
    Row(
        "D1: a worker knows better than the store, also of nobody knows which execution",
        [sent(), ended("crashed", None), stored(finished_at=BEGAN + timedelta(seconds=9))],
        ("crashed", "died"),
    ),
    Row(
        "D1: an execution that is known decides",
        [sent(), started(), ended("failed", None, **at(-1)), ended(**at(9))],
        PASSED,
    ),
    Row(
        "D1: of two executions that nothing tells apart the second by name decides",
        [sent(), CLONES, ended("failed", "x1", **at(0)), ended("succeeded", "x2", **at(9))],
        PASSED,
        TWICE,
    ),
    Row(
        "D2: the store alone, and nowhere by what was recorded until then",
        [sent(), started(), stored(), nowhere_now()],
        PASSED,
    ),
    Row(
        "D2: the store alone, nowhere, and begun only after that",
        [sent(), stored(), nowhere_now(), started()],
        PASSED,
    ),
    Row(
        "D2: the store alone, nowhere, and the process of an earlier start is gone",
        [
            *(sent(), started(), gone(), started("x2", redelivered=True, pid=12)),
            *(stored(), nowhere()),
        ],
        ("duplicated", "duplicated"),
    ),
    Row(
        "D3: the store's end, a second after that of a try, and its next try is nowhere",
        [
            *(sent(), started(), handed_on(), ended()),
            *(stored(finished_at=BEGAN + timedelta(seconds=1)), nowhere_now()),
        ],
        PASSED,
    ),
    Row(
        "D3: the copy of a try's end, and its next try is nowhere",
        [sent(), started(), handed_on(), ended(), stored(), nowhere_now()],
        ("lost", "lost_between"),
    ),
    Row(
        "D3: it was handed on to others, and its own end is one",
        [sent(), started(), handed_on("canvas"), ended()],
        PASSED,
    ),
    Row(
        "D4: the start that is newest by its time, whatever its name",
        [
            *(sent(), started("x1", started_at=BEGAN + timedelta(seconds=5)), started("x2")),
            *(gone("x1"), nowhere()),
        ],
        ("crashed", "process_gone"),
    ),
    Row(
        "D4: the start of the process with the last number, in whatever order",
        [sent(), started(pid=12), started(pid=11), gone(pid=12), nowhere()],
        ("crashed", "process_gone"),
    ),
    Row(
        "D3: a death of another copy of its last try, whose own start is lost",
        [*(sent(), store("emptied")), started(retries=1), ended("crashed", "x2", retries=1)],
        ("crashed", "died"),
    ),
    Row(
        "D3: a death of a copy of its first try, when no start is left",
        [*(sent(), store("emptied")), handed_on(), ended("crashed", "x2")],
        ("crashed", "died"),
    ),
    Row(
        "D3: its next try is nowhere, which the run has only asked for to be dropped",
        [*ASKED_AGAIN, ended("crashed"), recalled("stop"), nowhere()],
        ("crashed", "died"),
    ),
    Row(
        "D3: its next try is nowhere as soon as its death was reported",
        [*ASKED_AGAIN, ended("crashed"), nowhere_now()],
        ("crashed", "died"),
    ),
    Row(
        "D3: its next try is nowhere as soon as the run has taken it out",
        [*ASKED_AGAIN, ended("crashed"), recalled("stop", "heard"), nowhere_now()],
        ("withdrawn", "stopped_between_tries"),
    ),
    Row(
        "D3: an end of an execution whose start is lost counts beside the one that has none",
        [*(sent(), store("emptied")), started(), ended("succeeded", "x2")],
        ("duplicated", "duplicated"),
    ),
]
E = [
    Row(
        "E2: the default timeout, where the task's own limit is longer",
        [code(limit=600.0), sent(), started(), ended(runtime=500.0)],
        PASSED,
        BY_DEFAULT,
    ),
    Row(
        "E2: the entry's timeout, where the task's own limit is longer",
        [code(limit=600.0), sent(), started(), ended(runtime=100.0)],
        ("timed_out", "ran_too_long"),
    ),
    Row(
        "E3: it is not known when it was sent",
        [planned(), sending(is_known=False), result(), started(), ended(sent_at=None)],
        PASSED,
    ),
    Row(
        "E3: the time of its message is missing",
        [sent(), started(), ended(sent_at=None)],
        ("unknown", "incomplete"),
    ),
    Row(
        "E3: the digest of its code is missing",
        [sent(), started(), ended(code=None)],
        ("unknown", "incomplete"),
    ),
    Row(
        "E3: nobody knows the code of its task",
        [sent(), started(), ended(code=None)],
        PASSED,
        an_entry(task="tasks.other"),
    ),
]
F = [
    Row(
        "F2: the settings are not known, and it has died",
        [of_exported, sent(), crash("x1")],
        ("crashed", "died"),
    ),
    Row(
        "F2: it has survived two deaths, and died of the third",
        [
            sent(),
            *(several(started(f"x{n}", retries=n), handed_on("lost", f"x{n}")) for n in range(2)),
            *(started("x9", retries=2), ended("crashed", "x9", pid=11)),
        ],
        ("quarantined", "kills_workers"),
    ),
    Row(
        "F2: what a later start of pytest allows does not reach back",
        [sent(), *FOUR[:2], segment(kills=1)],
        ("pending", "problem"),
        is_final=False,
    ),
    Row(
        "F2: it goes on killing, after nobody was there",
        [sent(), run_over("nobody"), *FOUR],
        ("quarantined", "kills_workers"),
    ),
    Row(
        "F2: a descendant that began twice, where two deaths are allowed",
        passed_with(segment(kills=2), spawned("c"), started("y"), started("z", redelivered=True)),
        ("pending", "awaits_tree"),
        is_final=False,
    ),
    Row(
        "F2: only what pytest allows since it began last counts",
        [segment(kills=1), segment(kills=9), sent(), crash("x1")],
        ("crashed", "died"),
    ),
    Row(
        "F4: only how long the store keeps results since pytest began last counts",
        [segment(lifetime=1.0), segment(), sent(), later(9), nowhere()],
        ("lost", "never_begun"),
    ),
    Row(
        "F4: its process is gone, it was handed on, and some went to another broker",
        [sent(), started(), gone(), handed_on(), other_place(), nowhere()],
        ("unknown", "other_broker"),
    ),
    Row(
        "F4: its process is gone, by number",
        [sent(), started(), gone(pid=11), nowhere()],
        ("crashed", "process_gone"),
    ),
    Row(
        "F4: another process of its worker is gone",
        [sent(), started(), gone(pid=12), nowhere()],
        ("lost", "lost_in_flight"),
    ),
    Row(
        "F4: just as old as results get",
        [sent(), later(LIFETIME), nowhere()],
        ("lost", "never_begun"),
    ),
    Row(
        "F4: nobody knows how old it is",
        [planned(), sending(is_known=False), result(), later(LIFETIME + 1), nowhere()],
        ("lost", "never_begun"),
    ),
    Row(
        "F6: the run's time is over, and a worker drops it",
        [sent(), recalled("time"), ended("revoked"), recalled("time", "heard")],
        ("timed_out", "run_deadline_before_start"),
    ),
    Row(
        "F6: a worker drops what was taken up again since it was recalled",
        [sent(), recalled(), taken_up(), ended("revoked")],
        ("revoked", "revoked"),
    ),
    Row(
        "F6: a worker has dropped it before it was recalled",
        [sent(), ended("revoked"), recalled(), recalled(stage="heard")],
        ("revoked", "revoked"),
    ),
    Row(
        "F7: the run ends just at its time",
        [sent(), started(), later(60), run_over()],
        ("timed_out", "run_deadline"),
        IS_LATE,
    ),
    Row(
        "F8: an audit of a run that is just as old as its stream gets",
        [sent(), later(LIFETIME), run_over("ended")],
        ("pending", "problem"),
        is_final=False,
    ),
    Row(
        "F2: the settings of when a death was reported count, after which it goes on",
        [*ASKED_AGAIN, started("x2", retries=1, pid=12), segment(kills=1), ended("crashed")],
        ("quarantined", "kills_workers"),
    ),
    Row(
        "F2: a death after it had asked for a retry that is nowhere is one",
        [segment(kills=2), *ASKED_AGAIN, ended("crashed"), nowhere_now()],
        ("crashed", "died"),
    ),
]
G = [
    Row(
        "G: it was lost, then a worker dropped it",
        [sent(), nowhere(), ended("revoked")],
        ("revoked", "revoked"),
    ),
    Row(
        "G: its time was over, it failed, and what was delivered again was dropped",
        [
            *(sent(), started(), time_over("deadline"), ended("failed")),
            ended("revoked", "x2", redelivered=True),
        ],
        ("revoked", "revoked"),
    ),
    Row(
        "G: it kills workers, and is recalled for another reason",
        [sent(), *FOUR, recalled(), ended("succeeded", "x4")],
        ("duplicated", "duplicated"),
    ),
    Row(
        "G: it was quarantined, and taken up again",
        [sent(), *FOUR, recalled("poison"), taken_up(), ended("succeeded", "x4")],
        ("duplicated", "duplicated"),
    ),
    Row(
        "G: recalled as if it killed workers, of which nothing is known",
        [sent(), recalled("poison"), started(), ended()],
        PASSED,
    ),
]
J = [
    Row(
        "J1: a descendant may run other code than was known",
        [code(OTHER_CODE, task="tasks.part"), *passed_with(child_ended())],
        PASSED,
    ),
    Row(
        "J1: a descendant's receipt may leave something out",
        passed_with(child_ended("c", runtime=None)),
        PASSED,
    ),
    Row(
        "J1: a descendant that was to run later",
        passed_with(
            *(spawned("c", due=BEGAN + timedelta(seconds=9)), started("y")),
            ended("succeeded", "y"),
        ),
        PASSED,
    ),
    Row(
        "J2: the job itself goes on",
        [sent(), started(), spawned("c")],
        ("pending", "problem"),
        is_final=False,
    ),
    Row(
        "J2: one of two descendants has ended",
        passed_with(spawned("c"), child_ended("d")),
        ("pending", "awaits_tree"),
        is_final=False,
    ),
    Row(
        "J2: the run was given up before something was announced",
        [sent(), started(), run_over("gave_up"), announced("k"), ended()],
        ("pending", "awaits_tree"),
        is_final=False,
    ),
    Row(
        "J2: an audit of an old run finds something missing",
        [sent(), started(), announced("k"), ended(), later(LIFETIME + 1), run_over("ended")],
        ("pending", "awaits_tree"),
        is_final=False,
    ),
    Row(
        "J2: nobody is there, and something is missing",
        [sent(), started(), announced("k"), ended(), run_over("nobody")],
        ("pending", "awaits_tree"),
        is_final=False,
    ),
    Row(
        "J3: the store says that it was stopped at a time limit, and that is an end",
        passed_with(spawned("c"), stored("timed_out")),
        PASSED,
        FINISHES,
    ),
    Row(
        "J3: its time was over, and its worker has dropped it since",
        passed_with(spawned("c"), time_over("deadline"), ended("revoked", None)),
        PASSED,
        FINISHES,
    ),
    Row(
        "J3: it does not matter how they end, only how many there are",
        passed_with(spawned("c"), nowhere()),
        PASSED,
        an_entry(expect={"descendants": {"outcome": "ignored", "count": 1}}),
    ),
    Row(
        "J3: it crashed as expected, and its descendants did well",
        [sent(), started(), child_ended(), of_root(), gone(), nowhere()],
        ("passed", "ended_as_expected"),
        an_entry(expect={"state": "crashed"}),
    ),
    Row(
        "J4: a descendant's worker reports nothing of them, and nobody asked",
        [sent(), started(), child_ended(children=None), of_root(), ended(children=1)],
        PASSED,
    ),
    Row(
        "J4: its worker reports nothing of them, something is announced, and nobody asked",
        [
            *(sent(), started(), announced("k"), announced("k", is_off=True)),
            ended(children=None),
        ],
        PASSED,
    ),
    Row(
        "J4: the same, and a descendant's worker reports more than are known",
        [sent(), started(), child_ended("c", children=1), of_root(), ended(children=None)],
        ("unknown", "descendants_unknown"),
    ),
]


@pytest.mark.parametrize("row", [*A, *B, *C, *D, *E, *F, *G, *J], ids=lambda row: row.name)
def test_a_rule_at_its_bound(row: Row) -> None:
    """The facts of the story come to this, and are final where nothing more is awaited."""
    found = judged(row)
    assert ((found.status, found.code), found.is_final) == (row.comes_to, row.is_final)
