"""Replay a run's ledger into a copy, at 1 to 1,000 times its speed, as pytest would write it.

What was added to the ledger is added again in its order, with the times of the replay; the copy
looks like a run that goes on, its lock held, until all is there. ``made_ledger`` makes a run of
hours by hand: a worker dies, the rate falls, some fail, an operator pauses.
"""

from __future__ import annotations

import json
import os
import random
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from heapq import heapify, heapreplace
from pathlib import Path
from typing import Any

from pytest_manifest.broker.attempt import attempt_of
from pytest_manifest.ledger import Ledger
from pytest_manifest.ledger.commands import Answer
from pytest_manifest.ledger.files import RunFiles
from pytest_manifest.manifest import read_manifest
from pytest_manifest.processes import take_lock
from pytest_manifest.run.changes import keep_manifest
from pytest_manifest.run.fact_log import stamp
from pytest_manifest.schema import Entry, Receipt, Verdict
from pytest_manifest.schema.facts import FactSource, Gone
from pytest_manifest.schema.run_facts import Segment, SegmentEnded
from pytest_manifest.schema.wire import arguments_sha256, json_sha256
from tests.reports import add_receipts, add_starts, run_info, started

_GROWING = ("facts", "verdicts")


class Player:
    """Write what a ledger holds into ``target`` as time goes by; ``begun``: what is there at once.

    Times are seconds of the source's run since it was made. Use it from one thread.
    """

    def __init__(self, source: Path, target: Path, speed: float = 1.0, begun: float = 0.0) -> None:
        assert 1 <= speed <= 1000
        target.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(source)) as db, closing(sqlite3.connect(target)) as copy:
            db.backup(copy)
        target.chmod(0o600)
        for kept in source.parent.glob(f"{source.stem}.manifest-*"):
            (target.parent / kept.name.replace(source.stem, target.stem, 1)).write_bytes(
                kept.read_bytes()
            )
        self.speed = speed
        self.path = target
        self._db = sqlite3.connect(target, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        made, self.status = self._db.execute("SELECT created_at, status FROM run").fetchone()
        self._made = _microseconds(made)
        self._start = int(time.time() * 1e6 - begun / speed * 1e6)
        self._events = self._taken()
        self._next = 0
        self.length = (self._events[-1][0] - self._made) / 1e6
        self._lock: int | None = take_lock(RunFiles(target).lock)
        self.advance(begun)

    def _taken(self) -> list[tuple[int, int, str, tuple[Any, ...]]]:
        """Take all that happens out of the copy; return it by its time and its order."""
        db, found = self._db, []
        for table in _GROWING:
            at = [row[1] for row in db.execute(f"PRAGMA table_info({table})")].index("at")
            some = db.execute(f"SELECT * FROM {table}")
            found += [(row[at], row[0], table, row) for row in some]
            db.execute(f"DELETE FROM {table}")
        for n, sent_at, state, sending in db.execute(
            "SELECT n, sent_at, state, sending FROM jobs WHERE sent_at IS NOT NULL"
        ).fetchall():
            found.append((_microseconds(sent_at), sending, "jobs", (n, sent_at, state, sending)))
        db.execute("UPDATE jobs SET state = 'planned', sent_at = NULL, sending = 0")
        db.execute("UPDATE segments SET stopped = NULL, started = ?", (_text(self._start),))
        db.execute("UPDATE run SET status = 'running', created_at = ?", (_text(self._start),))
        return sorted(found, key=lambda one: one[:2])

    def _when(self, at: int) -> int:
        return self._start + int((at - self._made) / self.speed)

    def _shifted(self, value: object, at: int) -> object:
        """Return a column with its moments as they are of the replay."""
        if value == at:
            return self._when(at)
        if isinstance(value, str) and _MOMENT.search(value):
            return _MOMENT.sub(lambda found: _text(self._when(_microseconds(found[0]))), value)
        return value

    @property
    def now(self) -> float:
        """The moment of the source's run that it is by the clock."""
        return (time.time() * 1e6 - self._start) * self.speed / 1e6

    def advance(self, upto: float | None = None) -> bool:
        """Write what has happened by now, or by that moment; return whether all is there."""
        last = self._made + (self.now if upto is None else upto) * 1e6
        self._db.execute("BEGIN IMMEDIATE")
        while self._next < len(self._events) and self._events[self._next][0] <= last:
            at, _, table, row = self._events[self._next]
            self._next += 1
            if table == "jobs":
                n, _, state, sending = row
                values = (state, _text(self._when(at)), sending, n)
                query = "UPDATE jobs SET state = ?, sent_at = ?, sending = ? WHERE n = ?"
                self._db.execute(query, values)
            else:
                given = [self._shifted(one, at) for one in row]
                marks = ", ".join("?" * len(row))
                self._db.execute(f"INSERT INTO {table} VALUES ({marks})", given)
        self._db.execute("UPDATE run SET seq = (SELECT coalesce(max(seq), 0) FROM facts)")
        self._db.execute("COMMIT")
        return self._next == len(self._events)

    def play(self, period: float = 0.1) -> None:
        """Write as time goes by, until all is there, and end the run."""
        while not self.advance():
            time.sleep(period)  # a clock is what this stands for
        self.end()

    def end(self) -> None:
        """Write the rest, and end the run as the source's has ended."""
        self.advance(self.length + 1)
        self._db.execute("UPDATE run SET status = ?", (self.status,))
        self.let_go()

    def let_go(self) -> None:
        """End as pytest does when it is killed: nobody says how the run goes on."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def close(self) -> None:
        self.let_go()
        self._db.close()


@contextmanager
def playing(source: Path, target: Path, speed: float = 1.0, begun: float = 0.0) -> Iterator[Player]:
    """Give a player that is closed at the end."""
    player = Player(source, target, speed, begun)
    try:
        yield player
    finally:
        player.close()


@contextmanager
def obeying(path: Path) -> Iterator[list[tuple[str, str, Any]]]:
    """Answer commands as a run does; give what was asked for: action, reason, data."""
    ended, said = threading.Event(), list[tuple[str, str, Any]]()

    def answer() -> None:
        with Ledger.open(path, write=True) as ledger:
            while not ended.wait(0.01):
                for one in ledger.commands.open():
                    said.append((one.action, one.reason, dict(one.data)))
                    ledger.commands.answer(one.number, Answer(True, True, f"did {one.action}"))

    with running(answer, ended.set):
        yield said


@contextmanager
def running(work: Callable[[], object], *end: Callable[[], object]) -> Iterator[None]:
    """Do this in a thread of its own, which ends by these calls."""
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        for call in end:
            call()
        thread.join()


_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00)")


def _microseconds(text: str) -> int:
    return int(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1e6)


def _text(at: int) -> str:
    return datetime.fromtimestamp(at / 1e6, timezone.utc).isoformat(timespec="microseconds")


# A run of hours, made by hand

BEGAN = datetime(2026, 11, 24, 6, 45, tzinfo=timezone.utc)
TASKS = ("images.thumbnail", "images.describe", "texts.translate", "billing.charge")
ERROR = "PaymentDeclined"
TRACE = """Traceback (most recent call last):
  File "/srv/jobs/billing.py", line 88, in charge
    raise PaymentDeclined(f"order {order}: {said}")
billing.PaymentDeclined: {message}
"""


@dataclass
class Script:
    """What happens in a run: so many entries by so many workers, in about so many seconds.

    ``bad``: the share of ``billing.charge`` that fails; ``dies``: the share of the run after which
    the last worker dies with a job, None: none does. ``text``: what errors and ids' tags say.
    """

    entries: int = 700
    workers: int = 4
    seconds: float = 1800.0
    bad: float = 0.12
    dies: float | None = 0.6
    quiet: float = 0.0
    text: str = "the bank said 51"
    seed: int = 1
    cost: float = 0.002
    events: list[tuple[float, int, str, Any]] = field(default_factory=list)


def made_manifest(path: Path, script: Script) -> Path:
    """Write the manifest of a script."""
    rng = random.Random(script.seed)
    with path.open("w", encoding="utf-8") as file:
        for number in range(script.entries):
            task = TASKS[min(3, int(rng.random() ** 1.3 * 4))]
            entry = {
                "id": f"{task.partition('.')[2]}-{number:05}",
                "task": task,
                "args": [number],
                "cost": script.cost,
                "expect": {"result": {"charged": number}},
            }
            file.write(json.dumps(entry) + "\n")
    return path


def made_ledger(folder: Path, script: Script | None = None, name: str = "live.jsonl") -> Path:
    """Make the ledger of a run that is over, and its manifest; return the ledger's path."""
    script = script or Script()
    manifest = read_manifest(made_manifest(folder / name, script))
    run = f"20261124T064500-{script.seed:08x}"
    url = "redis://127.0.0.1:6379/0"
    own = {"stream_ttl": 86400, "number": script.seed, "takes_one": True}
    info = run_info(run, BEGAN, manifest, url=url, **own)
    path = folder / "runs" / f"{run}.sqlite"
    times: list[tuple[int, str]] = []
    with Ledger.create(path, info, deferred=True) as ledger:
        keep_manifest(manifest, path)
        entries = list(manifest)
        jobs = [attempt_of(run, entry, 1).task_id for entry in entries]
        ledger.attempts.plan(
            (job, entry.id, 1, place)
            for place, (job, entry) in enumerate(zip(jobs, entries, strict=True))
        )
        ledger.info.begin_segment(BEGAN)
        segment = Segment(**_at(0.0), kills=3, lifetime=86400.0, deadline=21600.0, budget=12.0)
        ledger.facts.append([(None, segment)])
        _work(script, entries)
        for second, place, what, more in sorted(script.events, key=lambda one: one[:2]):
            moment = BEGAN + timedelta(seconds=second)
            if what == "sent":
                ledger.attempts.mark([jobs[place]], "sent", sent_at=moment)
            elif what == "started":
                one = started(jobs[place], "x", moment, worker=more[0], pid=more[1])
                add_starts(ledger, [one], at=moment)
            elif what == "gone":
                ledger.facts.append([(entries[place].id, _gone(jobs[place], second, *more))])
            else:
                receipt, verdict = _judged(run, entries[place], jobs[place], moment, *more)
                if receipt is not None:
                    add_receipts(ledger, [(jobs[place], "x", receipt)], at=moment)
                ledger.verdicts.record([(verdict, receipt)])
                times.append((int(moment.timestamp() * 1e6), entries[place].id))
        end = max(second for second, *_ in script.events) + 1
        ledger.facts.append([(None, SegmentEnded(**_at(end), how="finished"))])
        ledger.info.set_status("finished")
        ledger.commit_deferred()
    with closing(sqlite3.connect(path)) as db:
        db.executemany(
            "UPDATE verdicts SET at = ? WHERE job = (SELECT n FROM jobs WHERE name = ?)", times
        )
        db.commit()
    return path


def _at(second: float) -> dict[str, Any]:
    return {**stamp(), "at": BEGAN + timedelta(seconds=second)}


def _gone(job: str, second: float, worker: str, pid: int) -> Gone:
    given = _at(second) | {"source": FactSource.SUPERVISOR, "job": job}
    return Gone(**given, execution="x", pid=pid, exit_code=-9, worker=worker)


def _work(script: Script, entries: Sequence[Entry]) -> None:
    """Write down what happens in a run, with its times."""
    rng = random.Random(script.seed)
    mean = script.seconds * script.workers / script.entries
    names = [(f"render-{number}@host", 4100 + number) for number in range(1, script.workers + 1)]
    free = [(0.5 + 0.05 * number, number) for number in range(script.workers)]
    dead_at = None if script.dies is None else script.seconds * script.dies
    heapify(free)
    add = script.events.append
    for place, entry in enumerate(entries):
        begins, number = free[0]
        if script.quiet and begins > script.seconds / 3 and place < len(entries) * 0.9:
            script.quiet, begins = 0.0, begins + script.quiet
        add((max(0.1, begins - 10 * mean - rng.random()), place, "sent", None))
        lasted = mean * rng.lognormvariate(-0.125, 0.5)
        add((begins, place, "started", names[number]))
        if dead_at is not None and begins + lasted > dead_at and number == script.workers - 1:
            add((begins + lasted, place, "gone", names[number]))
            add((begins + lasted, place, "ended", (names[number], "crashed", 0.0, script.text)))
            dead_at = None
            heapreplace(free, (float("inf"), number))
            continue
        fails = entry.task == "billing.charge" and rng.random() < script.bad
        kind = "failed" if fails else "passed"
        add((begins + lasted, place, "ended", (names[number], kind, lasted, script.text)))
        heapreplace(free, (begins + lasted + 0.01, number))


def _judged(
    run: str,
    entry: Entry,
    job: str,
    moment: datetime,
    worker: tuple[str, int],
    kind: str,
    lasted: float,
    text: str,
) -> tuple[Receipt | None, Verdict]:
    said = {"passed": f"{entry.id} passed", "crashed": "The process that ran the task died"}
    message = f"order {entry.id}: {text}"
    told = said.get(kind, f"The task raised {ERROR}: {message} on {worker[0]}")
    verdict = Verdict.model_validate(
        {"verdict": kind, "entry": entry.id, "attempt": 1, "sentence": told}
    )
    if kind == "crashed":
        return None, verdict
    begun = moment - timedelta(seconds=lasted)
    result = {"charged": entry.args[0]} if kind == "passed" else None
    document: dict[str, Any] = {
        "run": run,
        "entry": entry.id,
        "attempt": 1,
        "task_id": job,
        "task": entry.task,
        "state": "succeeded" if kind == "passed" else "failed",
        "worker": worker[0],
        "pid": worker[1],
        "host": "host",
        "executions": 1,
        "runtime": lasted,
        "wait": 0.5,
        "sent_at": begun,
        "started_at": begun,
        "finished_at": moment,
        "args_sha256": arguments_sha256(list(entry.args), {}),
        "result": result,
        "result_sha256": json_sha256(result),
        "log": [f"charging {text}"],
        "evidence": {"cost": 0.002},
    }
    if kind == "failed":
        trace = TRACE.replace("{message}", message)
        document["error"] = {"type": ERROR, "message": message, "traceback": trace}
    return Receipt.model_validate(document), verdict
