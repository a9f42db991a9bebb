"""JUnit: what an entry's test case says of its job, valid whatever is in it."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from tests.plugin.conftest import Project
from tests.plugin.ways import BOTH

MEMORY = "--manifest-broker=memory://"
HOSTILE = "a\x00b\x1b[31m\x7f \ud83c ]]> <b>&amp; \"'` \u202e \ufffe \x85 \r\n  ::error::x"
TALK = f"""
from jobs import app
from celery.utils.log import get_task_logger

@app.task(name="jobs.talk")
def talk():
    get_task_logger(__name__).warning("%s", {HOSTILE!r})
    raise ValueError({HOSTILE!r})

@app.task(name="jobs.odd")
def odd():
    return {{"odd": {HOSTILE.encode("utf-8", "replace").decode()!r}}}
"""
NAMES = {
    *("entry", "task", "verdict", "run", "task_id", "attempt", "attempts", "worker", "host"),
    *("wait", "runtime", "started_at"),
}


def report(project: Project, *arguments: str) -> ET.Element:
    """The report of a run with these arguments."""
    project.run(f"--junitxml={project.path / 'report.xml'}", *arguments)
    return ET.parse(project.path / "report.xml").getroot()


def case(root: ET.Element, entry: str) -> ET.Element:
    """The test case of an entry."""
    (found,) = (one for one in root.iter("testcase") if one.get("name") == f"entry[{entry}]")
    return found


def properties(found: ET.Element) -> dict[str, str]:
    """The properties of a test case, ours without their prefix."""
    pairs = ((one.get("name", ""), one.get("value", "")) for one in found.iter("property"))
    return {name.removeprefix("manifest_"): value for name, value in pairs}


@pytest.mark.parametrize("workers", BOTH)
def test_an_entry_tells_of_its_job(project: Project, workers: tuple[str, ...]) -> None:
    """Run, worker, times and verdict are there, ``time`` is the job's own; others keep theirs."""
    project.write("test_other.py", "import time\ndef test_slow(): time.sleep(0.3)")
    project.manifest(
        "m.jsonl",
        [
            {"id": "nap", "task": "jobs.nap", "kwargs": {"sec": 0.4}},
            {
                "id": "bad",
                "task": "jobs.double",
                "kwargs": {"n": 1},
                "expect": {"result": {"n": 3}},
            },
        ],
    )
    root = report(project, "--manifest=m.jsonl", "m.jsonl", "test_other.py", MEMORY, *workers)

    nap, bad = case(root, "nap"), case(root, "bad")
    told = properties(nap)
    assert set(told) == NAMES
    assert float(nap.get("time", "0")) >= float(told["runtime"]) >= 0.4
    assert (told["entry"], told["task"], told["verdict"]) == ("nap", "jobs.nap", "passed")
    assert (told["attempt"], told["attempts"]) == ("1", "1")
    assert (properties(bad)["verdict"], bad.find("failure") is not None) == ("failed", True)
    (other,) = (one for one in root.iter("testcase") if one.get("name") == "test_slow")
    assert float(other.get("time", "0")) >= 0.3
    assert other.find("system-out") is None


@pytest.mark.ring(2)
@pytest.mark.parametrize("workers", BOTH)
def test_durations_are_those_of_the_jobs(project: Project, workers: tuple[str, ...]) -> None:
    """Of what passed and of what did not: the slowest tests are the slowest jobs."""
    project.manifest(
        "m.jsonl",
        [
            {"id": "nap", "task": "jobs.nap", "kwargs": {"sec": 0.4}},
            {"id": "quick", "task": "jobs.double", "kwargs": {"n": 1}},
            {"id": "late", "task": "jobs.nap", "kwargs": {"sec": 0.5}, "expect": {"result": 1}},
        ],
    )
    options = ("--durations=0", "--durations-min=0.3", *workers)
    done = project.run("--manifest=m.jsonl", MEMORY, *options)
    done.stdout.fnmatch_lines(["*0.5*s call*late*", "*0.4*s call*nap*"])
    done.stdout.no_fnmatch_line("*s call*quick*")


@pytest.mark.parametrize(
    ("workers", "family"),
    [
        pytest.param((), "xunit1", id="plain-xunit1"),
        pytest.param((), "xunit2", id="plain-xunit2"),
        pytest.param(("-n", "2"), "xunit2", id="xdist-xunit2", marks=pytest.mark.ring(2)),
    ],
)
def test_any_text_leaves_a_report_that_can_be_read(
    project: Project, workers: tuple[str, ...], family: str
) -> None:
    """Control characters, halves of characters, what ends CDATA: in errors, logs, ids, names."""
    project.write("talk.py", TALK)
    project.write("pytest.ini", "[pytest]\nmanifest_app = talk:app\n")
    name = "odd <&]]> name.jsonl"
    project.manifest(
        name,
        [
            {"id": "a]]>b <c> & [d]::e [[ATTACHMENT|/x]] / é 🎬 |`", "task": "jobs.talk"},
            {"id": "odd", "task": "jobs.odd", "expect": {"result": {"odd": "x"}}},
        ],
    )
    family_option = ("-o", f"junit_family={family}")
    root = report(project, f"--manifest={name}", MEMORY, *workers, *family_option)
    cases = list(root.iter("testcase"))
    assert len(cases) == 2
    found = properties(cases[0])["entry"]
    entry = "a]]>b <c> & [d]::e [[ATTACHMENT|/x]] / é 🎬 |`"
    # pytest 8.0 escapes what is beyond 16 bits, too.
    assert found in (entry, entry.replace("🎬", "#x1F3AC"))
    assert all(one.find("failure") is not None for one in cases)


def test_a_job_without_a_receipt_has_no_times(project: Project) -> None:
    """Of a task that nobody knows there is a verdict, and nothing else to tell."""
    project.manifest("m.jsonl", [{"id": "x", "task": "jobs.unknown"}])
    root = report(project, "--manifest=m.jsonl", MEMORY)
    told = set(properties(case(root, "x")))
    assert told >= {"entry", "verdict", "run", "task_id", "attempts"}
    assert not told & {"wait", "runtime", "started_at"}


def test_a_repeated_attempt_is_counted(project: Project) -> None:
    """The properties are of the attempt that was judged, and say how many there were."""
    broken = project.break_("f")
    row = {"id": "f", "task": "jobs.flaky", "args": ["f"], "idempotent": True}
    project.manifest("m.jsonl", [row])
    project.run("--manifest=m.jsonl", MEMORY)
    broken.unlink()
    root = report(project, "--manifest=m.jsonl", MEMORY, "--manifest-resume")
    told = properties(case(root, "f"))
    assert told["verdict"] == "passed"
    assert (told["attempt"], told["attempts"]) == ("2", "2")


def test_a_repeated_test_says_things_once(project: Project) -> None:
    """Where another plugin runs a failed test again, its properties are those of the last time."""
    project.manifest("m.jsonl", [{"id": "f", "task": "jobs.fail", "args": ["x"]}])
    again = ("--reruns=2", "-o", "junit_family=xunit1")
    root = report(project, "--manifest=m.jsonl", MEMORY, *again)
    last = list(root.iter("testcase"))[-1]
    assert len(list(last.iter("property"))) == len(properties(last)) > 5


def test_a_projects_own_properties_stay(project: Project) -> None:
    """What a test of an entry has recorded itself is written as pytest writes it."""
    project.doubles(count=1)
    project.write(
        "test_m.py",
        """
import pytest
pytestmark = pytest.mark.manifest("m.jsonl")
def test_entry(entry, request):
    request.node.user_properties.append(("own", "value"))
""",
    )
    root = report(project, "test_m.py", MEMORY)
    (found,) = root.iter("testcase")
    assert properties(found).items() >= {"own": "value", "entry": "d-0"}.items()
