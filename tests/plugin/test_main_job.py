"""The main job: ``pytest --manifest=FILE`` on the embedded stack."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from pytest_manifest.ledger import Ledger
from pytest_manifest.run.locks import RunLock
from pytest_manifest.schema import Verdict
from tests.plugin.conftest import Project

MEMORY = "--manifest-broker=memory://"
LATER = pytest.mark.ring(2)
"""Under xdist in other ways, which take the same paths as those of the first ring."""


def test_every_entry_is_a_test_and_runs_once(project: Project) -> None:
    """Six entries are six passed tests, each job's code ran once, and the documents are written."""
    project.workers(2)
    project.doubles(count=6)
    result = project.run("--manifest=m.jsonl", "-v")
    result.assert_outcomes(passed=6)
    result.stdout.fnmatch_lines(["*m.jsonl::entry[[]d-3] PASSED*"])
    result.stdout.fnmatch_lines(["m.jsonl: run *, 6 entries: 6 passed", "*ledger*.sqlite"])
    assert project.ran() == {f"d-{n}": 1 for n in range(6)}
    (log,) = (project.path / ".manifest/runs").glob("*.worker-*.log")
    assert "jobs.double" in log.read_text("utf-8")
    receipts = next((project.path / ".manifest/runs").glob("*.receipts.jsonl"))
    rows = [json.loads(line) for line in receipts.read_text("utf-8").splitlines()]
    assert [row["entry"] for row in rows] == [f"d-{n}" for n in range(6)]
    assert all(row["worker"] and row["pid"] and row["runtime"] is not None for row in rows)


@pytest.mark.parametrize(
    "workers",
    [pytest.param("0", marks=LATER), "2", pytest.param("4", marks=LATER)],
)
def test_dispatch_is_exactly_once_under_xdist(project: Project, workers: str) -> None:
    """However many xdist workers collect, every job's code runs once."""
    project.doubles(count=30)
    result = project.run("--manifest=m.jsonl", "-n", workers)
    result.assert_outcomes(passed=30)
    assert project.ran() == {f"d-{n}": 1 for n in range(30)}
    assert len(project.ledgers()) == 1


@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (("-k", "d-1 or d-4"), {"d-1", "d-4"}),
        (("-m", "odd"), {"d-1", "d-3", "d-5"}),
        (("-m", "odd", "-n", "2"), {"d-1", "d-3", "d-5"}),
        (("m.jsonl::entry[d-2]",), {"d-2"}),
        pytest.param(("m.jsonl::entry[d-2]", "-n", "2"), {"d-2"}, marks=LATER),
    ],
    ids=["k", "m", "m-xdist", "node-id", "node-id-xdist"],
)
def test_only_what_is_selected_is_dispatched(
    project: Project, choice: tuple[str, ...], expected: set[str]
) -> None:
    """-k, -m and node ids choose entries, and the others are not sent."""
    project.doubles(count=6)
    result = project.run("--manifest=m.jsonl", *choice)
    assert result.parseoutcomes()["passed"] == len(expected)
    assert set(project.ran()) == expected


def test_a_file_whose_name_is_no_text_is_refused(project: Project) -> None:
    """Also where it is named as a path: pytest's cache could not write it down."""
    project.doubles(count=1).rename(project.path / "b\udcff.jsonl")
    result = project.run("b\udcff.jsonl", "--manifest-broker=memory://")
    assert "INTERNALERROR" not in result.stdout.str()
    result.stdout.fnmatch_lines(["*b\\udcff.jsonl: the file's name is not UTF-8*rename it"])
    assert not project.ran()


@pytest.mark.usefixtures("in_memory")
def test_ids_are_shown_and_selected_as_typed(project: Project) -> None:
    """Ids with letters beyond ASCII, slashes, brackets and colons work as node ids."""
    names = ["données/é[0]::x", "s3://bucket/キー", "plain"]
    project.manifest(
        "m.jsonl",
        [{"id": i, "task": "jobs.double", "kwargs": {"n": 1, "key": i}} for i in names],
    )
    listed = project.run("--manifest=m.jsonl", "--collect-only", "-q")
    listed.stdout.fnmatch_lines([f"m.jsonl::entry[[]{i.replace('[', '[[]')}]" for i in names])
    result = project.run("--manifest=m.jsonl", f"m.jsonl::entry[{names[0]}]", "-v")
    result.assert_outcomes(passed=1)
    assert set(project.ran()) == {names[0]}


@pytest.mark.usefixtures("in_memory")
def test_last_failed_dispatches_only_what_failed(project: Project) -> None:
    """--lf sends the entry that failed, and no other."""
    project.manifest(
        "m.jsonl",
        [
            {"id": "good", "task": "jobs.double", "kwargs": {"n": 1, "key": "good"}},
            {"id": "bad", "task": "jobs.fail", "kwargs": {"message": "no", "key": "bad"}},
        ],
    )
    project.run("--manifest=m.jsonl").assert_outcomes(passed=1, failed=1)
    project.run("--manifest=m.jsonl", "--lf").assert_outcomes(failed=1)
    assert project.ran() == {"good": 1, "bad": 2}


@pytest.mark.parametrize("xdist", [(), ("-n", "2")], ids=["plain", "xdist"])
def test_collect_only_dispatches_nothing(project: Project, xdist: tuple[str, ...]) -> None:
    """--collect-only shows the entries and makes no ledger."""
    project.doubles(count=3)
    result = project.run("--manifest=m.jsonl", "--collect-only", "-q", *xdist)
    assert result.ret == 0
    assert not project.ran()
    assert not project.ledgers()


@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize("option", ["--setup-plan", "--setup-only"])
def test_where_no_test_runs_nothing_is_sent(project: Project, option: str) -> None:
    """Fixtures are shown, or set up; no job runs, and no entry fails for want of a verdict."""
    project.doubles(count=3)
    for grouped in ([], ["--manifest-aggregate=chunk:2"]):
        result = project.run("--manifest=m.jsonl", option, *grouped)
        assert result.ret == pytest.ExitCode.OK
        assert not {"failed", "errors"} & result.parseoutcomes().keys()
    assert not project.ran()
    assert not project.ledgers()


@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize("xdist", [(), ("-n", "1")], ids=["plain", "xdist"])
def test_a_collection_error_dispatches_nothing(project: Project, xdist: tuple[str, ...]) -> None:
    """A test module that cannot be imported stops everything before a job is sent."""
    project.doubles(count=3)
    project.write("test_broken.py", "import nothing_of_that_name\n")
    result = project.run("--manifest=m.jsonl", "m.jsonl", "test_broken.py", *xdist)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert not project.ran()


@pytest.mark.usefixtures("in_memory")
def test_differing_collections_dispatch_nothing(project: Project) -> None:
    """Where xdist refuses the run because collections differ, nothing is sent."""
    project.doubles(count=3)
    project.write(
        "conftest.py",
        """
import os
def pytest_collection_modifyitems(items):
    if os.environ.get("PYTEST_XDIST_WORKER") == "gw1":
        items.reverse()
""",
    )
    result = project.run("--manifest=m.jsonl", "-n", "2")
    result.stdout.fnmatch_lines(["*Different tests were collected*"])
    assert not project.ran()


@pytest.mark.usefixtures("in_memory")
def test_several_manifests_in_one_session(project: Project) -> None:
    """Each manifest is a run of its own."""
    project.doubles("a.jsonl", count=2)
    project.doubles("b.jsonl", count=3)
    result = project.run("--manifest=a.jsonl", "--manifest=b.jsonl", "-v")
    result.assert_outcomes(passed=5)
    result.stdout.fnmatch_lines_random(
        ["a.jsonl::entry[[]d-1] PASSED*", "b.jsonl::entry[[]d-1] PASSED*"]
    )
    assert len(project.ledgers()) == 2


def test_tests_run_as_completed(project: Project) -> None:
    """A slow first entry does not hold back the verdicts of the quick ones behind it: here it ends
    once the test of one of them has."""
    project.workers(2)
    project.hold("slow")
    project.write(
        "conftest.py",
        """
from pathlib import Path

def pytest_runtest_logreport(report):
    if report.when == "teardown":
        Path(__file__).with_name("hold-slow").unlink(missing_ok=True)
""",
    )
    entries: list[dict[str, object]] = [
        {"id": "slow", "task": "jobs.hold", "args": ["slow"], "timeout": 20}
    ]
    entries += [{"id": f"quick-{n}", "task": "jobs.double", "args": [n]} for n in range(3)]
    project.manifest("m.jsonl", entries)
    result = project.run("--manifest=m.jsonl", "-v")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["*quick-*] PASSED*", "*slow] PASSED*"])


@pytest.mark.usefixtures("in_memory")
def test_a_crashed_xdist_worker_costs_no_verdict(project: Project) -> None:
    """The entry that a dying xdist worker was judging is judged again, and passes."""
    project.doubles(count=8)
    project.write(
        "conftest.py",
        """
import os
from pathlib import Path
import pytest

@pytest.hookimpl(trylast=True)
def pytest_runtest_setup(item):
    marker = Path(__file__).with_name("crashed")
    if item.name == "entry[d-3]" and not marker.exists():
        marker.touch()
        os._exit(1)
""",
    )
    result = project.run("--manifest=m.jsonl", "-n", "2")
    outcomes = result.parseoutcomes()
    assert outcomes["passed"] == 8
    assert "failed" not in outcomes
    assert project.ran() == {f"d-{n}": 1 for n in range(8)}


CRASH_ONCE = """
import os
from pathlib import Path
import pytest

@pytest.hookimpl(trylast=True)
def pytest_runtest_setup(item):
    marker = Path(__file__).with_name("crashed")
    if item.name == "entry[d-1]" and not marker.exists():
        marker.touch()
        os._exit(1)
"""


@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=LATER)])
def test_no_verdict_is_swallowed_when_xdist_gives_up(project: Project, workers: str) -> None:
    """Where no crashed worker may be replaced, the session is not green."""
    project.doubles(count=6)
    project.write("conftest.py", CRASH_ONCE)
    result = project.run("--manifest=m.jsonl", "-n", workers, "--max-worker-restart=0")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert result.parseoutcomes()["failed"] == 1


@pytest.mark.ring(2)
@pytest.mark.usefixtures("in_memory")
def test_another_distribution_judges_again_too(project: Project) -> None:
    """The entry of a crashed xdist worker is judged again under worksteal as well."""
    project.doubles(count=6)
    project.write("conftest.py", CRASH_ONCE)
    result = project.run("--manifest=m.jsonl", "-n", "2", "--dist", "worksteal")
    assert result.ret == 0
    assert result.parseoutcomes()["passed"] == 6


@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize(
    "options",
    [
        *("--sw", "--ff", "--maxfail=2"),
        *(pytest.param(given, marks=LATER) for given in ("--maxfail=2 -n2", "--ff -n2")),
    ],
)
def test_other_orders_and_limits_work(project: Project, options: str) -> None:
    """Options that want the file's own order, or stop later, change nothing about the verdicts."""
    project.doubles(count=5)
    result = project.run("--manifest=m.jsonl", *options.split())
    result.assert_outcomes(passed=5)
    assert project.ran() == {f"d-{n}": 1 for n in range(5)}


@pytest.mark.usefixtures("in_memory")
def test_a_small_window_sends_everything_in_the_end(project: Project) -> None:
    """With two entries in flight at most, all ten run, once each."""
    project.doubles(count=10)
    project.run("--manifest=m.jsonl", "--manifest-window=2").assert_outcomes(passed=10)
    assert project.ran() == {f"d-{n}": 1 for n in range(10)}


@pytest.mark.usefixtures("in_memory")
def test_a_refused_manifest_keeps_the_others_from_being_sent(project: Project) -> None:
    """All runs are looked over before the first one sends."""
    project.doubles("a.jsonl", count=2)
    project.manifest("b.jsonl", [{"id": "x", "task": "jobs.nobody", "expect": {"result": None}}])
    result = project.run("--manifest=a.jsonl", "--manifest=b.jsonl", "--manifest-strict")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*no worker knows the task 'jobs.nobody'*"])
    assert not project.ran()
    project.run("--manifest=a.jsonl").assert_outcomes(passed=2)


@pytest.mark.usefixtures("in_memory")
def test_a_finished_run_is_one_file_and_needs_no_stack_to_audit(project: Project) -> None:
    """A copy of the ledger alone holds every receipt, and --manifest-audit needs nothing else."""
    project.doubles(count=3)
    project.run("--manifest=m.jsonl").assert_outcomes(passed=3)
    (ledger,) = project.ledgers()
    copy = project.path / "copy.sqlite"
    shutil.copyfile(ledger, copy)
    with Ledger.open(copy) as kept:
        assert [s.verdict.entry for s in kept.queries.all_verdicts()] == ["d-0", "d-1", "d-2"]
    receipts = ledger.with_suffix(".receipts.jsonl")
    assert receipts.stat().st_mode & 0o777 == 0o600
    project.run("--manifest=m.jsonl", "--manifest-audit").assert_outcomes(passed=3)
    assert sum(project.ran().values()) == 3


def test_a_run_is_followed_by_one_process(project: Project, broker: str) -> None:
    """An audit beside a process that follows the run is refused, and changes nothing."""
    project.doubles(count=2)
    project.run("--manifest=m.jsonl", MEMORY).assert_outcomes(passed=2)
    (ledger,) = project.ledgers()
    with Ledger.open(ledger, write=True) as kept:
        verdict = Verdict(verdict="pending", entry="d-0", attempt=1, sentence="not yet")
        kept.verdicts.record([(verdict, None)])
    lock = RunLock(ledger.with_suffix(".lock"))
    lock.acquire("the first")
    try:
        result = project.run(
            "--manifest=m.jsonl", "--manifest-audit", f"--manifest-broker={broker}"
        )
    finally:
        lock.release()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*is being followed by another pytest*"])


def test_pytest_may_be_started_in_a_subfolder(project: Project) -> None:
    """The application is found from where the configuration is."""
    project.doubles(count=2)
    below = project.path / "below"
    below.mkdir()
    os.chdir(below)  # pytester goes back when the test ends
    project.run("--manifest=../m.jsonl").assert_outcomes(passed=2)


def test_an_app_that_answers_in_pickle_works(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its workers answer the readiness probe in the serializer that the app chose."""
    monkeypatch.setenv("C_FORCE_ROOT", "1")
    text = (project.path / "jobs.py").read_text("utf-8")
    conf = 'app.conf.update(task_serializer="pickle", accept_content=["pickle", "json"])'
    project.write("jobs.py", f"{text}\n{conf}\n")
    project.doubles(count=2)
    project.run("--manifest=m.jsonl").assert_outcomes(passed=2)


def test_a_stack_in_memory_is_for_one_pytest(project: Project) -> None:
    """It is refused where it would have to outlive the process that it runs in."""
    project.doubles(count=3)
    result = project.run("--manifest=m.jsonl", MEMORY, "--manifest-dispatch-only")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*in memory ends with this pytest*"])


def test_dependencies_are_refused_where_nobody_stays(project: Project) -> None:
    """After --manifest-dispatch-only no one could send an entry when its dependencies passed."""
    project.manifest(
        "m.jsonl",
        [
            {"id": "a", "task": "jobs.double", "kwargs": {"n": 1, "key": "a"}},
            {"id": "b", "task": "jobs.double", "kwargs": {"n": 1, "key": "b"}, "after": ["a"]},
        ],
    )
    broker = "--manifest-broker=redis://127.0.0.1:1/0"
    result = project.run("--manifest=m.jsonl", "--manifest-dispatch-only", broker)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*entry 'b' waits for others*"])
    assert not project.ran()


def test_the_environments_result_store_does_not_disturb_other_sessions(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A result store in the environment without a broker concerns no ordinary pytest call."""
    monkeypatch.setenv("CELERY_RESULT_BACKEND", "redis://127.0.0.1:1/0")
    project.write("test_plain.py", "def test_plain(): pass\n")
    project.run().assert_outcomes(passed=1)
    project.doubles(count=1)
    project.run("--manifest=m.jsonl").assert_outcomes(passed=1)


@pytest.mark.usefixtures("in_memory")
def test_ordinary_tests_run_beside_the_entries(project: Project) -> None:
    """Tests that have nothing to do with manifests run as ever, in the same session."""
    project.doubles(count=2)
    project.write("test_plain.py", "def test_plain(): pass\n")
    result = project.run("--manifest=m.jsonl", "m.jsonl", "test_plain.py")
    result.assert_outcomes(passed=3)


def test_a_projects_own_fixtures_are_left_alone(project: Project) -> None:
    """Fixtures ``receipt``, ``entry`` or ``manifest`` that a project defines stay its own."""
    project.write(
        "test_own.py",
        """
import pytest

@pytest.fixture
def receipt(): return 1

@pytest.fixture
def entry(): return 2

@pytest.fixture
def manifest(): return 3

def test_own(receipt, entry, manifest): assert (receipt, entry, manifest) == (1, 2, 3)
""",
    )
    project.run().assert_outcomes(passed=1)


def test_an_idle_plugin_does_nothing(project: Project) -> None:
    """Without a manifest nothing is started or written, with and without xdist."""
    project.write("test_plain.py", "def test_one(): pass\ndef test_two(): pass\n")
    project.run().assert_outcomes(passed=2)
    project.run("-n", "1").assert_outcomes(passed=2)
    assert not (project.path / ".manifest").exists()


@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize(
    "xdist", [(), pytest.param(("-n", "1"), marks=LATER)], ids=["plain", "xdist"]
)
def test_allure_and_junit_have_a_result_for_each_entry(
    project: Project, xdist: tuple[str, ...]
) -> None:
    """Reports know every entry by its id, once, also when a plan is made in the same call."""
    project.write(
        "conftest.py",
        """
from pytest_manifest import planning_fixture

@planning_fixture("demo:one")
def one(plan):
    for n in range(3):
        plan.add("jobs.double", id=f"d-{n}", kwargs={"n": n})
""",
    )
    result = project.run(
        "--manifest-plan=demo:one",
        "--manifest-plan-run",
        "--alluredir=allure",
        "--junitxml=junit.xml",
        *xdist,
    )
    result.assert_outcomes(passed=3)
    found = [
        json.loads(p.read_text("utf-8")) for p in (project.path / "allure").glob("*-result.json")
    ]
    assert sorted(row["name"] for row in found) == [f"d-{n}" for n in range(3)]
    assert len({row["historyId"] for row in found}) == 3
    junit = (project.path / "junit.xml").read_text("utf-8")
    for n in range(3):
        assert f'name="entry[d-{n}]"' in junit
    assert junit.count('name="manifest_verdict" value="passed"') == 3


@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize(
    "xdist", [(), pytest.param(("-n", "1"), marks=LATER)], ids=["plain", "xdist"]
)
def test_waiting_is_not_counted_by_pytest_timeout(project: Project, xdist: tuple[str, ...]) -> None:
    """A time limit for tests does not count the time that a job takes."""
    project.manifest("m.jsonl", [{"id": "nap", "task": "jobs.nap", "kwargs": {"sec": 2.5}}])
    project.run("--manifest=m.jsonl", "--timeout=2", *xdist).assert_outcomes(passed=1)


@pytest.mark.usefixtures("in_memory")
def test_a_tag_may_hold_any_sign(project: Project) -> None:
    """``owner:ann`` is a marker like any other, and a run with it may be strict."""
    rows = [
        {"id": "a", "task": "jobs.double", "args": [1], "tags": ["owner:ann"]},
        {"id": "b", "task": "jobs.double", "args": [2], "tags": ["f(x)", "slow"]},
    ]
    project.manifest("m.jsonl", rows)
    result = project.run("--manifest=m.jsonl", "--strict-markers")
    result.assert_outcomes(passed=2)
    warned = "error::pytest.PytestUnknownMarkWarning"
    result = project.run("--manifest=m.jsonl", "-m", "owner:ann", "-W", warned)
    result.assert_outcomes(passed=1, deselected=1)
