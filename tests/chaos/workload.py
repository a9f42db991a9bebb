"""What a chaos run works on: an app that counts its own executions, and manifests of entries."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from tests.chaos import trees

APP = '''
import json
import os
import signal
import time
from pathlib import Path

from celery import Celery

HERE = Path(os.environ.get("CHAOS_HOME") or Path(__file__).parent)
app = Celery("chaosapp")
app.conf.update(json.loads((HERE / "app.json").read_text("utf-8")))


def count(what, task, key):
    """One line, written at once: this is outside of broker, result store and ledger."""
    words = [what, f"{time.time():.6f}", key, task.request.id, task.request.retries, os.getpid()]
    line = "\\t".join(map(str, words)) + "\\n"
    descriptor = os.open(HERE / "executions.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, line.encode())
    os.close(descriptor)


def run(task, key, sec):
    count("start", task, key)
    time.sleep(sec)
    count("end", task, key)
    return {"key": key}


@app.task(name="chaos.work", bind=True)
def work(self, key, sec):
    return run(self, key, sec)


@app.task(name="chaos.late", bind=True, acks_late=True, reject_on_worker_lost=True)
def late(self, key, sec):
    return run(self, key, sec)


@app.task(name="chaos.poison", bind=True, acks_late=True, reject_on_worker_lost=True)
def poison(self, key, sec):
    count("start", self, key)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="chaos.again", bind=True, max_retries=2)
def again(self, key, sec):
    """Asks Celery itself for one retry: two executions of one attempt, and neither is a fault."""
    result = run(self, key, sec)
    if self.request.retries == 0:
        raise self.retry(countdown=0.1)
    return result


@app.task(name="chaos.later", bind=True, max_retries=2)
def later(self, key, sec):
    """Asks for one retry after longer than its entry's timeout: waiting is no work."""
    result = run(self, key, sec)
    if self.request.retries == 0:
        raise self.retry(countdown=4)
    return result


@app.task(name="chaos.ignore", bind=True)
def ignore(self, key, sec):
    from celery.exceptions import Ignore

    run(self, key, sec)
    raise Ignore()


@app.task(name="chaos.fails", bind=True)
def fails(self, key, sec):
    """Fails the first time."""
    mark = HERE / f"failed-{key}"
    if not mark.exists():
        count("start", self, key)
        mark.touch()
        raise ValueError("not the first time")
    return run(self, key, sec)


class Opaque:
    """Neither JSON nor a pickle."""

    def __reduce__(self):
        raise TypeError("cannot be serialised")


class OpaqueError(Exception):
    def __init__(self, thing):
        super().__init__("an error that cannot be serialised", thing)


@app.task(name="chaos.opaque", bind=True)
def opaque(self, key, sec):
    run(self, key, sec)
    return Opaque()


@app.task(name="chaos.opaque_error", bind=True)
def opaque_error(self, key, sec):
    run(self, key, sec)
    raise OpaqueError(Opaque())


@app.task(name="chaos.huge", bind=True)
def huge(self, key, sec):
    return run(self, key, sec) | {"text": "x" * 4_000_000}


@app.task(name="chaos.memory", bind=True)
def memory(self, key, sec):
    count("start", self, key)
    raise MemoryError("no memory left")


import chaosextra  # noqa
import chaostrees  # noqa
'''
EXTRA = """
from celery import shared_task


@shared_task(name="chaos.extra", bind=True)
def extra(self, key, sec):
    from chaosapp import run

    return run(self, key, sec)
"""
"""A module of its own: another edition of it may be deployed."""
QUEUE = "celery"
INI = """
[pytest]
manifest_app = chaosapp:app
"""
Json: TypeAlias = "str | int | float | bool | Sequence[Json] | Mapping[str, Json] | None"
Kinds: TypeAlias = frozenset[str]


def kinds(*names: str) -> Kinds:
    """Verdict kinds that are allowed."""
    return frozenset(names)


PASSED = kinds("passed")


@dataclass(frozen=True, slots=True)
class Allowed:
    """The exact verdicts that an entry may have, by what the task itself counted.

    ``never``: no execution began; ``cut``: some began, none came to its end; ``done``: one came to
    its end; ``again``: one attempt ran more often than its entry allows. ``aimed`` is for the
    entries that the fault was aimed at, whatever was counted; None: as for all others.
    """

    never: Kinds = frozenset()
    cut: Kinds = frozenset()
    done: Kinds = PASSED
    again: Kinds = frozenset()
    aimed: Kinds | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Entries of one kind: ``count`` of them, each running for a time within ``sec`` (seconds).

    ``shape``: of the tree of jobs that each starts; see ``trees``."""

    name: str
    count: int
    allowed: Allowed = Allowed()
    task: str = "chaos.work"
    sec: tuple[float, float] = (0.05, 0.2)
    fields: Mapping[str, Json] = field(default_factory=dict)
    shape: str = ""

    def keys(self, entry: str) -> list[str]:
        """Under what the jobs of an entry count themselves, its own first."""
        return [entry, *(trees.keys(entry, self.shape) if self.shape else ())]

    @property
    def is_idempotent(self) -> bool:
        return bool(self.fields.get("idempotent"))

    @property
    def is_late(self) -> bool:
        """Whether the broker itself may hand the job out again."""
        return self.task in ("chaos.late", "chaos.poison") or self.shape == "late"

    @property
    def executions(self) -> int:
        """How often one attempt may run."""
        expect = self.fields.get("expect")
        allowed = expect.get("executions", 1) if isinstance(expect, Mapping) else 1
        assert isinstance(allowed, int)
        return allowed


def plain(count: int, **allowed: Kinds) -> Group:
    """Not idempotent, acknowledged early: never to be run twice."""
    return Group("plain", count, Allowed(**allowed))


def safe(count: int, **allowed: Kinds) -> Group:
    """Idempotent, with two retries by the harness, acknowledged early."""
    fields: dict[str, Json] = {"idempotent": True, "retries": 2}
    return Group("safe", count, Allowed(**allowed), fields=fields)


def late(count: int, **allowed: Kinds) -> Group:
    """Acknowledged late, and not declared to run more than once."""
    return Group("late", count, Allowed(**allowed), task="chaos.late")


def late_safe(count: int, **allowed: Kinds) -> Group:
    """Acknowledged late, idempotent, and declared to run several times."""
    fields: dict[str, Json] = {"idempotent": True, "retries": 2, "expect": {"executions": 9}}
    return Group("late_safe", count, Allowed(**allowed), task="chaos.late", fields=fields)


def grown(shapes: Iterable[str] = trees.SOUND, **allowed: Kinds) -> tuple[Group, ...]:
    """An entry of each shape that starts others, plain ones and safe ones.

    What the fault was aimed at is sent again where it is safe, with all that it starts.
    """
    again: dict[str, Json] = {"idempotent": True, "retries": 2}
    safe_ = allowed | ({"aimed": PASSED} if "aimed" in allowed else {})
    return tuple(
        Group(f"{kind}-{shape}", 1, Allowed(**rules), trees.TASK, (0.05, 0.2), fields, shape)
        for shape in shapes
        for kind, rules, fields in (("tree", allowed, {}), ("safe", safe_, again))
    )


def build(
    folder: Path,
    groups: Iterable[Group],
    rng: random.Random,
    *,
    app: Mapping[str, Json] | None = None,
    manifests: int = 1,
) -> dict[str, Group]:
    """Write the project into ``folder``, its entries in random order; give each entry's group."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "chaosapp.py").write_text(APP, encoding="utf-8")
    conf: dict[str, Json] = {"task_default_queue": QUEUE, **(app or {})}
    (folder / "chaosextra.py").write_text(EXTRA, encoding="utf-8")
    (folder / "chaostrees.py").write_text(trees.APP, encoding="utf-8")
    (folder / "app.json").write_text(json.dumps(conf), encoding="utf-8")
    (folder / "pytest.ini").write_text(INI, encoding="utf-8")
    members = {f"{group.name}-{n}": group for group in groups for n in range(group.count)}
    order = list(members)
    rng.shuffle(order)
    lines = [json.dumps(entry(name, members[name], rng)) + "\n" for name in order]
    for number, name in enumerate(manifest_names(manifests)):
        (folder / name).write_text("".join(lines[number::manifests]), encoding="utf-8")
    return {name: members[name] for name in order}


def manifest_names(count: int) -> list[str]:
    """The files that the entries are in."""
    return ["m.jsonl", *(f"m{number}.jsonl" for number in range(2, count + 1))]


def entry(name: str, group: Group, rng: random.Random) -> dict[str, Json]:
    """One line of the manifest."""
    kwargs: dict[str, Json] = {"key": name, "sec": round(rng.uniform(*group.sec), 3)}
    if group.shape:
        kwargs["shape"] = group.shape
    return {"id": name, "task": group.task, "kwargs": kwargs, "timeout": 40, **group.fields}
