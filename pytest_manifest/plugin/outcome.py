"""Turn the verdict of an entry, or of a group of entries, into the outcome of its test.

See to it that what tests say of entries adds up to what the run is.

One failed job fails one test, and further tests of the same entry are skipped with its name. A run
of which something was taken back is no green session, though no test has failed.
"""

from __future__ import annotations

import os
import shlex
import time
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import pytest
from pydantic_core import from_json

from pytest_manifest.bindings import BUILTIN_ENTRY, OF_VERDICT, Binding, binding_of, is_builtin
from pytest_manifest.compat.pytest import change_texts
from pytest_manifest.errors import LedgerError, ManifestToolError
from pytest_manifest.ledger import EntryVerdict, Ledger, StoredVerdict
from pytest_manifest.plugin.session import ManifestSession, known_session, manifest_session
from pytest_manifest.redaction.names import is_on
from pytest_manifest.redaction.texts import redact, without_cut
from pytest_manifest.schema import VerdictStatus
from pytest_manifest.schema import shown as hiding
from pytest_manifest.schema.statuses import BAD, outcome
from pytest_manifest.schema.wire import parse_moment
from pytest_manifest.text import many, short_path

if TYPE_CHECKING:
    from pytest_manifest.analysis.causes import Tally
    from pytest_manifest.analysis.dispositions import Accepted
    from pytest_manifest.plugin.verdict_reader import VerdictReader
    from pytest_manifest.run.run import Run


FAILED_ONCE: Final = "manifest-failed-once"
_LAST_FAILED: Final = "cache/lastfailed"
"""The key under which pytest's cache has the tests for ``--lf``."""
_REPEATED: Final = "manifest_repeated"
"""The attribute of a report whose test was skipped, as its entry has failed in another test."""
_SKIPPED = pytest.StashKey[str]()
_Entry: TypeAlias = tuple[str, str]
"""The path of a manifest, and the id of an entry of it."""
PHASES: Final[tuple[Literal["setup", "call", "teardown"], ...]] = ("setup", "call", "teardown")
When: TypeAlias = Literal["setup", "call"]


class FailedOnce:
    """Know which entries have failed a test of this process; a plugin for one session.

    A test with a failure that is expected (xfail), or that is tried again, has not failed.
    """

    def __init__(self) -> None:
        self._is_complete = True
        self._failed: dict[_Entry, list[str]] = {}
        self._skipped: dict[_Entry, list[str]] = {}

    def skip(self, item: pytest.Item, binding: Binding) -> None:
        """Skip the test if another one has failed by the verdict of the same entry."""
        manifest = os.fspath(binding.manifest)
        first = self._failed.get((manifest, binding.entry or ""), [item.nodeid])[0]
        if first != item.nodeid:
            item.stash[_SKIPPED] = manifest
            pytest.skip(f"entry {binding.entry!r} has failed already, in {first}")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if report.skipped and (manifest := item.stash.get(_SKIPPED, None)) is not None:
            setattr(report, _REPEATED, manifest)
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.passed:
            return
        rows = dict(report.user_properties)
        entry = str(rows.get("manifest_entry"))
        if report.failed and (manifest := getattr(report, OF_VERDICT, None)) is not None:
            self._failed.setdefault((manifest, entry), []).append(report.nodeid)
        elif (manifest := getattr(report, _REPEATED, None)) is not None:
            self._skipped.setdefault((manifest, entry), []).append(report.nodeid)
        elif report.skipped and self._is_complete:
            ends = rows.get("manifest_verdict"), rows.get("manifest_verdicts")
            self._is_complete = not any("withdrawn" in str(one) for one in ends)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, object, object]:
        # After pytest has written what failed last: --lf is to verify an entry by all its tests,
        # and those that failed in the end, as one that an operator had sent again has passed since.
        try:
            return (yield)
        finally:
            if not self._is_complete and session.exitstatus == pytest.ExitCode.OK:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED
            cache = getattr(session.config, "cache", None)
            if cache is not None and not hasattr(session.config, "workerinput"):
                before = cache.get(_LAST_FAILED, {})
                failed = before | dict.fromkeys(chain(*self._skipped.values()), True)
                self._correct(session, failed)
                if failed != before:
                    cache.set(_LAST_FAILED, failed)

    def _correct(self, session: pytest.Session, failed: dict[str, bool]) -> None:
        """Name the tests by what became of their entries after they had run."""
        corrected: dict[_Entry, VerdictStatus] = {
            (os.fspath(run.manifest.path), one.verdict.entry): one.verdict.verdict
            for run in manifest_session(session.config).session_runs.runs
            for one in run.corrections
        }
        for entry, status in corrected.items():
            if status == "passed":
                for name in (*self._failed.get(entry, ()), *self._skipped.get(entry, ())):
                    failed.pop(name, None)
        worse = {entry for entry, status in corrected.items() if outcome(status) in BAD}
        for item in getattr(session, "items", ()) if worse else ():  # xdist's controller has none
            binding = binding_of(item)
            if binding is not None and (os.fspath(binding.manifest), binding.entry) in worse:
                failed[item.nodeid] = True


RECEIPT_PROPERTIES: Final = {
    name: f"manifest_{name}" for name in ("task", "worker", "host", "wait", "runtime")
}
"""Fields of receipts, and the properties that show them."""
_OF_ITS_OWN: Final = frozenset({"manifest_entry", "manifest_task_id", "manifest_started_at"})
"""Properties whose values differ for every entry."""


def wait_for_verdict(item: pytest.Item, binding: Binding) -> None:
    """Wait until the item's verdict is there, outside the test's own protocol."""
    state = manifest_session(item.config)
    coordination = state.context.coordination if state.role == "worker" else None
    if coordination is not None and state.verdicts is None:
        # In an xdist worker, before its first test; what the controller has registered as secrets
        # of a run is hidden here, too.
        known = coordination.runs()
        for path in known.ledgers.values():
            with suppress(LedgerError), Ledger.open(path) as ledger:
                ledger.info.hide_secrets()
        state.open_verdicts(known, coordination.runs_ended)
    if state.verdicts is None:
        return
    state.verdicts.forget()
    parent = os.getppid()

    def given_up() -> bool:
        state.report.poll()
        if coordination is None:
            return state.session_runs.all_ended()
        # A controller that is dead writes no more verdicts.
        return coordination.runs_ended() or os.getppid() != parent

    if not state.verdicts.is_ready(binding):
        state.verdicts.wait(binding, given_up)


def assert_verdict(item: pytest.Item, binding: Binding, when: When) -> None:
    """Turn the generic verdict into the test's outcome.

    A failed expectation is a failure of the test. What the harness or stack could not find out is
    an error, which pytest reports only of the set-up. A skipped entry skips the test.
    """
    state = manifest_session(item.config)
    if not state.options.may_dispatch:
        return  # as with --setup-plan: nothing was sent
    if binding.group is not None:
        _assert_group(state, item, binding, when)
    reader = state.verdicts
    if binding.entry is None:
        return
    stored = None if reader is None else reader.verdict(binding)
    if reader is None or stored is None:
        if when == "setup":
            pytest.fail(_no_verdict(state, binding), pytrace=False)
        return
    if when == "setup":
        run = reader.runs[binding.manifest]
        record_properties(item, properties_of(binding.entry, stored, run.id, run.ledger))
    if stored.status == "passed":
        return
    found, recorded = outcome(stored.status), stored.parse()
    accepted = _accepted(state, binding.manifest, recorded) if found == "failed" else None
    if accepted is not None and not accepted.is_over:
        if when == "setup":
            return
        pytest.xfail(f"{accepted.text}. {recorded.verdict.sentence}")
    if when == "setup":
        plugin = item.config.pluginmanager.get_plugin(FAILED_ONCE)
        if isinstance(plugin, FailedOnce):
            plugin.skip(item, binding)
        if found == "skipped":
            pytest.skip(recorded.verdict.sentence)
    if found == ("error" if when == "setup" else "failed"):
        over = "" if accepted is None else f"\n\n  {accepted.sentence}"
        pytest.fail(f"{_text(state, reader, binding, stored)}{over}", pytrace=False)


def _accepted(state: ManifestSession, manifest: Path, found: EntryVerdict) -> Accepted | None:
    """Return by what the failure of an entry is known; None where it is not."""
    from pytest_manifest.analysis.dispositions import ACCEPTANCE

    accepts = ACCEPTANCE.now.of_manifest(manifest)
    if accepts is None:
        return None
    entry = state.manifests.load(manifest)[found.verdict.entry]
    # As reports show it, for causes are theirs.
    secrets = hiding.secrets_of(entry, found.receipt)
    receipt = None if found.receipt is None else hiding.shown_receipt(found.receipt, secrets)
    verdict = hiding.shown_verdict(found.verdict, secrets)
    return accepts(hiding.shown_entry(entry, secrets), verdict, receipt)


def _text(
    state: ManifestSession, reader: VerdictReader, binding: Binding, stored: StoredVerdict
) -> str:
    """Return what a test that fails by its entry's verdict shows."""
    from pytest_manifest.reporting.descendants import tree_text
    from pytest_manifest.verdict.explanation import AttemptLine, explain

    manifest, entry = state.manifests.load(binding.manifest), binding.entry or ""
    ledger, recorded, tree = reader.runs[binding.manifest].ledger, stored.parse(), None
    lines = [
        AttemptLine(row.attempt, row.verdict.verdict, row.verdict.sentence, row.reason)
        for row in ledger.attempts.of_entry(entry)
        if row.verdict is not None
    ]
    if stored.task_id is not None:
        tree = tree_text(ledger, stored.task_id, recorded.verdict, recorded.receipt)
    where = f"{short_path(manifest.path, state.options.root)}:{manifest.line_of(entry)}"
    return explain(manifest[entry], recorded.receipt, recorded.verdict, lines, tree, where)


def excuses_too_much(run: Run, config: pytest.Config) -> bool:
    """Return whether a session whose tests are green is none, as its failures are accepted.

    Entries were never sent by them, or a report that came after its test has made a failure another
    one, which is not accepted.
    """
    from pytest_manifest.analysis.dispositions import ACCEPTANCE
    from pytest_manifest.analysis.reading import read_some
    from pytest_manifest.reporting.summary import summary_of

    if ACCEPTANCE.now.is_empty:
        return False
    with suppress(ManifestToolError):
        found = summary_of(run, config)
        if not found.accepted:
            return False
        names = list(dict.fromkeys(one.verdict.entry for one in run.corrections))
        with run.read() as ledger:
            corrected = read_some(ledger, run.manifest, names)
        held_back = found.statistics.verdicts.get("skipped", 0)
        return bool(held_back) or any(one.outcome in BAD for one in corrected)
    return True  # which of them are is not known


def place_at_entry(item: pytest.Item, binding: Binding, report: pytest.TestReport) -> None:
    """Move a failure that reports a verdict to its entry's line in the manifest, out of this file.

    A list of failures shows one line of its text, so the message becomes the short one. Entries
    that were blocked for the same reason become one line of a list of skips.
    """
    if isinstance(report.longrepr, tuple) and report.skipped:
        file, _, reason = report.longrepr
        if Path(file).parent == Path(__file__).parent:  # raised by this folder
            path, line, _ = item.reportinfo()
            report.longrepr = (os.fspath(path), (line or 0) + 1, reason)
        if is_builtin(item):
            # pytest puts skips of different lines together where a report has this keyword.
            report.keywords = {**report.keywords, "skip": 1}
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is None or crash.path != __file__:
        return
    state = manifest_session(item.config)
    manifest = state.manifests.load(binding.manifest)
    crash.path = str(manifest.path)
    if binding.group is not None:
        crash.lineno = state.manifests.groups(manifest.path)[binding.group].line
        crash.message = crash.message.partition("\n")[0].removeprefix("Failed: ")
    elif binding.entry is not None:
        crash.lineno = manifest.line_of(binding.entry)
        setattr(report, OF_VERDICT, os.fspath(binding.manifest))
        recorded = None if state.verdicts is None else state.verdicts.parsed(binding)
        if recorded is not None:
            from pytest_manifest.verdict.explanation import brief

            receipt = recorded.receipt
            secrets = hiding.secrets_of(manifest[binding.entry], receipt)
            shown = None if receipt is None else hiding.shown_receipt(receipt, secrets)
            crash.message = brief(hiding.shown_verdict(recorded.verdict, secrets), shown)


def fill_builtin(item: pytest.Item) -> None:
    """Give the built-in test its argument, as its verdict has been asserted already.

    pytest sets up a fixture only for an argument that is not there yet, and for a test that does
    nothing with it that would be a third of all its time.
    """
    if isinstance(item, pytest.Function) and is_builtin(item):
        item.funcargs[BUILTIN_ENTRY] = None


def properties_of(
    entry: str, stored: StoredVerdict, run: str, ledger: Ledger | None = None
) -> list[tuple[str, object]]:
    """Return an entry's properties for JUnit reports and other readers of ``user_properties``.

    Times are in s and RFC 3339. The run and the attempt are the ledger's: a forged receipt may name
    others. ``ledger``: has its descendants, None: they are not shown.
    """
    values: dict[str, object] = {
        "manifest_entry": entry,
        "manifest_verdict": stored.status,
        "manifest_run": run,
        "manifest_task_id": stored.task_id,
        "manifest_attempt": stored.attempt,
        "manifest_attempts": stored.attempts,
    }
    if stored.receipt is not None:
        # Not validated again: the receipt was validated before it was stored.
        receipt = from_json(stored.receipt)
        for name, shown in RECEIPT_PROPERTIES.items():
            values[shown] = receipt.get(name)
        if receipt.get("reused"):  # it took the time of another run
            values["manifest_reused_from"] = receipt.get("run")
            values["manifest_wait"] = values["manifest_runtime"] = None
        else:
            started = receipt.get("started_at")
            values["manifest_started_at"] = started and parse_moment(started).isoformat()
        # Nearly all say that their one execution started nothing.
        others = receipt.get("retries") or receipt.get("replaced")
        is_alone = receipt.get("children") == 0 and receipt.get("executions") == 1 and not others
        if ledger is not None and stored.task_id is not None and not is_alone:
            from pytest_manifest.reporting.descendants import properties_of_tree

            values.update(properties_of_tree(ledger, stored.task_id, receipt))
    return [
        (name, value) if name in _OF_ITS_OWN or type(value) not in (str, int) else _row(name, value)
        for name, value in values.items()
        if value is not None
    ]


def record_properties(item: pytest.Item, rows: Sequence[tuple[str, object]]) -> None:
    """Add ``rows`` to the item's properties, in place of those of an earlier try of the test."""
    if item.user_properties:
        names = {name for name, _ in rows}
        item.user_properties[:] = [row for row in item.user_properties if row[0] not in names]
    item.user_properties.extend(rows)


@lru_cache(maxsize=1024)
def _row(name: str, value: str | int) -> tuple[str, object]:
    """Return one row object for all tests with this property, as pytest keeps each test's rows."""
    return name, value


def _no_verdict(state: ManifestSession, binding: Binding) -> str:
    for run in state.session_runs.runs:
        if run.error is not None and run.manifest.path.resolve() == binding.manifest:
            return f"entry {binding.entry!r} was not judged: {run.error}"
    return (
        f"entry {binding.entry!r} of {binding.manifest} has no verdict: it was not part of "
        "the run, or that was cut short"
    )


# Groups of entries


_TALLY = pytest.StashKey["Tally"]()
"""The tally of a group's entries, made in the set-up of its test."""


def _assert_group(state: ManifestSession, item: pytest.Item, binding: Binding, when: When) -> None:
    """Turn the verdicts of a group's entries into the outcome of its test.

    As for one entry: a failed expectation fails the test in its call, an entry that could not be
    judged is an error, which pytest reports only of the set-up, and blocked entries skip the test.
    """
    from pytest_manifest.analysis.causes import explain_group, headline

    if when == "setup":
        item.stash[_TALLY] = _tally(state, item, binding, binding.group or "")
    found = item.stash[_TALLY]
    if found.outcome == "passed" or (found.outcome == "failed") != (when == "call"):
        return
    first = found.first[0]
    if found.outcome == "skipped" and found.accepted:
        pytest.xfail(f"{headline(found)}; {found.why}")
    if found.outcome == "skipped":
        pytest.skip(f"{headline(found)}; {first.id!r}: {first.sentence}")
    pytest.fail(explain_group(found, list(_where(state, binding, first.id))), pytrace=False)


def _tally(state: ManifestSession, item: pytest.Item, binding: Binding, group: str) -> Tally:
    """Count the verdicts of a group, and record them as properties of its test.

    JUnit has also the seconds that its jobs ran, summed up.
    """
    from pytest_manifest.analysis.causes import tally
    from pytest_manifest.verdict.explanation import failed_of, number_of

    run = None if state.verdicts is None else state.verdicts.runs.get(binding.manifest)
    if run is None:
        pytest.fail(f"{group!r} was not judged: nothing of it was dispatched")
    ids = state.manifests.groups(binding.manifest).ids

    def known(one: EntryVerdict) -> str | None:
        accepted = _accepted(state, binding.manifest, one)
        return None if accepted is None or accepted.is_over else accepted.text

    found = tally(run.ledger, ids(group), known)
    rows: dict[str, object] = {
        "group": group,
        "outcome": found.outcome,
        "run": run.id,
        "entries": found.entries,
    }
    for one in ("passed", "failed", "error", "pending", "skipped"):
        rows["errors" if one == "error" else one] = found.outcomes[one]
    if found.kinds:
        kinds = sorted(found.kinds.items())
        rows["verdicts"] = ", ".join(f"{count} {one}" for one, count in kinds)
    if number := number_of(found.descendants):
        rows["descendants"], rows["descendants_failed"] = number, failed_of(found.descendants)
    if getattr(item.config.option, "xmlpath", None):
        rows["runtime"] = run.ledger.queries.runtime_of(ids(group))
    record_properties(
        item, [(f"manifest_{name}", value) for name, value in rows.items() if value is not None]
    )
    return found


def _where(state: ManifestSession, binding: Binding, entry: str) -> Iterator[tuple[str, str]]:
    """Yield where to read what a group's message leaves out, as (label, file or command)."""
    options, root = state.options, state.options.root
    name = short_path(binding.manifest, root)
    audit = ["pytest", *options.settings_arguments, f"--manifest={name}", "--manifest-audit"]
    assert state.verdicts is not None
    ledger = state.verdicts.runs[binding.manifest].ledger
    if options.receipts is not None:
        receipts = short_path(options.receipts, root)
        yield "receipts", receipts
        audit.append(f"--manifest-receipts={receipts}")
    elif ledger.path.parent == options.ledgers:
        from pytest_manifest.ledger.files import RunFiles

        files = RunFiles(ledger.path)
        yield "every entry", f"{short_path(files.summary, root)}, at the session's end"
        yield "receipts", short_path(files.receipts, root)
        audit.append(f"--manifest-run={ledger.path.stem}")
        if options.shard is not None:
            audit.append(f"--manifest-shard={options.shard}")
    yield "one in full", shlex.join([*audit, f"{name}::entry[{entry}]"])


# After Ctrl-C

_SECONDS: Final = 10.0
"""Seconds that are spent on reports after Ctrl-C at most: a person waits for the prompt."""
_END: Final = 60.0
"""Seconds, beyond the time that running jobs are given, in which a run has ended."""


def report_rest(session: pytest.Session, state: ManifestSession) -> None:
    """Wait, after Ctrl-C, until the runs have ended, and report the tests that were not reached.

    Without running them; a test of the project's own, which looks at a receipt, is only counted.
    """
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not state.report.runs or state.verdicts is None:
        return
    until = time.monotonic() + state.options.grace + _END
    for run in state.report.runs:
        while not run.ended.wait(0.05) and time.monotonic() < until:
            state.report.poll()
    state.verdicts.refresh()
    state.verdicts.forget()
    reported = {
        one.nodeid
        for category, reports in reporter.stats.items()
        for one in reports
        if category and hasattr(one, "nodeid")  # without a name: parts of tests that passed
    }
    left, until = 0, time.monotonic() + _SECONDS
    for nodeid, binding in state.tests():
        stored = None if nodeid in reported else state.verdicts.verdict(binding)
        if stored is None:
            continue
        is_short = binding.builtin or outcome(stored.status) == "skipped"
        is_forced = any(run.signals.force_stop.is_set() for run in state.report.runs)
        if not is_short or is_forced or time.monotonic() > until:
            left += 1
            continue
        for report in _reports(state, nodeid, binding, stored):
            session.config.hook.pytest_runtest_logreport(report=report)
    if left:
        state.report.notices.append(
            f"{many(left, 'test')} of jobs with a verdict did not run; --manifest-audit runs them"
        )


def _reports(
    state: ManifestSession, nodeid: str, binding: Binding, stored: StoredVerdict
) -> Iterator[pytest.TestReport]:
    """Yield the reports of a test that nobody runs."""
    assert state.verdicts is not None
    recorded = stored.parse()
    ending, sentence = outcome(stored.status), recorded.verdict.sentence
    accepted = _accepted(state, binding.manifest, recorded) if ending == "failed" else None
    is_known = accepted is not None and not accepted.is_over
    reason: str | tuple[str, int, str] = sentence
    if skipped := ending == "skipped":
        line = state.manifests.load(binding.manifest).line_of(binding.entry or "")
        reason = (str(binding.manifest), line, sentence)
    rows = properties_of(binding.entry or "", stored, state.verdicts.runs[binding.manifest].id)
    file, _, name = nodeid.partition("::")
    bad = {"passed": "", "failed": "call"}.get(ending, "setup")
    for phase in PHASES[:: 2 if bad == "setup" else 1]:
        is_bad = phase == bad
        report = pytest.TestReport(
            nodeid=nodeid,
            location=(file, None, name),
            keywords={"skip": 1} if skipped else {},
            outcome="passed" if not is_bad else "skipped" if skipped or is_known else "failed",
            longrepr=reason if is_bad else None,
            when=phase,
            user_properties=list(rows),
        )
        if is_bad and accepted is not None and is_known:
            setattr(report, "wasxfail", f"reason: {accepted.text}")  # noqa: B010 - pytest's own
        yield report


# What pytest itself reports of a test


def hide_secrets(item: pytest.Item, report: pytest.TestReport) -> None:
    """Hide secrets in a report's failure and sections, those of the test's entry, too.

    An assertion shows what it compares, and a traceback arguments and variables.
    """
    if not is_on():
        return
    binding, state = binding_of(item), known_session(item.config)
    secrets: Sequence[str] = ()
    if binding is not None and binding.entry is not None and state is not None:
        # What stands under names of secrets in the test's entry and its receipt.
        found = None if state.verdicts is None else state.verdicts.parsed(binding)
        entry = state.manifests.load(binding.manifest)[binding.entry]
        secrets = hiding.pieces_of(entry, None if found is None else found.receipt)

    def shown(text: str) -> str:
        return without_cut(hiding.shown_text(text, secrets), secrets)

    if report.longrepr is not None:
        changed = change_texts(report.longrepr, shown)
        report.longrepr = changed
    report.sections = [(title, shown(text)) for title, text in report.sections]


class JobsBeside:
    """Keep what jobs print apart from tests, where they run in pytest's process; a plugin.

    The log that pytest caught is of whatever jobs were running meanwhile, and the lines of a job
    itself are in its receipt. Warnings may hold secrets.
    """

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        # Innermost, so that other plugins' wrappers see the report without the log.
        report = yield
        if binding_of(item) is not None:
            sections = report.sections
            report.sections = [one for one in sections if not one[0].startswith("Captured log ")]
        return report

    @pytest.hookimpl(tryfirst=True)
    def pytest_warning_recorded(self, warning_message: warnings.WarningMessage) -> None:
        text = str(warning_message.message)
        shown = redact(text)
        if shown != text:
            warning_message.message = Warning(shown)
