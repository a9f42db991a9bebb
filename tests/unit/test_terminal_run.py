"""Lines of a run in the terminal's summary."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_manifest.reporting import next_step
from pytest_manifest.reporting.next_step import stopped
from pytest_manifest.reporting.run_report import RunReport
from pytest_manifest.run import resume
from pytest_manifest.run.resume_rules import Action, Decision


@pytest.mark.parametrize(
    ("unsent", "running", "line"),
    [
        (0, 1, "  stopped: 1 entry without a verdict (1 that was running)"),
        (0, 2, "  stopped: 2 entries without a verdict (2 that were running)"),
        (3, 1, "  stopped: 4 entries without a verdict (3 not sent, 1 that was running)"),
        (1, 0, "  stopped: 1 entry without a verdict (1 not sent)"),
    ],
)
def test_a_stopped_run_counts_what_has_no_verdict(unsent: int, running: int, line: str) -> None:
    """What was not sent, and what a worker had begun."""
    assert stopped(unsent, running) == line


@pytest.mark.parametrize("action", ["leave", "wait"])
def test_what_a_resume_has_looked_for_and_left_is_not_resumed_again(
    monkeypatch: pytest.MonkeyPatch, action: Action
) -> None:
    """By the ledger alone it may still be under way: the command would loop."""
    wait = Decision("a", "wait", "it may still be queued or running")
    monkeypatch.setattr(resume, "preview", lambda *_, **__: [wait])
    monkeypatch.setattr(next_step, "_unpassed", lambda _run: ["a"])
    verdicts = SimpleNamespace(statuses=lambda: {"a": "unknown"})
    decided = [Decision("a", action, "lost in flight; it may have run", unsafe=True)]
    run: Any = SimpleNamespace(
        state=SimpleNamespace(decisions=decided),
        ledger_path=None,
        manifest={"a": SimpleNamespace(after=(), idempotent=False)},
        read=lambda: nullcontext(SimpleNamespace(verdicts=verdicts)),
    )
    lines = list(next_step._ended(run, "pytest", "--manifest-resume", anew=""))
    assert lines == (
        ["  to go on: pytest --manifest-resume"]
        if action == "wait"
        else [
            "  a resume sends nothing: 'a' may have run and is not idempotent",
            "  to run them again: pytest --manifest-resume=unsafe",
        ]
    )


def test_a_fault_is_logged_on_a_line_of_its_own() -> None:
    """It stood behind the dots of tests; what another report has to say goes on."""
    seen: list[str] = []
    writer = SimpleNamespace(width_of_current_line=3)
    reporter = SimpleNamespace(ensure_newline=lambda: seen.append("new"), line=seen.append)
    reporter.config = SimpleNamespace(get_terminal_writer=lambda: writer)
    found: Any = SimpleNamespace(getplugin=lambda _name: reporter)
    nothing: Any = None
    report = RunReport(SimpleNamespace(pluginmanager=found), "main", *[nothing] * 3)  # type: ignore[arg-type]  # what is asked for
    run: Any = SimpleNamespace(warnings=[])
    with report.writing("it was not written", run):
        raise KeyError("gone")
    assert seen == ["new", ""]
    assert run.warnings == ["it was not written, so this session fails: 'gone'"]
