"""What is relied on of pytest's private parts: each test fails where pytest has changed."""

from __future__ import annotations

import pytest

from pytest_manifest.compat.pytest import (
    fixtures_of_definition,
    hide_labels,
    let_go_of_arguments,
    show_labels,
    turn_into,
)

TESTS = """
import pytest

@pytest.fixture
def word(): return "outer"

class TestInner:
    @pytest.fixture
    def word(self, word): return "inner"

    @pytest.mark.parametrize("number", [1, 2])
    def test_one(self, word, number): pass
"""


NOTING = """
from pytest_manifest.console import note_terminal, terminal_file

def pytest_configure(config):
    note_terminal(config)

def pytest_terminal_summary(terminalreporter, config):
    same = terminal_file(config) is config.get_terminal_writer()._file
    terminalreporter.write_line(f"it is the same: {same}")
"""


def functions(pytester: pytest.Pytester) -> list[pytest.Function]:
    """The tests of a module with a fixture that a class overrides."""
    items, _ = pytester.inline_genitems(pytester.makepyfile(TESTS))
    assert all(isinstance(item, pytest.Function) for item in items)
    return [item for item in items if isinstance(item, pytest.Function)]


def test_the_terminal_s_file_is_the_one_that_pytest_writes_to(pytester: pytest.Pytester) -> None:
    """pytest makes its reporter of the standard output that it was started with."""
    pytester.makeconftest(NOTING)
    pytester.makepyfile("def test_one(): pass")
    pytester.runpytest_subprocess().stdout.fnmatch_lines(["it is the same: True"])


def test_a_test_s_fixtures_are_told_with_their_overrides(pytester: pytest.Pytester) -> None:
    """The last one is the one that the test gets; an argument has none."""
    item = functions(pytester)[0]
    outer, inner = fixtures_of_definition(item, "word")
    assert (outer.baseid.endswith(".py"), inner.baseid.endswith("TestInner")) == (True, True)
    assert fixtures_of_definition(item, "unknown") == ()


def test_a_test_becomes_one_of_another_class(pytester: pytest.Pytester) -> None:
    """It stays the same test, and its methods are those of the class."""

    class Elsewhere(pytest.Function):
        def reportinfo(self) -> tuple[str, int, str]:
            return "elsewhere", 0, self.name

    item = functions(pytester)[0]
    before = item.nodeid
    turn_into(item, Elsewhere)
    assert (item.nodeid, item.reportinfo()[0]) == (before, "elsewhere")


def test_pytest_lets_go_of_a_test_s_arguments_in_the_same_way(pytester: pytest.Pytester) -> None:
    """After a test that pytest has run itself there is what we leave."""
    ours, theirs = functions(pytester)
    let_go_of_arguments(ours)
    theirs.config.hook.pytest_runtest_protocol(item=theirs, nextitem=None)
    assert (ours._request, ours.funcargs) == (theirs._request, theirs.funcargs)


CONFTEST = """
import pytest
from pytest_manifest.compat.pytest import hide_labels, show_labels

@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if item.name == "test_one":
            show_labels(item, ["skip", "_odd"])
            assert item.get_closest_marker("skip") is None
    result = yield
    for item in items:
        hide_labels(item)
    return result
"""


def test_labels_select_and_do_not_act(pytester: pytest.Pytester) -> None:
    """Also such as pytest.mark refuses; a label that is called as a marker skips nothing."""
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile("def test_one(): pass\ndef test_two(): pass")
    done = pytester.runpytest_inprocess("-m", "skip and _odd", "-v")
    done.assert_outcomes(passed=1, deselected=1)


def test_labels_are_hidden_again(pytester: pytest.Pytester) -> None:
    """As often as one likes."""
    item = functions(pytester)[0]
    before = [mark.name for mark in item.iter_markers()]
    show_labels(item, ["label"])
    assert [mark.name for mark in item.iter_markers()] == [*before, "label"]
    hide_labels(item)
    hide_labels(item)
    assert [mark.name for mark in item.iter_markers()] == before


def test_all_texts_of_a_failure_can_be_changed(pytester: pytest.Pytester) -> None:
    """Source, values of variables, message and place, of all exceptions of a chain."""
    pytester.makeconftest("""
import re
import pytest
from pytest_manifest.compat.pytest import change_texts

def hide(text):
    return re.sub("one\\nE +two", "1\\nE 2", text.replace("hunter2", "#"))

@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    report = yield
    if report.failed:
        report.longrepr = change_texts(report.longrepr, hide)
    return report
""")
    pytester.makepyfile("""
def work(text):
    raise ValueError(text)

def test_one():
    found = ["hunter2"]
    try:
        work(*found)
    except ValueError as error:
        assert found == "hunter2", f"as {error}"

def test_several_lines():
    raise ValueError("one\\ntwo")
""")
    done = pytester.runpytest_inprocess("--showlocals", "-vv")
    done.assert_outcomes(failed=2)
    done.stdout.fnmatch_lines(["*ValueError: #*", "*found*=*#*", "E *ValueError: 1", "E 2"])
    done.stdout.no_fnmatch_line("*hunter2*")
