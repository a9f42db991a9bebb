"""Hook into pytest around allure-pytest's listener, to report the tests of entries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_manifest.bindings import binding_of
from pytest_manifest.errors import ManifestToolError
from pytest_manifest.reporting.run_report import RunReport
from pytest_manifest.text import short_path

if TYPE_CHECKING:
    from pytest_manifest.reporting.allure.entries import Entries
    from pytest_manifest.reporting.allure.finished_test import AllureResult, FinishedTest
    from pytest_manifest.reporting.allure.listener import EntryListener, FileLogger
    from pytest_manifest.reporting.allure.writing import ResultWriter
    from pytest_manifest.run import Run


class AllureReport:
    """Report the tests of entries; registered if ``--alluredir`` is given."""

    def __init__(self, config: pytest.Config, report: RunReport) -> None:
        self._config = config
        self._report = report
        self._folder = Path(config.option.allure_report_dir).absolute()
        self._entries: Entries | None = None
        self._writer: ResultWriter | None = None
        self._listener: EntryListener | None = None
        self._file_logger: FileLogger | None = None
        self._entry_logger: object = None
        self._runs: list[Run] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Replace allure-pytest's listener and file writer if tests of entries were collected."""
        bindings = [found for item in session.items if (found := binding_of(item)) is not None]
        listener = self._config.pluginmanager.getplugin("allure_listener")
        if not bindings or self._entries is not None or listener is None:
            return
        from pytest_manifest.reporting.allure.entries import Entries
        from pytest_manifest.reporting.allure.writing import ResultWriter

        tests = Counter((b.manifest, b.entry) for b in bindings)
        self._entries = Entries(self._config, self._report, self._folder)
        self._entries.note_collected({b.manifest for b in bindings}, tests)
        self._writer = ResultWriter(
            self._entries,
            self._folder,
            self._write_stock,
            self._report.notices,
            self._report.note_unwritten,
            mode=self._report.options.report_mode,
            wait=self._report.role == "main",
        )
        self._replace_writer()
        self._replace_listener(listener, self._writer)

    def _replace_writer(self) -> None:
        from allure_commons import plugin_manager
        from allure_commons.logger import AllureFileLogger

        from pytest_manifest.reporting.allure.listener import EntryLogger

        for plugin in plugin_manager.get_plugins():
            if type(plugin) is AllureFileLogger:
                self._file_logger = plugin
                self._entry_logger = EntryLogger(plugin, self._take, self._report.note_unwritten)
                plugin_manager.unregister(plugin)
                plugin_manager.register(self._entry_logger)

    def _replace_listener(self, listener: object, writer: ResultWriter) -> None:
        from pytest_manifest.reporting.allure.listener import EntryListener

        self._listener = EntryListener(listener, writer.add)
        self._config.pluginmanager.unregister(listener)
        self._config.pluginmanager.register(self._listener, "allure_listener")

    @pytest.hookimpl(wrapper=True)
    def pytest_manifest_dispatched(self) -> Generator[None, object, object]:
        """Have the writer polled, so that it writes results while pytest waits for jobs."""
        result = yield
        if self._writer is not None and self._writer.tick not in self._report.pollers:
            self._report.pollers.append(self._writer.tick)
        return result

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        if self._writer is not None:
            self._writer.flush()

    def pytest_manifest_finished(self, run: Run) -> None:
        from pytest_manifest.reporting.allure.environment import write_run_files

        self._runs.append(run)
        with self._report.writing("Allure's files about the run were not written", run):
            write_run_files(self._folder, self._report, self._runs)
        if run.corrections:
            from pytest_manifest.reporting.allure.terms import issue_addresses
            from pytest_manifest.reporting.allure.writing import rewrite_corrected

            name = short_path(run.manifest.path, self._report.options.root)
            try:
                issue, mode = issue_addresses(self._config), self._report.options.report_mode
                rewrite_corrected(self._folder, run, name, issue, mode)
            except (ManifestToolError, OSError) as error:
                run.warnings.append(f"Allure's results have no corrected verdicts: {error}")

    def pytest_unconfigure(self) -> None:
        if self._entries is not None:
            self._entries.close()
        if self._entry_logger is not None:
            from allure_commons import plugin_manager

            plugin_manager.unregister(self._entry_logger)
            plugin_manager.register(self._file_logger)  # allure-pytest unregisters it itself
            self._entry_logger = None

    def _take(self, result: AllureResult) -> bool:
        if self._listener is None:
            return False
        group = self._listener.group
        if group is not None and self._entries is not None:
            self._entries.complete_group(result, *group)
        return self._listener.take(result)

    def _write_stock(self, test: FinishedTest) -> None:
        assert self._listener is not None
        assert self._file_logger is not None
        if test.unfilled:
            self._listener.complete(test)
        from pytest_manifest.reporting.allure.listener import unwritten_noted

        with unwritten_noted(self._report.note_unwritten):
            self._file_logger.report_result(test.result)
