"""Hold what a test of an entry has reported until its result is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import pytest

from pytest_manifest.bindings import Binding, is_builtin
from pytest_manifest.reporting.allure.status import Status
from pytest_manifest.schema import VerdictStatus


class Raw(Protocol):
    """The fields that we use of allure-pytest's ``TestResult``."""

    uuid: str
    name: str
    status: Status | None
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


@dataclass(slots=True, eq=False)
class Told:
    """A test of an entry that is over.

    ``turn``: how often this test was judged before, as pytest-rerunfailures does; ``plain``:
    nothing of allure-pytest's was filled in, since the ledger has all there is to show.
    """

    item: pytest.Item
    binding: Binding
    raw: Raw
    turn: int = 0
    plain: bool = False

    @property
    def is_builtin(self) -> bool:
        """Return whether the test verifies nothing but the verdict."""
        return is_builtin(self.item)

    @property
    def entry(self) -> str:
        assert self.binding.entry is not None
        return self.binding.entry

    @property
    def seen(self) -> VerdictStatus | None:
        """Return the verdict that the test has read; a late receipt may have changed it since."""
        for name, value in self.item.user_properties:
            if name == "manifest_verdict":
                return value  # type: ignore[return-value]  # properties are of any type
        return None
