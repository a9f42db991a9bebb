"""Ctrl-C while runs are going on: once, and what runs is waited for; twice, and nothing is."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from pytest_manifest.face.console import begin_line
from pytest_manifest.face.session import ManifestSession


class EveryLoop:
    """Around pytest's loop, ours and xdist's: once interrupted, nothing interrupts the way out.

    pytest's own report of an interruption takes a while, and a second one in it is a crash.
    """

    def __init__(self, state: ManifestSession) -> None:
        self._state = state

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        try:
            return (yield)
        except KeyboardInterrupt:
            self._state.take_ctrl_c_as_haste()
            raise


class Interrupts:
    """A plugin of one session with runs: pytest's hook does not say whose session it is."""

    def __init__(self, config: pytest.Config, state: ManifestSession) -> None:
        self._config = config
        self._state = state

    @pytest.hookimpl(tryfirst=True)
    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        if not isinstance(excinfo.value, KeyboardInterrupt):
            return  # pytest.exit(): somebody's code wants it over
        self._state.interrupt()
        going_on = [run for run in self._state.runs if not run.ended.is_set()]
        reporter = self._config.pluginmanager.getplugin("terminalreporter")
        if going_on and reporter is not None and reporter.verbosity >= 0:
            begin_line(reporter)
            reporter.write_line(self._what_happens(), yellow=True)

    def _what_happens(self) -> str:
        if any(run.takes_back for run in self._state.runs):
            return (
                "interrupted: nothing more is sent, what waits is taken back, and what runs is "
                f"waited for up to {self._state.options.grace:g} s; Ctrl-C again ends it at once"
            )
        return "interrupted: nothing more is sent; the workers go on with what they have"
