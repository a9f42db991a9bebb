"""Whether a session shows its progress in a line that is rewritten, as a log, or not at all."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace
from typing import cast

import pytest

from pytest_manifest.console import note_terminal
from pytest_manifest.reporting.progress import mode_for
from pytest_manifest.reporting.run_report import RunReport


class File(io.StringIO):
    """What pytest writes to; a terminal or not."""

    def __init__(self, *, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


class Case:
    """A call of pytest, and where it writes to."""

    def __init__(self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
        self._pytester = pytester
        self._patched = monkeypatch
        for name, value in (("CI", None), ("TERM", "xterm"), ("PYTEST_ADDOPTS", None)):
            monkeypatch.delenv(name, raising=False)
            if value is not None:
                monkeypatch.setenv(name, value)

    def mode(
        self,
        *arguments: str,
        wanted: str = "auto",
        role: str = "single",
        is_terminal: bool = True,
        is_another: bool = False,
    ) -> str:
        """How it is shown there; ``is_another``: by a reporter made of pytest's own."""
        config = self._pytester.parseconfigure("-p", "no:manifest", *arguments)
        own = type(config.pluginmanager.getplugin("terminalreporter"))
        kind = type("Reporter", (own,), {}) if is_another else own
        file = File(is_terminal=is_terminal)
        with self._patched.context() as patched:
            patched.setattr(sys, "stdout", file)
            note_terminal(config)
        options = SimpleNamespace(progress=wanted)
        report = cast("RunReport", SimpleNamespace(options=options, role=role))
        return mode_for(kind(config, file), report)


@pytest.fixture
def case(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Case:
    return Case(pytester, monkeypatch)


def test_a_terminal_has_a_line_and_a_file_has_a_log(case: Case) -> None:
    assert case.mode() == "line"
    assert case.mode("-v", role="controller") == "line"
    assert case.mode(is_terminal=False) == "log"
    assert case.mode(role="worker") == "off"
    assert case.mode(wanted="line", is_terminal=False) == "log", "there is no line to rewrite"


def test_nothing_is_shown_where_nobody_wants_it(case: Case) -> None:
    """With -q, with off, and where another plugin draws lines of its own."""
    assert case.mode("-q") == "off"
    assert case.mode(wanted="off") == "off"
    assert case.mode("-q", wanted="line") == "off"
    assert case.mode(is_another=True) == "off"
    assert case.mode(is_another=True, is_terminal=False) == "log"


def test_no_cursor_is_moved_where_that_would_disturb(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where workers of xdist write at any moment, on a dumb terminal, and in CI."""
    assert case.mode("-s", role="controller") == "log"
    assert case.mode("-s") == "line"
    monkeypatch.setenv("TERM", "dumb")
    assert case.mode() == "log"
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("CI", "true")
    assert case.mode() == "log"


def test_what_is_asked_for_is_shown(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user knows better."""
    monkeypatch.setenv("CI", "true")
    assert case.mode(wanted="line", is_another=True) == "line"
    assert case.mode("-s", wanted="line", role="controller") == "line"
    assert case.mode(wanted="log") == "log"


def test_what_is_no_reporter_of_pytests_is_left_alone() -> None:
    report = SimpleNamespace(options=SimpleNamespace(progress="line"), role="single")
    assert mode_for(object(), cast("RunReport", report)) == "off"
