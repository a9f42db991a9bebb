"""What an operator asks of a run from another shell, with a kill at any moment of it."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import psutil
from pydantic import JsonValue

from pytest_manifest.ledger import Ledger
from pytest_manifest.schema.run_facts import Action
from tests.chaos.executions import running
from tests.chaos.process_faults import kill_driver, kill_worker_now
from tests.chaos.record import read_verdicts
from tests.chaos.stage import Stage

WITHIN = 0.3
"""Seconds after a command is in the ledger in which the kill comes: it may find it asked, noted, or
done."""


def order(stage: Stage, action: Action, **data: JsonValue) -> None:
    """Give the newest run a command, as ``manifest ctl`` does once it has started; return a moment
    after that."""
    stage.strike()
    with Ledger.open(stage.ledgers()[-1], write=True) as ledger:
        ledger.commands.add(action, "chaos", "as it goes wrong", data)
    stage.pause(WITHIN)


def some(stage: Stage) -> list[str]:
    """A third of the entries, at random: sent, unsent, running and ended ones."""
    names = list(stage.members)
    return stage.rng.sample(names, len(names) // 3)


def cancel_waiting(stage: Stage) -> None:
    """Entries are cancelled, and pytest is killed meanwhile."""
    names = some(stage)
    stage.aimed.update(names)
    stage.moment(1, len(stage.members) // 2)
    order(stage, "cancel", entries=[*names])
    kill_driver(stage)


def cancel_running(stage: Stage) -> None:
    """Entries that run are ended, and a worker is killed meanwhile."""
    stage.moment(1, len(stage.members) // 2)
    names = sorted({*some(stage), *(one.key for one in running(stage.folder))})
    stage.aimed.update(names)
    order(stage, "cancel", entries=[*names], running=True)
    kill_worker_now(stage)


def _failed(stage: Stage) -> list[JsonValue]:
    """What has failed so far."""
    with suppress(sqlite3.Error):  # the ledger is just being made
        told = read_verdicts(stage.ledgers())
        return [name for name, one in told.items() if one.kind == "failed"]
    return []


def requeue_failed(stage: Stage) -> None:
    """What has failed is asked for again, and pytest is killed meanwhile."""
    stage.until(lambda: _failed(stage), "an entry has failed")
    stage.pause(1.0)
    order(stage, "requeue", entries=_failed(stage))
    kill_driver(stage)


def pause_run(stage: Stage) -> None:
    """Sending is paused, pytest is killed, and the next session is not paused any more."""
    stage.moment(1, len(stage.members) // 2)
    order(stage, "pause")
    kill_driver(stage)


def set_window(stage: Stage) -> None:
    """The window is made small and large again, while a worker is killed."""
    stage.moment(1, len(stage.members) // 2)
    order(stage, "set", window=str(stage.rng.randint(1, 3)))
    kill_worker_now(stage)
    if not stage.session.has_ended:
        order(stage, "set", window="30")


def stop_in_an_outage(stage: Stage) -> None:
    """The run is stopped while its broker is dead."""
    stage.moment(1, len(stage.members) // 2)
    broker = stage.stack.broker()
    stage.note([psutil.Process(stage.session.pid)])  # its exit code says that it was stopped
    broker.kill()
    with suppress(psutil.TimeoutExpired):
        broker.wait(10)
    order(stage, "stop", how="take-back")
    stage.stack.after_broker_death()


# What must hold of it in the end

STEERED = 49
"""The kind of the fact that a command took effect."""
SENT_AFTER = """
    SELECT DISTINCT a.name FROM facts c, json_each(c.data, '$.data.entries') e
    JOIN jobs a ON a.name = e.value AND a.sending > c.seq
    WHERE c.kind = ? AND json_extract(c.data, '$.action') = 'cancel' AND NOT EXISTS (
        SELECT 1 FROM facts r, json_each(r.data, '$.data.entries') again
        WHERE r.kind = c.kind AND json_extract(r.data, '$.action') = 'requeue'
            AND again.value = a.name AND r.seq BETWEEN c.seq AND a.sending
    )
"""
TWICE = """
    SELECT json_extract(data, '$.command') AS n FROM facts WHERE kind = ?
    GROUP BY n HAVING count(*) > 1
"""
UNANSWERED = """
    SELECT action FROM commands WHERE answered_at IS NULL
        AND EXISTS (SELECT 1 FROM settled WHERE kind <> 'passed')
"""
"""Of a run of which all has passed no session has anything to do."""


def steering_flaws(path: Path) -> list[str]:
    """What a run's record says against the promises to its operators, read without our code."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
        sent = [
            f"{name} was cancelled, and sent after"
            for (name,) in db.execute(SENT_AFTER, (STEERED,))
        ]
        twice = [f"command {n} took effect twice" for (n,) in db.execute(TWICE, (STEERED,))]
        left = [f"the operator's {action} has no answer" for (action,) in db.execute(UNANSWERED)]
    return [*sent, *twice, *left]
