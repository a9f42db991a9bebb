"""What is relied on of allure-pytest's private parts: each test fails where it has changed."""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace

import pytest

from pytest_manifest.compat.allure import close_result, container_of, open_result


def test_a_result_is_found_by_its_test_until_it_is_closed() -> None:
    """By allure-pytest's own listener."""
    listener = import_module("allure_pytest.listener")
    config = SimpleNamespace(option=SimpleNamespace())
    theirs = listener.AllureListener(config)
    uuid = open_result(theirs, "test_a.py::test_one")
    assert theirs._cache.get("test_a.py::test_one") == uuid
    assert close_result(theirs, "test_a.py::test_one") == uuid
    assert theirs._cache.get("test_a.py::test_one") is None
    assert container_of(theirs, object()) is None


CONFTEST = """
import pytest
from pytest_manifest.compat.allure import container_of
from pytest_manifest.compat.pytest import fixtures_of_definition

@pytest.hookimpl(trylast=True)
def pytest_runtest_call(item):
    listener = item.config.pluginmanager.getplugin("allure_listener")
    (definition,) = fixtures_of_definition(item, "shared")
    print("found", container_of(listener, definition).befores[0].name)
"""


def test_a_shared_fixture_is_recorded_by_its_definition(pytester: pytest.Pytester) -> None:
    """With what was done in it."""
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(
        """
        import pytest

        @pytest.fixture(scope="module")
        def shared(): return 1

        def test_one(shared): pass
        """
    )
    done = pytester.runpytest_subprocess("-s", "--alluredir=results")
    done.stdout.fnmatch_lines(["*found shared*"])
