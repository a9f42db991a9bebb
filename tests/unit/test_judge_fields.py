"""What a judgement says beside its status: figures of reasons, receipts, costs and trees."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from pytest_manifest.schema import Entry, Receipt
from pytest_manifest.schema import facts as f
from pytest_manifest.schema import run_facts as r
from pytest_manifest.verdict.belief import Identity, excuses
from pytest_manifest.verdict.judge import Again
from pytest_manifest.verdict.messages import Reused
from pytest_manifest.verdict.reasons import UNEXPLAINED, Finding, verdict_of
from pytest_manifest.verdict.tree import (
    ByDescendant,
    Descendant,
    Tree,
    descendant_of,
    expects_something,
)
from tests.unit.judge_world import (
    BEGAN,
    FINISHES,
    GIVEN,
    RUN,
    TASK,
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
    later,
    node,
    nowhere,
    of_root,
    other_place,
    passed_with,
    placeholder,
    planned,
    play,
    recalled,
    report_of,
    resent,
    result,
    run_over,
    segment,
    sending,
    sent,
    set_back,
    several,
    spawned,
    started,
    store,
    stored,
    time_over,
    unsent,
)

BY_DEFAULT = Entry(id="e1", task=TASK)
REPEATED = an_entry(idempotent=True, retries=9)
ONE = {"evidence": {"cost": 1.0}}
UNCERTAIN = several(planned(), sending(), result("uncertain"))
HARMLESS = an_entry(idempotent=True)
AS_EXPECTED = {"code": "as_expected", "worker": "w1@h", "pid": 11, "runtime": 1.0}
TASKS = ["tasks.a", "tasks.b", "tasks.c", "tasks.d"]


def reused(entry: str) -> Step:
    """Reuse the pass of an entry of an earlier run."""

    def step(w: World) -> None:
        origin = f.Reused(run="run-0", entry=entry, attempt=3, by="run-1", at=BEGAN)
        several(planned("reuse", number=0, reused=origin), sending(), result())(w)

    return step


def of_origin(entry: str) -> dict[str, object]:
    return {"run": "run-0", "entry": entry, "attempt": 3}


REASONS: list[tuple[str, list[Step], Entry, dict[str, object]]] = [
    (
        "a limit of the task's own",
        [code(limit=200.0), sent(), started(), ended(runtime=250.0)],
        BY_DEFAULT,
        {**AS_EXPECTED, "code": "ran_too_long", "runtime": 250.0, "limit": 200.0, "own": True},
    ),
    (
        "the run's deadline as pytest began last",
        [segment(deadline=5.0), segment(deadline=7.0), sent(), recalled("time", "heard")],
        an_entry(),
        {"code": "run_deadline_before_start", "limit": 7.0, "timeout": 60.0},
    ),
    (
        "how its process has ended, as its time is over",
        [sent(), started(), gone(exit_code=-9), time_over()],
        an_entry(),
        {"code": "process_ended", "worker": "w1", "exit_code": -9},
    ),
    (
        "the time that a descendant's task may take",
        passed_with(
            *(code(limit=600.0, task="tasks.part"), report_of("c"), started("y")),
            *(spawned("c"), time_over()),
        ),
        an_entry(),
        {
            "code": "by_descendant",
            "task": "tasks.part",
            "task_id": "c",
            "parent": "tasks.work",
            "ended": "timed_out",
            "why": {"code": "timeout_over", "limit": 60.0, "timeout": 600.0},
            "total": 1,
        },
    ),
    (
        "of a pass that is reused, from the entry that it was",
        [reused("e1"), started(), ended("succeeded", "x1", **of_origin("e1"))],
        an_entry(),
        {"code": "reused", "run": "run-0", "why": AS_EXPECTED},
    ),
    (
        "of a pass that is reused, with its descendants",
        [
            *(reused("e0"), started(), spawned("c"), started("y")),
            *(ended("succeeded", "y", **of_origin("e0")), of_root()),
            ended("succeeded", "x1", **of_origin("e0")),
        ],
        an_entry(),
        {
            "code": "reused",
            "run": "run-0",
            "entry": "e0",
            "why": {**AS_EXPECTED, "descendants": 1, "did": "succeeded"},
        },
    ),
    (
        "an end before its sending, on nobody knows which host",
        [sent(), started(started_at=BEGAN - timedelta(minutes=6)), ended(host=None)],
        an_entry(),
        {
            "code": "before_sending",
            "did": "started",
            "moment": "2026-03-01 11:54:00.000000 UTC",
            "sent": "2026-03-01 12:00:00.000000 UTC",
        },
    ),
    (
        "its end before its sending",
        [sent(), started(), ended(finished_at=BEGAN - timedelta(minutes=6))],
        an_entry(),
        {
            "code": "before_sending",
            "did": "finished",
            "moment": "2026-03-01 11:54:00.000000 UTC",
            "sent": "2026-03-01 12:00:00.000000 UTC",
            "host": "h",
        },
    ),
    (
        "two ends that differ, of which one is no failure",
        [sent(), started(), ended(result=1), ended("ignored")],
        an_entry(),
        {"code": "ends_differ", "one": "'ignored'", "other": "'succeeded' with 1"},
    ),
    (
        "the deaths of all attempts, also of one that was quarantined",
        [
            *(sent(), crash("x1"), resent(), crash("x2"), resent(), crash("x3")),
            *(resent("resume"), started("x4"), started("x5", redelivered=True, pid=12)),
        ],
        REPEATED,
        {"code": "kills_workers", "deaths": 4, "pids": [11, 12]},
    ),
    (
        "the run's deadline, as something announced is missing",
        [sent(), started(), announced("k"), ended(), run_over()],
        an_entry(),
        {"code": "run_deadline", "limit": 20.0, "timeout": 60.0},
    ),
    (
        "what became of the descendants",
        passed_with(child_ended("c"), child_ended("d")),
        an_entry(),
        {**AS_EXPECTED, "descendants": 2, "did": "succeeded"},
    ),
    (
        "that they ended, where nothing more is asked",
        passed_with(child_ended("c")),
        FINISHES,
        {**AS_EXPECTED, "descendants": 1, "did": "ended"},
    ),
    (
        "nothing, where it does not matter",
        passed_with(child_ended("c")),
        an_entry(expect={"descendants": {"outcome": "ignored", "count": 1}}),
        AS_EXPECTED,
    ),
    (
        "nothing, where there are none",
        passed_with(announced("k"), announced("k", is_off=True)),
        an_entry(),
        AS_EXPECTED,
    ),
    (
        "that the store alone reports no descendants",
        [sent(), stored()],
        GIVEN,
        {"code": "descendants_unknown", "why": {"code": "no_tree_reports"}},
    ),
    (
        "that a worker reports none yet",
        [sent(), started(), ended(children=None)],
        GIVEN,
        {"code": "descendants_unknown", "why": {"code": "no_tree_reports_yet"}},
    ),
    (
        "how many descendants have started more than is known",
        [sent(), started(), child_ended("c", children=1), of_root(), ended(children=1)],
        an_entry(),
        {
            "code": "descendants_unknown",
            "why": {"code": "grandchildren_missing", "descendants": 1},
        },
    ),
    (
        "of how many descendants nobody knows what they have started",
        [sent(), started(), child_ended("c", children=None), of_root(), ended(children=1)],
        GIVEN,
        {
            "code": "descendants_unknown",
            "why": {"code": "grandchildren_unknown", "descendants": 1},
        },
    ),
    (
        "which tasks there are instead of those expected",
        passed_with(child_ended("c")),
        an_entry(expect={"descendants": {"tasks": TASKS}}),
        {
            "code": "descendants_differ",
            "path": "descendants.tasks",
            "expected": "'tasks.a', 'tasks.b', 'tasks.c' and 1 more",
            "actual": "'tasks.part'",
        },
    ),
    (
        "a descendant of nobody knows which task",
        passed_with(child_ended("c", "failed", "z")),
        an_entry(),
        {
            "code": "by_descendant",
            "task": "tasks.part",
            "task_id": "c",
            "parent": "z",
            "ended": "failed",
            "why": {"code": "raised", "worker": "w1@h", "pid": 11, "error": "ValueError: no"},
            "total": 1,
        },
    ),
    (
        "that a descendant has not ended, beside one that was stopped",
        passed_with(
            several(spawned("c"), started("y"), ended("timed_out", "y", cpu=0.1)),
            several(spawned("d"), nowhere()),
        ),
        FINISHES,
        {
            "code": "by_descendant",
            "task": "tasks.part",
            "task_id": "d",
            "parent": "tasks.work",
            "ended": "lost",
            "why": {"code": "never_begun"},
            "total": 2,
            "ended_only": True,
        },
    ),
]


@pytest.mark.parametrize(
    ("steps", "entry", "document"), [pytest.param(*rest, id=name) for name, *rest in REASONS]
)
def test_a_reason_says(steps: list[Step], entry: Entry, document: dict[str, object]) -> None:
    """Each figure that is other than by default."""
    assert play(steps, entry).judge().finding.reason.document() == document


def test_where_results_were_looked_for_is_said_without_an_own_store() -> None:
    """The app's own settings are named where they have another one."""
    found = play([sent(), nowhere()], is_private=False).judge().finding.reason
    assert found.document() == {"code": "start_unreported", "store": "redis://results"}


def test_what_is_compared_of_descendants_is_said() -> None:
    """That each was to succeed, or to end."""
    lost = several(spawned("d"), nowhere())
    for entry, wanted, did in (
        (an_entry(), "each succeeded", "1 of 1 did not succeed"),
        (FINISHES, "each ended", "1 of 1 did not end"),
    ):
        one = play(passed_with(lost), entry).judge().finding.mismatches[0]
        assert (one.expected, one.actual) == (wanted, did)


# What follows

AGAIN: list[tuple[str, list[Step], Entry, Again]] = [
    (
        "the store was emptied before, and begins anew",
        [UNCERTAIN, store("emptied"), store("marked"), nowhere()],
        HARMLESS,
        "message",
    ),
    (
        "the store was emptied before, and has all since",
        [UNCERTAIN, store("emptied"), store("intact"), nowhere()],
        HARMLESS,
        "message",
    ),
    (
        "the store was emptied, and does not answer",
        [UNCERTAIN, store("emptied"), store("unreachable"), nowhere()],
        HARMLESS,
        "",
    ),
    (
        "the store was emptied since",
        [UNCERTAIN, nowhere(), store("emptied")],
        an_entry(),
        "message",
    ),
]


@pytest.mark.parametrize(
    ("steps", "entry", "again"), [pytest.param(*rest, id=name) for name, *rest in AGAIN]
)
def test_what_may_be_sent_again(steps: list[Step], entry: Entry, again: Again) -> None:
    """By what was known when it was found nowhere."""
    assert play(steps, entry).judge().again == again


MAY_HAVE_RUN: list[tuple[str, list[Step], bool]] = [
    ("the store was emptied", [sent(), store("emptied")], True),
    ("the store has all", [sent(), store("intact")], False),
    ("it went to another broker", [sent(), other_place()], True),
    ("the app has a store of its own", [sent(), other_place("own_store")], False),
    ("the run gave up", [sent(), run_over("gave_up")], True),
    ("the run's deadline is over", [sent(), run_over()], False),
    ("a worker that answers", [sent(), node("w2", "heard")], False),
    ("expired, delivered again", [sent(), ended("expired", redelivered=True)], False),
    ("turned away, as somebody says", [sent(), ended("rejected", task="tasks.other")], True),
    ("revoked, and begun since", [sent(), stored("revoked"), nowhere(), started()], True),
]


@pytest.mark.parametrize(
    ("steps", "may"), [pytest.param(*rest, id=name) for name, *rest in MAY_HAVE_RUN]
)
def test_whether_it_may_have_run(steps: list[Step], may: bool) -> None:
    """By who would have reported that."""
    assert play(steps).judge().may_have_run is may


def test_what_workers_have_dropped_twice_has_no_execution() -> None:
    dropped = [ended("revoked", name) for name in ("x1", "x2")]
    assert play([sent(), *dropped]).judge().executions == 0


COSTLY = an_entry(cost=2.0, idempotent=True, retries=9, expect={"executions": 9})
LOST_STARTS = several(sent(), store("emptied"))
COSTS: list[tuple[str, list[Step], str]] = [
    (
        "two executions that report the same",
        [
            *(sent(), started("x1"), started("x2", redelivered=True)),
            *(ended("succeeded", "x1", **ONE), ended("succeeded", "x2", **ONE)),
        ],
        "2",
    ),
    (
        "the store's copy, once confirmed",
        [sent(), started(), ended(**ONE), stored(), nowhere()],
        "1",
    ),
    ("the store alone, with a cost", [sent(), stored(evidence={"cost": 1.0})], "1"),
    (
        "the store's end of what began",
        [sent(), started(), stored(evidence={"cost": 1.0}), nowhere()],
        "1",
    ),
    ("begun twice, and no end", [sent(), started(), started(pid=12)], "4"),
    ("an end of a start that is lost", [LOST_STARTS, ended(**ONE)], "1"),
    (
        "two ends of starts that are lost",
        [LOST_STARTS, ended("succeeded", "x1"), ended("failed", "x2", redelivered=True)],
        "4",
    ),
    ("turned away, and it cost something", [sent(), ended("rejected", **ONE)], "1"),
    ("expired, delivered again", [sent(), ended("expired", redelivered=True)], "0"),
    (
        "forged, after a try that reports",
        [
            *(sent(), started(), handed_on(cost=9.0), started("x2", retries=1)),
            ended("succeeded", "x2", retries=1, task="tasks.other"),
        ],
        "4",
    ),
    (
        "a try that reports, of a process killed after it",
        [
            *(sent(), started(), handed_on(cost=0.5), ended("crashed", cpu=None, pid=11)),
            *(
                started("x2", retries=1),
                ended("succeeded", "x2", retries=1, evidence={"cost": 0.25}),
            ),
        ],
        "0.75",
    ),
    (
        "a try that reports, and whose task then succeeded",
        [
            *(sent(), started(), handed_on(cost=0.5), ended(**ONE), started("x2", retries=1)),
            ended("succeeded", "x2", retries=1, evidence={"cost": 0.25}),
        ],
        "1.25",
    ),
    ("a try of two records", [sent(), started(), handed_on(cost=2.5), handed_on(cost=0.5)], "0.5"),
    (
        "a try of two records, one without",
        [sent(), started(), handed_on(), handed_on(cost=0.5)],
        "0.5",
    ),
    ("recalled, and begun since", [sent(), recalled("poison"), started()], "2"),
]


@pytest.mark.parametrize(("steps", "cost"), [pytest.param(*rest, id=name) for name, *rest in COSTS])
def test_what_each_execution_has_cost(steps: list[Step], cost: str) -> None:
    """As it reports, or as the entry estimates; nothing twice."""
    assert play(steps, COSTLY).judge().cost == Decimal(cost)


def test_whether_a_report_says_what_it_has_cost() -> None:
    """Not where it is estimated, nor of what another run has paid."""
    taken = ended("succeeded", "x1", **of_origin("e0"), **ONE)
    stories = [
        [sent(), started(), ended(**ONE)],
        [sent(), started(), ended()],
        [reused("e0"), started(), taken],
    ]
    assert [play(one).judge().reports_cost for one in stories] == [True, False, False]


AGAIN_AND_AGAIN = [started(f"x{n}", redelivered=True, pid=n) for n in range(2, 5)]


def test_an_attempt_that_was_given_up_and_goes_on_killing_is_deadly() -> None:
    """Also where another one was sent since: its starts and the settings of now count."""
    given_up = [sent(), dead("x1"), resent(), about("a1")]
    deadly = play([*given_up, *AGAIN_AND_AGAIN, about("a2")], REPEATED).judge().deadly
    allowed = [*given_up, segment(kills=9), *AGAIN_AND_AGAIN, about("a2")]
    assert (deadly, play(allowed, REPEATED).judge().deadly) == (["a1"], [])


def test_the_deaths_of_earlier_attempts_count_for_one_that_goes_on_killing() -> None:
    """Of an attempt in the middle as well."""
    twice = [started("x3", redelivered=True, pid=3), started("x4", redelivered=True, pid=4)]
    steps = [sent(), crash("x1"), resent(), dead("x2"), resent(), about("a2"), *twice, about("a3")]
    assert play(steps, REPEATED).judge().deadly == ["a2"]


# The receipt that counts


def receipt_of(*steps: Step, entry: Entry | None = None) -> Receipt:
    found = play([*steps], entry).judge().receipt
    assert found is not None
    return found


def test_what_decided_is_named_also_of_what_is_forged() -> None:
    """Its place in the order, and the receipt that cannot be true."""
    forged = play([sent(), started(), ended(task="tasks.other")]).judge()
    assert (forged.status, forged.end) == ("forged", 7)
    assert forged.receipt is not None
    assert forged.receipt.task == "tasks.other"
    revoked = play([sent(), stored("revoked"), nowhere()]).judge()
    assert (revoked.end, revoked.receipt is None) == (8, False)


def test_a_receipt_has_only_what_a_worker_can_report() -> None:
    """That it was reused, or how it was judged, is what pytest writes into an export."""
    by = {"run": "run-7", "entry": "e7", "at": BEGAN}
    for claim in ({"reused": by}, {"judged": {"verdict": "passed"}}):
        said = receipt_of(sent(), started(), ended(**claim))
        assert (said.reused, said.judged, said.task) == (None, None, TASK)


def test_claims_that_no_start_proves_are_struck_from_the_receipt() -> None:
    """Each one alone; those of the store's own receipts are no worker's."""
    struck = receipt_of(sent(), started(), ended(retries=1, replaced=True))
    assert (struck.retries, struck.replaced) == (0, False)
    assert receipt_of(sent(), stored(retries=1)).retries == 1


def test_a_receipt_gets_what_a_killed_process_could_not_report() -> None:
    """From the newest start; what the receipt has stays."""
    begun = several(sent(), later(2), started(worker="w7@h", host="h7", redelivered=True))
    said = receipt_of(begun, ended("crashed", worker=None, host=None))
    assert (said.wait, said.worker, said.host) == (2.0, "w7@h", "h7")
    assert (said.pid, said.redelivered, said.executions) == (11, True, 1)
    own = receipt_of(begun, ended(wait=0.5, worker="w8@h", host="h8", pid=8))
    assert (own.wait, own.worker, own.host, own.pid) == (0.5, "w8@h", "h8", 8)


def test_a_wait_is_not_less_than_none() -> None:
    """By the clocks of two machines it may seem so."""
    early = started(started_at=BEGAN - timedelta(seconds=9))
    assert receipt_of(sent(), early, ended("crashed")).wait == 0.0
    unknown = several(planned(), sending(is_known=False), result("uncertain"), started())
    assert receipt_of(unknown, ended("crashed", sent_at=None)).wait is None
    untimed = receipt_of(sent(), started(started_at=None), ended("crashed"))
    assert (untimed.wait, untimed.started_at) == (None, None)


def test_a_signed_receipt_says_what_was_filled_in() -> None:
    """So that its signature can be checked without it."""
    signature = {"key": "a" * 64, "value": "b", "filled": ["worker"]}
    said = receipt_of(sent(), started(), ended("crashed", signature=signature))
    assert said.signature is not None
    assert said.signature.filled == ["worker", "started_at", "wait", "pid"]
    whole = receipt_of(sent(), started(), ended(signature=signature))
    assert whole.signature is not None
    assert whole.signature.filled == ["worker"]


BACK = r.SetBack(seq=0, at=BEGAN, by=60.0, most=60.0)
OF_A1 = Identity(run=RUN, entry="e1", attempt=1, task_id="a1")


@pytest.mark.parametrize(
    ("steps", "excused"),
    [
        ([sent(), started(), ended()], []),
        ([sent(), store("emptied"), ended()], [r.StoreFact(seq=0, at=BEGAN, what="emptied")]),
        ([sent(), set_back(60.0), ended()], [BACK]),
        ([sent(), started(), ended(), set_back(60.0)], []),
        ([sent(), started(), handed_on(), ended("crashed"), set_back(60.0)], [BACK]),
    ],
    ids=["nothing", "the store", "the clock", "the clock after its end", "the clock between tries"],
)
def test_what_excuses_a_jobs_reports_is_kept_for_it_alone(
    steps: list[Step], excused: list[r.StoreFact | r.SetBack]
) -> None:
    """As whoever reuses it knows nothing of this run."""
    world = play(steps)
    job = world.job_facts(world.jobs["a1"])
    own = [replace(one, job="a1") for one in excused]
    assert excuses(job, OF_A1, world.facts()) == own


# Trees


def tree_of(*steps: Step, entry: Entry | None = None) -> Tree:
    tree = play([sent(), started(), *steps], entry).attempts()[0].tree
    assert tree is not None
    return tree


def end_of(tree: Tree, name: str) -> Descendant:
    return next(one for one in tree.ends() if one.job.task_id == name)


def test_what_was_never_sent_says_why() -> None:
    """As its parent could not, or its chord was not completed."""
    tree = tree_of(
        several(spawned("c", chords=("k",)), unsent(), nowhere()),
        *(announced("k"), placeholder("b", "k", "chord_body"), nowhere()),
    )
    found = [end_of(tree, name).finding for name in ("c", "b")]
    assert [(one.status, one.reason.code) for one in found] == [
        ("skipped", "child_unsent"),
        ("skipped", "chord_dropped"),
    ]


def test_a_split_task_names_the_first_of_its_parts_that_failed() -> None:
    """By when they were started, however they ended, and with what was not as expected."""
    own = several(spawned("c"), started("y"), handed_on("canvas", "y"))
    parts = several(
        *(later(1), child_ended("d", "failed"), later(1), spawned("e"), started("e-x")),
        *(ended("crashed", "e-x", pid=11), about("c"), nowhere()),
    )
    found = end_of(tree_of(own, parts), "c").finding
    document = {
        "code": "part_failed",
        "task": "tasks.part",
        "task_id": "d",
        "ended": "failed",
        "why": {"code": "raised", "worker": "w1@h", "pid": 11, "error": "ValueError: no"},
    }
    assert (found.status, found.reason.document()) == ("failed", document)
    assert [one.path for one in found.mismatches] == ["state"]


def test_a_split_task_that_has_passed_is_not_counted_with_its_parts() -> None:
    """Its own end is known."""
    own = several(spawned("c"), started("y"), handed_on("canvas", "y"))
    steps = [own, child_ended("d", "failed"), about("c"), stored()]
    reason = play(passed_with(*steps)).judge().finding.reason
    assert isinstance(reason, ByDescendant)
    assert (reason.task_id, reason.more) == ("d", 0)


LOST_MEMBER = several(spawned("c", chords=("k",)), started("y"), gone("y"), nowhere())


@pytest.mark.parametrize(
    "steps",
    [
        [several(spawned("b", how="chord_body", chords=()), nowhere())],
        [announced("k", "errback"), placeholder("b", "k", "errback"), nowhere()],
        [
            *(node("w2", "stock"), announced("k")),
            *(placeholder("b", "k", "chord_body"), nowhere()),
        ],
    ],
    ids=["a body that was sent", "no body", "a body of which nothing is certain"],
)
def test_what_is_no_lost_body_counts_beside_a_lost_member(steps: list[Step]) -> None:
    """Only a body that nobody has reported sent, and that is lost, was never sent."""
    unreported = several(spawned("u", chords=None), started("z"), gone("z"), nowhere())
    reason = play(passed_with(LOST_MEMBER, unreported, *steps)).judge().finding.reason
    assert isinstance(reason, ByDescendant)
    assert (reason.more, reason.total) == (2, 3)


def test_a_member_that_was_quarantined_stored_no_end() -> None:
    """So its chord has no body."""
    deadly = [started(f"y{n}", redelivered=n > 1, pid=n) for n in range(1, 5)]
    body = several(announced("k"), placeholder("b", "k", "chord_body"), nowhere())
    steps = [several(spawned("c", chords=("k",)), *deadly), body]
    assert play(passed_with(*steps), FINISHES).judge().status == "passed"


def test_a_descendant_that_a_worker_dropped_for_the_run_has_no_end() -> None:
    """That the run took it back is why it did not run, whatever the worker says then."""
    assert not end_of(tree_of(spawned("c"), recalled("stop"), ended("revoked", "y")), "c").has_end
    assert end_of(tree_of(spawned("c"), ended("revoked", "y")), "c").has_end


def test_each_descendant_that_ends_is_one_less_that_is_open() -> None:
    """Of three one has ended."""
    tree = tree_of(*(several(spawned(name), started(f"{name}-x")) for name in "cde"))
    assert tree.open_ones == 3
    tree.add(end_of(tree_of(child_ended("c")), "c"))
    assert (tree.open_ones, tree.is_complete()) == (2, False)


def test_what_no_task_has_started_is_in_no_tree() -> None:
    """An attempt is the root of one."""
    job = next(iter(play([sent()]).jobs.values()))
    with pytest.raises(ValueError, match="a1 was started by no task"):
        Tree("a1").add(Descendant(job, play([sent()]).judge().finding))


# Sentences

SPLIT = several(spawned("c"), started("y"), handed_on("canvas", "y"))
LATE_PART = several(SPLIT, spawned("d"), started("z"), time_over(), about("c"), nowhere())
TOO_LATE = (
    "The job was not seen to finish in time: its timeout is 60 s from the start (it ran longer "
    "than its timeout of 60 s and its worker sent no receipt)"
)
THEN = "see whether workers are running and free, and what held it up, or raise its limits"


def in_words(found: Finding) -> tuple[str, str]:
    return found.reason.sentence(found.status), found.reason.advice(found.status)


def test_the_sentence_of_a_descendant_names_it_its_parent_and_the_others() -> None:
    """And what to do is of its own end."""
    two = passed_with(child_ended("c", "failed"), child_ended("d", "failed"))
    assert in_words(play(two).judge().finding) == (
        (
            "The job passed, but its descendant 'tasks.part' (c), started by 'tasks.work', failed: "
            "The task raised ValueError: no on w1@h (pid 11); start from the worker's traceback. "
            "(1 more of its 2 descendants did not succeed)"
        ),
        "start from the worker's traceback",
    )
    late = passed_with(spawned("c"), started("y"), time_over())
    assert in_words(play(late).judge().finding) == (
        (
            "The job passed, but its descendant 'tasks.part' (c), started by 'tasks.work', "
            f"timed out: {TOO_LATE}; {THEN}. (it has 1 descendant)"
        ),
        THEN,
    )


def test_the_sentence_of_a_job_that_was_handed_on_says_so() -> None:
    """It has no end of its own then."""
    steps = [sent(), started(), handed_on("canvas"), child_ended("c", "revoked"), of_root()]
    sentence, _ = in_words(play([*steps, nowhere()]).judge().finding)
    assert sentence.startswith("The job was handed on to others, and its descendant 'tasks.part'")


def test_the_sentence_of_a_split_task_is_that_of_its_part() -> None:
    """With what to do."""
    assert in_words(end_of(tree_of(LATE_PART), "c").finding) == (
        f"The task was handed on to others, and 'tasks.part' (d) timed out: {TOO_LATE}; {THEN}.",
        THEN,
    )


def test_the_sentence_of_unknown_descendants_says_why_they_are() -> None:
    """In brackets."""
    sentence, _ = in_words(play([sent(), stored()], GIVEN).judge().finding)
    assert "is not known (its worker sends no receipts); use workers" in sentence


def test_the_descendant_that_a_verdict_rests_on() -> None:
    """Also where its job was reused; None where it rests on none."""
    found = play(passed_with(child_ended("c", "failed"))).judge().finding
    reason = found.reason
    again = Reused(run="run-0", why=reason)
    verdicts = [verdict_of("e1", 1, "failed", one) for one in (reason, again, UNEXPLAINED)]
    assert [descendant_of(one) for one in verdicts] == [reason, reason, None]


@pytest.mark.parametrize(
    ("entry", "does"),
    [(an_entry(), False), (GIVEN, True), (an_entry(expect={"descendants": "ignored"}), False)],
)
def test_an_entry_may_expect_something_of_its_descendants(entry: Entry, does: bool) -> None:
    """Where it says what, and not that they do not matter."""
    assert expects_something(entry) is does


# What a receipt must have

WAITS = an_entry(expect={"max_wait": 9.0})
INCOMPLETE: list[tuple[dict[str, object], str]] = [
    (
        {"started_at": None, "finished_at": None, "runtime": None},
        "started_at, finished_at, runtime",
    ),
    ({"wait": None}, "wait"),
    ({"executions": 0}, "executions"),
    ({"sent_at": None}, "sent_at"),
    ({"args_sha256": None}, "args_sha256"),
    ({"code": None}, "code"),
    ({"result_sha256": None}, "result_sha256"),
]


@pytest.mark.parametrize(("fields", "names"), INCOMPLETE, ids=[names for _, names in INCOMPLETE])
def test_what_a_receipt_leaves_out_is_named(fields: dict[str, object], names: str) -> None:
    """Of what a worker always reports of a task that it ran."""
    found = play([sent(), started(), ended(**fields)], WAITS).judge().finding
    assert (found.status, found.reason.document().get("names")) == ("unknown", names)


@pytest.mark.parametrize(
    ("steps", "entry"),
    [
        ([sent(), started(), ended(wait=None)], an_entry()),
        (
            [
                *(sent(), started(), handed_on("task"), started("x2", hop=1)),
                ended("succeeded", "x2", replaced=True, code=None),
            ],
            an_entry(),
        ),
        (
            [sent(), started(), ended(args_sha256=None)],
            an_entry(kwargs={"at": {"__type__": "datetime", "__value__": "2026-03-01"}}),
        ),
        (
            [sent(), started(), ended(result_sha256=None, evidence={"result_not_json": True})],
            an_entry(),
        ),
        ([sent(), started(), ended("failed")], an_entry(expect={"state": "failed"})),
    ],
    ids=["a wait", "code", "dates", "a result", "an error"],
)
def test_what_a_receipt_need_not_have(steps: list[Step], entry: Entry) -> None:
    """As nobody asks for it, or its worker cannot know it."""
    assert play(steps, entry).judge().status == "passed"
