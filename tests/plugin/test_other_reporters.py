"""Beside plugins that prepare, around a test's protocol, what their hooks inside it need."""

from __future__ import annotations

import json

import pytest

from tests.plugin.conftest import Project

# As pytest-json-report does it: the item gets an attribute around the protocol, and nowhere else.
REPORTER = """
import json
import pytest

events = []

@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item, nextitem):
    item._extra = {}
    result = yield
    del item._extra
    return result

@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    item._extra["setup"] = {}
    return (yield)

@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    item._extra["call"] = {}
    return (yield)

@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item):
    item._extra["teardown"] = {}
    return (yield)

@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    report._extra = item._extra[call.when]
    return report

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


def events(project: Project) -> list[list[str]]:
    found: list[list[str]] = json.loads((project.path / "events.json").read_text("utf-8"))
    return found


def test_a_session_beside_such_a_plugin(project: Project) -> None:
    """The fixture that dispatches is set up outside of any protocol, and disturbs nobody."""
    project.write("reporter.py", REPORTER)
    project.doubles(count=2)

    result = project.run("-p", "reporter", "--manifest=m.jsonl", STACK)

    result.assert_outcomes(passed=2)
    assert {nodeid for _, nodeid in events(project)} == {
        "m.jsonl::entry[d-0]",
        "m.jsonl::entry[d-1]",
    }


def test_a_failing_set_up_is_told_as_a_test_is(project: Project) -> None:
    """With a beginning and an end, so that whoever keeps a book of tests has a page for it."""
    project.write("reporter.py", REPORTER)
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

    result = project.run("-p", "reporter", "--manifest=m.jsonl", STACK)

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*ERROR at setup of dispatch*", "*OSError: no seed*"])
    name = "manifest::dispatch"
    assert events(project) == [["start", name], ["setup", name], ["finish", name]]
