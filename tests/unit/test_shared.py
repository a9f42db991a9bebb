"""Servers that the processes of one run of this suite share."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.processes import talking
from tests.shared import Shared

ROOT = Path(__file__).resolve().parents[2]
USER = """
import sys
from contextlib import contextmanager
from pathlib import Path
from tests.shared import Shared

folder = Path(sys.argv[1])

@contextmanager
def server():
    with (folder / "log").open("a") as log:
        print("began", sys.argv[2], file=log, flush=True)
        yield f"of-{sys.argv[2]}"
        print("ended", sys.argv[2], file=log, flush=True)

shared = Shared(folder, 0)
print(shared.address("it", server), flush=True)
sys.stdin.read()
shared.close()
print("closed", flush=True)
"""


def user(folder: Path, name: str) -> AbstractContextManager[subprocess.Popen[str]]:
    """A process that uses the server until its input ends."""
    return talking("-c", USER, str(folder), name, cwd=ROOT)


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def end(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.close()


def test_one_starts_it_and_ends_it_when_nobody_uses_it(tmp_path: Path) -> None:
    """Who has started it and is ready first waits for the other one."""
    log = tmp_path / "log"
    with user(tmp_path, "a") as first:
        assert line(first) == "of-a"
        with user(tmp_path, "b") as second:
            assert line(second) == "of-a"
            end(first)
            with pytest.raises(subprocess.TimeoutExpired):
                first.wait(0.3)
            end(second)
            assert [line(second), line(first)] == ["closed", "closed"]
    assert log.read_text().split("\n") == ["began a", "ended a", ""]


def test_after_one_that_was_killed_another_starts_it(tmp_path: Path) -> None:
    """A server ends with its process; an address that leads nowhere is not handed out."""
    with user(tmp_path, "a") as first:
        assert line(first) == "of-a"
        first.kill()
        first.wait(10)
        with user(tmp_path, "b") as second:
            assert line(second) == "of-b"


def test_a_server_that_does_not_start_is_tried_by_the_next(tmp_path: Path) -> None:
    @contextmanager
    def broken() -> Iterator[str]:
        raise LookupError
        yield ""

    @contextmanager
    def sound() -> Iterator[str]:
        yield "sound"

    with ExitStack() as stack:
        first, second = Shared(tmp_path, 0), Shared(tmp_path, 1)
        stack.callback(first.close)
        stack.callback(second.close)
        with pytest.raises(LookupError):
            first.address("it", broken)
        assert second.address("it", sound) == "sound"
        assert first.address("it", broken) == "sound"
        first.close()
