"""Judge entries by what a ledger has of them: of which attempts, which run, by which keys, when."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from pytest_manifest.errors import ManifestToolError
from pytest_manifest.ledger import RECEIPT_KEYS, Ledger
from pytest_manifest.ledger.jobs import LoadedAttempt
from pytest_manifest.ledger.verdicts import StoredReason
from pytest_manifest.run.fact_log import stamp
from pytest_manifest.schema import Entry, VerdictStatus
from pytest_manifest.schema.facts import Ended, Reused, Spawn
from pytest_manifest.schema.receipts import Reuse
from pytest_manifest.schema.run_facts import JobFacts, RunOver
from pytest_manifest.signing import generate
from pytest_manifest.verdict import judging as module
from pytest_manifest.verdict import problems
from pytest_manifest.verdict.judge import Judgement, Rules
from pytest_manifest.verdict.judging import (
    Judged,
    Judging,
    is_same,
    receipt_that_counts,
    recorded,
    signatures_of,
)
from pytest_manifest.verdict.reasons import Finding, Problem
from pytest_manifest.verdict.tree import Tree
from tests.reports import add_receipts, add_starts
from tests.reports import started as a_start
from tests.unit.judge_world import (
    BEGAN,
    RUN,
    Step,
    about,
    an_entry,
    announced,
    closed,
    ended,
    of_root,
    planned,
    play,
    resent,
    run_over,
    sent,
    several,
    spawned,
    started,
)
from tests.unit.ledger_support import receipt
from tests.unit.shards_support import Shards
from tests.unit.written_worlds import written

ENTRY = an_entry(idempotent=True, retries=9, expect={"descendants": "finished"})


@contextmanager
def kept(
    steps: Iterable[Step], folder: Path, entry: Entry = ENTRY, **world: bool
) -> Iterator[tuple[Ledger, Entry]]:
    """The ledger in which these steps are recorded, open, and the entry."""
    folder.mkdir(exist_ok=True)
    path, manifest = written(play(steps, entry, **world), folder)
    with Ledger.open(path, write=True) as ledger:
        yield ledger, manifest["e1"]


# Attempts and their trees

TREE: Sequence[Step] = [
    started(),
    spawned("c1"),
    started("y1"),
    announced("body", announcer="c1"),
    of_root(),
    ended(children=1),
]
"""A chord's body is announced, and not there yet."""
TRIES: Sequence[Step] = [
    sent(),
    started(),
    spawned("b1"),
    ended("failed", None),
    of_root(),
    ended("failed", children=1),
    resent(),
    *TREE,
    closed("body"),
    run_over(),
    several(about("c1"), ended("failed", "y1")),
]


def newest_seq(ledger: Ledger, entry: Entry) -> int:
    """The number of the newest of all that is known."""
    seqs = [one.seq for one in ledger.jobs.run_facts().facts]
    for attempt in ledger.jobs.of_entry(entry.id):
        for job in (attempt.own, *attempt.descendants):
            seqs += [job.job.seq, *(one.seq for one in job.facts)]
    return max(seqs)


@pytest.mark.parametrize(
    "steps",
    [
        TRIES,
        [sent(), started(), ended(children=1), spawned("c1"), ended()],
        [sent(), started(), ended("failed"), planned("retry")],
    ],
    ids=["two tries", "a task that is reported late", "a try that is not sent yet"],
)
def test_an_entry_is_judged_by_what_was_known_at_each_moment(
    steps: Sequence[Step], tmp_path: Path
) -> None:
    """Of each attempt, each task that it started and the run; nothing at all, and it is as now."""
    then: dict[int, Judgement] = {}
    for number in range(1, len(steps) + 1):
        with kept(steps[:number], tmp_path / str(number)) as (ledger, entry):
            then[newest_seq(ledger, entry)] = Judging(ledger).of(entry).judgement
            whole = ledger.path
    assert len({(one.status, one.code, one.attempt) for one in then.values()}) > 2
    with Ledger.open(whole) as ledger:
        judging = Judging(ledger)
        judged = judging.of(entry)
        assert {seq: judging.as_of(judged, seq).judgement for seq in then} == then
        assert judging.as_of(judged, 0) == judged


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([sent(), *TREE], id="one attempt, which awaits its tree"),
        pytest.param(TRIES[:-3], id="two attempts"),
        pytest.param([*TRIES[:6], resent(), started(), ended()], id="no tree of the last one"),
    ],
)
def test_a_tree_that_is_known_is_that_of_the_last_attempt(
    steps: Sequence[Step], tmp_path: Path
) -> None:
    """With what its own facts announce; the tasks of the tree are not loaded again."""
    with kept(steps, tmp_path) as (ledger, entry):
        judging = Judging(ledger)
        whole = judging.of(entry)
        last = whole.attempts[-1]
        tree = Tree(last.own.job.task_id)
        for facts in last.descendants:
            tree.add(judging.descendant(entry, last.own.job, facts))
        loaded = ledger.jobs.of_entries([entry.id], trees=False)[entry.id]
        found = judging.judge(entry, loaded, tree=tree).judgement
    assert found == whole.judgement
    assert found.goes_on == whole.judgement.goes_on


def test_a_tree_is_whole_where_all_that_its_root_counts_is_known(tmp_path: Path) -> None:
    steps = [sent(), started(), spawned("c1"), started("y1"), ended("succeeded", "y1")]
    with kept([*steps, of_root(), ended(children=1)], tmp_path) as (ledger, entry):
        assert Judging(ledger).of(entry).judgement.status == "passed"


def test_nothing_is_awaited_of_what_was_never_sent(tmp_path: Path) -> None:
    """It has no attempt, and so no receipt, whatever is known of a tree."""
    with kept([], tmp_path) as (ledger, entry):
        judging = Judging(ledger)
        verdict, told = recorded(judging.of(entry))
        assert (verdict.verdict, verdict.attempt, told) == ("pending", None, None)
        assert judging.judge(entry, [], tree=Tree("a1")) == judging.of(entry)


def test_the_rules_of_today_count(tmp_path: Path) -> None:
    with kept([sent(), started(), ended()], tmp_path) as (ledger, entry):
        judgement = Judging(ledger).of(entry, Rules(other_work="its task")).judgement
    assert (judgement.status, judgement.code) == ("unknown", "other_work")


def test_entries_are_judged_some_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a million are not held in memory together."""
    monkeypatch.setattr(module, "BATCH", 2)
    asked: list[str] = []

    def entries() -> Iterator[Entry]:
        for number in range(5):
            asked.append(f"e{number}")
            yield an_entry(id=f"e{number}")

    with kept([sent()], tmp_path) as (ledger, _):
        found = [(one.entry.id, len(asked)) for one in Judging(ledger).each(entries())]
    assert found == [("e0", 2), ("e1", 2), ("e2", 4), ("e3", 4), ("e4", 5)]


# Runs


def test_whether_workers_report_starts_is_a_fact_of_each_run(tmp_path: Path) -> None:
    with kept([sent()], tmp_path) as (ledger, _):
        found = [Judging(ledger, has_stream=one).run_facts(RUN) for one in (True, False)]
        assert [one.has_stream for one in found] == [True, False]
        assert Judging(ledger).run_facts(RUN).has_stream is True


def test_attempts_of_a_run_of_which_a_ledger_has_nothing_are_judged_by_its_own(
    tmp_path: Path,
) -> None:
    """As those of receipts that another run had reused."""
    with kept([sent(), started(), ended()], tmp_path) as (ledger, entry):
        [one] = ledger.jobs.of_entry(entry.id)
        others = LoadedAttempt(replace(one.own, job=replace(one.own.job, run="elsewhere")))
        assert Judging(ledger).judge(entry, [others]).judgement.status == "passed"


def test_a_task_of_a_reused_job_is_of_the_attempt_that_was_sent(tmp_path: Path) -> None:
    """Its reports name that one."""
    steps = [sent(), started(), spawned("c1"), started("y1"), ended("succeeded", "y1")]
    with kept(steps, tmp_path) as (ledger, entry):
        [one] = ledger.jobs.of_entry(entry.id)
        origin = Reused(run=RUN, entry="e1", attempt=1, by=RUN, at=BEGAN)
        root = replace(one.own.job, number=0, reused=origin)
        [child] = one.descendants
        taken = replace(child, job=replace(child.job, number=0))
        assert Judging(ledger).descendant(entry, root, taken).finding.status == "passed"


def test_a_task_that_a_job_started_is_judged_by_the_facts_of_its_shard(tmp_path: Path) -> None:
    """So is a job that another run had sent, by those of the shard that has reused it."""
    shards = Shards(tmp_path)
    with Ledger.open(shards.add(limits={"t": 1.0}), write=True) as ledger:
        ledger.facts.append([(None, RunOver(**stamp(), why="deadline", limit=9.0))])
    shards.add(limits={"t": 100.0})
    with Ledger.open(shards.merged()) as ledger:
        judging, merged = Judging(ledger), ledger.info.read().run
        found = []
        for row in ledger.attempts.all():
            entry = shards.manifest[row.entry]
            [one] = ledger.jobs.of_entry(row.entry)
            begun = tuple(fact for fact in one.own.facts if not isinstance(fact, Ended))
            root = one.own.job
            spawn = Spawn(root=root.task_id, parent=root.task_id, task="t", how="call")
            child = JobFacts(replace(root, task_id="c", spawn=spawn), begun)
            origin = Reused(run=root.run, entry=entry.id, attempt=1, by=root.run, at=root.at)
            taken = replace(one.own, job=replace(root, run=merged, reused=origin))
            judged = judging.of(entry)
            assert judging.as_of(judged, 1 << 62) == judged
            found += [
                judging.descendant(entry, root, child).finding.reason.code,
                judging.judge(entry, [LoadedAttempt(JobFacts(root, begun))]).judgement.code,
                judging.judge(entry, [LoadedAttempt(taken)]).judgement.status,
            ]
    assert found == [
        *("run_deadline", "run_deadline", "timed_out"),
        *("problem", "problem", "passed"),
    ]


# Keys


def test_keys_that_cannot_be_read_are_named_by_where_they_stand(tmp_path: Path) -> None:
    with kept([], tmp_path) as (ledger, _):
        assert signatures_of(ledger) is None
        ledger.info.set_meta(RECEIPT_KEYS, "none")
        with pytest.raises(ManifestToolError, match=f"^{RECEIPT_KEYS}"):
            signatures_of(ledger)


def test_ends_are_checked_by_the_present_keys_where_that_is_asked_for(tmp_path: Path) -> None:
    """As what a run has believed stays believed."""
    with kept([sent(), started(), ended()], tmp_path) as (ledger, entry):
        ledger.info.set_meta(RECEIPT_KEYS, generate()[1])
        assert Judging(ledger).of(entry).judgement.status == "passed"
        assert Judging(ledger, by_present_keys=True).of(entry).judgement.status != "passed"


# What is recorded


OF_EARLIER: Final = Reused(run="20261124T150000-89abcdef", entry="e0", attempt=2, by=RUN, at=BEGAN)


@pytest.mark.parametrize("origin", [OF_EARLIER, None])
@pytest.mark.parametrize("steps", [[sent(), started(), ended()], [sent(), started()]])
def test_a_receipt_that_is_reused_says_by_whom(
    steps: Sequence[Step], origin: Reused | None, tmp_path: Path
) -> None:
    """Where there is one."""
    with kept(steps, tmp_path) as (ledger, entry):
        found = Judging(ledger).of(entry)
    [one] = found.attempts
    attempt = LoadedAttempt(replace(one.own, job=replace(one.own.job, reused=origin)))
    verdict, told = recorded(Judged(entry, [attempt], found.judgement))
    assert verdict.verdict == found.judgement.status
    assert (told is None) == (len(steps) == 2)
    if told is not None:
        mark = None if origin is None else Reuse(run=RUN, entry="e1", at=BEGAN)
        assert told.reused == mark
        assert told.model_copy(update={"reused": None}) == found.judgement.receipt


NOWHERE: Final = problems.NeverSent()
QUEUED: Final = problems.InQueue()


def document(of: Problem, status: VerdictStatus) -> dict[str, Any]:
    return {**of.of(an_entry(), status).document()}


@pytest.mark.parametrize(
    ("status", "is_final", "was", "reason", "same"),
    [
        ("lost", True, "lost", NOWHERE, True),
        ("lost", True, "lost", QUEUED, False),
        ("lost", True, "crashed", NOWHERE, False),
        ("lost", True, "lost", None, True),
        ("pending", False, "pending", QUEUED, True),
        ("pending", False, "lost", NOWHERE, False),
        ("pending", False, "unknown", NOWHERE, False),
        ("pending", False, "unknown", problems.Left(because="It may run", why=NOWHERE), True),
        ("pending", False, "unknown", problems.Left(because="It may run", why=QUEUED), False),
        ("lost", True, "unknown", problems.Left(because="It may run", why=NOWHERE), False),
        ("lost", True, "lost", problems.Left(because="It may run", why=NOWHERE), True),
        ("unknown", False, "unknown", NOWHERE, True),
    ],
)
def test_what_is_stored_is_the_same_by_its_status_and_its_reason(
    status: VerdictStatus, is_final: bool, was: VerdictStatus, reason: Problem | None, same: bool
) -> None:
    """Of what a resume has left, by the reason that it had for that; of what goes on, by status."""
    finding = Finding(status, NOWHERE.of(an_entry(), status))
    stored = StoredReason(1, was, {} if reason is None else document(reason, was))
    judged = Judged(an_entry(), [], Judgement(finding, 1, is_final))
    assert is_same(judged, stored) == same


# The receipt of a job


def test_a_job_without_a_receipt_has_none_that_counts(tmp_path: Path) -> None:
    with kept([sent(), started()], tmp_path) as (ledger, _):
        assert receipt_that_counts(ledger, "a1") is None


@pytest.mark.parametrize(
    ("told", "starts", "counts"),
    [
        pytest.param([("x1", {})], [], ("x1", 1), id="one"),
        pytest.param([("x1", {})], ["x1", "x2"], ("x1", 2), id="by its starts it ran twice"),
        pytest.param(
            [("x1", {}), ("x2", {})], ["x1", "x2"], ("x2", 2), id="that of the last execution"
        ),
        pytest.param(
            [("x1", {"task_id": "other"}), ("x2", {})], [], ("x2", 1), id="not of another job"
        ),
        pytest.param(
            [("x1", {}), ("x2", {"task_id": "other"})], [], ("x1", 1), id="which came later"
        ),
        pytest.param(
            [("x1", {}), ("x2", {"entry": "e7"})], [], ("x1", 1), id="nor of another entry"
        ),
        pytest.param(
            [("x1", {}), ("x2", {"attempt": 2})], [], ("x1", 1), id="nor of another attempt"
        ),
        pytest.param([("x1", {}), ("x2", {"run": "run-7"})], [], ("x1", 1), id="nor of a run"),
        pytest.param(
            [("x1", {"task_id": "other"}), ("x2", {"task_id": "more"})],
            [],
            ("x2", 1),
            id="the last one where none is of the job",
        ),
        pytest.param([("x1", {"task_id": "other"})], [], ("x1", 1), id="the only one"),
        pytest.param([("x1", {"state": "revoked"})], [], ("x1", 1), id="it was taken back"),
    ],
)
def test_the_receipt_that_counts_is_of_the_job_and_knows_its_starts(
    told: Sequence[tuple[str, Mapping[str, object]]],
    starts: Sequence[str],
    counts: tuple[str, int],
    tmp_path: Path,
) -> None:
    with kept([sent()], tmp_path) as (ledger, _):
        add_starts(ledger, [a_start("a1", name, BEGAN) for name in starts])
        said = {"entry": "e1", "run": RUN, "task_id": "a1", "executions": 1, "source": "worker"}
        add_receipts(
            ledger,
            [
                ("a1", name, receipt(**{**said, "execution": name, **more}))  # type: ignore[arg-type]  # the table's words
                for name, more in told
            ],
        )
        found = receipt_that_counts(ledger, "a1")
    assert found is not None
    assert (found.execution, found.executions) == counts
