"""Starting a keeper and understanding what it says, for both of its clients."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

from pytest_manifest.log import redact
from pytest_manifest.stack.settings import Event, Settings

TAIL_LINES = 10


def spawn_keeper(settings: Settings) -> subprocess.Popen[str]:
    """Start a keeper in a session of its own, so that a Ctrl-C in the terminal is not for it.

    Its output is a pipe: events, and whatever Python says should the keeper not even start.
    """
    process = subprocess.Popen(
        # -P: a module of the project must not shadow one of the standard library.
        [sys.executable, "-P", "-m", "pytest_manifest.stack.keeper_main"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        start_new_session=True,
        env=os.environ | own_pythonpath(),
    )
    assert process.stdin is not None
    process.stdin.write(settings.dump() + "\n")
    process.stdin.flush()
    return process


def own_pythonpath() -> dict[str, str]:
    """``PYTHONPATH`` by which new processes find this package, where it is not installed."""
    root = str(Path(__file__).parents[2])
    if root in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        return {}
    present = os.environ.get("PYTHONPATH")
    if present and root in present.split(os.pathsep):
        return {}
    return {"PYTHONPATH": f"{present}{os.pathsep}{root}" if present else root}


def parse_event(line: str) -> Event | None:
    """The event on a line of the keeper's output; None for a line that is none."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    if not isinstance(event, dict) or "event" not in event:
        return None
    # The keeper is the same version of this package: its fields are what Event says.
    result: Event = event  # type: ignore[assignment]
    return result


def failure_sentence(event: Event) -> str:
    """One sentence with the last log lines below it, if there are any."""
    tail = [redact(line) for line in event.get("tail", [])]
    if not tail:
        return event["message"]
    shown = "\n".join(f"    {line}" for line in tail[-TAIL_LINES:])
    return f"{event['message']}: {tail[-1].strip()}\n{shown}"
