"""Which failures pytest shows in full where the causes of a run name the first of each."""

from __future__ import annotations

import pytest

from pytest_manifest.bindings import OF_VERDICT
from pytest_manifest.reporting import terminal


def failure(entry: str, verdict: str | None, *, of_verdict: bool = True) -> pytest.TestReport:
    """The report of an entry's test that did not pass."""
    told = {"manifest_run": "r", "manifest_entry": entry, "manifest_verdict": verdict}
    properties = [(name, value) for name, value in told.items() if value is not None]
    made = pytest.TestReport(
        entry, ("m.jsonl", 1, entry), {}, "failed", "it did not", "call", user_properties=properties
    )
    setattr(made, OF_VERDICT, of_verdict)
    return made


def shown(*reports: pytest.TestReport) -> list[str]:
    """The tests that are shown, where a cause names the entry ``a``."""
    found = terminal._shown(reports, {("r", "a")})
    return [one.nodeid for one in found if isinstance(one, pytest.TestReport)]


def test_a_failure_without_a_verdict_is_shown() -> None:
    """No cause counts it: it was added since, or the run was cut short; so is what is pending."""
    assert shown(failure("a", "failed"), failure("b", "failed"), failure("n", None)) == ["a", "n"]
    assert shown(failure("p", "pending"), failure("b", "crashed")) == ["p"]


def test_of_very_many_without_a_verdict_the_first_are_shown() -> None:
    assert shown(*(failure(f"n{number}", None) for number in range(100))) == ["n0", "n1", "n2"]


def test_what_says_more_than_a_verdict_is_shown() -> None:
    """As a test of the project's own does."""
    assert shown(failure("b", "failed", of_verdict=False)) == ["b"]
