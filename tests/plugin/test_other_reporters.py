"""Beside plugins that prepare, around a test's protocol, what their hooks inside it need."""

from __future__ import annotations

import json

import pytest

from tests.plugin.conftest import Project

EVENTS = """
import json

events = []

def pytest_runtest_logstart(nodeid):
    events.append(["start", nodeid])

def pytest_runtest_logreport(report):
    events.append([report.when, report.nodeid])

def pytest_runtest_logfinish(nodeid):
    events.append(["finish", nodeid])

def pytest_sessionfinish():
    with open("events.json", "w") as file:
        json.dump(events, file)
"""
STACK = "--manifest-broker=memory://"


@pytest.fixture
def reporter(project: Project) -> tuple[str, ...]:
    """pytest-json-report, which gives an item an attribute around its protocol, and nowhere else;
    and what writes down in which order things are told."""
    project.write("reporter.py", EVENTS)
    return ("-p", "reporter", "--json-report", "--json-report-file=book.json")


def events(project: Project) -> list[list[str]]:
    found: list[list[str]] = json.loads((project.path / "events.json").read_text("utf-8"))
    return found


def book(project: Project) -> dict[str, str]:
    """What the reporter has written of each test."""
    made = json.loads((project.path / "book.json").read_text("utf-8"))
    return {test["nodeid"]: test["outcome"] for test in made["tests"]}


def test_a_session_beside_such_a_plugin(project: Project, reporter: tuple[str, ...]) -> None:
    """The fixture that dispatches is set up outside of any protocol, and disturbs nobody."""
    project.doubles(count=2)

    result = project.run(*reporter, "--manifest=m.jsonl", STACK)

    result.assert_outcomes(passed=2)
    assert book(project) == dict.fromkeys(("m.jsonl::entry[d-0]", "m.jsonl::entry[d-1]"), "passed")
    assert {nodeid for _, nodeid in events(project)} == set(book(project))


def test_a_failing_set_up_is_told_as_a_test_is(project: Project, reporter: tuple[str, ...]) -> None:
    """With a beginning and an end, so that whoever keeps a book of tests has a page for it."""
    project.write(
        "conftest.py",
        """
import pytest

@pytest.fixture(scope="session")
def dispatch():
    raise OSError("no seed")
""",
    )
    project.doubles(count=1)

    result = project.run(*reporter, "--manifest=m.jsonl", STACK)

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*ERROR at setup of dispatch*", "*OSError: no seed*"])
    name = "manifest::dispatch"
    assert events(project) == [["start", name], ["setup", name], ["finish", name]]
    assert book(project) == {name: "error"}
