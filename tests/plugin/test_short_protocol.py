"""The built-in test of an entry that has passed is run in short, which nobody can tell."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.plugin.conftest import Project

MEMORY = ("--manifest=m.jsonl", "--manifest-broker=memory://")

WITNESS = """
import json
import os
from pathlib import Path

import pytest
from _pytest import runner

told, usual = [], []
plainly = runner.call_and_report


def counted(item, when, *rest, **more):
    if when == "setup":
        usual.append(item.name)
    return plainly(item, when, *rest, **more)


runner.call_and_report = counted


def pytest_runtest_logstart(nodeid, location):
    told.append(["start", nodeid, location])


def pytest_runtest_logreport(report):
    facts = dict(vars(report))
    assert facts.pop("start") <= facts.pop("stop")
    assert 0 <= facts.pop("duration") < 60
    facts["current"] = report.nodeid in os.environ.get("PYTEST_CURRENT_TEST", "")
    facts["longrepr"] = facts["longrepr"] is not None  # it names the run
    facts["user_properties"] = [name for name, _ in facts["user_properties"]]
    told.append([report.when, report.nodeid, {name: str(fact) for name, fact in facts.items()}])


def pytest_runtest_logfinish(nodeid, location):
    assert "PYTEST_CURRENT_TEST" not in os.environ
    told.append(["finish", nodeid, location])


def pytest_sessionfinish(session):  # an xdist worker may be ended before it has done more
    worker = getattr(session.config, "workerinput", {}).get("workerid", "main")
    Path(f"told-{worker}.json").write_text(json.dumps([told, usual]))
"""


def told(project: Project, process: str = "main") -> tuple[list[Any], list[str]]:
    """What hooks were told, by test, and the tests that went the usual way."""
    rows, usual = json.loads((project.path / f"told-{process}.json").read_text("utf-8"))
    return sorted(rows, key=lambda row: str(row[1])), usual


def test_reports_are_those_of_the_usual_protocol(project: Project) -> None:
    """Place, keywords, properties, sections and order: all but times, of passed and failed."""
    project.doubles(count=5)
    with (project.path / "m.jsonl").open("a", encoding="utf-8") as file:
        for line in (
            {"id": "odd [one]", "task": "jobs.double", "args": [1]},
            {"id": "bad", "task": "jobs.fail", "args": ["no film"]},
            {"id": "last", "task": "jobs.nap", "args": [0.2, "last"], "after": ["d-4"]},
        ):
            file.write(json.dumps(line) + "\n")
    project.write("conftest.py", WITNESS)
    project.run(*MEMORY).assert_outcomes(passed=7, failed=1)
    rows, usual = told(project)
    assert sorted(usual) == ["entry[bad]", "entry[last]"]  # the last one ends what is left

    project.write("conftest.py", WITNESS + "\n\ndef pytest_runtest_call():\n    pass\n")
    project.run(*MEMORY).assert_outcomes(passed=7, failed=1)
    current = {row[0]: row[2]["current"] for row in rows if row[0] in ("setup", "call", "teardown")}
    assert current == {"setup": "True", "call": "True", "teardown": "False"}
    rows_of_usual, usual = told(project)
    assert len(usual) == 8
    assert rows == rows_of_usual


USUAL_TOO = "\n\ndef pytest_runtest_call():\n    pass\n"


@pytest.mark.ring(2)
def test_the_controller_of_xdist_is_told_the_same_as_of_usual_tests(project: Project) -> None:
    """Its plugins hear the same, in the same order; its workers run all in short but for the last
    one of each."""
    project.doubles(count=30)
    project.write("conftest.py", WITNESS)
    project.run(*MEMORY, "-n", "2").assert_outcomes(passed=30)
    of_short = told(project)[0]
    for process in ("gw0", "gw1"):
        rows, usual = told(project, process)
        assert len(usual) <= 1 < len({row[1] for row in rows})
    project.write("conftest.py", WITNESS + USUAL_TOO)
    project.run(*MEMORY, "-n", "2").assert_outcomes(passed=30)
    of_usual = told(project)[0]
    assert len(of_short) == 30 * 5
    for row in [*of_short, *of_usual]:
        if row[0] in ("setup", "call", "teardown"):
            assert row[2].pop("worker_id") in ("gw0", "gw1")
            assert "gw" in row[2].pop("node")
            assert row[2].pop("testrun_uid")
    assert of_short == of_usual


LETS_GO = """
import os
from pathlib import Path


def pytest_runtest_logreport(report):
    if "PYTEST_XDIST_WORKER" not in os.environ and report.when == "teardown":
        Path("hold-second").unlink(missing_ok=True)
"""


def test_a_worker_that_waits_for_a_verdict_has_told_of_the_tests_before(project: Project) -> None:
    """The second job ends when the controller has heard of the first one's test."""
    others = [{"id": f"n-{n}", "task": "jobs.nap", "kwargs": {"sec": 0}} for n in range(3)]
    held = {"id": "held", "task": "jobs.hold", "kwargs": {"key": "second"}, "timeout": 20}
    project.manifest("m.jsonl", [others[0], held, *others[1:]])
    project.write("conftest.py", LETS_GO)
    project.write("hold-second", "")
    project.run(*MEMORY, "-n", "1", "--dist=worksteal").assert_outcomes(passed=4)


CRASHES = """
import os


def pytest_runtest_logreport(report):
    if "PYTEST_XDIST_WORKER" in os.environ and "d-4" in report.nodeid and report.when == "call":
        os._exit(9)
"""


def test_a_crash_is_told_of_the_test_in_which_it_was(project: Project) -> None:
    """Where it is not run again, so that it stays failed."""
    project.doubles(count=8)
    project.write("conftest.py", CRASHES)
    result = project.run(*MEMORY, "-n", "1", "--dist=loadfile", "--max-worker-restart=0")
    result.stdout.fnmatch_lines(["FAILED m.jsonl::entry?d-4?*"])
    assert result.parseoutcomes()["failed"] == 1


CRASHES_ONCE = CRASHES.replace(
    'report.when == "call"', 'report.when == "setup" and not os.path.exists("crashed")'
).replace("os._exit(9)", "os.mkdir('crashed') or os._exit(9)")


def test_a_crash_beside_rerunfailures_is_a_rerun(project: Project) -> None:
    """It asks the scheduler for pytest's configuration, as xdist's own have it."""
    project.doubles(count=8)
    project.write("conftest.py", CRASHES_ONCE)
    result = project.run(*MEMORY, "-n", "1")
    assert result.parseoutcomes() == {"passed": 8, "rerun": 1}


ADDED = """

import json
import os

import pytest

seen = {}


@pytest.hookimpl(tryfirst=True)  # before xdist
def pytest_runtest_logreport(report):
    entry = report.nodeid.partition("[d-")[2].rstrip("]")
    kind = int(entry) % len(KINDS) if entry else None
    if kind is None:
        return
    added, found = KINDS[kind]
    if "PYTEST_XDIST_WORKER" in os.environ:
        exec(added)
    else:
        seen.setdefault(kind, set()).add(str(eval(found)))


def pytest_unconfigure(config):
    if "PYTEST_XDIST_WORKER" not in os.environ:
        with open("found.json", "w") as file:
            json.dump({kind: sorted(values) for kind, values in seen.items()}, file)
"""
ADDITIONS = {
    "an attribute": ("report.film = report.when", "report.film", {"call", "setup", "teardown"}),
    "a section": (
        "report.sections.append(('Film', 'text'))",
        "report.sections",
        {"[('Film', 'text')]"},
    ),
    "a property": (
        "report.user_properties.append(('film', (1, 2)))",
        "dict(report.user_properties).get('film')",
        {"(1, 2)"},
    ),
    "keywords": ("report.keywords = {'film': 1}", "'film' in report.keywords", {"True"}),
    "a list of keywords": ("report.keywords = ['film']", "report.keywords", {"['film']"}),
    "a number as keyword": ("report.keywords = {5: 1}", "report.keywords", {"{5: 1}"}),
    "a property of three": (
        "report.user_properties[:] = [('a', 1, 2)]",
        "report.user_properties",
        {"[('a', 1, 2)]"},
    ),
    "what is equal": (
        "report.odd = 1 if report.when == 'setup' else True",
        "report.odd",
        {"1", "True"},
    ),
    "a list as location": (
        "report.location = list(report.location)",
        "type(report.location).__name__",
        {"list"},
    ),
}
"""What a worker does to a report, what the controller looks at, and what it finds."""


@pytest.mark.ring(2)
def test_what_a_worker_adds_to_reports_arrives(project: Project) -> None:
    """Each in reports of several tests, as the last one of a worker is not run in short."""
    project.doubles(count=3 * len(ADDITIONS))
    kinds = [(added, found) for added, found, _ in ADDITIONS.values()]
    project.write("conftest.py", f"KINDS = {kinds!r}\n{ADDED}")
    project.run(*MEMORY, "-n", "2").assert_outcomes(passed=3 * len(ADDITIONS))
    found = json.loads((project.path / "found.json").read_text("utf-8"))
    assert {name: set(found[str(kind)]) for kind, name in enumerate(ADDITIONS)} == {
        name: seen for name, (_, _, seen) in ADDITIONS.items()
    }


@pytest.mark.ring(2)
@pytest.mark.parametrize("side", ["to", "from"])
def test_who_has_a_say_in_how_reports_are_sent_sees_each(project: Project, side: str) -> None:
    """In a worker, and in the controller."""
    project.doubles(count=6)
    argument = "report" if side == "to" else "data"
    project.write(
        "conftest.py",
        SAID
        + f"""
@pytest.hookimpl(wrapper=True)
def pytest_report_{side}_serializable({argument}):
    if "{side}" == "from":
        say(data["nodeid"])
    found = yield
    if "{side}" == "to":
        say(found["nodeid"])
    return found
""",
    )
    project.run(*MEMORY, "-n", "1").assert_outcomes(passed=6)
    assert (project.path / "said.txt").read_text("utf-8").count("m.jsonl::entry[d-") == 6 * 3


def test_reports_of_a_form_of_their_own_arrive(project: Project) -> None:
    """As a plugin writes them down, and reads them."""
    project.doubles(count=6)
    project.write(
        "conftest.py",
        """
import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_report_to_serializable(report):
    return {"$report_type": "Mine", "payload": report._to_json()}


def pytest_report_from_serializable(data):
    if data["$report_type"] == "Mine":
        return pytest.TestReport._from_json(data["payload"])
""",
    )
    project.run(*MEMORY, "-n", "1").assert_outcomes(passed=6)


SAID = """
from pathlib import Path

import pytest


def say(item):
    with Path("said.txt").open("a") as file:
        file.write(f"{getattr(item, 'name', item)}\\n")

"""
OTHERS = {
    "a hook before a test": "def pytest_runtest_setup(item): say(item)",
    "a hook around a test": """
@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem):
    say(pyfuncitem)
    return (yield)
""",
    "a hook around its report": """
@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    if call.when == "teardown":
        say(item)
    return (yield)
""",
    "a fixture for each test": """
@pytest.fixture(autouse=True)
def around(request):
    yield
    say(request.node)
""",
    "a plugin of the project's": """
class Plugin:
    def pytest_runtest_teardown(self, item):
        say(item)


def pytest_configure(config):
    config.pluginmanager.register(Plugin())
""",
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_whoever_has_a_say_in_a_test_is_asked(project: Project, other: str) -> None:
    """Hooks and fixtures of the project's are run for each test, as for any other."""
    project.doubles(count=4)
    project.write("conftest.py", SAID + other)
    project.run(*MEMORY).assert_outcomes(passed=4)
    said = (project.path / "said.txt").read_text("utf-8").split("\n")[:-1]
    assert sorted(set(said) - {"dispatch"}) == [f"entry[d-{n}]" for n in range(4)]


@pytest.mark.parametrize("how", ["option", "ini"])
def test_a_plugin_that_runs_tests_again_runs_all_of_them(project: Project, how: str) -> None:
    """It counts the tries in the reports of each."""
    project.doubles(count=3)
    project.write("conftest.py", WITNESS)
    if how == "ini":
        with (project.path / "pytest.ini").open("a", encoding="utf-8") as file:
            file.write("reruns = 1\n")
    project.run(*MEMORY, *(["--reruns=1"] if how == "option" else [])).assert_outcomes(passed=3)
    rows, _ = told(project)
    reports = [row[2] for row in rows if row[0] in ("setup", "call", "teardown")]
    assert len(reports) == 9
    assert all(report["rerun"] == "0" for report in reports)


def test_the_time_of_a_session_is_watched_after_each_test(project: Project) -> None:
    """pytest-timeout does so by a hook around tests."""
    project.doubles(count=50)
    result = project.run(*MEMORY, "--session-timeout=0.000001")
    result.stdout.fnmatch_lines(["*session-timeout*exceeded*"])
    assert result.parseoutcomes().get("passed", 0) < 50


def test_a_plugin_that_comes_in_the_middle_is_asked_from_then_on(project: Project) -> None:
    """It is registered when the first test is over."""
    project.doubles(count=4)
    later = """
class Later:
    def pytest_runtest_teardown(self, item):
        say(item)


def pytest_runtest_logfinish():
    if Later.manager is not None:
        Later.manager.register(Later())
        Later.manager = None


def pytest_configure(config):
    Later.manager = config.pluginmanager
"""
    project.write("conftest.py", SAID + later)
    project.run(*MEMORY).assert_outcomes(passed=4)
    said = (project.path / "said.txt").read_text("utf-8").split("\n")[:-1]
    assert len(set(said)) == 3


def test_a_warning_of_who_is_told_of_reports_is_shown(project: Project) -> None:
    """With the others, at the end."""
    project.doubles(count=3)
    project.write(
        "conftest.py",
        """
import warnings


def pytest_runtest_logreport(report):
    if report.when == "call" and "d-0" in report.nodeid:
        warnings.warn(UserWarning("look here"))
""",
    )
    result = project.run(*MEMORY)
    assert result.parseoutcomes() == {"passed": 3, "warnings": 1}
    result.stdout.fnmatch_lines(["*UserWarning: look here"])


def test_markers_that_a_conftest_adds_are_heeded(project: Project) -> None:
    """Such that skip, and such that expect a failure."""
    project.doubles(count=4)
    project.write(
        "conftest.py",
        """
import pytest


def pytest_collection_modifyitems(items):
    items[0].add_marker(pytest.mark.skip(reason="not now"))
    items[1].add_marker(pytest.mark.xfail(reason="it was wrong"))
""",
    )
    result = project.run(*MEMORY, "-rsX")
    result.assert_outcomes(passed=2, skipped=1, xpassed=1)
    result.stdout.fnmatch_lines(["*not now*", "*it was wrong*"])


def test_the_set_up_of_a_package_is_run(project: Project) -> None:
    """Before the first test of a manifest in it."""
    project.doubles("films/m.jsonl", count=3)
    project.write(
        "films/__init__.py",
        """
from pathlib import Path


def setup_module():
    with Path("said.txt").open("a") as file:
        file.write("set up\\n")
""",
    )
    project.write(
        "conftest.py",
        SAID + "def pytest_runtest_logreport(report): say(report.nodeid)",
    )
    project.run("--manifest=films/m.jsonl", MEMORY[1]).assert_outcomes(passed=3)
    said = (project.path / "said.txt").read_text("utf-8").split("\n")
    assert said.index("set up") < 1, said


def test_the_set_up_is_shown_where_that_is_asked_for(project: Project) -> None:
    """``--setup-show`` names each test."""
    project.doubles(count=3)
    result = project.run(*MEMORY, "--setup-show")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines([f"*m.jsonl::entry?d-{n}? (fixtures used: *" for n in range(3)])


def test_what_a_file_before_has_set_up_ends_before_the_next_file(project: Project) -> None:
    """Tests that are run in short lie between others, whose fixtures end where they should."""
    project.doubles(count=4)
    project.write(
        "conftest.py",
        """
from pathlib import Path

import pytest


def say(word):
    with Path("said.txt").open("a") as file:
        file.write(f"{word}\\n")


@pytest.fixture(scope="module")
def house(request):
    say(f"{request.module.__name__} begins")
    yield
    say(f"{request.module.__name__} ends")
""",
    )
    for name in ("a", "b"):
        project.write(
            f"test_{name}.py", "def test_one(house): pass\n\n\ndef test_two(house): pass\n"
        )
    result = project.run(*MEMORY, "test_a.py", "m.jsonl", "test_b.py")
    result.assert_outcomes(passed=8)
    said = (project.path / "said.txt").read_text("utf-8").split("\n")[:-1]
    assert said in (
        ["test_a begins", "test_a ends", "test_b begins", "test_b ends"],
        ["test_b begins", "test_b ends", "test_a begins", "test_a ends"],
    )
