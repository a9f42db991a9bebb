"""Jobs that start other jobs, in whole sessions: an entry has passed when its whole tree has."""

from __future__ import annotations

import os
import signal
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence

import pytest

from pytest_manifest.ledger import Ledger
from pytest_manifest.schema import VerdictStatus
from tests.plugin.conftest import Project
from tests.plugin.outside import INSTRUMENTED, pytest_beside, worker
from tests.reports import tree_counts
from tests.support import eventually

pytestmark = pytest.mark.live
MEMORY = "--manifest-broker=memory://"
LATER = pytest.mark.ring(2)

STARTING = """
from celery import chord

@app.task(name="jobs.start")
def start(key, *children):
    count(key)
    for name, *args in children:
        app.send_task(f"jobs.{name}", args)

@app.task(name="jobs.total")
def total(values, key):
    count(key)

@app.task(name="jobs.spread")
def spread(key, number):
    count(key)
    chord([double.s(n, f"{key}/{n}") for n in range(number)], total.s(f"{key}/body")).delay()

class Speaking(app.Task):
    def after_return(self, status, retval, task_id, args, kwargs, einfo):
        for name, *args in args[1:]:
            app.send_task(f"jobs.{name}", args)

@app.task(name="jobs.speak", base=Speaking)
def speak(key, *children):
    count(key)

@app.task(name="jobs.elsewhere")
def elsewhere(key, queue):
    count(key)
    double.apply_async((1, f"{key}/1"), queue=queue)
"""


@pytest.fixture
def project(project: Project) -> Project:
    project.write("jobs.py", (project.path / "jobs.py").read_text("utf-8") + STARTING)
    return project


def starting(key: str, *children: Sequence[object], **fields: object) -> dict[str, object]:
    """An entry whose job starts these: name of the task, arguments."""
    return {"id": key, "task": "jobs.start", "args": [key, *children], **fields}


def descendants(project: Project) -> Mapping[VerdictStatus | None, int]:
    with Ledger.open(project.ledgers()[-1]) as ledger:
        return tree_counts(ledger)


@pytest.mark.parametrize("options", [(), pytest.param(("-n2",), marks=LATER), (MEMORY,)])
def test_an_entry_is_judged_with_all_that_it_started(
    project: Project, options: tuple[str, ...]
) -> None:
    """On a private stack, distributed, and in memory: the failed one is named, with its error."""
    project.manifest(
        "m.jsonl",
        [
            starting("good", ("double", 1, "g1"), ("double", 2, "g2")),
            starting("deep", ("start", "d1", ("start", "d2", ("double", 1, "d3")))),
            starting("bad", ("double", 1, "b1"), ("fail", "nothing fits", "b2")),
            {"id": "chord", "task": "jobs.spread", "args": ["chord", 3]},
            {"id": "alone", "task": "jobs.double", "args": [1, "alone"]},
        ],
    )
    result = project.run("--manifest=m.jsonl", *options)
    result.assert_outcomes(passed=4, failed=1)
    result.stdout.fnmatch_lines(
        ["The job passed, but its descendant 'jobs.fail' (*), started by 'jobs.start', failed: *"]
    )
    assert "ValueError: nothing fits" in result.stdout.str()
    keys = ["good", "g1", "g2", "deep", "d1", "d2", "d3", "bad", "b1", "b2", "alone"]
    keys += ["chord", "chord/0", "chord/1", "chord/2", "chord/body"]
    assert project.ran() == dict.fromkeys(keys, 1)
    assert descendants(project) == {"passed": 10, "failed": 1}


def test_the_end_of_a_run_tells_of_its_trees(project: Project) -> None:
    """How many there were and how they ended, and what took longest; and so does the Markdown."""
    project.manifest(
        "m.jsonl",
        [
            starting("deep", ("start", "d1", ("start", "d2", ("nap", 0.3, "d3")))),
            starting("bad", ("double", 1, "b1"), ("fail", "nothing | fits", "b2")),
            *({"id": f"n-{n}", "task": "jobs.double", "args": [n]} for n in range(3)),
        ],
    )
    options = MEMORY, "--manifest-report=run.md", "-v"
    result = project.run("--manifest=m.jsonl", *options)
    result.stdout.fnmatch_lines(
        [
            "m.jsonl: run *, 5 entries: 1 failed, 4 passed; 5 descendants: 1 failed, 4 passed",
            "  slowest tree: deep, 0.* s from its job's start to its last descendant's end",
            "    critical path: each task was sent by the one above it, waited, and ran",
            "    task        waited, s  began, s  ran, s",
            "    jobs.start          -     0.000  *",
            "    jobs.start  *",
            "    jobs.start  *",
            "    jobs.nap    *   0.3*",
            "FAILED m.jsonl::entry[[]bad[]] - its descendant 'jobs.fail' failed: The task*",
            "  1  a descendant jobs.fail failed: bad",
        ]
    )
    (line,) = [line for line in result.outlines if "from first sending to last end" in line]
    assert float(line.split()[0]) >= 0.3, "the job itself has ended at once"
    text = (project.path / "run.md").read_text("utf-8")
    assert "#### Descendants\n\n5 descendants of 2 entries: 1 failed, 4 passed.\n" in text
    (row,) = [line for line in text.splitlines() if "<code>jobs.fail</code> (failed)" in line]
    assert row.startswith(
        "| [<code>bad</code>](m.jsonl#L2) | 2 descendants&#58; 1 failed, 1 passed |"
    )
    assert "ValueError&#58; nothing &#124; fits" in row
    assert "Slowest tree: [<code>deep</code>](m.jsonl#L1), 0." in text
    path = " -&#62; ".join(["jobs.start"] * 3 + ["jobs.nap"])
    assert f"Critical path: <code>{path}</code>" in text


def test_a_group_of_entries_tells_of_its_trees(project: Project) -> None:
    """In the text of its failure, and as properties; one whose jobs start nothing does not."""
    project.manifest(
        "m.jsonl",
        [
            starting("good", ("double", 1, "g1")),
            starting("bad", ("double", 1, "b1"), ("fail", "no", "b2")),
            *({"id": f"n-{n}", "task": "jobs.double", "args": [n]} for n in range(2)),
        ],
    )
    options = MEMORY, "--manifest-aggregate=chunk:2", "--junitxml=report.xml"
    result = project.run("--manifest=m.jsonl", *options, "-o", "junit_family=xunit1")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "1 of 2 entries failed, 1 passed.",
            "3 descendants: 1 failed, 2 passed.",
            "  bad  failed  The job passed, but its descendant 'jobs.fail' (*failed: The task*",
        ]
    )
    told = [
        {one.get("name", ""): one.get("value") for one in case.iter("property")}
        for case in ET.parse(project.path / "report.xml").getroot().iter("testcase")
    ]
    names = "manifest_descendants", "manifest_descendants_failed"
    assert {tuple(map(one.get, names)) for one in told} == {("3", "1"), (None, None)}


@pytest.mark.parametrize("options", [pytest.param((), marks=LATER), (MEMORY,)])
def test_what_is_expected_of_descendants_decides(
    project: Project, options: tuple[str, ...]
) -> None:
    """They may fail where that is said; their number and their tasks may be said as well."""
    children = ("fail", "no", "c1"), ("double", 1, "c2")
    names = ["jobs.fail", "jobs.double"]
    project.manifest(
        "m.jsonl",
        [
            starting("finished", *children, expect={"descendants": "finished"}),
            starting("ignored", *children, expect={"descendants": "ignored"}),
            starting(
                "told",
                *children,
                expect={"descendants": {"outcome": "finished", "count": 2, "tasks": names}},
            ),
            starting(
                "fewer", *children, expect={"descendants": {"outcome": "finished", "count": 3}}
            ),
        ],
    )
    result = project.run("--manifest=m.jsonl", *options)
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(["*but descendants.count is 2 where 3 was expected*"])
    assert project.verdicts()["fewer"] == "failed"


@pytest.mark.parametrize("options", [pytest.param((), marks=LATER), (MEMORY,)])
def test_what_handlers_start_after_the_end_is_followed(
    project: Project, options: tuple[str, ...]
) -> None:
    """Celery calls them when the result is stored, so that its receipt knows of nothing yet."""
    project.manifest(
        "m.jsonl",
        [
            {"id": "good", "task": "jobs.speak", "args": ["good", ["double", 1, "g1"]]},
            {"id": "bad", "task": "jobs.speak", "args": ["bad", ["fail", "no", "b1"]]},
            {"id": "none", "task": "jobs.speak", "args": ["none"]},
        ],
    )
    result = project.run("--manifest=m.jsonl", *options)
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["  record    consistent: 3 entries, 3 verdicts"])
    assert project.verdicts()["bad"] == "failed"
    assert project.ran() == dict.fromkeys(["good", "g1", "bad", "b1", "none"], 1)


@LATER
def test_a_child_in_a_queue_of_its_own_is_run_and_followed(project: Project) -> None:
    """Its parent names it, and nobody had told the private stack of it before."""
    project.manifest("m.jsonl", [{"id": "e", "task": "jobs.elsewhere", "args": ["e", "unheard"]}])
    project.run("--manifest=m.jsonl").assert_outcomes(passed=1)
    assert project.ran() == {"e": 1, "e/1": 1}


@LATER
def test_stock_workers_tell_nothing_of_children(project: Project, broker: str) -> None:
    """What a manifest says of them is refused before anything is sent; else they do not count."""
    child = ("fail", "no", "c1")
    project.manifest("m.jsonl", [starting("e", child, expect={"descendants": "succeeded"})])
    options = f"--manifest-broker={broker}", "-rA"
    with worker(project, broker):
        refused = project.run("--manifest=m.jsonl", *options)
        assert refused.ret == pytest.ExitCode.USAGE_ERROR, "nothing was to be sent"
        assert "'expect' says what must become of the tasks that the job starts" in (
            refused.stdout.str() + refused.stderr.str()
        )
        assert not project.ran()
        project.manifest("n.jsonl", [starting("e", child)])
        project.run("--manifest=n.jsonl", *options).assert_outcomes(passed=1)


@LATER
def test_a_dead_worker_takes_a_descendant_with_it(project: Project, broker: str) -> None:
    """Its entry has crashed, and the sentence names the descendant."""
    project.hold("c1")
    project.manifest("m.jsonl", [starting("e", ("hold", "c1"), timeout=60)])
    options = "--manifest=m.jsonl", f"--manifest-broker={broker}", "--manifest-repair"
    with (
        worker(project, broker, *INSTRUMENTED, name="first") as first,
        pytest_beside(project, *options) as process,
    ):
        eventually(lambda: project.ran()["c1"], within=60, what="the child begins")
        os.killpg(first.pid, signal.SIGKILL)
        with worker(project, broker, *INSTRUMENTED, name="second"):
            output, _ = process.communicate(timeout=120)
    assert project.verdicts() == {"e": "crashed"}
    assert "its descendant 'jobs.hold'" in output
    assert project.ran() == {"e": 1, "c1": 1}


@LATER
def test_an_interrupted_run_is_gone_on_with_where_its_trees_are(
    project: Project, broker: str
) -> None:
    """On a stack of others the descendants go on; who resumes the run waits for them."""
    project.hold("c1")
    project.manifest("m.jsonl", [starting("e", ("hold", "c1"), ("double", 1, "c2"))])
    options = "--manifest=m.jsonl", f"--manifest-broker={broker}"
    with worker(project, broker, *INSTRUMENTED):
        with pytest_beside(project, *options) as process:
            eventually(lambda: project.ran()["c1"], within=60, what="the child begins")
            eventually(lambda: descendants(project).get("passed"), what="the other one has ended")
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)
        assert project.verdicts() == {}
        (project.path / "hold-c1").unlink()
        project.run(*options, "--manifest-resume").assert_outcomes(passed=1)
    assert project.ran() == {"e": 1, "c1": 1, "c2": 1}
    assert descendants(project) == {"passed": 2}


@LATER
def test_an_audit_tells_what_has_not_ended(project: Project, broker: str) -> None:
    """The evening sends, the morning looks: an entry whose descendants run is pending."""
    held = project.hold("c1")
    project.manifest("m.jsonl", [starting("e", ("hold", "c1"))])
    options = "--manifest=m.jsonl", f"--manifest-broker={broker}"
    with worker(project, broker, *INSTRUMENTED):
        project.run(*options, "--manifest-dispatch-only")
        eventually(lambda: project.ran()["c1"], within=60, what="the child begins")
        early = project.run(*options, "--manifest-audit")
        assert project.verdicts() == {"e": "pending"}
        assert "it has ended itself, and 1 task that it started has not" in early.stdout.str()
        held.unlink()
        late = project.run(*options, "--manifest-audit=wait")
        late.assert_outcomes(passed=1)
    assert project.ran() == {"e": 1, "c1": 1}


@LATER
def test_what_waits_for_an_entry_waits_for_its_descendants(project: Project) -> None:
    """``after`` is about the whole tree."""
    project.workers(2)
    project.manifest(
        "m.jsonl",
        [
            starting("first", ("nap", 0.5, "c1"), ("nap", 0.5, "c2")),
            {"id": "then", "task": "jobs.double", "args": [1, "then"], "after": ["first"]},
        ],
    )
    project.run("--manifest=m.jsonl").assert_outcomes(passed=2)
    assert project.order()[-1] == "then"


@LATER
def test_who_goes_on_after_the_deadline_waits_for_what_still_runs(
    project: Project, broker: str
) -> None:
    """Nothing is sent a second time while a descendant of the first attempt goes on."""
    held = project.hold("c1")
    entry = starting("e", ("hold", "c1"), idempotent=True, timeout=90)
    project.manifest("m.jsonl", [entry])
    options = "--manifest=m.jsonl", f"--manifest-broker={broker}"
    with worker(project, broker, *INSTRUMENTED):
        project.run(*options, "--manifest-deadline=4").assert_outcomes(failed=1)
        assert project.verdicts() == {"e": "timed_out"}
        with pytest_beside(project, *options, "--manifest-resume") as process:
            eventually(lambda: not project.verdicts(), within=60, what="it is awaited again")
            held.unlink()
            process.communicate(timeout=60)
    assert project.verdicts() == {"e": "passed"}
    assert project.ran() == {"e": 1, "c1": 1}
