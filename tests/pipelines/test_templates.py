"""Whoever copies a template gets what it promises: its commands run here, in order, as CI does."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.pipelines import gitlab, jenkins
from tests.pipelines.github import Job, Kept, Step, workflow
from tests.pipelines.machine import ENTRIES, ROOT, Machine, copied

pytestmark = pytest.mark.live

TEMPLATES = ROOT / "docs" / "how-to" / "ci"
SHARDS = "2"
ALLURE = """#!/bin/bash
[ "$1 $2" = "--yes allure@{version}" ] || exit 99
exec node "{tool}/node_modules/allure/cli.js" "${{@:3}}"
"""
A_DAY_LATER = """#!/bin/bash
exec /bin/date "${@/16 hours ago/8 hours}"
"""
"""A clock on which the evening before has sent nothing."""
GH = """#!/bin/bash
case "$1 $2 $4" in
"run list nightly.yml") echo 9 8 7 ;;
"api repos/me/shop/actions/runs/{kept}/artifacts?name=nightly "*) echo 1 ;;
"api repos/me/shop/actions/runs/"*) echo 0 ;;
*) exit 99 ;;
esac
"""
"""GitHub's command, by which the run ``kept`` has left a ledger, and those after it have not."""


@pytest.fixture
def stack(valkey: str) -> dict[str, str]:
    """The addresses that a service container has in CI."""
    return {"CELERY_BROKER_URL": valkey, "CELERY_RESULT_BACKEND": valkey}


def ran(folder: Path) -> list[int]:
    """The numbers of the jobs that a machine's workers have done."""
    path = folder / "ran.txt"
    return sorted(int(line) for line in path.read_text().split()) if path.exists() else []


def numbers(path: Path) -> dict[str, int]:
    """The counts of a JUnit report."""
    suite = ET.parse(path).getroot()[0]
    return {name: int(suite.get(name, "0")) for name in ("tests", "failures", "errors")}


class Github:
    """Runs jobs of one workflow, each on a new machine, as GitHub does."""

    def __init__(self, name: str, folder: Path, stack: Mapping[str, str]) -> None:
        self.flow = workflow(TEMPLATES / name)
        self.folder = folder
        self.kept = Kept(folder / "kept")
        self.stack = stack
        self.machines = 0

    def run(
        self,
        job: str,
        context: Mapping[str, str] | None = None,
        *,
        broken: int | None = None,
        worker: bool = False,
        tools: Mapping[str, str] | None = None,
    ) -> tuple[Job, Path]:
        """Run a job; what its folder looks like is returned too. ``broken``: this number fails."""
        self.machines += 1
        known = {"github.run_id": "7", "github.run_attempt": "1", **(context or {})}
        with Machine(self.folder / f"machine-{self.machines}", {}) as machine:
            for name, text in (tools or {}).items():
                machine.add_tool(name, text)
            if broken is not None:
                (machine.folder / f"broken-{broken}").touch()
            if worker:  # the user's own, elsewhere
                machine.check_out()
                command = "celery --app jobs:app worker --include pytest_manifest.worker"
                machine.run(f"{command} >worker.log 2>&1 &", self.stack)
            environment = {**self.stack, "SHARDS": SHARDS}
            found = Job(self.flow, job, machine, self.kept, known, environment=environment)
            found.run()
            return found, machine.folder


def explain(job: Job) -> str:
    """What the steps printed, for the message of a test that fails."""
    return "\n".join(f"--- {step.name}: {step.failed=}\n{step.output}" for step in job.done)


def step(job: Job, name: str) -> Step:
    """The step of this name."""
    return next(one for one in job.done if one.name == name)


@pytest.fixture(scope="session")
def allure() -> str:
    """A command that is ``npx`` for the one package that the template names."""
    tool = ROOT / "reports" / "allure"
    version = json.loads((tool / "package.json").read_text("utf-8"))["dependencies"]["allure"]
    return ALLURE.format(version=version, tool=tool)


def install_allure(results: Path, folder: Path) -> None:
    """Build a report of our own, which installs what is locked where it was not yet."""
    environment = os.environ | {
        "ALLURE_RESULTS": str(results),
        "ALLURE_REPORT": str(folder / "html"),
        "ALLURE_HISTORY": str(folder / "history.jsonl"),
    }
    command = [str(ROOT / "scripts" / "report")]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_batch_of_github_goes_on_when_it_is_run_again(
    tmp_path: Path, stack: dict[str, str]
) -> None:
    """A shard fails; its second attempt sends what had not passed, and the report is of all."""
    github = Github("github-batch.yml", tmp_path, stack)
    prepared, _ = github.run("prepare")
    assert not prepared.failed, explain(prepared)
    first, folder = github.run("shard", {"matrix.shard": "1"})
    assert not first.failed, explain(first)
    assert ran(folder) == [0, 2]
    second, folder = github.run("shard", {"matrix.shard": "2"}, broken=3)
    assert second.failed
    assert ran(folder) == [1]
    assert "::error file=numbers.jsonl" in step(second, "Run the shard").output
    assert "d-3" in second.summary.read_text("utf-8")
    again, folder = github.run("shard", {"matrix.shard": "2", "github.run_attempt": "2"})
    assert not again.failed, explain(again)
    assert ran(folder) == [3]

    tools = {"npx": "#!/bin/sh\nexit 0\n"}
    report, folder = github.run("report", {"needs.prepare.result": "success"}, tools=tools)
    assert not report.failed, explain(report)
    assert numbers(folder / "report.xml") == {"tests": ENTRIES, "failures": 0, "errors": 0}
    assert "d-3" in (folder / "run.html").read_text("utf-8")
    results = [
        json.loads(path.read_text("utf-8"))
        for path in (folder / "allure-results").glob("*-result.json")
    ]
    assert len({one["historyId"] for one in results}) == ENTRIES
    assert len(results) == ENTRIES + 1  # the attempt that failed is a retry of the one that passed
    assert f"{ENTRIES} entries passed" in report.summary.read_text("utf-8")
    assert set(github.kept.artifacts) == {"batch-input", "shard-1", "shard-2", "report"}

    # All jobs again: in the same shards, though there are other times by now.
    github.run("prepare", {"github.run_attempt": "2"})
    same, folder = github.run("shard", {"matrix.shard": "1", "github.run_attempt": "2"})
    assert not same.failed, explain(same)
    assert ran(folder) == []

    # The next batch is balanced by this one's times.
    github.run("prepare", {"github.run_id": "8"})
    balanced, _ = github.run("shard", {"matrix.shard": "1", "github.run_id": "8"})
    assert not balanced.failed, explain(balanced)
    assert "shard 1 of 2 by the times of run" in step(balanced, "Run the shard").output


def test_a_faulty_manifest_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    """The first job fails at its check, and the shards, which need it, do not begin."""
    github = Github("github-batch.yml", tmp_path, {})
    checked, _ = github.run("prepare", tools={"pytest": "#!/bin/sh\nexit 4\n"})
    assert [one.name for one in checked.done if one.failed] == ["Check the manifest"]
    assert github.kept.artifacts == {}


def test_the_merged_results_become_a_page_of_allure(tmp_path: Path, allure: str) -> None:
    """The command of the template is one that the Allure that we test with understands."""
    with Machine(tmp_path / "machine", {}) as machine:
        machine.add_tool("npx", allure)
        results = machine.folder / "allure-results"
        results.mkdir()
        document = {"uuid": "1", "name": "one", "status": "passed", "start": 1, "stop": 2}
        (results / "1-result.json").write_text(json.dumps(document), "utf-8")
        install_allure(results, tmp_path)
        jobs = workflow(TEMPLATES / "github-batch.yml")["jobs"]
        (command,) = (
            one["run"] for one in jobs["report"]["steps"] if one.get("name") == "One page of Allure"
        )
        done = machine.run(command)
        assert done.returncode == 0, done.stdout
        assert (machine.folder / "allure-report" / "index.html").is_file()


def test_a_night_of_github_is_sent_and_judged(tmp_path: Path, stack: dict[str, str]) -> None:
    """Sent in the evening, judged in the morning from the ledger that was kept; then gone on."""
    github = Github("github-nightly.yml", tmp_path, stack)
    with Machine(tmp_path / "workers", {}) as workers:
        workers.check_out()
        (workers.folder / "broken-2").touch()
        command = "celery --app jobs:app worker --include pytest_manifest.worker"
        workers.run(f"{command} >worker.log 2>&1 &", stack)
        sent, _ = github.run("send", {"github.event.schedule": "0 22 * * *"})
        assert not sent.failed, explain(sent)
        evening = {"github.event.schedule": "0 22 * * *", "github.run_attempt": "2"}
        again, _ = github.run("send", evening)
        assert not again.failed, explain(again)
        gh = {"gh": GH.format(kept=7)}
        morning = {"github.event_name": "schedule", "github.event.schedule": "0 6 * * *"}
        judged, folder = github.run("judge", morning, tools=gh)
        assert judged.failed
        assert numbers(folder / "report.xml") == {"tests": ENTRIES, "failures": 1, "errors": 0}
        assert ran(workers.folder) == [0, 1, 3]
        (workers.folder / "broken-2").unlink()
        assert "1 entry is red since run 1" in (folder / "history.html").read_text("utf-8")
        by_hand = {"inputs.what": "resume", "github.run_id": "8"}
        resumed, folder = github.run("judge", by_hand, tools=gh)
        assert not resumed.failed, explain(resumed)
        assert numbers(folder / "report.xml") == {"tests": ENTRIES, "failures": 0, "errors": 0}
        assert ran(workers.folder) == [0, 1, 2, 3]
        assert list((folder / "history").glob("*.digest.json"))
        later = morning | {"github.run_id": "9"}
        late, _ = github.run("judge", later, tools=gh | {"date": A_DAY_LATER})
        refused = [one.name for one in late.done if one.failed]
        assert refused == ["Was it sent this night?"], explain(late)
        assert "Judge" not in {one.name for one in late.done}


@pytest.mark.ring(1)
@pytest.mark.parametrize(("kept", "found"), [(9, "run=9\n"), (7, "run=7\n"), (6, "")])
def test_the_newest_ledger_of_a_night_is_found(kept: int, found: str, tmp_path: Path) -> None:
    """That of the run itself, where it is run again; runs that have left none are passed over."""
    steps = workflow(TEMPLATES / "github-nightly.yml")["jobs"]["judge"]["steps"]
    (command,) = (one["run"] for one in steps if one.get("name") == "Find the ledger")
    with Machine(tmp_path / "machine", {}) as machine:
        machine.add_tool("gh", GH.format(kept=kept))
        outputs = tmp_path / "outputs"
        outputs.touch()
        known = {"GITHUB_OUTPUT": str(outputs), "GITHUB_REF_NAME": "main"}
        done = machine.run(command, known | {"GITHUB_REPOSITORY": "me/shop"})
        assert outputs.read_text("utf-8") == found
        assert (done.returncode == 0) is (found != ""), done.stdout


@pytest.mark.ring(1)
@pytest.mark.parametrize(
    ("name", "context"),
    [
        ("send", {"github.event.schedule": "0 6 * * *"}),
        ("judge", {"github.event.schedule": "0 22 * * *"}),
    ],
)
def test_each_hour_of_the_night_has_its_job(name: str, context: dict[str, str]) -> None:
    """The evening's clock does not judge, and the morning's does not send."""
    jobs = workflow(TEMPLATES / "github-nightly.yml")["jobs"]
    job = Job.__new__(Job)
    job.context, job.done = dict(context), []
    assert not job.holds(str(jobs[name]["if"]))
    (other,) = jobs.keys() - {name}
    assert job.holds(str(jobs[other]["if"]))


def test_a_pipeline_of_gitlab(tmp_path: Path, stack: dict[str, str]) -> None:
    """Two shards leave their ledgers in one folder, the report is made of both."""
    flow = gitlab.pipeline(TEMPLATES / "gitlab-ci.yml")
    folders: list[Path] = []
    with ExitStack() as machines:

        def run(name: str, known: Mapping[str, str], *needed: str) -> tuple[int, str]:
            machine = machines.enter_context(Machine(tmp_path / f"m{len(folders)}", {}))
            machine.check_out()
            for folder in folders:
                for path in needed:
                    if (folder / path).exists():
                        copied(folder / path, machine.folder / path)
            folders.append(machine.folder)
            return gitlab.run_job(flow, name, machine, known)

        status, output = run("prepare", {})
        assert status == 0, output
        for number in ("1", "2"):
            node = {"CI_NODE_INDEX": number, "CI_NODE_TOTAL": SHARDS, **stack}
            status, output = run("shard", node, "input")
            assert status == 0, output
            machines.close()  # its workers end with it
        assert [ran(folder) for folder in folders] == [[], [0, 2], [1, 3]]
        status, output = run("report", {}, ".manifest")
        assert status == 0, output
    job = flow["report"]["artifacts"]
    absent = [name for name in job["paths"] if not (folders[-1] / name).exists()]
    assert absent == []
    assert numbers(folders[-1] / "report.xml") == {"tests": ENTRIES, "failures": 0, "errors": 0}
    assert (folders[-1] / "input" / "times.sqlite").is_file()


def test_a_night_of_gitlab(tmp_path: Path, stack: dict[str, str]) -> None:
    """The ledger goes from job to job as an artifact; the last one sends what is missing."""
    flow = gitlab.pipeline(TEMPLATES / "gitlab-ci.yml")
    known = {"BROKER_URL": stack["CELERY_BROKER_URL"], "RESULT_URL": stack["CELERY_BROKER_URL"]}
    with Machine(tmp_path / "m", {}) as machine:
        machine.check_out()
        (machine.folder / "broken-2").touch()
        command = "celery --app jobs:app worker --include pytest_manifest.worker"
        machine.run(f"{command} >worker.log 2>&1 &", stack)
        jobs = ("night:send", "night:send", "night:judge", "night:verdict")
        found = [gitlab.run_job(flow, name, machine, known)[0] for name in jobs]
        (machine.folder / "broken-2").unlink()
        status, output = gitlab.run_job(flow, "night:resume", machine, known)
        assert [*found, status] == [0, 0, 1, 1, 0], output
        assert list((machine.folder / "history").glob("*.digest.json"))
        assert ran(machine.folder) == [0, 1, 2, 3]


def test_a_failed_entry_keeps_no_job_of_gitlab_from_being_started() -> None:
    """Not even by hand does GitLab start a job that needs a failed one."""
    flow = gitlab.pipeline(TEMPLATES / "gitlab-ci.yml")
    later = ("night:judge", "night:verdict", "night:resume")
    needed = {one for name in later for one in flow[name]["needs"]}
    assert [flow[one].get("allow_failure") for one in needed] == [{"exit_codes": [1]}] * 2
    assert "allow_failure" not in flow["night:verdict"]


def test_a_build_of_jenkins(tmp_path: Path, stack: dict[str, str]) -> None:
    """Prepare, two shards and the report, with the folders that stash and unstash make."""
    path = TEMPLATES / "Jenkinsfile"
    scripts, known = jenkins.scripts(path), jenkins.environment(path) | {"SHARDS": SHARDS}
    assert list(scripts) == ["Prepare", "Shard", "Report"]
    ledgers: list[Path] = []
    for stage, number in (("Prepare", ""), ("Shard", "1"), ("Shard", "2"), ("Report", "")):
        with Machine(tmp_path / f"{stage}{number}", known | {"SHARD": number}) as machine:
            machine.check_out()
            for place, ledger in enumerate(ledgers if stage == "Report" else [], 1):
                copied(ledger, machine.folder / "shards" / str(place) / ".manifest")
            script = scripts[stage].replace("redis://redis:6379/0", stack["CELERY_BROKER_URL"])
            done = machine.run(script, shell="-e")
            assert done.returncode == 0, done.stdout
            if stage == "Shard":
                ledgers.append(machine.folder / ".manifest")
    report = machine.folder
    assert numbers(report / "report.xml") == {"tests": ENTRIES, "failures": 0, "errors": 0}
    assert (report / "input" / "times.sqlite").is_file()


def test_a_night_of_jenkins(tmp_path: Path, stack: dict[str, str]) -> None:
    """Send and Judge, on one machine with the user's workers beside it."""
    path = TEMPLATES / "Jenkinsfile.nightly"
    scripts, known = jenkins.scripts(path), jenkins.environment(path) | {"HOW": "audit"} | stack
    assert list(scripts) == ["Send", "Judge"]
    with Machine(tmp_path / "m", known) as machine:
        machine.check_out()
        command = "celery --app jobs:app worker --include pytest_manifest.worker"
        machine.run(f"{command} >worker.log 2>&1 &")
        for script in scripts.values():
            done = machine.run(script, shell="-e")
            assert done.returncode == 0, done.stdout
        assert numbers(machine.folder / "report.xml")["tests"] == ENTRIES
        assert ran(machine.folder) == [0, 1, 2, 3]
