"""``--manifest-shard``: a manifest in parts, each a session of its own, and merged afterwards."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from pytest_manifest.ledger import Ledger
from tests.plugin.conftest import Project, kill_in_the_middle
from tests.unit.cli_support import manifest

MEMORY = "--manifest-broker=memory://"
XDIST = pytest.mark.parametrize(
    "xdist", [(), pytest.param(("-n", "1"), marks=pytest.mark.ring(2))], ids=["plain", "xdist"]
)


def shard(project: Project, text: str, *arguments: str) -> pytest.RunResult:
    return project.run("--manifest=m.jsonl", f"--manifest-shard={text}", *arguments)


def merge(project: Project, ledgers: Sequence[Path]) -> str:
    """Merge the ledgers with the command; returns the new run's id."""
    found = re.search(r"--manifest-run=(\S+)", manifest("merge", *map(str, ledgers)))
    assert found is not None
    return found[1]


def chain(project: Project) -> None:
    """Five doubles d-0 ... d-4 of which d-3 waits for d-0, and d-2 fails."""
    path = project.doubles(count=5)
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    rows[3]["after"] = ["d-0"]
    rows[2]["expect"] = {"result": {"n": 5}}
    project.manifest("m.jsonl", rows)


@pytest.mark.ring(2)
def test_shards_are_merged_and_judged_as_one(project: Project) -> None:
    """Each session sends its own entries alone; the merged run has them all, in every report."""
    chain(project)
    # groups: d-0 with d-3, d-1, d-2, d-4
    first = shard(project, "1/2", MEMORY)
    first.assert_outcomes(passed=2, failed=1)
    first.stdout.fnmatch_lines(
        ["manifest: m.jsonl, shard 1 of 2: 3 of 5 entries", "*run *, shard 1 of 2, 3 entries: *"]
    )
    assert set(project.ran()) == {"d-0", "d-2", "d-3"}
    # In a process of its own: its worker is another one then.
    second = project.run_process("--manifest=m.jsonl", "--manifest-shard=2/2", MEMORY)
    second.assert_outcomes(passed=2)
    with Ledger.open(project.ledgers()[-1]) as ledger:  # as the whole manifest numbers them
        assert [row.position for row in ledger.attempts.all()] == [1, 4]
    assert project.ran() == dict.fromkeys(["d-0", "d-1", "d-2", "d-3", "d-4"], 1)
    sources = project.ledgers()
    runs = [path.stem for path in sources]
    made = merge(project, sources)
    result = project.run(
        "--manifest=m.jsonl",
        "--manifest-audit",
        "--junitxml=junit.xml",
        "--manifest-report=summary.json",
        "--manifest-report=run.html",
        "--alluredir=allure",
    )
    result.assert_outcomes(passed=4, failed=1)
    result.stdout.fnmatch_lines([f"*run {made}, merged of 2 runs, 5 entries: 1 failed, 4 passed"])
    assert "--manifest-resume" not in result.stdout.str()
    assert sum(project.ran().values()) == 5
    summary = json.loads((project.path / "summary.json").read_text("utf-8"))
    assert (summary["run"]["run"], summary["run"]["merged"]) == (made, runs)
    assert [entry["id"] for entry in summary["succeeded"]] == ["d-0", "d-1", "d-3", "d-4"]
    assert len(summary["statistics"]["workers"]) == 2
    cases = ET.parse(project.path / "junit.xml").getroot().iter("testcase")
    assert len(list(cases)) == 5
    assert len(list((project.path / "allure").glob("*-result.json"))) == 5
    assert made in (project.path / "run.html").read_text("utf-8")


LIMITED = """

LIMIT = float(Path(__file__).with_name("limit").read_text())


@app.task(name="jobs.limited", time_limit=LIMIT)
def limited():
    count("limited")
    time.sleep(0.5)
"""
"""A task with a limit of its own, which memory's worker does not enforce."""


def limited(project: Project, seconds: float) -> None:
    """Give the task another limit."""
    (project.path / "limit").write_text(str(seconds), "utf-8")


@pytest.fixture
def with_limit(project: Project) -> Project:
    """A project with two jobs of 0.5 s, whose task has a limit of its own."""
    jobs = project.path / "jobs.py"
    imports = "import time\nfrom pathlib import Path\n"
    jobs.write_text(imports + jobs.read_text("utf-8") + LIMITED, "utf-8")
    entries = [{"id": f"l-{n}", "task": "jobs.limited"} for n in range(2)]
    project.manifest("m.jsonl", entries)
    limited(project, 0.2)
    return project


def test_a_limit_of_one_shard_excuses_no_job_of_another(with_limit: Project) -> None:
    """Each shard is judged by its own limit, also once they are merged."""
    project = with_limit
    assert shard(project, "1/2", MEMORY).ret == pytest.ExitCode.TESTS_FAILED
    limited(project, 100.0)
    assert shard(project, "2/2", MEMORY).ret == pytest.ExitCode.OK
    made = merge(project, project.ledgers()[::-1])
    result = project.run("--manifest=m.jsonl", "--manifest-audit", f"--manifest-run={made}")
    result.assert_outcomes(passed=1, failed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    manifest("check", made)
    assert project.verdicts() == {"l-0": "timed_out", "l-1": "passed"}
    assert project.ran() == {"limited": 2}


def test_a_limit_that_is_raised_excuses_nothing_of_before(with_limit: Project) -> None:
    """A resume leaves what had run too long, and what waits for it; and so does the next audit."""
    project = with_limit
    rows: list[dict[str, object]] = [
        {"id": "l-0", "task": "jobs.limited"},
        {"id": "l-1", "task": "jobs.limited", "after": ["l-0"]},
    ]
    project.manifest("m.jsonl", rows)
    project.run("--manifest=m.jsonl", MEMORY).assert_outcomes(failed=1, skipped=1)
    limited(project, 100.0)
    for how in (("--manifest-resume", MEMORY), ("--manifest-audit",), ("--manifest-audit",)):
        result = project.run("--manifest=m.jsonl", *how)
        result.assert_outcomes(failed=1, skipped=1)
        assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert project.verdicts() == {"l-0": "timed_out", "l-1": "skipped"}
    assert project.ran() == {"limited": 1}


@XDIST
def test_a_shard_without_entries_is_no_failure(project: Project, xdist: tuple[str, ...]) -> None:
    """The job of CI is green and says why it did nothing, whatever it was asked for."""
    project.doubles(count=2)
    looks = [[], ["--collect-only"]] if xdist else [["--manifest-audit"], ["--manifest-resume"]]
    for more in looks:
        result = project.run("--manifest=m.jsonl", "--manifest-shard=3/3", *more, *xdist)
        assert result.ret == pytest.ExitCode.OK, more
        result.stdout.fnmatch_lines(["manifest: m.jsonl, shard 3 of 3: 0 of 2 entries"])
        if more != ["--collect-only"]:
            result.stdout.fnmatch_lines(["note: m.jsonl: shard 3 of 3 has no entry*no failure"])
    assert not project.ran()
    assert not (project.path / ".manifest").exists()


def test_a_selection_of_a_shard_sends_just_that(project: Project) -> None:
    """-k and --collect-only choose among the shard's entries, as everywhere."""
    project.doubles(count=6)
    shown = shard(project, "2/2", "--collect-only", "-q")
    assert re.findall(r"entry\[(.*)\]", shown.stdout.str()) == ["d-1", "d-3", "d-5"]
    shard(project, "2/2", MEMORY, "-k", "d-3 or d-4").assert_outcomes(passed=1, deselected=2)
    assert set(project.ran()) == {"d-3"}
    nothing = shard(project, "2/2", MEMORY, "-k", "d-4")
    assert nothing.ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_a_shard_in_groups_judges_its_own_entries(project: Project) -> None:
    """Groups are those of the whole manifest, and each of the shard's part of it."""
    project.doubles(count=6)
    result = shard(project, "2/2", MEMORY, "--manifest-aggregate=chunk:4", "-v")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines_random(
        [
            "m.jsonl::entries[[]00001-00004@2/2] PASSED*",
            "m.jsonl::entries[[]00005-00006@2/2] PASSED*",
        ]
    )
    result.stdout.fnmatch_lines(["m.jsonl: run *, shard 2 of 2, 3 entries: 3 passed"])
    assert set(project.ran()) == {"d-1", "d-3", "d-5"}


def test_verify_files_see_the_shard_alone(project: Project) -> None:
    """Tests of entries, of the manifest and of the whole run are of this session's entries."""
    rows = [{"id": f"d-{n}", "task": "jobs.double", "args": [n]} for n in range(5)]
    project.manifest("m.jsonl", [{"manifest": 1, "workflow": "w", "mode": "x"}, *rows])
    project.write(
        "workflows/w/verify.py",
        "import pytest\n"
        "@pytest.mark.entries(mode='x')\n"
        "def test_own(entry, receipt):\n"
        "    assert receipt.result['n'] % 4 == 2\n"
        "def test_run(manifest_run):\n"
        "    assert sorted(manifest_run.receipts()) == ['d-1', 'd-3']\n",
    )
    shard(project, "2/2", MEMORY).assert_outcomes(passed=3)
    # A test of the whole run that stands alone sends its shard.
    alone = ("--manifest-rerun", "workflows/w/verify.py::test_run")
    shard(project, "2/2", MEMORY, *alone).assert_outcomes(passed=1)


def test_a_plan_that_is_run_is_dealt_out(project: Project) -> None:
    """--manifest-plan-run in each job of CI plans the same, and sends its shard."""
    project.write(
        "conftest.py",
        "from pytest_manifest import planning_fixture\n"
        "@planning_fixture('w:x')\n"
        "def w(plan):\n"
        "    for n in range(5):\n"
        "        plan.add('jobs.double', args=[n], id=f'd-{n}')\n",
    )
    options = ("--manifest-plan=w:x", "--manifest-plan-run", MEMORY)
    project.run(*options, "--manifest-shard=2/2").assert_outcomes(passed=2)
    project.run(*options, "--manifest-shard=1/2").assert_outcomes(passed=3)
    assert project.run(*options, "--manifest-shard=9/9").ret == pytest.ExitCode.OK


def test_nothing_is_bought_twice(project: Project) -> None:
    """A shard is refused where it, the whole, or other shards of it were sent; a sister is not."""
    row = {"task": "jobs.double"}
    rows = [{"id": f"d-{n}", "args": [n], **row} for n in range(4)]
    project.manifest("m.jsonl", [{"manifest": 1, "rerun": False}, *rows])
    shard(project, "1/2", MEMORY).assert_outcomes(passed=2)
    shard(project, "2/2", MEMORY).assert_outcomes(passed=2)
    for text in ("1/2", "1/4"):
        refused = shard(project, text, MEMORY)
        assert refused.ret == pytest.ExitCode.USAGE_ERROR
        refused.stderr.fnmatch_lines(["*its header says that this work must not be repeated*"])
    whole = project.run("--manifest=m.jsonl", MEMORY)
    whole.stderr.fnmatch_lines(["*sent 4 of its entries already*"])
    sources = project.ledgers()
    merge(project, sources)
    for path in sources:  # the merged run alone forbids it as well
        path.unlink()
    project.run("--manifest=m.jsonl", MEMORY).stderr.fnmatch_lines(["*sent 4 of its*"])
    assert sum(1 for _ in project.order()) == 4


def test_a_merged_part_leaves_the_other_shards_free(project: Project) -> None:
    """Where only shard 1 was merged, shard 2 may still be sent."""
    rows = [{"id": f"d-{n}", "task": "jobs.double", "args": [n]} for n in range(4)]
    project.manifest("m.jsonl", [{"manifest": 1, "rerun": False}, *rows])
    shard(project, "1/2", MEMORY).assert_outcomes(passed=2)
    source = project.ledgers()
    merge(project, source)
    source[0].unlink()
    assert shard(project, "1/2", MEMORY).ret == pytest.ExitCode.USAGE_ERROR
    shard(project, "2/2", MEMORY).assert_outcomes(passed=2)


@pytest.mark.ring(2)
def test_each_shard_finds_its_own_run(project: Project) -> None:
    """Audit and resume of a shard look at its newest run, and at no sister's."""
    broken = project.break_("b")
    row = {"task": "jobs.flaky", "idempotent": True}
    rows = [{"id": name, "args": [name], **row} for name in "abc"]
    project.manifest("m.jsonl", rows)
    shard(project, "2/2", MEMORY).assert_outcomes(failed=1)
    shard(project, "1/2", MEMORY).assert_outcomes(passed=2)
    (second, first) = (path.stem for path in project.ledgers())
    shard(project, "2/2", "--manifest-audit").assert_outcomes(failed=1)
    broken.unlink()
    shard(project, "2/2", "--manifest-resume", MEMORY).assert_outcomes(passed=1)
    shard(project, "1/2", "--manifest-audit").assert_outcomes(passed=2)
    again = shard(project, "1/2", "--manifest-resume", MEMORY)
    again.assert_outcomes(passed=2)
    again.stdout.fnmatch_lines(["resume: nothing is sent: every entry has passed"])
    assert project.ran() == {"a": 1, "b": 2, "c": 1}
    wrong = {
        ("--manifest-audit",): "*there are only runs of shards of it (*2/2*1/2*manifest merge*",
        ("--manifest-resume",): "*there are only runs of shards of it (*",
        (
            "--manifest-audit",
            "--manifest-shard=1/3",
        ): "*there is no run of shard 1 of 3 as it is now*",
        (
            "--manifest-audit",
            f"--manifest-run={second}",
        ): "*is of shard 2 of 2; add --manifest-shard=2/2*",
        (
            "--manifest-audit",
            f"--manifest-run={first}",
            "--manifest-shard=2/2",
        ): "*is of shard 1 of 2; add --manifest-shard=1/2*",
    }
    for options, sentence in wrong.items():
        refused = project.run("--manifest=m.jsonl", *options)
        assert refused.ret == pytest.ExitCode.USAGE_ERROR
        refused.stderr.fnmatch_lines([sentence])


def test_a_changed_manifest_has_other_shards(project: Project) -> None:
    """An entry more may move all others: the run of a shard is not taken for the new one."""
    project.doubles(count=4)
    shard(project, "1/2", MEMORY).assert_outcomes(passed=2)
    (ledger,) = project.ledgers()
    project.doubles(count=5)
    for options in (["--manifest-audit"], ["--manifest-resume", MEMORY]):
        refused = shard(project, "1/2", *options)
        assert refused.ret == pytest.ExitCode.USAGE_ERROR
        refused.stderr.fnmatch_lines(["*there is no run of shard 1 of 2 as it is now*"])
    refused = shard(project, "1/2", "--manifest-audit", f"--manifest-run={ledger.stem}")
    refused.stderr.fnmatch_lines(["*was changed since run *, so its shards are others*"])


@pytest.mark.ring(2)
def test_a_merged_run_is_only_looked_at(project: Project) -> None:
    """Of an unfinished shard it is said what is missing; the shard is resumed, and merged again."""
    kill_in_the_middle(project)  # unsharded: n-0 has passed, n-1 was running
    made = merge(project, project.ledgers())
    result = project.run("--manifest=m.jsonl", "--manifest-audit", MEMORY)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*to complete it: go on with the unfinished runs*merge again"])
    resumed = project.run("--manifest=m.jsonl", "--manifest-resume", MEMORY)
    assert resumed.ret == pytest.ExitCode.USAGE_ERROR
    resumed.stderr.fnmatch_lines([f"*run {made} was merged of others (*resume each of these*"])
    preview = project.run("--manifest=m.jsonl", "--manifest-resume", "--collect-only")
    preview.stderr.fnmatch_lines(["*was merged of others*"])
    waiting = project.run("--manifest=m.jsonl", "--manifest-audit=wait", MEMORY)
    waiting.stderr.fnmatch_lines(["*was merged of others; wait for each of these*"])


def test_a_shard_is_compared_with_its_own_past(project: Project) -> None:
    """--manifest-compare=last takes no sister's run, which has done other entries."""
    project.doubles(count=4)
    shard(project, "1/2", MEMORY).assert_outcomes(passed=2)
    (first,) = project.ledgers()
    shard(project, "2/2", MEMORY).assert_outcomes(passed=2)
    result = shard(project, "1/2", MEMORY, "--manifest-rerun", "--manifest-compare=last")
    result.stdout.fnmatch_lines([f"*{first.stem}*"])
    assert "there is no earlier run" not in result.stdout.str()


def test_giving_up_a_shard_leaves_its_sisters(project: Project) -> None:
    """--manifest-rerun of one shard stops no unfinished run of another."""
    project.doubles(count=4)
    shard(project, "2/2", MEMORY).assert_outcomes(passed=2)
    (ledger,) = project.ledgers()
    with Ledger.open(ledger, write=True) as opened:
        opened.info.set_status("running")
    shard(project, "1/2", MEMORY, "--manifest-rerun").assert_outcomes(passed=2)
    with Ledger.open(ledger) as opened:
        assert opened.info.status == "running"


@pytest.mark.ring(2)
def test_an_earlier_run_balances_the_shards(project: Project) -> None:
    """The job that ran long has a shard for itself; the run is named by its id or file."""
    naps = {"n-0": 1.0, "n-1": 0, "n-2": 0, "n-3": 0}
    rows = [
        {"id": key, "task": "jobs.nap", "kwargs": {"sec": sec, "key": key}, "idempotent": True}
        for key, sec in naps.items()
    ]
    project.manifest("m.jsonl", rows)
    project.run("--manifest=m.jsonl", MEMORY).assert_outcomes(passed=4)
    (past,) = project.ledgers()
    elsewhere = project.path / "past.sqlite"
    elsewhere.write_bytes(past.read_bytes())
    none = shard(project, "1/2@last", MEMORY)
    none.stderr.fnmatch_lines(["*there is no run 'last'*(not 'last')*"])
    first = shard(project, f"1/2@{past.stem[:-1]}", MEMORY, "--manifest-rerun", "-v")
    first.assert_outcomes(passed=1)
    first.stdout.fnmatch_lines(
        [f"manifest: m.jsonl, shard 1 of 2 by the times of run {past.stem}: 1 of 4 entries"]
    )
    second = shard(project, "2/2@past.sqlite", MEMORY, "--manifest-rerun")
    second.assert_outcomes(passed=3)
    audit = shard(project, f"1/2@{past.stem}", "--manifest-audit")
    audit.assert_outcomes(passed=1)
    other = shard(project, "1/2", "--manifest-audit")
    other.stderr.fnmatch_lines(["*there is no run of shard 1 of 2 as it is now*"])
    whole = project.run(
        "--manifest=m.jsonl", "--manifest-audit", f"--manifest-run={audited(audit)}"
    )
    whole.stderr.fnmatch_lines([f"*add --manifest-shard=1/2@{past.stem}*"])
    made = merge(project, project.ledgers()[1:])
    merged = project.run("--manifest=m.jsonl", "--manifest-audit", f"--manifest-run={made}")
    merged.assert_outcomes(passed=4)


def audited(result: pytest.RunResult) -> str:
    """The run that an audit has judged."""
    found = re.search(r"m\.jsonl: run ([^ ,]+)", result.stdout.str())
    assert found is not None
    return found[1]


def test_balanced_shards_are_bought_once(project: Project) -> None:
    """A sister by the same times is free to go; a shard by others may have the same entries."""
    rows = [{"id": f"d-{n}", "task": "jobs.double", "args": [n]} for n in range(4)]
    project.manifest("past.jsonl", rows[1:])
    project.run("--manifest=past.jsonl", MEMORY).assert_outcomes(passed=3)
    (past,) = project.ledgers()
    project.manifest("m.jsonl", [{"manifest": 1, "rerun": False}, *rows])
    halves = [shard(project, f"{n}/2@{past.stem}", MEMORY).parseoutcomes() for n in (1, 2)]
    assert [set(one) for one in halves] == [{"passed"}, {"passed"}]
    assert sum(one["passed"] for one in halves) == 4  # which has more is told by past's own times
    refused = shard(project, "2/2", MEMORY)
    refused.stderr.fnmatch_lines(["*its header says that this work must not be repeated*"])


NEW_TIMES = """
import os
import shutil

if "PYTEST_XDIST_WORKER" in os.environ:
    shutil.copy("other.sqlite", "new.sqlite")
    os.replace("new.sqlite", "past.sqlite")
"""
"""Has other times in the ledger when an xdist worker comes to read it."""


def test_all_processes_divide_by_the_times_that_the_controller_has_read(project: Project) -> None:
    """The ledger is another one before the xdist workers come to it, and nothing comes of that."""
    for name, longest in ("past", "n-0"), ("other", "n-3"):
        rows = [
            {"id": key, "task": "jobs.nap", "kwargs": {"sec": 0.5 * (key == longest), "key": key}}
            for key in ("n-0", "n-1", "n-2", "n-3")
        ]
        project.manifest(f"{name}.jsonl", rows)
        project.run(f"--manifest={name}.jsonl", MEMORY).assert_outcomes(passed=4)
        project.ledgers()[-1].replace(project.path / f"{name}.sqlite")
    project.manifest("m.jsonl", rows)
    project.write("conftest.py", NEW_TIMES)
    with Ledger.open(project.path / "past.sqlite") as ledger:
        run = ledger.info.read().run
    first = shard(project, "1/2@past.sqlite", MEMORY, "-n", "2")
    first.assert_outcomes(passed=1)
    first.stdout.fnmatch_lines([f"*, shard 1 of 2 by the times of run {run}: 1 of 4 entries"])
    assert project.ran() == {"n-0": 3, "n-1": 2, "n-2": 2, "n-3": 2}
    with Ledger.open(project.path / "past.sqlite") as ledger:
        assert ledger.info.read().run != run


@pytest.mark.parametrize("run", ["", "absent", "m.jsonl"])
def test_times_that_cannot_be_read_are_refused(project: Project, run: str) -> None:
    """A run that is not there, or a file that is no ledger: nothing is sent."""
    project.doubles(count=2)
    refused = shard(project, f"1/2@{run}", MEMORY)
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines([f"*--manifest-shard=1/2@{run}: *"])
    assert not project.ran()
