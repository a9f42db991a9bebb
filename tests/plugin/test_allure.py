"""Allure results of entries: they tell of the jobs, whatever process judges them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.plugin import allure_support as allure
from tests.plugin.allure_support import MEMORY
from tests.plugin.conftest import Project
from tests.plugin.ways import xdist_in

STACKS = pytest.mark.parametrize(
    "stack",
    [
        pytest.param((MEMORY,), id="memory"),
        pytest.param(
            ("--manifest-workers=2",), id="private", marks=[pytest.mark.live, pytest.mark.ring(2)]
        ),
    ],
)
HOSTILE = "<script>alert(1)</script> \"'`*_ \x1b[31mred\x1b[0m \u202eback \u0000 & <b>"


def planned(project: Project, entries: list[dict[str, object]], **header: object) -> Path:
    """A manifest with a header, as a plan would write it."""
    path = project.manifest("m.jsonl", entries)
    first = {"manifest": 1, "workflow": "films", "mode": "nightly"} | header
    path.write_text(json.dumps(first) + "\n" + path.read_text("utf-8"), "utf-8")
    return path


def test_what_a_result_says(project: Project) -> None:
    """Title, hierarchy, identity, labels and links come from the entry, not from pytest."""
    meta = {"severity": "Critical", "owner": "ann", "issue": "ABC-1", "title": "Twice two"}
    meta["link"] = "https://docs.example.com/doubling"
    entry: dict[str, object] = {
        "id": "d-1",
        "task": "jobs.double",
        "kwargs": {"n": 2},
        "tags": ["smoke", "story:sums"],
    }
    planned(project, [entry | {"meta": meta, "expect": {"result": {"n": 4}}}])
    pattern = "manifest_issue_link=https://tracker.example.com/{}"
    found = allure.run(project, MEMORY, "-o", pattern)
    result = found.of("d-1")

    assert result["name"] == "d-1: Twice two"
    assert result["status"] == "passed"
    assert result["titlePath"] == ["films", "nightly", "jobs.double"]
    suites = [allure.label(result, name) for name in ("parentSuite", "suite", "subSuite")]
    assert suites == result["titlePath"]
    assert allure.label(result, "severity") == "critical"
    assert allure.label(result, "owner") == "ann"
    assert allure.label(result, "story") == "sums"
    assert allure.labels(result, "tag") == ["smoke", "story:sums"]
    assert {link["url"] for link in result["links"]} == {
        "https://tracker.example.com/ABC-1",
        "https://docs.example.com/doubling",
    }
    identity = [one["name"] for one in result["parameters"] if not one.get("excluded")]
    assert identity == ["entry"]
    assert "jobs.double(n=2)" in result["description"]
    assert "m.jsonl:2" in result["description"]
    # How the verdict was read is nobody's question; the fixture that dispatches stays.
    assert len(list(found.folder.glob("*-container.json"))) <= 1


@STACKS
def test_times_and_places_are_the_jobs(project: Project, stack: tuple[str, ...]) -> None:
    """Start, stop, host, thread and steps are those of the receipts, so the timeline is a Gantt."""
    project.doubles(count=4)
    found = allure.run(project, *stack)
    for entry, receipt in allure.receipts(project).items():
        result = found.of(entry)
        assert result["start"] == allure.milliseconds(receipt.started_at)
        assert result["stop"] == allure.milliseconds(receipt.finished_at)
        assert allure.label(result, "host") == receipt.host
        thread = allure.label(result, "thread")
        assert thread == f"{(receipt.worker or '').partition('@')[0]} {receipt.pid}"
        words = [name.split()[0] for name in allure.step_names(result)]
        assert words == ["planned", "sent", "received", "started", "finished"]
        begins = [step["start"] for step in result["steps"]]
        moments = (receipt.sent_at, receipt.received_at, receipt.started_at, receipt.finished_at)
        assert begins[1:] == [allure.milliseconds(moment) for moment in moments]
        assert begins == sorted(begins)


@STACKS
def test_what_is_attached(project: Project, stack: tuple[str, ...]) -> None:
    """Entry, receipt, log lines, error and differences, each a file that is there."""
    project.write(
        "jobs.py",
        (project.path / "jobs.py").read_text("utf-8")
        + "\n\nimport logging\n\n\n@app.task(name='jobs.tell')\ndef tell(text):\n"
        "    logging.getLogger('jobs').warning('told %s', text)\n    return {'text': text}\n",
    )
    planned(
        project,
        [
            {
                "id": "tells",
                "task": "jobs.tell",
                "args": ["news"],
                "expect": {"result": {"text": "x"}},
            },
            {"id": "fails", "task": "jobs.fail", "kwargs": {"message": "no film"}},
            {"id": "quiet", "task": "jobs.double", "kwargs": {"n": 1}},
        ],
    )
    found = allure.run(project, *stack)
    tells, fails = found.of("tells"), found.of("fails")
    assert json.loads(found.attached(tells, "entry"))["args"] == ["news"]
    assert json.loads(found.attached(tells, "receipt"))["result"] == {"text": "news"}
    assert "told news" in found.attached(tells, "worker log")
    difference = found.attached(tells, "expected and actual").splitlines()
    assert difference[:2] == ["--- expected", "+++ actual"]
    assert difference[2:] == ["@@ result.text @@", "-'x'", "+'news'"]
    assert tells["statusDetails"]["expected"] == "result.text: 'x'"
    quiet = found.of("quiet")
    assert not quiet["attachments"]
    receipt, entry = allure.papers(quiet)
    assert entry["id"] == "quiet"
    assert receipt["result"] == {"n": 2, "type": "number"}
    error = found.attached(fails, "error")
    assert "ValueError: no film" in error
    assert "in fail" in error


def test_statuses(project: Project) -> None:
    """Failed: an expectation; broken: the stack; skipped with its reason; known and flaky said."""
    known = {"known_issue": "ABC-1"}
    planned(
        project,
        [
            {"id": "good", "task": "jobs.double", "kwargs": {"n": 1}, "meta": known},
            {"id": "wrong", "task": "jobs.double", "kwargs": {"n": 1}, "expect": {"result": 3}},
            {"id": "raises", "task": "jobs.fail", "kwargs": {"message": "x"}, "meta": known},
            {"id": "held", "task": "jobs.double", "kwargs": {"n": 1}, "after": ["wrong"]},
            {"id": "nobody", "task": "jobs.nobody"},
        ],
    )
    found = allure.run(project, MEMORY)
    said = {e: found.of(e)["status"] for e in ("good", "wrong", "raises", "held", "nobody")}
    assert said == {
        "good": "passed",
        "wrong": "failed",
        "raises": "failed",
        "held": "skipped",
        "nobody": "broken",
    }
    details = {entry: found.of(entry).get("statusDetails", {}) for entry in said}
    assert details["held"]["message"].startswith("skipped: The job was held back")
    assert details["nobody"]["message"].startswith("unknown_task: ")
    assert {entry for entry, one in details.items() if one.get("known")} == {"raises"}
    assert not [entry for entry, one in details.items() if one.get("flaky")]
    # What no worker had has no place in the timeline.
    assert not allure.labels(found.of("held"), "host") + allure.labels(found.of("nobody"), "thread")
    assert allure.step_names(found.of("held"))[-1] == "not sent: skipped"


@pytest.mark.live
@pytest.mark.ring(2)
def test_a_repeated_attempt_is_a_retry(project: Project) -> None:
    """Its own result with the same identity and an earlier stop; the entry is flaky.

    One whose only attempt has crashed is broken, and says so.
    """
    entry = {"id": "e", "task": "jobs.die_once", "kwargs": {"key": "e"}}
    dies: dict[str, object] = {"id": "dies", "task": "jobs.die", "kwargs": {"key": "dies"}}
    planned(project, [entry | {"idempotent": True, "retries": 1}, dies])
    found = allure.run(project)
    first, last = found.by_entry()["e"]
    assert len({one["uuid"] for one in found.all}) == len(found.all) == 3
    assert first["historyId"] == last["historyId"]
    assert first["testCaseId"] == last["testCaseId"]
    assert (first["status"], last["status"]) == ("broken", "passed")
    assert first["start"] < last["start"]
    assert first["stop"] < last["start"]
    assert last["statusDetails"]["flaky"] is True
    assert (allure.parameter(first, "attempt"), allure.parameter(last, "attempt")) == ("1", "2")
    assert allure.label(first, "verdict") == "crashed"
    assert "crashed" in first["description"]
    assert allure.label(first, "thread") != allure.label(last, "thread")
    assert "WorkerLostError" in found.attached(first, "error")
    assert [step["name"] for step in last["steps"]] == ["attempt 1: crashed", "attempt 2: passed"]
    assert last["steps"][1]["steps"][0]["name"].startswith("planned again: ")
    assert found.of("dies")["status"] == "broken"
    assert found.of("dies")["statusDetails"]["message"].startswith("crashed: ")
    assert "found dead: crashed" in allure.step_names(found.of("dies"))


@pytest.mark.ring(2)
def test_the_same_identities_in_every_way_of_running(project: Project) -> None:
    """Plain, distributed, and audited, one result an entry and the same identity for each."""
    planned(
        project,
        [{"id": f"d-{n}", "task": "jobs.double", "kwargs": {"n": n}} for n in range(12)],
    )
    plain = allure.run(project, MEMORY)
    spread = allure.run(project, MEMORY, "-n3")
    audited = allure.run(project, "--manifest-audit")
    assert len(plain.all) == len(plain.history_ids) == 12
    assert spread.identities() == plain.identities() == audited.identities()
    assert len(spread.all) == len(audited.all) == 12
    # An audit shows when the jobs ran, and not when they were judged again.
    assert {e: r[-1]["start"] for e, r in audited.by_entry().items()} == {
        e: r[-1]["start"] for e, r in spread.by_entry().items()
    }


@pytest.mark.parametrize("options", xdist_in(pytest.mark.ring(2)))
def test_resumed_into_the_same_folder(project: Project, options: tuple[str, ...]) -> None:
    """What was done is there once, what was repeated as a retry, and all identities stay."""
    entries: list[dict[str, object]] = [
        {"id": f"f-{n}", "task": "jobs.flaky", "kwargs": {"key": f"f-{n}"}, "idempotent": True}
        for n in range(6)
    ]
    planned(project, entries)
    mended = [project.break_("f-1"), project.break_("f-4")]
    before = allure.run(project, MEMORY)
    for path in mended:
        path.unlink()
    after = allure.run(project, MEMORY, "--manifest-resume", *options, clean=False)

    assert len(before.all) == 6
    assert len(after.all) == 8
    assert len(after.history_ids) == 6
    assert after.identities() == before.identities()
    retried = {entry: found for entry, found in after.by_entry().items() if len(found) > 1}
    assert set(retried) == {"f-1", "f-4"}
    for first, last in retried.values():
        assert (first["status"], last["status"]) == ("failed", "passed")
        assert first["stop"] < last["stop"]
        assert last["statusDetails"] == {"flaky": True}


@pytest.mark.ring(2)
@pytest.mark.parametrize("options", [(), ("-n4",)], ids=["plain", "distributed"])
def test_ids_that_differ_in_case_and_punctuation_only(
    project: Project, options: tuple[str, ...]
) -> None:
    """A thousand of them are a thousand tests to Allure."""
    rows: list[dict[str, object]] = [
        {"id": i, "task": "jobs.double", "kwargs": {"n": 1}} for i in allure.THOUSAND_IDS
    ]
    planned(project, rows)
    found = allure.run(project, MEMORY, *options)
    assert len(found.all) == len(found.history_ids) == 1000
    assert set(found.by_entry()) == set(allure.THOUSAND_IDS)


def test_hostile_text_is_shown_as_text(project: Project) -> None:
    """In no text of a result, and in no attachment, is a character that acts or hides."""
    project.write(
        "jobs.py",
        (project.path / "jobs.py").read_text("utf-8")
        + "\n\n@app.task(name='jobs.shout')\ndef shout(text):\n"
        "    raise ValueError(text + '\\udc80')\n",
    )
    entry = {"id": "<img src=x> \"&'`", "task": "jobs.shout", "args": [HOSTILE]}
    planned(project, [entry | {"meta": {"title": HOSTILE, "owner": HOSTILE, "<i>k": HOSTILE}}])
    found = allure.run(project, MEMORY)
    (result,) = found.all
    texts = [json.dumps(result, ensure_ascii=False)]
    texts += [found.attached(result, one["name"]) for one in result["attachments"]]
    for text in texts:
        assert not set(text) & set("\x1b\u202e\x00\udc80")
    assert "<script>alert(1)</script>" in result["name"]
    assert "\\u202eback" in result["name"]
    assert "\n<" not in result["description"]


VERIFY = """
import allure
import pytest

def test_number(entry, receipt):
    "The number is doubled."
    with allure.step("compare"):
        allure.attach("seen", "note", allure.attachment_type.TEXT)
        assert receipt.result["n"] == 2 * entry.kwargs["n"]

@allure.title("another title")
@allure.severity("minor")
@allure.label("owner", "bob")
@pytest.mark.parametrize("side", ["left", "right"])
def test_side(entry, side):
    assert side == "left", "there is no right side"

def test_all(manifest_run):
    assert len(manifest_run.receipts()) == 2
"""


def test_tests_of_the_projects_own(project: Project) -> None:
    """Their titles, labels, steps and attachments stay; tests of a whole run are left alone."""
    meta = {"severity": "critical", "owner": "ann"}
    planned(
        project,
        [
            {"id": f"d-{n}", "task": "jobs.double", "kwargs": {"n": n}, "meta": meta}
            for n in range(2)
        ],
    )
    project.write("workflows/films/verify.py", VERIFY)
    found = allure.run(project, MEMORY)
    assert len(found.all) == 7
    assert len(found.history_ids) == 7
    numbers = [one for one in found.all if one["name"].endswith("(test_number)")]
    assert sorted(one["name"] for one in numbers) == ["d-0 (test_number)", "d-1 (test_number)"]
    own = numbers[0]["steps"][-1]
    assert own["name"] == "verified by the test"
    assert own["steps"][0]["name"] == "compare"
    note = own["steps"][0]["attachments"][0]
    assert (found.folder / note["source"]).read_text("utf-8") == "seen"
    assert "The number is doubled" in numbers[0]["description"]

    right = [one for one in found.all if allure.parameter(one, "side") == "'right'"]
    assert {one["status"] for one in right} == {"failed"}
    assert {one["name"] for one in right} == {"another title"}
    assert "there is no right side" in right[0]["statusDetails"]["message"]
    assert right[0]["steps"][-1]["status"] == "failed"
    assert allure.label(right[0], "severity") == "minor"
    assert allure.label(right[0], "owner") == "bob"
    (whole,) = [one for one in found.all if allure.parameter(one, "entry") is None]
    assert whole["name"].startswith("test_all")
    assert "MainThread" in allure.label(whole, "thread")


RAISING = """
import allure
import pytest

pytestmark = pytest.mark.manifest("m.jsonl")


@pytest.fixture
def before(entry):
    raise ValueError("before", *entry.meta.values())


@pytest.fixture
def after(entry):
    yield
    raise ValueError("after", *entry.meta.values())


def test_none(before):
    pass


def test_step(entry, after):
    with allure.step("step"):
        raise ValueError("step", *entry.meta.values())
"""


def test_errors_show_no_secret_of_the_entry(project: Project) -> None:
    """Those of a test, of its steps and fixtures: allure-pytest takes them from the exceptions."""
    project.manifest(
        "m.jsonl",
        [
            {
                "id": "e",
                "task": "jobs.double",
                "kwargs": {"n": 1},
                "meta": {"password": "vgtx-1704"},
            }
        ],
    )
    project.write("test_raising.py", RAISING)
    result = project.run("test_raising.py", "--manifest=m.jsonl", MEMORY, "--alluredir=allure")
    result.assert_outcomes(failed=1, errors=2)
    written = {one.name: one.read_text("utf-8") for one in (project.path / "allure").iterdir()}
    for place in ("before", "step", "after"):
        told = [text for text in written.values() if f"ValueError: ('{place}', " in text]
        assert told
        assert all("***" in one for one in told)
    assert not [name for name, text in written.items() if "vgtx-1704" in text]


def test_a_test_that_is_run_again_hides_nothing(project: Project) -> None:
    """With rerunfailures both looks at the same job are there, under one identity.

    A built-in test stays failed, though the plugin reports its phases when all of them are over.
    """
    wrong: dict[str, object] = {"expect": {"result": {"n": 5}}}
    planned(
        project,
        [
            {"id": "own", "task": "jobs.double", "kwargs": {"n": 1}, "tags": ["own"]},
            {"id": "bad", "task": "jobs.double", "kwargs": {"n": 1}, **wrong},
        ],
    )
    project.write(
        "workflows/films/verify.py",
        "import pytest\n\nseen = []\n\n@pytest.mark.entries(tag='own')\n"
        "def test_one(entry):\n    seen.append(1)\n    assert len(seen) == 2\n",
    )
    found = allure.run(project, MEMORY, "--reruns=1")
    own, bad = found.by_entry()["own"], found.by_entry()["bad"]
    assert sorted(one["status"] for one in own) == ["failed", "passed"]
    assert {one["status"] for one in bad} == {"failed"}
    assert len(found.history_ids) == 2


@pytest.mark.ring(2)
def test_an_xdist_worker_that_dies_takes_no_results_with_it(project: Project) -> None:
    """The one that replaces it does not clean the folder again."""
    planned(
        project,
        [{"id": f"d-{n}", "task": "jobs.double", "kwargs": {"n": n}} for n in range(8)],
    )
    project.write(
        "workflows/films/verify.py",
        "import os\nfrom pathlib import Path\n\n"
        "def test_one(entry):\n"
        "    mark = Path('died')\n"
        "    if entry.id == 'd-7' and not mark.exists():\n"
        "        mark.touch()\n        os._exit(1)\n",
    )
    found = allure.run(project, MEMORY, "-n2")
    assert len(found.history_ids) == 8
    assert {one["status"] for one in found.all} == {"passed"}


def test_a_project_without_manifests_is_left_alone(project: Project) -> None:
    """Nothing of ours is written, nor replaced, where no test verifies an entry."""
    project.write("test_plain.py", "def test_one():\n    pass\n")
    project.run("--alluredir=allure-results", "test_plain.py")
    found = allure.results(project.path / "allure-results")
    assert [one["name"] for one in found.all] == ["test_one"]
    assert not (project.path / "allure-results" / "categories.json").exists()


def test_what_cannot_be_read_is_reported_as_pytest_saw_it(project: Project) -> None:
    """A manifest that vanishes under the session costs the details, not the report."""
    planned(project, [{"id": "d", "task": "jobs.double", "kwargs": {"n": 1}}])
    project.write(
        "workflows/films/verify.py",
        "from pathlib import Path\n\ndef test_one(entry):\n"
        "    Path('m.jsonl').write_text('{}\\n')\n",
    )
    done = project.run("--manifest=m.jsonl", "--alluredir=allure-results", MEMORY)
    done.stdout.fnmatch_lines(["*Allure shows tests as pytest saw them*"])
    (result,) = allure.results(project.path / "allure-results").all
    assert result["status"] == "passed"
    assert result["name"] == "test_one[d]"


RETRYING = """

@app.task(name="jobs.busy", bind=True, autoretry_for=(OSError,), retry_kwargs={"countdown": 0})
def busy(self, times):
    if self.request.retries < times:
        raise ConnectionError(f"busy {self.request.retries}")
    return self.request.retries


@app.task(name="jobs.asks", bind=True)
def asks(self):
    if not self.request.retries:
        self.retry(countdown=0)
"""


def test_retries_that_a_task_asks_for_itself(project: Project) -> None:
    """Each try is a step with its error, where one is known; the test is flaky, and no other is."""
    project.write("jobs.py", (project.path / "jobs.py").read_text("utf-8") + RETRYING)
    planned(
        project,
        [
            {"id": "busy", "task": "jobs.busy", "args": [2], "expect": {"result": 2}},
            {"id": "asks", "task": "jobs.asks"},
            {"id": "gives-up", "task": "jobs.busy", "args": [9]},
            {"id": "once", "task": "jobs.busy", "args": [0]},
        ],
    )
    found = allure.run(project, MEMORY)
    assert len(found.all) == 4
    busy = found.of("busy")
    assert busy["status"] == "passed"
    assert busy["statusDetails"] == {"flaky": True}
    names = [name.partition(" in process")[0] for name in allure.step_names(busy)]
    assert names == [
        "planned",
        "sent to the queue celery",
        "try 1",
        "try 2",
        "received by memory@" + allure.label(busy, "host"),
        "started",
        "finished",
    ]
    tries = busy["steps"][2:4]
    assert [one["status"] for one in tries] == ["broken", "broken"]
    told = [one["statusDetails"]["message"] for one in tries]
    assert told == ["ConnectionError: busy 0", "ConnectionError: busy 1"]
    assert [one["parameters"][0]["value"] for one in tries] == ["0", "1"]
    begins = [step["start"] for step in busy["steps"]]
    assert begins == sorted(begins)
    assert tries[0]["stop"] <= tries[1]["start"]
    assert {"name": "retries", "value": "2"} in busy["steps"][5]["parameters"]
    (receipt, _) = allure.papers(busy)
    assert [one["error"]["message"] for one in receipt["retried"]] == ["busy 0", "busy 1"]

    (asked,) = [s for s in found.of("asks")["steps"] if s["name"].startswith("try")]
    assert "statusDetails" not in asked  # it has handled no error
    (exported,) = project.path.glob(".manifest/runs/*.receipts.jsonl")
    assert '"error": {"type": "ConnectionError", "message": "busy 1"}' in exported.read_text()
    gave_up = found.of("gives-up")
    assert gave_up["status"] == "failed"
    assert gave_up["statusDetails"]["flaky"]
    assert len([s for s in gave_up["steps"] if s["name"].startswith("try")]) == 3
    assert "statusDetails" not in found.of("once")
