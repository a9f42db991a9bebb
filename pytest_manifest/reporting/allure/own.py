"""Read what a test reports of itself, beside what the ledger knows of its entry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pytest

from pytest_manifest.bindings import BUILTIN_ENTRY, BUILTIN_GROUP, tags_of
from pytest_manifest.reporting.allure.status import Status
from pytest_manifest.reporting.allure.steps import Json
from pytest_manifest.reporting.allure.text import escaped, visible
from pytest_manifest.reporting.allure.told import Told
from pytest_manifest.schema import VerdictStatus
from pytest_manifest.verdict import printable

_OURS = frozenset({BUILTIN_ENTRY, BUILTIN_GROUP, "entry", "manifest"})
_UNWANTED = frozenset({"host", "thread", "tag"})


@dataclass(frozen=True, slots=True)
class Own:
    """A test's own report of itself.

    ``start`` and ``stop``: of the test itself, in milliseconds since the epoch; ``seen``: the
    verdict that the test has read; ``doc``: its description in Markdown; ``html``: HTML to show
    instead.
    """

    status: Status | None
    message: str | None
    trace: str | None
    start: int
    stop: int
    seen: VerdictStatus | None
    doc: str | None
    html: str | None
    labels: Sequence[tuple[str, str]]
    links: Sequence[tuple[str, str, str]]
    parameters: Sequence[Json]
    steps: Sequence[object]
    attachments: Sequence[object]


def full_name(told: Told) -> str:
    if not told.plain:
        return str(told.raw.fullName)
    return f"{_package(_file(told.item))}#{getattr(told.item, 'originalname', told.item.name)}"


def others(item: pytest.Item) -> list[tuple[str, str]]:
    """Return the names and values of the test's parameters besides its entry."""
    given = _parameters(item)
    return [(name, printable(repr(value))) for name, value in given.items() if name not in _OURS]


def of(told: Told) -> Own:
    """Collect what a test has reported of itself."""
    raw, details = told.raw, told.raw.statusDetails
    message, trace = (None, None) if details is None else (details.message, details.trace)
    return Own(
        status=raw.status,
        message=message,
        trace=trace,
        start=raw.start,
        stop=raw.stop,
        seen=told.seen,
        doc=None if told.is_builtin or not raw.description else escaped(raw.description),
        html=raw.descriptionHtml,
        labels=_labels(told),
        links=[(str(one.type), str(one.url), str(one.name)) for one in raw.links],
        parameters=list(_dynamic(told)),
        steps=[_dict(one) for one in raw.steps],
        attachments=[_dict(one) for one in raw.attachments],
    )


def _dynamic(told: Told) -> Iterator[Json]:
    """Yield what ``allure.dynamic.parameter`` added, which is no part of the test's identity."""
    given = _parameters(told.item)
    for one in told.raw.parameters:
        if one.name not in given:
            shown: Json = {"name": visible(str(one.name)), "value": visible(str(one.value))}
            yield shown | ({"mode": one.mode} if one.mode else {}) | {"excluded": True}


def _labels(told: Told) -> list[tuple[str, str]]:
    """Return the test's labels without those of host, thread, folders and its entry's tags."""
    said = [(str(one.name), str(one.value)) for one in told.raw.labels]
    if told.plain:
        return [*_always(_file(told.item)), *said]
    from allure_pytest.utils import allure_suite_labels  # type: ignore[import-untyped]  # no types

    folders = {(str(name), str(value)) for name, value in allure_suite_labels(told.item)}
    tags = tags_of(told.item)
    return [
        pair
        for pair in said
        if pair not in folders
        and (pair[0] not in _UNWANTED or (pair[0] == "tag" and pair[1] not in tags))
    ]


def _parameters(item: pytest.Item) -> Mapping[str, Any]:
    callspec = getattr(item, "callspec", None)
    params: Mapping[str, Any] = {} if callspec is None else callspec.params  # can be anything
    return params


def _file(item: pytest.Item) -> str:
    return "" if item.parent is None else item.parent.nodeid


@lru_cache(maxsize=64)
def _package(file: str) -> str:
    """Return the file's dotted name, as allure-pytest makes it."""
    *folders, name = file.split("/")
    return ".".join([*folders, name.rpartition(".")[0] or name])


@lru_cache(maxsize=64)
def _always(file: str) -> list[tuple[str, str]]:
    """Return the labels that allure-pytest gives every test in a file."""
    from allure_commons.utils import platform_label

    language = str(platform_label())
    return [("framework", "pytest"), ("language", language), ("package", _package(file))]


def _dict(thing: object) -> object:
    """Return a step or an attachment as allure-commons writes it."""
    from attr import asdict

    told: object = asdict(thing, filter=lambda _, value: bool(value) or value is False)  # type: ignore[arg-type]  # allure ships no types
    return told
