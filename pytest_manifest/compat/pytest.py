"""Private parts of pytest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import pytest

Definitions = Sequence[pytest.FixtureDef[Any]]


def fixtures_of_definition(item: pytest.Function, name: str) -> Definitions:
    """Return the definitions of a fixture that a test sees, the one that it would get last.

    None for an argument that the test is parametrized by directly. The tests of one function
    share the table.
    Relies on ``Function._fixtureinfo.name2fixturedefs`` (pytest 9.0).
    Test: ``test_compat_pytest.py::test_a_test_s_fixtures_are_told_with_their_overrides``.
    """
    definitions: Definitions = item._fixtureinfo.name2fixturedefs.get(name, ())
    return definitions


def turn_into(item: pytest.Item, kind: type[pytest.Item]) -> None:
    """Make a test that pytest has made an instance of a subclass, whose slots are the same.

    pytest's hook for making tests has no say in their class.
    Relies on ``item.__class__`` being assignable (pytest 9.0).
    Test: ``test_compat_pytest.py::test_a_test_becomes_one_of_another_class``.
    """
    item.__class__ = kind


def let_go_of_arguments(item: pytest.Function) -> None:
    """Free what a test that is over holds of its fixtures, as pytest's own protocol does.

    Relies on ``Function._request`` and ``Function.funcargs`` (pytest 9.0).
    Test: ``test_compat_pytest.py::test_pytest_lets_go_of_a_test_s_arguments_in_the_same_way``.
    """
    item._request = False  # type: ignore[assignment]  # as pytest itself does
    item.funcargs = None  # type: ignore[assignment]  # likewise


_Report = TypeVar("_Report")


def change_texts(longrepr: _Report, change: Callable[[str], str]) -> _Report:
    """Change all texts of what a report has of a failure, which is changed itself where it is no
    text or tuple; return it.

    Relies on pytest's representations being trees of objects with texts, numbers, lists and tuples
    as their attributes (``_pytest._code.code``, pytest 9.0).
    Test: ``test_compat_pytest.py::test_all_texts_of_a_failure_can_be_changed``.
    """
    return cast("_Report", _changed(longrepr, change))


def _changed(value: object, change: Callable[[str], str]) -> object:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list) and value and all(isinstance(line, str) for line in value):
        return change("\n".join(value)).split("\n")  # the lines of one text
    if isinstance(value, (list, tuple)):
        items = [_changed(item, change) for item in value]
        return items if isinstance(value, list) else tuple(items)
    if type(value).__module__ == "_pytest._code.code":
        for name, item in vars(value).items():
            object.__setattr__(value, name, _changed(item, change))
    return value


class Label(NamedTuple):
    """The part of a marker that selection by ``-m`` reads."""

    name: str
    args: tuple[()] = ()
    kwargs: dict[str, object] = {}  # noqa: RUF012 - nothing writes to it


def show_labels(item: pytest.Item, names: Iterable[str]) -> None:
    """Add names to the markers of a test that are listed when no name is asked for.

    Markers that are asked for by name are the real ones only. ``pytest.mark`` refuses some names,
    and markers act on a test.
    Relies on ``-m`` asking for ``Item.iter_markers()`` without a name, and reading ``name`` and
    ``kwargs`` of what it gets (pytest 9.0).
    Test: ``test_compat_pytest.py::test_labels_select_and_do_not_act``.
    """
    labels = [Label(name) for name in names]

    def iter_markers(name: str | None = None) -> Iterator[pytest.Mark]:
        yield from type(item).iter_markers(item, name)
        if name is None:
            yield from cast("list[pytest.Mark]", labels)

    item.__dict__["iter_markers"] = iter_markers


def hide_labels(item: pytest.Item) -> None:
    """Undo :func:`show_labels`; doing it again changes nothing."""
    item.__dict__.pop("iter_markers", None)
