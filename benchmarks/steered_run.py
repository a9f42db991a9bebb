"""Play a long batch that is watched and steered to its end, and count what ran.

    python -m benchmarks.steered_run [--entries=N] [--pause=SECONDS] [--folder=DIR]

A stack of its own: Valkey, and four workers that a user would start. Of the batch's jobs, 10 ms to
2 s each, one in thirty-three is of a task that fails until it is mended. While pytest follows it a
worker is killed, sending is paused for a minute, limits are changed twice, ten entries are
cancelled, what has failed is sent again, and pytest is killed and resumed. It prints a line an act,
and at the end what the tasks themselves wrote down, held against the run's record. Ends with 1
where the two differ.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import psutil

from pytest_manifest.ledger import Ledger, find_runs
from pytest_manifest.schema.run_facts import names_in
from tests.processes import temporary_directory
from tests.services import valkey_server

WORKERS: Final = 4
APP: Final = """
import os, time
from pathlib import Path
from celery import Celery

HERE = Path(__file__).parent
app = Celery("shop", broker=os.environ["BROKER"], backend=os.environ["BROKER"])
app.conf.worker_prefetch_multiplier = 1


def wrote(key):
    with (HERE / "ran" / str(os.getpid())).open("a") as file:
        file.write(f"{key} {time.time():.3f}\\n")


@app.task(name="thumbs.render")
def render(key, sec):
    wrote(key)
    time.sleep(sec)
    return {"key": key}


@app.task(name="crm.sync")
def sync(key, sec):
    wrote(key)
    time.sleep(sec)
    if not (HERE / "mended").exists():
        raise ValueError("the CRM refuses the card")
    return {"key": key}
"""


class Trial:
    """One batch, its workers and its pytest, in a folder of its own."""

    def __init__(self, folder: Path, broker: str, entries: int) -> None:
        self.folder, self.entries = folder, entries
        self.environment = {**os.environ, "BROKER": broker, "PYTHONPATH": os.pathsep.join(sys.path)}
        self.began = time.monotonic()
        self.workers: dict[int, subprocess.Popen[bytes]] = {}
        (folder / "ran").mkdir()
        (folder / "shop.py").write_text(APP, "utf-8")
        (folder / "pytest.ini").write_text(
            f"[pytest]\nmanifest_app = shop:app\nmanifest_broker = {broker}\n", "utf-8"
        )
        chance = random.Random(7)
        with (folder / "night.jsonl").open("w", encoding="utf-8") as file:
            for number in range(entries):
                sec = round(0.01 * 200 ** chance.random(), 3)
                task = "crm.sync" if number % 33 == 0 else "thumbs.render"
                key = f"e{number:05}"
                entry = {"id": key, "task": task, "kwargs": {"key": key, "sec": sec}}
                file.write(json.dumps({**entry, "idempotent": task == "crm.sync"}) + "\n")

    def say(self, what: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - self.began), 60)
        print(f"{minutes:3}:{seconds:02}  {what}", flush=True)

    def start_worker(self, number: int) -> None:
        command = [sys.executable, "-m", "celery", "-A", "shop", "worker", "-c", "1"]
        command += ["-n", f"render-{number}@box", "-I", "pytest_manifest.worker"]
        log = (self.folder / f"worker-{number}.log").open("ab")
        self.workers[number] = subprocess.Popen(
            command, cwd=self.folder, env=self.environment, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip

    def kill_worker(self, number: int) -> None:
        os.killpg(self.workers.pop(number).pid, signal.SIGKILL)

    @contextmanager
    def pytest(self, *options: str) -> Iterator[subprocess.Popen[bytes]]:
        command = [sys.executable, "-m", "pytest", "--manifest=night.jsonl", *options]
        with (self.folder / "pytest.log").open("ab") as log:
            process = subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdout=log, stderr=log
            )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()

    def ctl(self, *arguments: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "pytest_manifest", "ctl", "last", *arguments, "--json"]
        began = time.monotonic()
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        found: dict[str, Any] = json.loads(done.stdout) if done.stdout else {"message": done.stderr}
        took = time.monotonic() - began
        self.say(f"ctl {' '.join(arguments)[:60]}: {found['message'][:150]} ({took:.1f} s)")
        return found

    def ended(self, share: float, process: subprocess.Popen[bytes]) -> None:
        """Wait until this share of the entries has a verdict."""
        while process.poll() is None:
            ledgers = find_runs(self.folder / ".manifest" / "runs")
            if ledgers:
                with Ledger.open(ledgers[-1]) as ledger:
                    if sum(ledger.verdicts.counts().values()) >= share * self.entries:
                        return
            time.sleep(1)

    def unsent(self, number: int) -> list[str]:
        with Ledger.open(find_runs(self.folder / ".manifest" / "runs")[-1]) as ledger:
            rows = [row.entry for row in ledger.attempts.newest() if row.state == "planned"]
        return rows[:: max(1, len(rows) // number)][:number]

    def ran(self) -> Counter[str]:
        files = (self.folder / "ran").iterdir()
        return Counter(line.split()[0] for one in files for line in one.read_text().splitlines())

    def play(self, pause: float) -> None:
        """Play the whole."""
        for number in range(1, WORKERS + 1):
            self.start_worker(number)
        with self.pytest("--manifest-window=100", "--manifest-repair") as process:
            self.ended(0.05, process)
            self.say("5 % are done")
            self.kill_worker(3)
            self.say("worker render-3 is killed")
            self.ended(0.1, process)
            self.start_worker(3)
            self.say("worker render-3 is started again")
            self.ctl("pause", "--reason=db failover")
            time.sleep(pause)
            before = sum(self.ran().values())
            self.ctl("resume")
            self.say(f"{before} jobs had run at the end of the pause")
            self.ended(0.3, process)
            self.ctl("set", "window=20")
            self.ended(0.4, process)
            self.ctl("set", "window=200", "max-failed=50%")
            self.ctl("cancel", *self.unsent(10), "--reason=poisonous")
            self.ended(0.5, process)
            (self.folder / "mended").touch()
            self.ctl("requeue", "--failed", "--reason=the CRM is mended")
            self.ended(0.7, process)
            process.kill()
            process.wait()
            self.say("pytest is killed")
        with self.pytest("--manifest-resume", "--manifest-repair") as process:
            self.ended(0.75, process)
            self.say("pytest goes on")
            process.wait()
            self.say(f"pytest has ended with {process.returncode}")

    def close(self) -> None:
        for one in self.workers.values():
            for process in (psutil.Process(one.pid), *psutil.Process(one.pid).children()):
                process.kill()
            one.wait()


def account(trial: Trial) -> list[str]:
    """Hold what the tasks wrote down against the record; return what differs."""
    ran = trial.ran()
    named: dict[str, set[str]] = {"requeue": set(), "cancel": set()}
    with Ledger.open(find_runs(trial.folder / ".manifest" / "runs")[-1]) as ledger:
        statuses = ledger.verdicts.statuses()
        for one in ledger.jobs.run_facts().steered:
            print(f"fact: {one.at:%H:%M:%S} {one.action} by {one.by} {one.reason}")
            named.setdefault(one.action, set()).update(names_in(one.data))
    again = named["requeue"]
    print(f"verdicts: {dict(Counter(statuses.values()))}")
    print(f"jobs that ran: {len(ran)}, in all {sum(ran.values())} times; sent again: {len(again)}")
    dropped = (one for one in named["cancel"] if statuses.get(one) == "cancelled")
    wrong = [f"{name} was cancelled and ran" for name in dropped if ran[name]]
    wrong += [f"{one} ran {n} times" for one, n in ran.items() if n > 1 + (one in again)]
    passed = (one for one, status in statuses.items() if status == "passed")
    wrong += [f"{one} passed and did not run" for one in passed if not ran[one]]
    missing = trial.entries - len(statuses)
    return wrong + ([f"{missing} entries have no verdict"] if missing else [])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=40_000)
    parser.add_argument("--pause", type=float, default=60.0, help="seconds")
    parser.add_argument("--folder", type=Path, help="where it is kept; default: nowhere")
    given = parser.parse_args()
    with ExitStack() as stack:
        folder = given.folder or stack.enter_context(temporary_directory())
        folder.mkdir(exist_ok=True)
        broker = stack.enter_context(valkey_server())
        trial = Trial(folder.resolve(), broker, given.entries)
        stack.callback(trial.close)
        trial.play(given.pause)
        wrong = account(trial)
    for one in wrong[:20]:
        print(f"WRONG: {one}")
    print(f"{len(wrong)} differences")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
