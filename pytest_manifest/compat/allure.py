"""Private parts of allure-pytest."""

from __future__ import annotations

from typing import Protocol


class AllureContainer(Protocol):
    """A record of a fixture, with the ids of the tests that had it."""

    children: list[str | None]


class _ItemCache(Protocol):
    """Ids of what is being recorded, by test, fixture or definition."""

    def push(self, item: object) -> object: ...
    def pop(self, item: object) -> object: ...
    def get(self, item: object) -> str | None: ...


class _Reporter(Protocol):
    def get_item(self, uuid: str | None) -> AllureContainer | None: ...


class AllureListener(Protocol):
    """allure-pytest's listener, as far as it is used here: the package ships no types."""

    allure_logger: _Reporter
    _cache: _ItemCache


def open_result(listener: AllureListener, nodeid: str) -> str:
    """Return the id of a new result, under which whatever is added to the test finds it.

    ``listener``: allure-pytest's own.
    Relies on ``AllureListener._cache.push`` (allure-pytest 2.16).
    Test: ``test_compat_allure.py::test_a_result_is_found_by_its_test_until_it_is_closed``.
    """
    return str(listener._cache.push(nodeid))


def close_result(listener: AllureListener, nodeid: str) -> str:
    """Return the id of a test's result, which nothing is added to any more.

    Relies on ``AllureListener._cache.pop`` (allure-pytest 2.16).
    Test: ``test_compat_allure.py::test_a_result_is_found_by_its_test_until_it_is_closed``.
    """
    return str(listener._cache.pop(nodeid))


def container_of(listener: AllureListener, definition: object) -> AllureContainer | None:
    """Return the record of a fixture that was set up, which names the tests that had it.

    None where there is nothing.
    Relies on ``AllureListener._cache.get`` being asked by a fixture's definition (2.16).
    Test: ``test_compat_allure.py::test_a_shared_fixture_is_recorded_by_its_definition``.
    """
    return listener.allure_logger.get_item(listener._cache.get(definition))
