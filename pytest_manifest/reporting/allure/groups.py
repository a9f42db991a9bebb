"""Complete allure-pytest's result of the test of a group of entries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pytest

from pytest_manifest.bindings import BUILTIN_GROUP
from pytest_manifest.reporting.allure.text import visible
from pytest_manifest.reporting.allure.told import Raw

_COUNTS: Final = ("entries", "passed", "failed", "errors", "pending", "skipped")
_SUITES: Final = ("parentSuite", "suite", "subSuite")


def tell_group(raw: Raw, item: pytest.Item, history: str, hierarchy: Sequence[str]) -> None:
    """Change the result of a group's test before it is written.

    A failed test is ``broken`` unless the group's outcome is ``failed``: the outcome of its entries
    is not known. The counts are parameters without part in the test's identity; ``history`` and
    ``hierarchy`` (workflow and mode) are those of the plan, whatever the manifest's file is called.
    """
    from allure_commons.model2 import Label, Parameter

    told = {
        name.removeprefix("manifest_"): value
        for name, value in item.user_properties
        if name.startswith("manifest_")
    }
    if raw.status == "failed" and told.get("outcome") != "failed":
        raw.status = "broken"
    raw.historyId = raw.testCaseId = history
    raw.parameters = [one for one in raw.parameters if one.name != BUILTIN_GROUP]
    raw.parameters.insert(0, Parameter(name="group", value=visible(str(told.get("group", "")))))
    raw.parameters += [
        Parameter(name=name, value=str(told[name]), excluded=True)
        for name in ("run", *_COUNTS)
        if name in told
    ]
    raw.labels = [one for one in raw.labels if one.name not in _SUITES]
    raw.labels += [
        Label(name=name, value=visible(part))
        for name, part in zip(_SUITES, hierarchy, strict=False)
    ]
