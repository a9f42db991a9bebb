"""Sessions that are told to end, in any of their phases, and sessions whose disk is full."""

from __future__ import annotations

import signal
import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

import psutil

from tests.chaos.record import read_verdicts
from tests.chaos.scenario import Fault
from tests.chaos.stage import Stage
from tests.disks import fill

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
FULL_SECONDS = 8.0
"""At most so long is a disk full: some sessions give up meanwhile, and others go on."""

GIVEN_UP_SECONDS = 30.0
"""So long is a session waited for that was told to end a second time."""


def _verdicts(stage: Stage) -> int:
    with suppress(sqlite3.Error):  # the ledger is just being made
        return len(read_verdicts(stage.ledgers()))
    return 0


PHASES: Mapping[str, Callable[[Stage], object]] = {
    "starting": lambda stage: True,
    "dispatching": lambda stage: {"intent", "sent"} & set(stage.attempt_states()),
    "waiting": lambda stage: len(stage.starts()) > 1,
    "verifying": lambda stage: _verdicts(stage) > 1,
    "summing up": lambda stage: _verdicts(stage) == len(stage.members),
}
"""What has happened when a session is in its phase."""
AFTERWARDS = {"starting": 3.0, "dispatching": 0.2, "waiting": 1.5, "verifying": 1.0}
"""The signal comes within so many seconds."""


def end_by_signal(phase: str = "") -> Fault:
    """What a terminal or a CI sends, once or twice, in this phase of the session, or in any."""

    def fault(stage: Stage) -> None:
        chosen = phase or stage.rng.choice(list(PHASES))
        stage.until(lambda: PHASES[chosen](stage) or stage.session.has_ended, chosen)
        stage.pause(AFTERWARDS.get(chosen, 0.4))
        number = stage.rng.choice(SIGNALS)
        stage.strike()
        for is_second in range(stage.rng.choice((1, 1, 2))):
            if not stage.session.has_ended:  # else it was quicker
                since = time.time()
                stage.note([psutil.Process(stage.session.pid)])  # its exit code says the signal
                stage.session.process.send_signal(number)
                if is_second:  # it kills what it has started
                    stage.session.wait(GIVEN_UP_SECONDS)
                    stage.hurried = since, time.time()
            stage.pause(0.5)

    return fault


def fill_disk(folder: str) -> Fault:
    """No room is left on the disk in this folder of the project, for a while, or until the end."""

    def fault(stage: Stage) -> None:
        stage.moment(1, len(stage.members) // 2)
        ballast = fill(stage.folder / folder)
        try:
            stage.session.wait(stage.rng.uniform(1.0, FULL_SECONDS))
        finally:
            ballast.unlink()

    return fault
