"""Whether a process has ended, by its pid."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import NoReturn

import pytest

from pytest_manifest.processes import has_ended


def test_a_process_has_ended_when_it_runs_no_more() -> None:
    """Also while nobody has buried it: a zombie does nothing any more, and has a pid."""
    assert not has_ended(os.getpid())
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert has_ended(child.pid)
    assert has_ended(child.pid)


def test_a_process_of_somebody_else_has_not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may not be asked, which shows that it is there."""

    def refuse(*_: int) -> NoReturn:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    assert not has_ended(1)
