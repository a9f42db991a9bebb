"""What a test of an entry has told, until its result is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import pytest

from pytest_manifest.bindings import Binding, is_builtin
from pytest_manifest.reporting.allure.status import Status
from pytest_manifest.schema import VerdictStatus


class Raw(Protocol):
    """What allure-pytest has gathered of a test (its ``TestResult``), where we read it."""

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
    """``turn``: how often this test was judged before, as rerunfailures does; ``plain``: of what
    allure-pytest knows nothing was filled in, as there is nothing to say but what the ledger says.
    """

    item: pytest.Item
    binding: Binding
    raw: Raw
    turn: int = 0
    plain: bool = False

    @property
    def is_builtin(self) -> bool:
        """Whether nothing but the verdict is verified."""
        return is_builtin(self.item)

    @property
    def entry(self) -> str:
        assert self.binding.entry is not None
        return self.binding.entry

    @property
    def seen(self) -> VerdictStatus | None:
        """The verdict that the test was held against; a late receipt may have changed it since."""
        for name, value in self.item.user_properties:
            if name == "manifest_verdict":
                return value  # type: ignore[return-value]  # properties are of any type
        return None
