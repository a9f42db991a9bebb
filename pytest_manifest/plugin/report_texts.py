"""Hide secrets in what pytest itself reports of a test: its failure, and what it printed."""

from __future__ import annotations

import warnings
from collections.abc import Generator

import pytest

from pytest_manifest.bindings import binding_of
from pytest_manifest.compat.pytest import change_texts
from pytest_manifest.plugin.session import known_session
from pytest_manifest.redaction.names import is_on
from pytest_manifest.redaction.texts import redact, without_cut
from pytest_manifest.schema.shown import Secrets, pieces_of, shown_text


def hide_secrets(item: pytest.Item, report: pytest.TestReport) -> None:
    """Hide secrets in a report's failure and sections, those of the test's entry, too.

    An assertion shows what it compares, and a traceback arguments and variables.
    """
    if not is_on():
        return
    secrets = _secrets_of(item)

    def shown(text: str) -> str:
        return without_cut(shown_text(text, secrets), secrets)

    if report.longrepr is not None:
        changed = change_texts(report.longrepr, shown)
        report.longrepr = changed
    report.sections = [(title, shown(text)) for title, text in report.sections]


def _secrets_of(item: pytest.Item) -> Secrets:
    """Return the values that stand under names of secrets in the test's entry and its receipt."""
    binding, state = binding_of(item), known_session(item.config)
    if binding is None or binding.entry is None or state is None:
        return ()
    entry = state.manifests.load(binding.manifest)[binding.entry]
    found = None if state.verdicts is None else state.verdicts.parsed(binding)
    receipt = None if found is None else found.receipt
    return pieces_of(entry, receipt)


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
            found = (one for one in report.sections if not one[0].startswith("Captured log "))
            report.sections = list(found)
        return report

    @pytest.hookimpl(tryfirst=True)
    def pytest_warning_recorded(self, warning_message: warnings.WarningMessage) -> None:
        text = str(warning_message.message)
        shown = redact(text)
        if shown != text:
            warning_message.message = Warning(shown)
