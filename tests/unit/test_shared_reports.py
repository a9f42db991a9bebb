"""Reports that an xdist controller keeps: what is equal in them is there once."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pytest_manifest.plugin.xdist_controller import SharedReports

PHASES = ("setup", "call", "teardown")


def report(when: str, **fields: Any) -> pytest.TestReport:
    """Make a report as xdist does, of texts that nobody else has."""
    facts = {
        "nodeid": "m.jsonl::entry[a]",
        "location": ("m.jsonl", 3, "entry[a]"),
        "keywords": {"entry[a]": 1, "manifest": 1},
        "outcome": "passed",
        "longrepr": None,
        "when": when,
        "user_properties": [("manifest_task", "jobs.echo"), ("manifest_runtime", 0.25)],
    }
    copied = json.loads(json.dumps(facts | fields))
    copied["location"] = tuple(copied["location"])
    copied["user_properties"] = [tuple(row) for row in copied["user_properties"]]
    return pytest.TestReport(**copied)


def heard(*reports: pytest.TestReport) -> list[dict[str, Any]]:
    """Give reports to the plugin, and return what each said before."""
    before = [dict(vars(one)) for one in reports]
    plugin = SharedReports()
    for one in reports:
        plugin.pytest_runtest_logreport(one)
    return before


def test_the_three_reports_of_a_test_share_their_parts() -> None:
    reports = [report(when) for when in PHASES]
    before = heard(*reports)
    assert [dict(vars(one)) for one in reports] == before
    for part in ("keywords", "location", "user_properties"):
        assert len({id(getattr(one, part)) for one in reports}) == 1


def test_tests_share_the_texts_that_come_again() -> None:
    first, second = report("setup"), report("setup", nodeid="m.jsonl::entry[b]")
    heard(first, second)
    for one, other in zip(first.user_properties, second.user_properties, strict=True):
        assert one[0] is other[0]
    assert first.user_properties[0][1] is second.user_properties[0][1]


def test_parts_that_differ_stay_apart() -> None:
    """A test may record more while it runs; a second try of a test begins anew."""
    more = [("manifest_task", "jobs.echo"), ("seen", "late")]
    reports = [report("setup"), report("call", user_properties=more), report("teardown")]
    again = [report("setup", user_properties=more), report("teardown", user_properties=more)]
    before = heard(*reports, *again)
    assert [dict(vars(one)) for one in (*reports, *again)] == before
    assert reports[0].user_properties is reports[2].user_properties
    assert again[0].user_properties is again[1].user_properties


def test_reports_of_other_tests_are_left_alone() -> None:
    reports = [report(when, user_properties=[("seen", "x")]) for when in PHASES]
    parts = [one.user_properties for one in reports]
    heard(*reports)
    assert all(one.user_properties is part for one, part in zip(reports, parts, strict=True))


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("keywords", ["entry[a]"]),
        ("keywords", {1: 1}),
        ("user_properties", [["manifest_task", "jobs.echo"]]),
        ("user_properties", [("manifest_task",)]),
        ("user_properties", None),
    ],
)
def test_what_a_plugin_made_of_a_report_stays(part: str, value: object) -> None:
    reports = [report(when) for when in PHASES]
    setattr(reports[1], part, value)
    heard(*reports)
    assert getattr(reports[1], part) is value
