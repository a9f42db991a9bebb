"""When Allure's results are made: hooks of pytest's, beside allure-pytest's listener."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_manifest.errors import ManifestToolError
from pytest_manifest.face.bindings import Binding, binding_of
from pytest_manifest.face.session import ManifestSession

if TYPE_CHECKING:
    from pytest_manifest.reporting.allure.entries import Entries
    from pytest_manifest.reporting.allure.result import Raw
    from pytest_manifest.reporting.allure.steps import Json
    from pytest_manifest.run import Run


class AllureReport:
    """Reports the tests of entries; registered where ``--alluredir`` is given."""

    def __init__(self, config: pytest.Config, state: ManifestSession) -> None:
        self._config = config
        self._state = state
        self._folder = Path(config.option.allure_report_dir).absolute()
        self._entries: Entries | None = None
        self._item: pytest.Item | None = None
        self._binding: Binding | None = None
        self._turn = 0
        self._replaced: tuple[object, object] | None = None
        self._runs: list[Run] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Where tests of entries are there, take the place of allure-commons' writer."""
        bindings = [found for item in session.items if (found := binding_of(item)) is not None]
        if not bindings or self._entries is not None:
            return
        from pytest_manifest.reporting.allure.entries import Entries

        tests = Counter((b.manifest, b.entry) for b in bindings)
        self._entries = Entries(self._config, self._state, self._folder)
        self._entries.note_collected({b.manifest for b in bindings}, tests)
        self._replace_writer()

    def _replace_writer(self) -> None:
        from allure_commons import plugin_manager
        from allure_commons.logger import AllureFileLogger

        from pytest_manifest.reporting.allure.logger import EntryLogger

        for plugin in plugin_manager.get_plugins():
            if type(plugin) is AllureFileLogger:
                ours = EntryLogger(plugin, self._folder, self._results_of)
                plugin_manager.unregister(plugin)
                plugin_manager.register(ours)
                self._replaced = (plugin, ours)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        binding = binding_of(item)
        if binding is not None and binding.entry is not None:
            self._item, self._binding, self._turn = item, binding, 0
        try:
            return (yield)
        finally:
            self._item = self._binding = None

    def pytest_manifest_finished(self, run: Run) -> None:
        from pytest_manifest.reporting.allure.surroundings import write_surroundings

        self._runs.append(run)
        write_surroundings(self._folder, self._state, self._runs)

    def pytest_unconfigure(self) -> None:
        if self._entries is not None:
            self._entries.close()
        if self._replaced is not None:
            from allure_commons import plugin_manager

            theirs, ours = self._replaced
            self._replaced = None
            plugin_manager.unregister(ours)
            plugin_manager.register(theirs)  # allure-pytest takes it away itself

    def _results_of(self, raw: Raw) -> Sequence[tuple[str, Json]] | None:
        if self._entries is None or self._item is None or self._binding is None:
            return None
        turn, self._turn = self._turn, self._turn + 1
        try:
            return self._entries.results(self._item, self._binding, raw, turn)
        except (ManifestToolError, pytest.UsageError, sqlite3.Error) as error:
            notice = f"Allure shows tests as pytest saw them, not their jobs: {error}"
            if notice not in self._state.notices:
                self._state.notices.append(notice)
            return None
