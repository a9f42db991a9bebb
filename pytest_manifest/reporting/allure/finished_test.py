"""Read what the test of an entry has reported of itself from allure-pytest's result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pytest

from pytest_manifest.bindings import BUILTIN_ENTRY, BUILTIN_GROUP, Binding, is_builtin, tags_of
from pytest_manifest.reporting.allure.steps import Json
from pytest_manifest.reporting.markdown import MOST, escaped
from pytest_manifest.schema.statuses import AllureStatus, VerdictStatus
from pytest_manifest.text import printable, visible


class AllureResult(Protocol):
    """Fields used of allure-pytest's ``TestResult``."""

    uuid: str
    name: str
    status: AllureStatus | None
    statusDetails: Any  # noqa: N815 - Allure's names; it ships no types
    fullName: str | None  # noqa: N815
    historyId: str | None  # noqa: N815
    testCaseId: str | None  # noqa: N815
    description: str | None
    descriptionHtml: str | None  # noqa: N815
    start: int
    stop: int
    steps: list[Any]
    attachments: list[Any]
    parameters: list[Any]
    labels: list[Any]
    links: list[Any]


@dataclass(frozen=True, slots=True)
class FinishedTest:
    """A test of an entry that is over, with what allure-pytest has made of it.

    ``repetition``: how often this test was judged before, as pytest-rerunfailures does.
    """

    item: pytest.Item
    binding: Binding
    result: AllureResult
    repetition: int = 0

    @property
    def is_builtin(self) -> bool:
        """Return whether the test verifies nothing but the verdict."""
        return is_builtin(self.item)

    @property
    def entry(self) -> str:
        assert self.binding.entry is not None
        return self.binding.entry

    @property
    def verdict_read(self) -> VerdictStatus | None:
        """Return the verdict that the test has read; a late receipt may have changed it since."""
        for name, value in self.item.user_properties:
            if name == "manifest_verdict":
                return value  # type: ignore[return-value]  # properties are of any type
        return None


_OURS = frozenset({BUILTIN_ENTRY, BUILTIN_GROUP, "entry", "manifest"})
_UNWANTED = frozenset({"host", "thread", "tag"})


@dataclass(frozen=True, slots=True)
class OwnReport:
    """A test's own report of itself.

    ``start`` and ``stop``: of the test itself, in milliseconds since the epoch; ``verdict_read``:
    by the test; ``doc``: its description in Markdown; ``html``: HTML to show instead.
    """

    status: AllureStatus | None
    message: str | None
    trace: str | None
    start: int
    stop: int
    verdict_read: VerdictStatus | None
    doc: str | None
    html: str | None
    labels: Sequence[tuple[str, str]]
    links: Sequence[tuple[str, str, str]]
    parameters: Sequence[Json]
    steps: Sequence[object]
    attachments: Sequence[object]


def other_parameters(item: pytest.Item) -> list[tuple[str, str]]:
    """Return the names and values of the test's parameters besides its entry."""
    given = _parameters(item)
    return [(name, printable(repr(value))) for name, value in given.items() if name not in _OURS]


def own_report(test: FinishedTest) -> OwnReport:
    """Collect what a test has reported of itself."""
    result, details = test.result, test.result.statusDetails
    doc = None if test.is_builtin else result.description
    message, trace = (None, None) if details is None else (details.message, details.trace)
    return OwnReport(
        status=result.status,
        message=message,
        trace=trace,
        start=result.start,
        stop=result.stop,
        verdict_read=test.verdict_read,
        doc=escaped(doc, MOST) if doc else None,
        html=result.descriptionHtml,
        labels=_labels(test),
        links=[(str(one.type), str(one.url), str(one.name)) for one in result.links],
        parameters=list(_dynamic(test)),
        steps=[_dict(one) for one in result.steps],
        attachments=[_dict(one) for one in result.attachments],
    )


def _dynamic(test: FinishedTest) -> Iterator[Json]:
    """Yield what ``allure.dynamic.parameter`` added, which is no part of the test's identity."""
    given = _parameters(test.item)
    for one in test.result.parameters:
        if one.name not in given:
            shown: Json = {"name": visible(str(one.name)), "value": visible(str(one.value))}
            yield shown | ({"mode": one.mode} if one.mode else {}) | {"excluded": True}


def _labels(test: FinishedTest) -> list[tuple[str, str]]:
    """Return the test's labels without those of host, thread, folders and its entry's tags."""
    from allure_pytest.utils import allure_suite_labels  # type: ignore[import-untyped]  # no types

    folders = {(str(name), str(value)) for name, value in allure_suite_labels(test.item)}
    tags = tags_of(test.item)
    return [
        pair
        for pair in ((str(one.name), str(one.value)) for one in test.result.labels)
        if pair not in folders
        and (pair[0] not in _UNWANTED or (pair[0] == "tag" and pair[1] not in tags))
    ]


def _parameters(item: pytest.Item) -> Mapping[str, Any]:
    callspec = getattr(item, "callspec", None)
    params: Mapping[str, Any] = {} if callspec is None else callspec.params  # can be anything
    return params


def _dict(thing: object) -> object:
    """Return a step or an attachment as allure-commons writes it."""
    from attr import asdict

    fields: object = asdict(thing, filter=lambda _, value: bool(value) or value is False)  # type: ignore[arg-type]  # allure ships no types
    return fields
