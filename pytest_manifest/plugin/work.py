"""Do the work of a session in order: plan, dispatch, verify."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import pytest
from pydantic_core import from_json

from pytest_manifest.bindings import BUILTIN_ENTRY, Binding, binding_of, is_builtin
from pytest_manifest.console import begin_line
from pytest_manifest.errors import ManifestToolError
from pytest_manifest.plugin.interrupts import take_signals
from pytest_manifest.plugin.item_properties import record_properties
from pytest_manifest.plugin.session import ManifestSession, manifest_session
from pytest_manifest.plugin.synthetic import do_nothing, log_failure, set_up, synthetic_item
from pytest_manifest.reporting.github_runner import stop_commands
from pytest_manifest.text import short_path

if TYPE_CHECKING:
    from pytest_manifest.ledger import AttemptRow, StoredVerdict
    from pytest_manifest.reporting.run_report import ManifestLine, PlanReport
    from pytest_manifest.verdict import AttemptLine


RECEIPT_PROPERTIES: Final = {
    name: f"manifest_{name}" for name in ("task", "worker", "host", "wait", "runtime")
}
"""Fields of receipts, and the properties that show them."""
_OF_ITS_OWN: Final = frozenset({"manifest_entry", "manifest_task_id", "manifest_started_at"})
"""Properties whose values differ for every entry."""


def file_order_wanted(config: pytest.Config) -> bool:
    """Check whether the user asked for an order of tests that as-completed running would break."""
    option = config.option
    return bool(
        getattr(option, "stepwise", False)
        or getattr(option, "stepwise_skip", False)
        or getattr(option, "failedfirst", False)
        or getattr(option, "newfirst", False)
    )


def begin_dispatch(session: pytest.Session, bindings: Sequence[Binding]) -> None:
    """Evaluate the ``dispatch`` fixture for what was selected, and open the ledgers' verdicts.

    Raises pytest.UsageError where the stack or the manifest forbids it, and session.Failed where an
    overriding fixture of the user's raises.
    """
    state = manifest_session(session.config)
    stop_commands(session.config)  # not done yet where only a test's marker names a manifest
    state.select(bindings)
    take_signals(session.config, state)
    item = synthetic_item(session, "dispatch", do_nothing, "dispatch")
    report, call = set_up(item)
    if call.excinfo is not None:
        error = call.excinfo.value
        if isinstance(error, ManifestToolError | pytest.UsageError):
            raise pytest.UsageError(str(error))
        log_failure(item, report)
        raise session.Failed("the dispatch fixture failed")
    if not state.dispatch_begun:
        raise pytest.UsageError(
            "the fixture 'dispatch' was overridden and the override sent nothing; end it with "
            "return request.getfixturevalue('dispatch')"
        )
    open_verdicts(state)
    report_unselected(state)
    reporter = session.config.pluginmanager.getplugin("terminalreporter")
    for line in state.resume_lines if reporter is not None and reporter.verbosity >= 0 else ():
        begin_line(reporter)
        reporter.write_line(f"resume: {line}")
    for notice in state.notices if reporter is not None and reporter.verbosity >= 0 else ():
        begin_line(reporter)
        reporter.write_line(f"note: {notice}", yellow=True)
        state.report.notices_shown += 1


def manifest_lines(state: ManifestSession) -> Iterator[ManifestLine]:
    """Yield the line of pytest's header about each manifest of the session."""
    from pytest_manifest.reporting.run_report import ManifestLine

    shard = state.options.shard
    for path in state.files:
        manifest = state.loaded().get(path)
        name = short_path(path, state.options.root)
        if manifest is None:
            yield ManifestLine(name)
        elif shard is None:
            yield ManifestLine(name, len(manifest))
        else:
            yield ManifestLine(name, len(manifest), shard.words, len(state.share(manifest)))


def plan_report(state: ManifestSession) -> PlanReport:
    """Return what the session planned, for its summary."""
    from pytest_manifest.reporting.run_report import PlanReport

    asked_for = state.options.plan
    return PlanReport(
        asked_for,
        state.plans.find(asked_for or "").name if state.empty_plan else None,
        state.planned,
        state.plans.notes,
        [] if state.options.may_dispatch else state.resume_lines,
    )


def report_unselected(state: ManifestSession) -> None:
    """Add a notice for each manifest that has nothing to run in this session.

    Either the user gave paths that do not name it, or its shard has no entry.
    """
    shard = state.options.shard
    for path in state.files:
        name = short_path(path, state.options.root)
        if shard is not None and not state.share(state.load(path)):
            state.notices.append(
                f"{name}: {shard.words} has no entry, as there are not enough of them for every "
                "shard; there is nothing to do, and that is no failure"
            )
        elif path not in state.selected:
            state.notices.append(
                f"{name}: nothing of it was selected, so nothing of it was sent; where paths are "
                "given, name it among them"
            )


def open_verdicts(state: ManifestSession) -> None:
    from pytest_manifest.plugin.dispatching import ledgers_by_manifest
    from pytest_manifest.plugin.verdict_reader import VerdictReader

    ledgers = ledgers_by_manifest(state.runs)
    workers = state.runs[0].workers if state.runs else None
    owned = state.stack is not None
    state.verdicts = VerdictReader(
        ledgers,
        workers,
        owned=owned,
        groups=None if state.options.aggregate is None else state.groups,
        over=lambda: all(run.ended.is_set() for run in state.runs),
    )
    if state.coordination is not None:
        state.coordination.publish_runs(ledgers, {"workers": workers, "owned": owned})


def open_verdicts_in_worker(state: ManifestSession) -> None:
    """Open, in an xdist worker, the ledgers that the controller named before the first test."""
    from pytest_manifest.plugin.verdict_reader import VerdictReader

    if state.verdicts is not None or state.coordination is None:
        return
    ledgers, facts = state.coordination.runs()
    workers = facts.get("workers")
    state.verdicts = VerdictReader(
        ledgers,
        workers if isinstance(workers, int) else None,
        owned=facts.get("owned") is True,
        groups=None if state.options.aggregate is None else state.groups,
        over=state.coordination.runs_ended,
    )


def wait_for_verdict(item: pytest.Item) -> None:
    """Wait until the item's verdict is there, outside the test's own protocol."""
    binding = binding_of(item)
    if binding is None:
        return
    state = manifest_session(item.config)
    if state.role == "worker":
        open_verdicts_in_worker(state)
    if state.verdicts is None:
        return
    state.verdicts.forget()
    if state.verdicts.is_ready(binding):
        return
    parent = os.getppid()

    def given_up() -> bool:
        state.report.poll()
        if state.role == "worker":
            ended = state.coordination is not None and state.coordination.runs_ended()
            return ended or os.getppid() != parent  # a dead controller writes no more verdicts
        return all(run.ended.is_set() for run in state.runs)

    state.verdicts.wait(binding, given_up)


def assert_verdict(item: pytest.Item, when: Literal["setup", "call"]) -> None:
    """Turn the generic verdict into the test's outcome.

    A failed expectation is a failure of the test. What the harness or stack could not find out is
    an error, which pytest reports only of the set-up. A skipped entry skips the test.
    """
    binding, state = binding_of(item), manifest_session(item.config)
    if not state.options.may_dispatch:  # as with --setup-plan: nothing was sent
        return
    if binding is not None and binding.group is not None:
        from pytest_manifest.plugin.group_verdicts import assert_group

        assert_group(item, binding, when)
    if binding is None or binding.entry is None:
        return
    judgement = None if state.verdicts is None else state.verdicts.verdict(binding)
    if judgement is None:
        if when == "setup":
            pytest.fail(_no_verdict(state, binding), pytrace=False)
        return
    assert state.verdicts is not None
    if when == "setup":
        run = state.verdicts.run_of(binding)
        record_properties(item, properties_of(binding.entry, judgement, run))
    if judgement.status != "passed":
        _fail_or_skip(state, binding, judgement, when)


def _fail_or_skip(
    state: ManifestSession,
    binding: Binding,
    judgement: StoredVerdict,
    when: Literal["setup", "call"],
) -> None:
    from pytest_manifest.verdict import explain, outcome

    kind, settled = outcome(judgement.status), judgement.parse()
    if when == "setup" and kind == "skipped":
        pytest.skip(settled.verdict.sentence)
    if (when == "setup") == (kind == "error") and kind in ("error", "failed"):
        assert state.verdicts is not None
        assert binding.entry is not None
        entry = state.load(binding.manifest)[binding.entry]
        attempts = state.verdicts.attempts(binding)
        told = [line for row in attempts if (line := _attempt_line(row)) is not None]
        text = explain(entry, settled.receipt, settled.verdict, told)
        pytest.fail(text, pytrace=False)


def place_at_entry(item: pytest.Item, report: pytest.TestReport) -> None:
    """Move a failure that reports a verdict to its entry's line in the manifest, out of this file.

    A list of failures shows one line of its text, so the message becomes the short one. Entries
    that were blocked for the same reason become one line of a list of skips.
    """
    if isinstance(report.longrepr, tuple) and report.skipped:
        _place_skip(item, report, report.longrepr)
    crash = getattr(report.longrepr, "reprcrash", None)
    binding = binding_of(item)
    if crash is not None and binding is not None and binding.group is not None:
        from pytest_manifest.plugin.group_verdicts import place_at_group

        place_at_group(item, binding.group, crash)
        return
    if crash is None or crash.path != __file__ or binding is None or binding.entry is None:
        return
    from pytest_manifest.verdict import brief

    state = manifest_session(item.config)
    manifest = state.load(binding.manifest)
    crash.path, crash.lineno = str(manifest.path), manifest.line_of(binding.entry)
    settled = None if state.verdicts is None else state.verdicts.settled(binding)
    if settled is not None:
        crash.message = brief(settled.verdict, settled.receipt)


def _place_skip(item: pytest.Item, report: pytest.TestReport, place: tuple[str, int, str]) -> None:
    """Change the place of a skip that this folder raised to the test's own (a line, from 1)."""
    file, _, reason = place
    if Path(file).parent == Path(__file__).parent:
        path, line, _ = item.reportinfo()
        report.longrepr = (os.fspath(path), (line or 0) + 1, reason)
    if is_builtin(item):
        # pytest puts skips of different lines together where a report has this keyword.
        report.keywords = {**report.keywords, "skip": 1}


def fill_builtin(item: pytest.Item) -> None:
    """Give the built-in test its argument, as its verdict has been asserted already.

    pytest sets up a fixture only for an argument that is not there yet, and for a test that does
    nothing with it that would be a third of all its time.
    """
    if isinstance(item, pytest.Function) and is_builtin(item):
        item.funcargs[BUILTIN_ENTRY] = None


def properties_of(entry: str, judgement: StoredVerdict, run: str) -> list[tuple[str, object]]:
    """Return an entry's properties for JUnit reports and other readers of ``user_properties``.

    Times are in s and RFC 3339. The run and the attempt are the ledger's: a forged receipt may name
    others.
    """
    values: dict[str, object] = {
        "manifest_entry": entry,
        "manifest_verdict": judgement.status,
        "manifest_run": run,
        "manifest_task_id": judgement.task_id,
        "manifest_attempt": judgement.attempt,
        "manifest_attempts": judgement.attempts,
    }
    if judgement.receipt is not None:
        # Not validated again: the receipt was validated before it was stored.
        receipt = from_json(judgement.receipt)
        values.update((told, receipt.get(name)) for name, told in RECEIPT_PROPERTIES.items())
        started = receipt.get("started_at")
        values["manifest_started_at"] = started and datetime.fromisoformat(started).isoformat()
    return [
        (name, value) if name in _OF_ITS_OWN or type(value) not in (str, int) else _row(name, value)
        for name, value in values.items()
        if value is not None
    ]


@lru_cache(maxsize=1024)
def _row(name: str, value: str | int) -> tuple[str, object]:
    """Return one row object for all tests with this property, as pytest keeps each test's rows."""
    return name, value


def _attempt_line(row: AttemptRow) -> AttemptLine | None:
    from pytest_manifest.verdict import AttemptLine

    if row.verdict is None:
        return None
    return AttemptLine(row.attempt, row.verdict.verdict, row.verdict.sentence, row.reason)


def _no_verdict(state: ManifestSession, binding: Binding) -> str:
    for run in state.runs:
        if run.error is not None and run.manifest.path.resolve() == binding.manifest:
            return f"entry {binding.entry!r} was not judged: {run.error}"
    return (
        f"entry {binding.entry!r} of {binding.manifest} has no verdict: it was not part of the run "
        "that is being looked at, or the run was cut short"
    )
