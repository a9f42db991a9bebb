"""A verdict that a late receipt has changed: an audit has Allure show what is true in the end."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pytest_manifest.reporting.allure.result import Subject, final_result
from pytest_manifest.schema import VerdictStatus
from tests.plugin import allure_support as allure
from tests.plugin.allure_support import MEMORY
from tests.plugin.conftest import Project
from tests.unit.analysis_support import record

# When both tests are over, each of their jobs is begun once more; only then does the last job end.
CONFTEST = """
import json
from dataclasses import replace
from typing import Any
from pathlib import Path
from pytest_manifest.schema.stream_records import STREAM_FIELD
from pytest_manifest.worker.backend_memory import MemoryStore

over = set()
begun = []  # what is read of a stream is taken out of it
add = MemoryStore.xadd

def keeping(store, name, fields, **options):
    told = json.loads(fields[STREAM_FIELD])
    if told["kind"] == "started" and told["entry"] in ("twice", "own"):
        begun.append((store, name, told))
    return add(store, name, fields, **options)

MemoryStore.xadd = keeping

def pytest_runtest_logreport(report):
    if report.when == "teardown":
        over.update(name for name in ("twice", "own") if f"[{name}]" in report.nodeid)
        if len(over) == 2:
            over.clear()
            begin_again()

def begin_again():
    for store, name, told in begun:
        add(store, name, {STREAM_FIELD: json.dumps(told | {"execution": "again"})})
        Path("hold-last").unlink(missing_ok=True)
"""
VERIFY = """
import allure
import pytest

@pytest.mark.entries(tag="own")
@allure.label("owner", "bob")
def test_own(entry):
    "It is *its* own."
    allure.dynamic.parameter("host", "h-1")
    with allure.step("compare"):
        allure.attach("seen", "note", allure.attachment_type.TEXT)
"""


@pytest.mark.ring(2)
def test_what_ran_twice_after_all(project: Project, capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing that has become bad is green; an audit writes it again whole."""
    header = {"manifest": 1, "workflow": "films"}
    entries: list[dict[str, object]] = [
        {"id": "twice", "task": "jobs.double", "kwargs": {"n": 1}, "tags": ["a"]},
        {"id": "own", "task": "jobs.double", "kwargs": {"n": 2}, "tags": ["own"]},
        # A worker of xdist keeps a test until it has another one.
        {"id": "more", "task": "jobs.double", "kwargs": {"n": 3}, "after": ["twice", "own"]},
        {"id": "last", "task": "jobs.hold", "kwargs": {"key": "last"}, "after": ["more"]},
    ]
    project.write("m.jsonl", "\n".join(map(json.dumps, [header, *entries])) + "\n")
    project.write("conftest.py", CONFTEST)
    project.write("workflows/films/verify.py", VERIFY)
    project.hold("last")
    first = allure.run(project, MEMORY)
    assert "the status alone; --manifest-audit --alluredir=..." in capfd.readouterr().out
    for result in (first.of("twice"), first.of("own")):
        assert result["status"] == "broken"
        assert result["statusDetails"]["message"].startswith("duplicated: ")
        assert allure.label(result, "verdict") == "duplicated"
    assert first.of("last")["status"] == "passed"
    found = allure.run(project, "--manifest-audit")
    assert found.identities() == first.identities()
    twice, own = found.of("twice"), found.of("own")
    for result in (twice, own):
        assert result["status"] == "broken"
        assert allure.label(result, "verdict") == "duplicated"
        assert "verdict** `duplicated`" in result["description"]
        (started,) = [s for s in allure.steps(result) if s["name"].startswith("started")]
        assert {"name": "executions", "value": "2"} in started["parameters"]
        assert json.loads(found.attached(result, "receipt"))["executions"] == 2
        assert json.loads(found.attached(result, "entry"))["id"] == allure.parameter(
            result, "entry"
        )
    assert twice["statusDetails"]["message"].startswith("duplicated: ")
    assert found.of("last")["status"] == "passed"
    own = first.of("own")
    assert allure.parameter(own, "host") == "'h-1'"
    assert own["description"].startswith("It is &#42;its&#42; own.\n\n")
    assert own["steps"][-1]["steps"][0]["name"] == "compare"
    assert own["steps"][-1]["steps"][0]["attachments"][0]["name"] == "note"


def said(status: str, message: str | None = None) -> Subject:
    own: dict[str, Any] = {
        name: [] for name in ("titlePath", "labels", "links", "parameters", "steps")
    }
    details = {"trace": "somewhere", **({"message": message} if message else {})}
    own |= {"name": "e", "fullName": "m#x", "historyId": "h", "description": None, "uuid": "u"}
    own |= {"status": status, "statusDetails": details, "start": 1, "stop": 2, "attachments": []}
    return Subject(own, "m:1", None, True, "run")


@pytest.mark.parametrize(
    ("kind", "own", "status", "message"),
    [
        ("failed", said("passed"), "passed", "failed: "),
        ("duplicated", said("failed", "it is"), "broken", "duplicated: "),
        ("passed", said("failed", "my own"), "failed", "my own"),
        ("failed", said("skipped", "xfail"), "skipped", "failed: "),
    ],
)
def test_whose_word_counts(kind: VerdictStatus, own: Subject, status: str, message: str) -> None:
    """The verdict's where it is bad; else what a test of the project's own says."""
    result = final_result(record("e", kind), own, lambda _: None, lambda _: [])
    assert result["status"] == status
    assert result["statusDetails"]["message"].startswith(message)
