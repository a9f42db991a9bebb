"""The rules of the product, made of facts: one row a rule, one judgement a row."""

from __future__ import annotations

from datetime import timedelta

import pytest

from pytest_manifest.verdict.judge import Rules
from tests.unit.judge_world import (
    AS_EXPECTED,
    BEGAN,
    CRASHES,
    FINISHES,
    GIVEN,
    IS_LATE,
    IS_REVOKED,
    LIFETIME,
    OTHER_CODE,
    PASSED,
    REPEATABLE,
    Row,
    about,
    an_entry,
    announced,
    child_ended,
    code,
    crash,
    dead,
    elsewhere,
    ended,
    gone,
    handed_on,
    judged,
    later,
    moved,
    node,
    nowhere,
    of_root,
    other_place,
    passed_with,
    placeholder,
    planned,
    recalled,
    resent,
    result,
    run_over,
    search,
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
    unreadable,
    unsent,
    withheld,
)

A = [
    Row(
        "A: the newest attempt counts",
        [sent(), dead("x1"), resent(), started("x2"), ended(execution="x2")],
        PASSED,
        REPEATABLE,
    ),
    Row(
        "A: what the first reports after the second was planned",
        [sent(), dead("x1"), resent(), about("a1"), ended(), about("a2")],
        ("pending", "problem"),
        REPEATABLE,
        is_final=False,
    ),
    Row(
        "A: a death that was reported after the next was planned",
        [
            *(segment(kills=2), sent(), started(), nowhere(), resent()),
            *(about("a1"), ended("crashed"), about("a2"), crash("x2")),
        ],
        ("crashed", "died"),
        REPEATABLE,
    ),
    Row(
        "A: a death that was reported before",
        [segment(kills=2), sent(), crash("x1"), resent(), crash("x2")],
        ("quarantined", "kills_workers"),
        REPEATABLE,
    ),
    Row("A: nothing is planned", [], ("pending", "problem"), is_final=False),
    Row("A: planned", [planned()], ("pending", "problem"), is_final=False),
    Row("A: sent", [sent()], ("pending", "problem"), is_final=False),
]
B = [
    Row(
        "B1: no worker knows its task",
        [planned(), withheld("unknown_task", "tasks.word")],
        ("unknown_task", "unknown_task"),
    ),
    Row(
        "B1: the broker refuses it",
        [planned(), sending(), result("refused", error="no such queue")],
        ("rejected", "refused"),
    ),
    Row(
        "B1: no broker took it by its deadline",
        [planned(), sending(), result("unsent"), time_over("deadline")],
        ("timed_out", "never_taken"),
    ),
    Row(
        "B1: the broker may have taken it",
        [planned(), sending(), result("uncertain"), time_over("deadline")],
        ("timed_out", "deadline_over"),
    ),
    Row(
        "B1: pytest died while it was published",
        [planned(), sending(), run_over()],
        ("timed_out", "run_deadline"),
    ),
    Row("B2: what it waits for", [planned(), withheld("after", "e0")], ("skipped", "waits_for")),
    Row("B2: the canary", [planned(), withheld("canary", "e0")], ("skipped", "canary_failed")),
    Row(
        "B2: too many failed",
        [planned(), withheld("max_failed", failed=3, entries=9, limit="2")],
        ("skipped", "too_many_failed"),
    ),
    Row(
        "B2: no money is left",
        [planned(), withheld("budget", spent="3", budget="3")],
        ("skipped", "budget_reached"),
    ),
    Row(
        "B2: by figures of another version", [planned(), withheld("budget")], ("skipped", "problem")
    ),
    Row("B2: an operator drops it", [planned(), withheld("operator")], ("cancelled", "cancelled")),
    Row(
        "B2: sent after all",
        [planned(), withheld("budget"), taken_up(), sending(), result()],
        ("pending", "problem"),
        is_final=False,
    ),
    Row("B3: its turn never came", [planned(), run_over()], ("timed_out", "run_deadline")),
    Row(
        "B3: the run gave up before its turn",
        [planned(), run_over("gave_up", error="away")],
        ("unknown", "run_gave_up"),
    ),
    Row(
        "B3: an audit finds it unsent",
        [planned(), run_over("ended")],
        ("unknown", "never_sent"),
        is_final=False,
    ),
]
C = [
    Row(
        "C1: only an unsigned end, and nowhere",
        [sent(), started(), ended(fault="it is not signed"), nowhere()],
        ("forged", "unsigned"),
        signed_only=True,
    ),
    Row(
        "C1: an unsigned end, and the job goes on",
        [sent(), started(), ended(fault="it is not signed")],
        ("pending", "problem"),
        signed_only=True,
        is_final=False,
    ),
    Row(
        "C1: an unsigned end, then a signed one",
        [sent(), started(), ended("failed", fault="it is not signed"), nowhere(), ended()],
        PASSED,
        signed_only=True,
    ),
    Row(
        "C1: the store alone, where only what is signed counts",
        [sent(), stored(fault="nobody has signed that"), nowhere()],
        ("forged", "unsigned"),
        signed_only=True,
    ),
    Row(
        "C1: unsigned, and taken back",
        [sent(), stored(fault="nobody has signed that"), recalled(), recalled(stage="heard")],
        ("withdrawn", "stopped_before_start"),
        signed_only=True,
    ),
    *(
        Row(
            f"C2: only an end of another {name}, and nowhere",
            [sent(), started(), ended(**{name: value}), nowhere()],
            ("forged", "of_another"),
        )
        for name, value in {"run": "run-2", "entry": "e2", "attempt": 7, "task_id": "t9"}.items()
    ),
    Row(
        "C2: of another task",
        [sent(), started(), ended(task="tasks.other")],
        ("forged", "of_another"),
    ),
    Row(
        "C2: of another task, which has replaced it",
        [
            sent(),
            started(),
            handed_on("task"),
            started("x2", hop=1),
            ended(execution="x2", task="tasks.other", replaced=True),
        ],
        PASSED,
    ),
    Row(
        "C2: with other arguments",
        [sent(), started(), ended(args_sha256="0" * 64)],
        ("forged", "other_arguments"),
    ),
    Row(
        "C2: with other arguments, as it was retried",
        [
            sent(),
            started(),
            handed_on(),
            started("x2", retries=1),
            ended(execution="x2", retries=1, args_sha256="0" * 64),
        ],
        PASSED,
    ),
    Row(
        "C2: with another result than the digest's",
        [sent(), started(), ended(result_sha256="0" * 64)],
        ("forged", "changed_result"),
    ),
    Row(
        "C2: of a message that was never sent",
        [sent(), started(), ended(sent_at=BEGAN - timedelta(seconds=1))],
        ("forged", "of_another_message"),
    ),
    Row(
        "C2: of a message that another copy of the ledger has sent",
        [
            planned(),
            sending(is_known=False),
            result("uncertain"),
            started(),
            ended(sent_at=BEGAN - timedelta(seconds=1)),
        ],
        PASSED,
    ),
    Row(
        "C2: older than its message",
        [sent(), started(started_at=BEGAN - timedelta(minutes=6)), ended()],
        ("forged", "before_sending"),
    ),
    Row(
        "C2: older, by clocks that may differ",
        [sent(), started(started_at=BEGAN - timedelta(minutes=4)), ended()],
        PASSED,
    ),
    Row(
        "C2: older, as the clock was set back", [sent(), set_back(600), started(), ended()], PASSED
    ),
    Row(
        "C2: older, as the clock was set back before its message's second copy began",
        [sent(), started(), ended(), set_back(600), started("x2"), ended(execution="x2")],
        ("duplicated", "duplicated"),
    ),
    Row(
        "C2: older, and the clock was set back after its end only",
        [sent(), started(started_at=BEGAN - timedelta(seconds=1200)), ended(), set_back(1200)],
        ("forged", "before_sending"),
    ),
    Row(
        "C2: older, and the clock was set back before",
        [set_back(600), sent(), started(started_at=BEGAN - timedelta(seconds=1200)), ended()],
        ("forged", "before_sending"),
    ),
    Row(
        "C3: two ends of one execution differ",
        [sent(), started(), ended(), ended("failed")],
        ("forged", "ends_differ"),
    ),
    Row(
        "C3: two failures of one execution",
        [sent(), started(), ended("failed"), ended("failed", error={"type": "E", "message": "m"})],
        ("failed", "raised"),
    ),
    Row(
        "C3: two failures, and one is expected",
        [sent(), started(), ended("failed"), ended("failed", error={"type": "E", "message": "m"})],
        ("forged", "ends_differ"),
        an_entry(expect={"state": "failed"}),
    ),
    Row("C4: an end of no start", [sent(), ended()], ("forged", "end_without_start")),
    Row(
        "C4: expired after its start",
        [sent(), started(), ended("expired")],
        ("forged", "end_after_start"),
    ),
    Row("C4: the store was emptied meanwhile", [sent(), store("emptied"), ended()], PASSED),
    Row(
        "C4: the store was emptied before it was sent, and marked anew",
        [store("emptied"), store("marked"), sent(), ended()],
        ("forged", "end_without_start"),
    ),
    Row(
        "C4: the store was emptied after a sending that the broker did not take",
        [
            planned(),
            sending(),
            result("unsent"),
            store("emptied"),
            store("marked"),
            sending(2),
            result("published", 2),
            ended(),
        ],
        ("forged", "end_without_start"),
    ),
    Row(
        "C4: the store was emptied after a sending of which no result is known",
        [
            planned(),
            sending(),
            store("emptied"),
            store("marked"),
            sending(2),
            result("unsent", 2),
            ended(),
        ],
        PASSED,
    ),
    Row(
        "C4: the store is emptied as one looks",
        [store("intact"), sent(), ended(), store("emptied")],
        PASSED,
    ),
    Row(
        "C4: the store is intact as one looks, and emptied later",
        [sent(), ended(), store("intact"), store("emptied")],
        ("forged", "end_without_start"),
    ),
    Row(
        "C4: two records of one start differ",
        [sent(), started(), started(started_at=BEGAN + timedelta(seconds=9)), ended()],
        ("forged", "starts_differ"),
    ),
    Row(
        "C4: one execution on two hosts",
        [sent(), started(), started(pid=12, host="h2"), ended()],
        ("forged", "starts_differ"),
    ),
    Row(
        "C5: says that it was retried, and no start does",
        [sent(), started(), ended(retries=1, args_sha256="0" * 64)],
        ("forged", "other_arguments"),
    ),
    Row(
        "C5: says that it was replaced, and no start does",
        [sent(), started(), ended(replaced=True, task="tasks.other")],
        ("forged", "of_another"),
    ),
]
D = [
    Row(
        "D1: its process knows better than the main process",
        [sent(), started(), ended(), ended("crashed", cpu=None, pid=11)],
        PASSED,
    ),
    Row(
        "D1: its process knows better than who stopped it later",
        [sent(), started(), ended(), ended("timed_out", finished_at=BEGAN + timedelta(seconds=9))],
        PASSED,
    ),
    Row(
        "D1: of two stored ends the later one decides",
        [sent(), stored("failed"), stored(finished_at=BEGAN + timedelta(seconds=9))],
        PASSED,
    ),
    Row(
        "D1: its process knows better, also where its start is lost",
        [
            *(sent(), store("emptied"), ended("succeeded", "x1")),
            ended("crashed", "x1", cpu=None, pid=11, redelivered=True),
        ],
        ("passed", "as_expected"),
    ),
    Row(
        "D1: a worker knows better than the store",
        [sent(), stored("failed"), started(), ended()],
        PASSED,
    ),
    Row(
        "D1: the last execution decides",
        [
            sent(),
            started("x1"),
            started("x2", redelivered=True, pid=12),
            ended("failed", "x2"),
            ended(execution="x1"),
        ],
        ("failed", "raised"),
        an_entry(expect={"executions": 2}),
    ),
    Row(
        "D2: the store alone, of what runs",
        [sent(), started(), stored()],
        ("pending", "problem"),
        is_final=False,
    ),
    Row(
        "D2: the store alone, while the next try is on its way",
        [sent(), started(), handed_on(), stored()],
        ("pending", "problem"),
        is_final=False,
    ),
    Row(
        "D2: the store alone, nowhere, and the process of the try before it gone",
        [sent(), started(), handed_on(), stored(), gone(), search(), nowhere()],
        PASSED,
    ),
    Row(
        "D2: the store alone, of the last part of what the job was replaced by",
        [sent(), started(), handed_on("canvas"), stored()],
        PASSED,
    ),
    Row("D2: the store alone, of what no worker reports", [sent(), stored()], PASSED),
    Row(
        "D2: the store alone, and nowhere since",
        [sent(), started(), stored(), search(), nowhere()],
        PASSED,
    ),
    Row(
        "D2: the store alone, reported since the search",
        [sent(), started(), search(), stored(), nowhere()],
        ("pending", "problem"),
        is_final=False,
    ),
    Row(
        "D2: the store alone, nowhere, and its process gone",
        [sent(), started(), stored(), gone(), search(), nowhere()],
        ("unknown", "process_gone_unconfirmed"),
    ),
    Row(
        "D2: a worker was told of its revocation",
        [sent(), stored("revoked")],
        ("pending", "problem"),
        is_final=False,
    ),
    Row(
        "D3: it has sent itself again, and succeeded",
        [sent(), started(), handed_on(), ended()],
        ("pending", "problem"),
        is_final=False,
    ),
    Row(
        "D3: the copy of that",
        [sent(), started(), handed_on(), ended(), stored()],
        ("pending", "problem"),
        is_final=False,
    ),
    Row(
        "D3: the last of its runs decides",
        [
            sent(),
            started(),
            handed_on(),
            ended(),
            started("x2", retries=1),
            ended("failed", "x2", retries=1),
        ],
        ("failed", "raised"),
    ),
    *(
        Row(
            f"D3: it had sent itself again before it ended {state}",
            [sent(), started(), handed_on(), ended(state, cpu=None, pid=11)],
            ("pending", "problem"),
            is_final=False,
        )
        for state in ("crashed", "timed_out", "failed")
    ),
    Row(
        "D3: the broker did not take the message by which it would have gone on",
        [sent(), started(), handed_on(), ended("rejected")],
        ("rejected", "rejected_after_start"),
    ),
    Row(
        "D3: killed after it had sent itself again, which an operator has taken out",
        [
            *(sent(), started(), handed_on(), ended("crashed", cpu=None, pid=11)),
            *(recalled("operator", "heard"), taken_up("resume"), nowhere()),
        ],
        ("lost", "lost_between"),
    ),
    Row(
        "D3: killed after it was handed on to several, the last of which runs",
        [
            *(sent(), started(), handed_on("canvas"), started("x2", hop=1, pid=12)),
            ended("crashed", cpu=None, pid=11),
        ],
        ("pending", "problem"),
        is_final=False,
    ),
    Row(
        "D3: killed after it was handed on to several, none of which is known to run",
        [sent(), started(), handed_on("canvas"), ended("crashed", cpu=None, pid=11)],
        ("crashed", "died"),
    ),
    Row(
        "D3: what the store alone has of a later end is no copy of an earlier one's",
        [
            *(sent(), started(), handed_on()),
            ended("crashed", cpu=None, pid=11, finished_at=BEGAN + timedelta(seconds=10)),
            *(stored(finished_at=BEGAN + timedelta(seconds=4)), nowhere()),
        ],
        PASSED,
    ),
    Row(
        "D3: three deaths, each after it had sent itself again",
        [
            sent(),
            *(
                step
                for number in range(3)
                for step in (
                    started(f"x{number}", retries=number, pid=20 + number),
                    handed_on(execution=f"x{number}"),
                    ended("crashed", f"x{number}", retries=number, cpu=None, pid=20 + number),
                )
            ),
        ],
        ("quarantined", "kills_workers"),
    ),
    Row(
        "D3: killed after it had sent itself again: the last of its runs decides",
        [
            *(sent(), started(), handed_on(), ended("crashed", cpu=None, pid=11)),
            *(started("x2", retries=1), ended(execution="x2", retries=1)),
        ],
        PASSED,
    ),
    Row(
        "D3: killed as it should have sent itself again: no message is found",
        [sent(), started(), handed_on(), ended("crashed", cpu=None, pid=11), nowhere()],
        ("crashed", "died"),
    ),
    Row(
        "D3: killed after it had sent itself again, and its next run is found dead",
        [
            *(sent(), started(), handed_on(), ended("crashed", cpu=None, pid=11)),
            *(started("x2", retries=1, pid=12), gone("x2", pid=12), nowhere()),
        ],
        ("crashed", "process_gone"),
    ),
    Row(
        "D4: two starts of one turn",
        [sent(), started(), started("x2", redelivered=True, pid=12), ended(execution="x2")],
        ("duplicated", "duplicated"),
    ),
    Row(
        "D4: a retry is another turn",
        [
            sent(),
            started(),
            handed_on(),
            started("x2", retries=1),
            ended(execution="x2", retries=1),
        ],
        PASSED,
    ),
    Row(
        "D4: its pool gave it to another process",
        [sent(), started(), started(pid=12), ended(pid=12)],
        ("duplicated", "duplicated"),
    ),
    Row(
        "D4: an end whose start the store has lost is an execution, too",
        [sent(), started(), ended(), store("emptied"), ended(execution="x2")],
        ("duplicated", "duplicated"),
    ),
    Row(
        "D4: two ends, and the store has lost both starts",
        [sent(), store("emptied"), ended(), ended(execution="x2")],
        ("duplicated", "duplicated"),
    ),
    Row(
        "D4: an end of another try whose start the store has lost",
        [
            *(sent(), started(), handed_on(), store("emptied")),
            ended(execution="x2", retries=1),
        ],
        PASSED,
    ),
    Row(
        "D4: an end of what it was handed on to, whose start the store has lost",
        [
            *(sent(), started(), handed_on("canvas"), store("emptied")),
            ended(execution="x2", replaced=True),
        ],
        PASSED,
    ),
    Row("D4: a repeated record is one start", [sent(), started(), started(), ended()], PASSED),
]
E = [
    Row(
        "E1: revoked, as expected, by others",
        [sent(), ended("revoked")],
        ("passed", "ended_so_as_expected"),
        IS_REVOKED,
    ),
    Row(
        "E1: revoked, as expected, by the run",
        [sent(), recalled("max_failed"), ended("revoked")],
        ("revoked", "recalled_by_run"),
        IS_REVOKED,
    ),
    Row(
        "E1: revoked, as expected, and recalled by the run since",
        [sent(), ended("revoked"), recalled("max_failed")],
        ("passed", "ended_so_as_expected"),
        IS_REVOKED,
    ),
    Row(
        "E1: revoked by the run, as too many had failed",
        [sent(), recalled("max_failed"), ended("revoked")],
        ("revoked", "recalled_by_limit"),
    ),
    Row(
        "E1: revoked, as an operator has cancelled it while it ran",
        [sent(), started(), recalled("operator"), ended("revoked")],
        ("cancelled", "cancelled_while_running"),
    ),
    Row(
        "E1: revoked, as an operator has cancelled it between two tries",
        [sent(), started(), handed_on(), recalled("operator"), ended("revoked", "x2")],
        ("cancelled", "cancelled_between_tries"),
    ),
    Row(
        "E1: revoked, as an operator has cancelled it before it began",
        [sent(), recalled("operator"), ended("revoked")],
        ("cancelled", "cancelled_before_start"),
    ),
    Row(
        "E1: revoked, and recalled by the run since",
        [sent(), ended("revoked"), recalled("max_failed")],
        ("revoked", "revoked"),
    ),
    Row(
        "E1: recalled by the run in vain",
        [sent(), recalled("max_failed"), started(), ended("failed")],
        ("failed", "raised"),
    ),
    Row(
        "E2: ran past its limit",
        [sent(), started(), ended(runtime=61.0)],
        ("timed_out", "ran_too_long"),
    ),
    Row(
        "E2: ran past its task's own limit",
        [code(limit=5.0), sent(), started(), ended(runtime=6.0)],
        ("timed_out", "ran_too_long"),
        an_entry(timeout=9.0),
    ),
    Row(
        "E2: the limit that the task got later",
        [sent(), code(limit=5.0), started(), ended(runtime=6.0)],
        PASSED,
    ),
    Row("E2: another state", [sent(), started(), ended("failed")], ("failed", "raised")),
    Row("E2: rejected", [sent(), ended("rejected")], ("rejected", "rejected_unrun")),
    Row("E3: other code", [sent(), started(), ended(code=OTHER_CODE)], ("failed", "other_code")),
    Row(
        "E3: the code that the task got later",
        [sent(), code(OTHER_CODE), started(), ended()],
        PASSED,
    ),
    Row(
        "E3: not what was expected",
        [sent(), started(), ended(result=2)],
        ("failed", "unmet"),
        an_entry(expect={"result": 3}),
    ),
    Row(
        "E3: a field is missing",
        [sent(), started(), ended(runtime=None)],
        ("unknown", "incomplete"),
    ),
    Row(
        "E3: a time that nobody measured",
        [sent(), stored()],
        ("unknown", "times_not_reported"),
        an_entry(expect={"max_runtime": 9.0}),
    ),
    Row(
        "E3: the store refused the end",
        [
            sent(),
            stored("failed", error={"type": "OutOfMemoryError", "message": "celery-task-meta-a1"}),
        ],
        ("unknown", "refused_by_store"),
    ),
]
F = [
    Row(
        "F1: something stored that cannot be read",
        [sent(), unreadable(), nowhere()],
        ("unknown", "unreadable"),
    ),
    Row(
        "F1: unreadable, and time over",
        [sent(), started(), unreadable(), time_over()],
        ("unknown", "unreadable"),
    ),
    Row(
        "F2: the broker delivers it again and again",
        [
            sent(),
            *(
                started(f"x{n}", redelivered=n > 1, pid=n, started_at=BEGAN + timedelta(seconds=n))
                for n in range(1, 5)
            ),
        ],
        ("quarantined", "kills_workers"),
    ),
    Row(
        "F2: not too often yet",
        [sent(), *(started(f"x{n}", redelivered=n > 1, pid=n) for n in range(1, 4))],
        ("pending", "problem"),
        is_final=False,
    ),
    Row(
        "F2: its pool gives it to one process after another",
        [sent(), *(started(pid=n, started_at=BEGAN + timedelta(seconds=n)) for n in range(1, 5))],
        ("quarantined", "kills_workers"),
    ),
    Row(
        "F2: Celery sends it again each time",
        [
            sent(),
            *(several(started(f"x{n}", retries=n), handed_on("lost", f"x{n}")) for n in range(3)),
        ],
        ("quarantined", "kills_workers"),
    ),
    Row(
        "F2: a third crash, by its receipts",
        [sent(), crash("x1"), resent(), crash("x2"), resent(), crash("x3")],
        ("quarantined", "kills_workers"),
        REPEATABLE,
    ),
    Row(
        "F2: a third crash, by searches",
        [sent(), dead("x1"), resent(), dead("x2"), resent(), dead("x3")],
        ("quarantined", "kills_workers"),
        REPEATABLE,
    ),
    Row(
        "F2: a second crash",
        [sent(), crash("x1"), resent(), crash("x2")],
        ("crashed", "died"),
        REPEATABLE,
    ),
    Row(
        "F2: a restart after an earlier attempt's death",
        [
            *(segment(kills=2), sent(), crash("x1"), resent()),
            *(started("x2"), started("x3", redelivered=True, pid=12)),
        ],
        ("quarantined", "kills_workers"),
        REPEATABLE,
    ),
    Row(
        "F2: earlier deaths alone",
        [
            sent(),
            crash("x1"),
            resent(),
            crash("x2"),
            resent(),
            crash("x3"),
            resent("resume"),
            started("x4"),
        ],
        ("pending", "problem"),
        REPEATABLE,
        is_final=False,
    ),
    Row(
        "D3: a process died after it had asked for a retry, and its own reports are lost",
        [sent(), store("emptied"), started("x2", retries=1, pid=12), ended("crashed", "x1")],
        ("pending", "problem"),
        is_final=False,
    ),
    Row(
        "D3: a process was ended at its time limit after that, and its own reports are lost",
        [sent(), store("emptied"), started("x2", retries=1, pid=12), ended("timed_out", "x1")],
        ("pending", "problem"),
        is_final=False,
    ),
    Row(
        "D3: a process of the last try was ended at its time limit, and its own start is lost",
        [sent(), store("emptied"), started("x1"), ended("timed_out", "x2", retries=1)],
        ("timed_out", "stopped_at_limit"),
    ),
    Row(
        "D3: a process of the last try died, and its own start is lost",
        [sent(), store("emptied"), started("x1"), ended("crashed", "x2", retries=1)],
        ("crashed", "died"),
    ),
    Row(
        "F3: a dead worker's copy is taken out, of what the store alone has as ended",
        [sent(), started(), stored(), gone(), moved("taken_out")],
        ("unknown", "process_gone_unconfirmed"),
    ),
    Row(
        "F3: the same, and what the store has is a crash",
        [sent(), started(), stored("crashed"), gone(), moved("taken_out")],
        ("crashed", "process_gone"),
    ),
    Row(
        "F5: its time is over, its process is gone, and the store alone has an end",
        [sent(), started(), stored(), gone(), time_over("timeout")],
        ("unknown", "process_gone_unconfirmed"),
    ),
    Row(
        "F3: begun, and taken from a dead worker",
        [sent(), started(), moved("taken_out")],
        ("crashed", "process_gone"),
    ),
    Row(
        "F3: begun, held by a dead worker, and not to be moved",
        [sent(), started(), moved("left")],
        ("crashed", "process_gone"),
    ),
    Row(
        "F3: not begun, and put back",
        [sent(), moved("put_back")],
        ("pending", "problem"),
        is_final=False,
    ),
    Row(
        "F3: the store was emptied",
        [sent(), started(), store("emptied"), moved("taken_out")],
        ("unknown", "store_emptied"),
    ),
    Row(
        "F4: its result may be past its lifetime",
        [sent(), later(LIFETIME + 1), nowhere()],
        ("unknown", "past_lifetime"),
    ),
    Row(
        "F4: the store was emptied",
        [sent(), store("emptied"), nowhere()],
        ("unknown", "store_emptied"),
    ),
    Row(
        "F4: sent to another broker",
        [sent(), other_place(), nowhere()],
        ("unknown", "other_broker"),
    ),
    Row(
        "F4: sent to another broker, and its process is gone",
        [sent(), started(), other_place(), gone(), nowhere()],
        ("crashed", "process_gone"),
    ),
    Row(
        "F4: a worker was told of its revocation",
        [sent(), stored("revoked"), nowhere()],
        ("revoked", "revoked"),
    ),
    Row(
        "F4: revoked as expected",
        [sent(), stored("revoked"), nowhere()],
        ("passed", "ended_so_as_expected"),
        IS_REVOKED,
    ),
    Row(
        "F4: a revocation of what runs",
        [sent(), started(), stored("revoked"), nowhere()],
        ("lost", "lost_in_flight"),
    ),
    Row(
        "F4: a stock worker may have begun it",
        [node("w2@h", "stock"), sent(), nowhere()],
        ("unknown", "start_unreported"),
    ),
    Row(
        "F4: a silent worker may have begun it",
        [node("w2@h", "silent"), sent(), nowhere()],
        ("unknown", "start_unreported"),
    ),
    Row(
        "F4: the silent worker has answered",
        [node("w2@h", "silent"), node("w2@h", "reports"), sent(), nowhere()],
        ("lost", "never_begun"),
    ),
    Row(
        "F4: the run gave up once",
        [sent(), run_over("gave_up"), taken_up(), nowhere()],
        ("unknown", "start_unreported"),
    ),
    Row(
        "F4: no start of any job is known",
        [sent(), nowhere()],
        ("unknown", "start_unreported"),
        is_private=False,
    ),
    Row("F4: no worker has begun it", [sent(), nowhere()], ("lost", "never_begun")),
    Row(
        "F4: its next try is nowhere",
        [sent(), started(), handed_on(), nowhere()],
        ("lost", "lost_between"),
    ),
    Row(
        "F4: its process is gone",
        [sent(), started(), gone(), nowhere()],
        ("crashed", "process_gone"),
    ),
    Row(
        "F4: the process of an earlier try is gone",
        [sent(), started(), gone(), handed_on(), started("x2", retries=1), nowhere()],
        ("lost", "lost_in_flight"),
    ),
    Row(
        "F4: its process is gone, and the store says the same",
        [sent(), started(), stored("crashed"), gone(), nowhere()],
        ("crashed", "process_gone"),
    ),
    Row(
        "F4: begun, and its worker has it no more",
        [sent(), started(), nowhere()],
        ("lost", "lost_in_flight"),
    ),
    Row(
        "F4: doubts that come later do not reach back",
        [sent(), nowhere(), node("w2@h", "stock"), store("emptied")],
        ("lost", "never_begun"),
    ),
    Row(
        "F4: a start that comes later does not reach back",
        [sent(), nowhere(), started()],
        ("lost", "never_begun"),
    ),
    Row(
        "F5: it ran past its time", [sent(), started(), time_over()], ("timed_out", "timeout_over")
    ),
    Row(
        "F5: another execution's time",
        [sent(), started(), handed_on(), started("x2", retries=1), time_over(execution="x1")],
        ("pending", "problem"),
        is_final=False,
    ),
    Row(
        "F5: it waits for its next try",
        [sent(), started(), handed_on(), time_over()],
        ("pending", "problem"),
        is_final=False,
    ),
    Row(
        "F5: it waits in its queue once more",
        [sent(), started(), seen("queue"), time_over()],
        ("pending", "in_queue"),
        is_final=False,
    ),
    Row(
        "F5: its process is gone",
        [sent(), started(), gone(), time_over()],
        ("crashed", "process_gone"),
    ),
    Row(
        "F5: its own deadline is over",
        [sent(), time_over("deadline")],
        ("timed_out", "deadline_over"),
    ),
    Row(
        "F6: stopped, and every worker has heard",
        [sent(), recalled(), recalled(stage="heard")],
        ("withdrawn", "stopped_before_start"),
    ),
    Row(
        "F6: stopped, and every worker has heard, of which one reports no starts",
        [node("w@stock", "stock"), sent(), recalled(), recalled(stage="heard")],
        ("withdrawn", "stopped_unproven"),
    ),
    Row(
        "F6: stopped, and it was taken out of its queue, where a worker reports no starts",
        [node("w@stock", "stock"), sent(), recalled(), recalled(stage="withdrawn")],
        ("withdrawn", "stopped_before_start"),
    ),
    Row(
        "F6: stopped, and nobody has answered",
        [sent(), recalled()],
        ("pending", "problem"),
        is_final=False,
    ),
    Row(
        "F6: stopped, and it runs",
        [sent(), recalled(), started(), recalled(stage="heard")],
        ("pending", "problem"),
        is_final=False,
    ),
    Row(
        "F6: the run's time is over",
        [sent(), recalled("time"), recalled("time", "withdrawn")],
        ("timed_out", "run_deadline_before_start"),
    ),
    Row(
        "F6: a worker drops it, as the run has stopped",
        [sent(), recalled(), ended("revoked"), recalled(stage="heard")],
        ("withdrawn", "stopped_before_start"),
    ),
    Row(
        "F6: nobody is there, and all waits",
        [sent(), run_over("nobody")],
        ("pending", "run_nobody"),
        is_final=False,
    ),
    Row(
        "F6: no worker can decode it",
        [sent(), run_over("undecodable")],
        ("unknown", "problem"),
    ),
    Row(
        "F6: the run's deadline is over",
        [sent(), started(), run_over()],
        ("timed_out", "run_deadline"),
    ),
    Row(
        "F6: the run's deadline is over, and its process is gone",
        [sent(), started(), gone(), run_over()],
        ("crashed", "process_gone"),
    ),
    Row("F7: expected to crash", [sent(), started(), gone(), nowhere()], AS_EXPECTED, CRASHES),
    Row(
        "F7: expected to run past its time", [sent(), started(), time_over()], AS_EXPECTED, IS_LATE
    ),
    Row(
        "F7: the run ends before its time",
        [sent(), started(), run_over()],
        ("timed_out", "run_deadline"),
        IS_LATE,
    ),
    Row(
        "F7: the run ends after its time",
        [sent(), started(), later(61), run_over()],
        AS_EXPECTED,
        IS_LATE,
    ),
    Row(
        "F7: it did not run",
        [sent(), recalled("time"), recalled("time", "heard")],
        ("timed_out", "run_deadline_before_start"),
        IS_LATE,
    ),
    Row(
        "F8: an audit finds nothing new",
        [sent(), run_over("ended")],
        ("pending", "problem"),
        is_final=False,
    ),
    Row(
        "F8: an audit of a run that is too old",
        [sent(), later(LIFETIME + 1), run_over("ended")],
        ("unknown", "past_lifetime"),
    ),
    Row(
        "F: taken up again, what was inferred is void",
        [sent(), nowhere(), taken_up()],
        ("pending", "problem"),
        is_final=False,
    ),
    Row(
        "F: an audit does not take back what was inferred",
        [sent(), started(), time_over(), taken_up("audit"), nowhere()],
        ("timed_out", "timeout_over"),
    ),
    Row(
        "F: published again, it is awaited again",
        [planned(), sending(), result("uncertain"), nowhere(), sending(2), result(number=2)],
        ("pending", "problem"),
        is_final=False,
    ),
]
FOUR = [started(f"x{n}", redelivered=n > 1, pid=n) for n in range(1, 5)]
F += [
    Row(
        "F1: unreadable, and it is revoked",
        [sent(), unreadable(), stored("revoked"), nowhere()],
        ("unknown", "unreadable"),
    ),
    Row(
        "F1: unreadable, and its process is gone",
        [sent(), started(), unreadable(), gone(), nowhere()],
        ("unknown", "unreadable"),
    ),
    Row(
        "F1: unreadable, and taken back",
        [sent(), unreadable(), recalled(stage="heard")],
        ("unknown", "unreadable"),
    ),
    Row(
        "F1: unreadable, and nobody is there",
        [sent(), unreadable(), run_over("nobody")],
        ("unknown", "unreadable"),
    ),
    Row(
        "F1: unreadable, and the store was emptied",
        [sent(), unreadable(), store("emptied"), nowhere()],
        ("unknown", "unreadable"),
    ),
    Row(
        "F1: not sent, so nothing is stored",
        [planned(), unreadable(), run_over()],
        ("timed_out", "run_deadline"),
    ),
    Row(
        "F2: and then its time was over",
        [sent(), *FOUR, time_over()],
        ("quarantined", "kills_workers"),
    ),
    Row(
        "F2: its time was over before",
        [sent(), started(), time_over(), *FOUR[1:]],
        ("timed_out", "timeout_over"),
    ),
    Row(
        "F2: it allows no death at all",
        [segment(kills=1), sent(), started(), gone(), nowhere()],
        ("quarantined", "kills_workers"),
    ),
    Row(
        "F2: it expects to crash",
        [segment(kills=1), sent(), started(), gone(), nowhere()],
        AS_EXPECTED,
        CRASHES,
    ),
    Row(
        "F3: begun, and put back",
        [sent(), started(), moved("put_back")],
        ("pending", "problem"),
        is_final=False,
    ),
    Row(
        "F3: not begun, and taken out",
        [sent(), moved("taken_out")],
        ("pending", "problem"),
        is_final=False,
    ),
    Row(
        "F3: not begun, taken out, and nowhere",
        [sent(), moved("taken_out"), nowhere()],
        ("lost", "never_begun"),
    ),
    Row(
        "F4: the app has a store of its own",
        [other_place("own_store"), sent(), nowhere()],
        ("lost", "never_begun"),
    ),
    Row(
        "F4: the store keeps results for longer since",
        [sent(), later(LIFETIME + 1), segment(lifetime=2 * LIFETIME), nowhere()],
        ("lost", "never_begun"),
    ),
    Row(
        "F4: a queue had no worker",
        [node("q", "unserved"), sent(), nowhere()],
        ("unknown", "start_unreported"),
    ),
    Row(
        "F4: nobody had answered",
        [node("", "nobody"), sent(), nowhere()],
        ("unknown", "start_unreported"),
    ),
    Row(
        "F4: some job has begun, and workers report that",
        [sent(), started(), nowhere()],
        ("lost", "lost_in_flight"),
        is_private=False,
    ),
    Row(
        "F4: a worker that answers",
        [node("w2@h", "heard"), sent(), nowhere()],
        ("lost", "never_begun"),
    ),
    Row(
        "F5: its deadline is over, and it never began",
        [sent(), time_over("deadline")],
        ("timed_out", "deadline_over"),
        IS_LATE,
    ),
    Row(
        "F5: a deadline while it waits",
        [sent(), started(), seen("queue"), time_over("deadline")],
        ("timed_out", "deadline_over"),
    ),
    Row(
        "F5: it was seen waiting before it began again",
        [sent(), started(), seen("queue"), started("x2", redelivered=True, pid=12), time_over()],
        ("timed_out", "timeout_over"),
    ),
    Row(
        "F5: a worker has it",
        [sent(), started(), seen("worker"), time_over()],
        ("timed_out", "timeout_over"),
    ),
    *(
        Row(
            f"F6: recalled ({why}), and every worker has heard",
            [sent(), recalled(why, "heard")],
            ended,
        )
        for why, ended in {
            "max_failed": ("withdrawn", "stopped_before_start"),
            "operator": ("cancelled", "cancelled_before_start"),
        }.items()
    ),
    Row(
        "F6: cancelled between two tries",
        [sent(), started(), handed_on(), recalled("operator", "heard")],
        ("cancelled", "cancelled_between_tries"),
    ),
    Row(
        "F4: cancelled, and nowhere, and every start is reported",
        [sent(), recalled("operator", "asked"), nowhere()],
        ("cancelled", "cancelled_before_start"),
    ),
    Row(
        "F6: recalled at its deadline, which says so",
        [sent(), recalled("deadline", "withdrawn")],
        ("pending", "problem"),
        is_final=False,
    ),
    Row(
        "F6: stopped between two tries",
        [sent(), started(), handed_on(), recalled(stage="heard")],
        ("withdrawn", "stopped_between_tries"),
    ),
    Row(
        "F6: nobody is there, and a search finds it nowhere",
        [sent(), run_over("nobody"), nowhere()],
        ("lost", "never_begun"),
    ),
    Row(
        "F6: the run gives up, and its process is gone",
        [sent(), started(), gone(), run_over("gave_up")],
        ("unknown", "run_gave_up"),
    ),
    Row(
        "F6: the run's deadline is over, its process is gone, and the store was emptied",
        [sent(), started(), store("emptied"), gone(), run_over()],
        ("unknown", "store_emptied"),
    ),
    Row(
        "F8: an audit sees it in no certain place",
        [sent(), later(LIFETIME + 1), seen("unknown"), run_over("ended")],
        ("unknown", "past_lifetime"),
    ),
    Row(
        "F8: an audit after another has seen it",
        [sent(), seen("queue"), taken_up(), later(LIFETIME + 1), run_over("ended")],
        ("unknown", "past_lifetime"),
    ),
]
C += [
    Row(
        "C1: unsigned, and its process is gone",
        [sent(), started(), ended(fault="not signed"), gone(), nowhere()],
        ("forged", "unsigned"),
        signed_only=True,
    ),
    Row(
        "C1: unsigned, and the store was emptied",
        [sent(), started(), ended(fault="not signed"), store("emptied"), nowhere()],
        ("forged", "unsigned"),
        signed_only=True,
    ),
    Row(
        "C1: unsigned, since it was found nowhere",
        [sent(), nowhere(), ended(fault="not signed")],
        ("lost", "never_begun"),
        signed_only=True,
    ),
]
G = [
    Row(
        "G: a late end corrects what was inferred", [sent(), started(), nowhere(), ended()], PASSED
    ),
    Row(
        "G: time was over, then a worker dropped it",
        [sent(), time_over("deadline"), ended("revoked")],
        ("timed_out", "deadline_over"),
    ),
    Row(
        "G: taken back, then a worker dropped it",
        [sent(), recalled(), recalled(stage="heard"), taken_up("audit"), ended("revoked")],
        ("withdrawn", "stopped_before_start"),
    ),
    Row(
        "G: time was over, then it failed",
        [sent(), started(), time_over(), ended("failed")],
        ("failed", "raised"),
    ),
    Row(
        "G: skipped stays", [planned(), withheld("after", "e0"), ended()], ("skipped", "waits_for")
    ),
    Row(
        "G: cancelled before it was sent stays",
        [planned(), withheld("operator"), ended()],
        ("cancelled", "cancelled"),
    ),
    Row(
        "G: an end corrects that no worker knew its task",
        [planned(), withheld("unknown_task"), started(), ended()],
        PASSED,
    ),
    Row(
        "G: an end corrects that the broker had refused it",
        [planned(), sending(), result("refused"), started(), ended()],
        PASSED,
    ),
    Row(
        "G: a second start corrects",
        [sent(), started(), ended(), started("x2", redelivered=True, pid=12)],
        ("duplicated", "duplicated"),
    ),
    Row(
        "G: quarantined stays",
        [
            sent(),
            *(started(f"x{n}", redelivered=n > 1, pid=n) for n in range(1, 5)),
            recalled("poison"),
            ended(execution="x4"),
        ],
        ("quarantined", "kills_workers"),
    ),
    Row(
        "G: recalled as it goes on killing, after its time was over",
        [
            sent(),
            started(),
            time_over(),
            *(started(f"x{n}", redelivered=True, pid=n) for n in range(2, 5)),
            recalled("poison"),
        ],
        ("timed_out", "timeout_over"),
    ),
]
J = [
    Row(
        "J1: a descendant that crashed, where no death is allowed",
        passed_with(segment(kills=1), spawned("c1"), started("y1"), gone("y1"), nowhere()),
        ("crashed", "by_descendant"),
    ),
    Row("J1: a descendant that passed", passed_with(child_ended()), PASSED),
    Row(
        "J1: a descendant in whatever time it takes",
        passed_with(child_ended(runtime=99999.0)),
        PASSED,
    ),
    Row(
        "J1: a descendant that ran twice",
        passed_with(
            spawned("c1"),
            started("y1"),
            started("y2", redelivered=True, pid=12),
            ended(execution="y2"),
        ),
        ("duplicated", "by_descendant"),
    ),
    Row(
        "J1: a descendant with two different ends",
        passed_with(spawned("c1"), started("y1"), ended(execution="y1"), ended("failed", "y1")),
        ("forged", "by_descendant"),
    ),
    Row(
        "J1: its parent could not send it", passed_with(spawned("c1"), unsent(), nowhere()), PASSED
    ),
    Row(
        "J1: its parent could not send it, and it ran",
        passed_with(spawned("c1"), unsent(), started("y1"), nowhere()),
        ("lost", "by_descendant"),
    ),
    Row(
        "J1: sent to another broker",
        passed_with(spawned("c1"), elsewhere(), nowhere()),
        ("unknown", "by_descendant"),
    ),
    Row(
        "J1: the body of a chord that was not completed",
        passed_with(
            several(spawned("c1", chords=("k",)), started("y1"), gone("y1"), nowhere()),
            announced("k"),
            placeholder("b", "k", "chord_body"),
            nowhere(),
        ),
        ("crashed", "by_descendant"),
    ),
    Row(
        "J1: the body of a completed chord",
        passed_with(
            several(spawned("c1", chords=("k",)), started("y1"), ended(execution="y1")),
            announced("k"),
            placeholder("b", "k", "chord_body"),
            nowhere(),
        ),
        ("lost", "by_descendant"),
    ),
    Row(
        "J1: handed on to others, of which one failed",
        [
            sent(),
            started(),
            handed_on("canvas"),
            child_ended("c1", "failed"),
            of_root(),
            search(),
            nowhere(),
        ],
        ("failed", "by_descendant"),
    ),
    Row(
        "J1: handed on to others, of which the last is missing",
        [sent(), started(), handed_on("canvas"), child_ended(), of_root(), search(), nowhere()],
        ("lost", "lost_between"),
    ),
    Row(
        "J2: a descendant without an end",
        passed_with(spawned("c1")),
        ("pending", "awaits_tree"),
        is_final=False,
    ),
    Row(
        "J2: announced, and not known",
        passed_with(announced("k")),
        ("pending", "awaits_tree"),
        is_final=False,
    ),
    Row(
        "J2: announced, and come",
        passed_with(
            announced("k"), spawned("b", fulfils="k"), started("b-x"), ended(execution="b-x")
        ),
        PASSED,
    ),
    Row(
        "J2: announced by its id, and come",
        passed_with(
            announced("k", task_ids=("b",)), spawned("b"), started("b-x"), ended(execution="b-x")
        ),
        PASSED,
    ),
    Row("J2: announced, and off", passed_with(announced("k"), announced("k", is_off=True)), PASSED),
    Row(
        "J2: announced, looked for, and nowhere",
        passed_with(announced("k", "errback"), placeholder("p", "k", "errback"), nowhere()),
        ("lost", "by_descendant"),
    ),
    Row(
        "J2: looked for, and come meanwhile",
        passed_with(
            announced("k", "errback"),
            placeholder("p", "k", "errback"),
            nowhere(),
            spawned("b", fulfils="k"),
            started("b-x"),
            ended(execution="b-x"),
        ),
        PASSED,
    ),
    Row(
        "J2: what its own handlers may have started",
        passed_with(announced("k", "after"), placeholder("p", "k", "after"), nowhere()),
        PASSED,
    ),
    Row(
        "J3: descendants do not matter",
        passed_with(spawned("c1")),
        PASSED,
        an_entry(expect={"descendants": "ignored"}),
    ),
    Row("J3: each comes to an end", passed_with(child_ended("c1", "failed")), PASSED, FINISHES),
    Row(
        "J3: stopped at a time limit, and that is an end",
        passed_with(spawned("c1"), started("y1"), ended("timed_out", "y1", cpu=0.1)),
        PASSED,
        FINISHES,
    ),
    Row(
        "J3: what leaves no doubt comes first",
        passed_with(several(spawned("c1"), unreadable(), nowhere()), child_ended("c2", "failed")),
        ("failed", "by_descendant"),
    ),
    Row(
        "J3: the job itself failed",
        [sent(), started(), child_ended("c1", "failed"), of_root(), ended("failed")],
        ("failed", "raised"),
    ),
    Row(
        "J4: its worker reports nothing of them",
        [sent(), started(), ended(children=None)],
        ("unknown", "descendants_unknown"),
        GIVEN,
    ),
    Row("J4: the same, and nobody asked", [sent(), started(), ended(children=None)], PASSED),
    Row(
        "J4: fewer than it counts",
        [sent(), started(), child_ended(), of_root(), ended(children=2)],
        ("unknown", "descendants_unknown"),
    ),
    Row("J4: a stock result", [sent(), stored()], ("unknown", "descendants_unknown"), GIVEN),
    Row(
        "J4: a descendant's worker reports nothing of them",
        passed_with(child_ended(children=None)),
        ("unknown", "descendants_unknown"),
        GIVEN,
    ),
    Row(
        "J4: not as many as expected",
        passed_with(child_ended()),
        ("failed", "descendants_differ"),
        an_entry(expect={"descendants": {"count": 2}}),
    ),
    Row(
        "J4: not those tasks",
        passed_with(child_ended()),
        ("failed", "descendants_differ"),
        an_entry(expect={"descendants": {"tasks": ["tasks.x"]}}),
    ),
    Row(
        "J: the run's deadline is over, and a descendant runs",
        passed_with(spawned("c1"), started("y1"), of_root(), ended(), run_over()),
        ("timed_out", "by_descendant"),
    ),
    Row(
        "J: the run's deadline is over, and something announced is missing",
        [sent(), started(), announced("k"), ended(), run_over()],
        ("timed_out", "run_deadline"),
    ),
]
L = [
    Row(
        "L: the manifest has other work",
        [sent(), started(), ended()],
        ("unknown", "other_work"),
        rules=Rules(other_work="its arguments"),
    ),
    Row(
        "L: not sent yet",
        [planned()],
        ("pending", "problem"),
        rules=Rules(other_work="its arguments"),
        is_final=False,
    ),
]


@pytest.mark.parametrize("row", [*A, *B, *C, *D, *E, *F, *G, *J, *L], ids=lambda row: row.name)
def test_a_rule(row: Row) -> None:
    """The facts of the story come to this, and are final where nothing more is awaited."""
    found = judged(row)
    assert ((found.status, found.code), found.is_final) == (row.comes_to, row.is_final)
