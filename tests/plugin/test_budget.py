"""A budget: what a plan, a dispatch and a run may cost, and what a run has cost."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from pytest_manifest.ledger import BUDGET, OVER_BUDGET, Ledger
from pytest_manifest.verdict.judging import Costs
from tests.plugin.conftest import JOBS, Project
from tests.plugin.ways import BOTH, xdist_in

MEMORY = "--manifest-broker=memory://"
MORE = "--manifest-budget=MORE"
PAY = '''
from pytest_manifest import evidence


@app.task(name="jobs.pay")
def pay(key, cost=None, fails=False, dies=False):
    """Costs so much, and says so in its evidence."""
    first = key not in Path(__file__).with_name("ran.txt").read_text() if dies else False
    count(key)
    if first:
        os.kill(os.getpid(), signal.SIGKILL)
    if cost is not None:
        evidence(cost=cost)
    if fails:
        raise ValueError(f"{key} fails")
    return {"key": key}


@app.task(name="jobs.bill")
def bill(key, cost):
    """Costs so much, and says so in its result."""
    count(key)
    return {"cost": cost}
'''
NEST = """

@app.task(name="jobs.nest")
def nest(cost):
    return {"film": {"cost": cost}}
"""
PLANS = '''
from pytest_manifest import planning_fixture


@planning_fixture("pay:all")
def pay_all(plan, *, limit: int = 4, cost: float = 0.5):
    """So many jobs."""
    plan.note(f"{limit} passages are not annotated")
    plan.note("prices of 2026-11-24")
    for n in range(limit):
        plan.add("jobs.pay", id=f"p-{n}", args=[f"p-{n}", cost], cost=cost)
'''
PLAN_AND_RUN = pytest.mark.parametrize(
    "run",
    [
        (),
        ("--manifest-plan-run", MEMORY),
        pytest.param(("--manifest-plan-run", MEMORY, "-n", "2"), marks=pytest.mark.ring(2)),
    ],
    ids=["plan", "run", "xdist"],
)
WHOLE = """
def test_cost(manifest_run):
    print("told", manifest_run.run, manifest_run.budget, manifest_run.cost())
"""


@pytest.fixture
def paying(project: Project) -> Project:
    """A project whose jobs cost something."""
    project.write("jobs.py", JOBS + PAY)
    project.write("conftest.py", PLANS)
    return project


def jobs(
    project: Project,
    count: int = 4,
    *,
    estimate: float | None = 0.5,
    cost: float | None = 0.5,
    task: str = "jobs.pay",
    **fields: object,
) -> None:
    """A manifest m.jsonl of entries p-0, p-1, ..., each of which costs so much."""
    given: Mapping[str, object] = {} if estimate is None else {"cost": estimate}
    rows = [
        {"id": f"p-{n}", "task": task, "args": [f"p-{n}", cost], **given, **fields}
        for n in range(count)
    ]
    project.manifest("m.jsonl", rows)


def cost(project: Project) -> float:
    """What the newest run has cost, by its ledger."""
    from pytest_manifest.manifest import read_manifest

    with Ledger.open(project.ledgers()[-1]) as ledger:
        return Costs(ledger, read_manifest(project.path / "m.jsonl")).total()


# Plans


def test_a_planner_says_something_beside_the_preview(paying: Project) -> None:
    """Under the preview, in its order; the file does not have it."""
    result = paying.run("--manifest-plan=pay:all")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            "  estimated cost 2",
            "  4 passages are not annotated",
            "  prices of 2026-11-24",
            "nothing was sent; to dispatch it: *",
        ],
        consecutive=True,
    )
    assert "prices" not in (paying.path / "manifests/pay_all_01.jsonl").read_text("utf-8")


@PLAN_AND_RUN
def test_an_empty_plan_says_it_too_and_does_nothing(paying: Project, run: tuple[str, ...]) -> None:
    """Exit status 0, no file, nothing sent."""
    result = paying.run("--manifest-plan=pay", "--manifest-plan-opt", "limit=0", *run)
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            "plan pay: nothing to do; no manifest was written, nothing was sent",
            "  0 passages are not annotated",
            "  prices of 2026-11-24",
        ],
        consecutive=True,
    )
    assert not (paying.path / "manifests").exists()
    assert not paying.ledgers()


@pytest.mark.ring(2)
@PLAN_AND_RUN
def test_a_plan_beyond_the_budget_is_not_written(paying: Project, run: tuple[str, ...]) -> None:
    """One sentence says how much, how many, and what to do."""
    result = paying.run("--manifest-plan=pay:all", "--manifest-budget=1.5", *run)
    assert result.ret != 0
    output = result.stdout.str() + result.stderr.str()
    assert (
        "plan pay:all: 4 entries are estimated to cost 2, and --manifest-budget is 1.5, so no "
        "manifest was written; plan less (--manifest-plan-opt limit=N), or allow more with a "
        "larger --manifest-budget"
    ) in output
    assert "Traceback" not in output
    assert not (paying.path / "manifests").exists()
    assert not paying.ledgers()
    assert paying.run("--manifest-plan=pay:all", "--manifest-budget=2", *run).ret == 0


# Before anything is sent


@pytest.mark.parametrize("xdist", xdist_in(pytest.mark.ring(2)))
def test_what_is_estimated_beyond_the_budget_is_not_sent(
    paying: Project, xdist: tuple[str, ...]
) -> None:
    """Refused as a usage error; what is selected counts, not what stands in the file."""
    jobs(paying)
    result = paying.run("--manifest=m.jsonl", MEMORY, "--manifest-budget=1", *xdist)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    sentence = (
        "m.jsonl: nothing was sent: 4 entries are estimated to cost 2, and --manifest-budget is 1; "
        "send fewer"
    )
    assert sentence in result.stdout.str() + result.stderr.str()
    assert not paying.ran()
    assert not paying.ledgers()
    chosen = ("-k", "p-0 or p-1")
    result = paying.run("--manifest=m.jsonl", MEMORY, "--manifest-budget=1", *chosen, *xdist)
    result.assert_outcomes(passed=2, deselected=0 if xdist else 2)


def test_with_dispatch_only_a_budget_is_refused(paying: Project) -> None:
    """Nobody stays to count; one of the configuration file does not apply."""
    jobs(paying)
    result = paying.run("--manifest=m.jsonl", "--manifest-dispatch-only", "--manifest-budget=5")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["*has pytest end before the jobs do; leave out --manifest-budget*"]
    )


# While it runs


def test_how_to_go_on_is_said_quietly_too(paying: Project) -> None:
    """With ``-q`` what nobody may miss is still there: here, why the session is not green."""
    jobs(paying, 4, estimate=0.5, cost=1.0)
    options = ("--manifest-budget=2", "--manifest-window=1", "-q")
    result = paying.run("--manifest=m.jsonl", MEMORY, *options)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            "m.jsonl: run *, 4 entries: 2 passed, 2 skipped",
            f"  to go on: pytest --manifest=m.jsonl --manifest-resume {MORE} {MEMORY}",
        ]
    )


def test_sending_ends_when_the_money_is_spent(paying: Project) -> None:
    """The rest is skipped and says why; the session is not green, and the summary has the cost."""
    jobs(paying, 6, estimate=0.5, cost=1.0)
    options = ("--manifest-budget=3", "--manifest-window=1", "-rs")
    result = paying.run("--manifest=m.jsonl", MEMORY, *options)
    result.assert_outcomes(passed=3, skipped=3)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert paying.order() == ["p-0", "p-1", "p-2"]
    result.stdout.fnmatch_lines(
        [
            "m.jsonl: run *, 6 entries: 3 passed, 3 skipped",
            "  cost 3 of a budget of 3",
            "SKIPPED [[]3[]]*(the run has cost 3 of its budget of 3; --manifest-resume *",
            f"  to go on: pytest --manifest=m.jsonl --manifest-resume {MORE} {MEMORY}",
        ]
    )


@pytest.mark.ring(2)
def test_a_run_is_gone_on_with_by_more_money(paying: Project) -> None:
    """What it has cost counts: what is left must fit beside it."""
    jobs(paying, 6, estimate=0.5, cost=1.0)
    stopped = ("--manifest-budget=3", "--manifest-window=1")
    paying.run("--manifest=m.jsonl", MEMORY, *stopped).assert_outcomes(passed=3, skipped=3)
    result = paying.run("--manifest=m.jsonl", MEMORY, "--manifest-resume", "--manifest-budget=4")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    sentence = (
        "m.jsonl: nothing was sent: the run has cost 3 already, 3 entries are estimated to cost "
        "1.5 more, and --manifest-budget is 4"
    )
    assert sentence in result.stdout.str() + result.stderr.str()
    assert sum(paying.ran().values()) == 3
    assert list(paying.verdicts().values()).count("skipped") == 3
    audited = paying.run("--manifest=m.jsonl", "--manifest-audit")
    audited.assert_outcomes(passed=3, skipped=3)
    assert audited.ret == pytest.ExitCode.TESTS_FAILED
    options = ("--manifest-resume", "--manifest-budget=4.5", "--manifest-window=1")
    result = paying.run("--manifest=m.jsonl", MEMORY, *options)
    result.assert_outcomes(passed=5, skipped=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["  cost 5 of a budget of 4.5"])
    result = paying.run("--manifest=m.jsonl", MEMORY, "--manifest-resume")
    result.assert_outcomes(passed=6)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["  cost 6"])
    assert len(paying.ledgers()) == 1
    assert set(paying.ran().values()) == {1}


def test_what_costs_less_than_estimated_leaves_money_for_others(paying: Project) -> None:
    """Four at an estimate of 0.5 are all that is allowed; each costs 0.1 and says so."""
    jobs(paying, 4, estimate=0.5, cost=0.1, task="jobs.bill")
    options = ("--manifest-budget=2", "--manifest-window=1")
    result = paying.run("--manifest=m.jsonl", MEMORY, *options)
    result.assert_outcomes(passed=4)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["  cost 0.4 of a budget of 2"])


def test_without_estimates_only_receipts_can_tell(paying: Project) -> None:
    """It is said once, and what has been spent ends the sending all the same."""
    jobs(paying, 4, estimate=None, cost=1.0)
    options = ("--manifest-budget=2", "--manifest-window=1")
    result = paying.run("--manifest=m.jsonl", MEMORY, *options)
    result.assert_outcomes(passed=2, skipped=2)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert result.stdout.str().count("4 of 4 entries have no estimated cost") == 1


def test_failed_jobs_have_cost_something(paying: Project) -> None:
    """And where nobody tells, the estimate counts."""
    rows: list[dict[str, object]] = [
        {"id": "f", "task": "jobs.pay", "args": ["f", 0.25, True], "cost": 1},
        {"id": "g", "task": "jobs.fail", "args": ["no", "g"], "cost": 1},
        {"id": "h", "task": "jobs.pay", "args": ["h", 0.25], "cost": 1},
    ]
    paying.manifest("m.jsonl", rows)
    result = paying.run("--manifest=m.jsonl", MEMORY, "--manifest-budget=3")
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(["  cost 1.5 of a budget of 3"])


@pytest.mark.live
@pytest.mark.ring(2)
def test_what_is_sent_again_is_paid_again(paying: Project) -> None:
    """The estimate of the crash, and what the second attempt tells."""
    rows = [
        {
            "id": "d",
            "task": "jobs.pay",
            "kwargs": {"key": "d", "cost": 0.25, "dies": True},
            "cost": 1,
            "idempotent": True,
            "retries": 1,
        }
    ]
    paying.write("ran.txt", "")
    paying.manifest("m.jsonl", rows)
    result = paying.run("--manifest=m.jsonl", "--manifest-budget=3")
    result.assert_outcomes(passed=1)
    assert paying.ran() == {"d": 2}
    result.stdout.fnmatch_lines(["  cost 1.25 of a budget of 3", "  further sendings: 1 crashed"])
    assert cost(paying) == 1.25


@pytest.mark.ring(2)
def test_a_budget_may_stand_in_the_configuration_file(paying: Project) -> None:
    """It applies to plans and runs, and the command line wins."""
    ini = (paying.path / "pytest.ini").read_text("utf-8")
    paying.write("pytest.ini", f"{ini}manifest_budget = 1\n")
    assert paying.run("--manifest-plan=pay:all").ret != 0
    jobs(paying)
    refused = paying.run("--manifest=m.jsonl", MEMORY)
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    paying.run("--manifest=m.jsonl", MEMORY, "--manifest-budget=2").assert_outcomes(passed=4)


# What tests and reports see


@pytest.mark.parametrize("xdist", BOTH)
def test_a_test_of_the_whole_run_sees_what_it_has_cost(
    paying: Project, xdist: tuple[str, ...]
) -> None:
    """Its id, its budget, and its cost, also in an xdist worker."""
    jobs(paying, 4, estimate=0.5, cost=0.25)
    paying.write("test_whole.py", WHOLE)
    names = ("test_whole.py", "m.jsonl", "--manifest=m.jsonl", MEMORY, "-rP")
    result = paying.run(*names, "--manifest-budget=2", *xdist)
    result.assert_outcomes(passed=5)
    run = paying.ledgers()[-1].stem
    result.stdout.fnmatch_lines([f"told {run} 2.0 1.0"])
    paying.run(*names, *xdist).stdout.fnmatch_lines(["told * None 1.0"])


def test_a_run_that_costs_nothing_says_nothing_of_costs(project: Project) -> None:
    """Neither a budget nor a receipt, whatever else it is called: no line about it."""
    row = {"id": "n", "task": "jobs.nest", "args": [1], "cost": 1}
    project.write("jobs.py", JOBS + NEST)
    project.manifest("m.jsonl", [row])
    result = project.run("--manifest=m.jsonl", MEMORY)
    result.stdout.no_fnmatch_line("  cost*")
    with Ledger.open(project.ledgers()[-1]) as ledger:
        assert not ledger.info.get_meta(BUDGET)
        assert not ledger.info.get_meta(OVER_BUDGET)


def test_exported_receipts_tell_the_cost_as_well(paying: Project) -> None:
    """--manifest-audit --manifest-receipts has no ledger of the run, and no budget."""
    jobs(paying)
    paying.run("--manifest=m.jsonl", MEMORY)
    receipts = next((paying.path / ".manifest" / "runs").glob("*.receipts.jsonl"))
    assert json.loads(receipts.read_text("utf-8").splitlines()[0])["evidence"] == {"cost": 0.5}
    kept = receipts.rename(paying.path / "r.jsonl")
    result = paying.run("--manifest=m.jsonl", "--manifest-audit", f"--manifest-receipts={kept}")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["  cost 2"])
