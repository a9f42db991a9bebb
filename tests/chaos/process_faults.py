"""Faults of processes: killed, paused, started again."""

from __future__ import annotations

import signal
import sys
from contextlib import suppress

import psutil

from tests.chaos.executions import running
from tests.chaos.servers import spawn
from tests.chaos.session import suspended
from tests.chaos.stacks import main_workers
from tests.chaos.stage import Stage

PAUSE_SECONDS = 4.0
"""Longer than the heartbeat that the scenarios give the app (2 s)."""

READER = """
import sys, time
from pathlib import Path
from pytest_manifest.ledger import Ledger

folder = Path(sys.argv[1])
while True:
    for path in folder.glob("*.sqlite"):
        with Ledger.open(path) as ledger:
            for _ in ledger.attempts.all():
                print("read", flush=True)
"""


def kill_pool_child(stage: Stage) -> None:
    """kill -9 of the process that runs a job at this moment."""
    stage.moment()

    def a_child() -> bool:
        for job in reversed(running(stage.folder)):
            with suppress(psutil.Error):
                process = psutil.Process(job.pid)
                if process.environ().get("CELERY_BROKER_URL"):
                    stage.kill(process)
                    return True
        return False

    stage.until(a_child, "a job is running")


def kill_worker(stage: Stage) -> None:
    """kill -9 of a whole worker: main process and, by its supervisor or the system, its pool."""
    stage.moment()
    kill_worker_now(stage)


def kill_worker_now(stage: Stage) -> None:
    """kill -9 of a worker at this moment."""
    workers = stage.stack.workers()
    victim = stage.rng.choice(workers)
    children = victim.children(recursive=True)
    stage.kill(victim)
    for child in children:  # an orphaned child would go on with its job
        with suppress(psutil.Error):
            child.kill()
    stage.stack.after_worker_death()


def kill_broker(stage: Stage) -> None:
    """kill -9 of the broker, which then comes back."""
    stage.moment()
    _end_broker(stage, signal.SIGKILL)


def stop_broker(stage: Stage) -> None:
    """An orderly restart of the broker."""
    stage.moment()
    _end_broker(stage, signal.SIGTERM)


def _end_broker(stage: Stage, number: signal.Signals) -> None:
    broker = stage.stack.broker()
    broker.send_signal(number)
    with suppress(psutil.TimeoutExpired):
        broker.wait(10)
    stage.pause(1.0)
    stage.stack.after_broker_death()


def pause_broker(stage: Stage) -> None:
    """SIGSTOP of the broker, longer than a heartbeat."""
    stage.moment()
    with suspended([stage.stack.broker()], PAUSE_SECONDS):
        pass


def pause_worker(stage: Stage) -> None:
    """SIGSTOP of one worker and its pool."""
    stage.moment()
    victim = stage.rng.choice(stage.stack.workers())
    with suspended([victim, *victim.children(recursive=True)], PAUSE_SECONDS):
        pass


def kill_xdist_worker(stage: Stage) -> None:
    """kill -9 of a process that verifies."""
    stage.moment()

    def workers() -> list[psutil.Process]:
        found = []
        for process in stage.session.children():
            with suppress(psutil.Error):
                # How execnet starts an interpreter: what it runs comes through a pipe; with
                # setproctitle xdist gives it another title soon.
                words = process.cmdline()
                if any("sys.stdin.readline" in one or "pytest-xdist" in one for one in words):
                    found.append(process)
        return found

    stage.until(workers, "there are xdist workers")
    stage.kill(stage.rng.choice(workers()))


def kill_reader(stage: Stage) -> None:
    """kill -9 of a process in the middle of reading the ledger, again and again."""
    folder = stage.folder / ".manifest" / "runs"
    log = stage.folder / "reader.txt"
    stage.moment(1, 3)
    for _ in range(3):
        log.unlink(missing_ok=True)
        command = [sys.executable, "-c", READER, str(folder)]
        reader = spawn(command, stage.family, log=log, cwd=stage.folder)
        try:
            stage.until(lambda: log.read_text("utf-8").count("read") > 20, "the ledger is read")
            stage.pause(0.05)
        finally:
            reader.kill()
            reader.wait(10)


def kill_driver_before_publishing(stage: Stage) -> None:
    """kill -9 of pytest when the run is in the ledger, and nothing has been sent."""
    stage.until(lambda: "planned" in stage.attempt_states(), "the run is planned")
    stage.pause(0.02)
    kill_driver(stage)


def kill_driver_within_a_batch(stage: Stage) -> None:
    """kill -9 of pytest when only some of a batch has reached the broker."""
    proxy = stage.stack.proxies["pytest's broker"]
    proxy.hold(b'"manifest_entry"', stage.rng.randint(1, len(stage.members) - 1))
    stage.until(proxy.held.is_set, "a batch is half sent")
    assert "intent" in stage.attempt_states()
    stage.pause(0.2)
    kill_driver(stage)
    proxy.release()


def kill_driver_after_publishing(stage: Stage) -> None:
    """kill -9 of pytest at some time of the run."""
    stage.moment(1, len(stage.members) // 2)
    kill_driver(stage)


def kill_driver_and_perhaps_worker(stage: Stage) -> None:
    """kill -9 of pytest; its worker, which is not its own, goes on or is killed and replaced."""
    kill_driver_after_publishing(stage)
    stage.pause(0.5)
    if stage.rng.random() < 0.5:
        kill_worker_now(stage)


def kill_driver(stage: Stage) -> None:
    """kill -9 of pytest at this moment."""
    stage.strike()
    stage.hits.append((stage.session.pid, stage.injected or 0.0))
    # What its private stack ran goes down with it.
    for worker in main_workers(stage.family):
        with suppress(psutil.Error):
            stage.note([worker, *worker.children(recursive=True)])
    stage.session.kill()
    left = stage.family.end()
    assert not left, f"processes outlived pytest: {left}"
