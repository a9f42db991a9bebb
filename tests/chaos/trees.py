"""Entries whose jobs start others: their app, their groups, and what may become of their trees.

A twig is a job that an entry's job, or another twig, has started. It counts its executions under
the entry's name and its own: ``ENTRY/1``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

APP = '''
from celery import chain, chord, group
from chaosapp import app, count, run


@app.task(name="chaos.twig", bind=True)
def twig(self, key, sec):
    return run(self, key, sec)


@app.task(name="chaos.twig_late", bind=True, acks_late=True, reject_on_worker_lost=True)
def twig_late(self, key, sec):
    return run(self, key, sec)


@app.task(name="chaos.bough", bind=True)
def bough(self, key, sec, levels):
    """Start one below itself."""
    entry, _, number = key.rpartition("/")
    following = f"{entry}/{int(number) + 1}"
    (bough.si(following, sec, levels - 1) if levels else twig.si(following, sec)).delay()
    return run(self, key, sec)


@app.task(name="chaos.replaced", bind=True)
def replaced(self, key, sec):
    raise self.replace(twig.si(key, sec))


@app.task(name="chaos.retrying", bind=True, max_retries=2)
def retrying(self, key, sec):
    result = run(self, key, sec)
    if self.request.retries == 0:
        raise self.retry(countdown=0.1)
    return result


@app.task(name="chaos.failing", bind=True)
def failing(self, key, sec):
    run(self, key, sec)
    raise ValueError("it was to fail")


def shapes(key, sec):
    one = lambda number, task=twig: task.si(f"{key}/{number}", sec)
    some = lambda *numbers: [one(number) for number in numbers]
    inner = lambda *numbers: chord(some(*numbers[1:]), one(numbers[0]))
    return {
        "loop": lambda: [sig.delay() for sig in some(1, 2, 3)],
        "late": lambda: [one(number, twig_late).delay() for number in (1, 2, 3)],
        "group": lambda: group(some(1, 2, 3)).delay(),
        "chain": lambda: chain(some(1, 2, 3)).delay(),
        "chord": lambda: inner(1, 2, 3).delay(),
        "chords": lambda: chord([inner(2, 3, 4), inner(5, 6, 7)], one(1)).delay(),
        "groups": lambda: chain(one(1), group(some(2, 3)), one(4)).delay(),
        "deep": lambda: bough.si(f"{key}/1", sec, 1).delay(),
        "link": lambda: one(1).apply_async(link=some(2, 3)),
        "replaced": lambda: chain(one(1), one(2, replaced), one(3)).delay(),
        "retries": lambda: one(1, retrying).delay(),
        "fails": lambda: [sig.delay() for sig in (one(1), one(2, failing), one(3))],
        "never ends": lambda: [sig.delay() for sig in (one(1), twig.si(f"{key}/2", 20), one(3))],
    }


@app.task(name="chaos.tree", bind=True)
def tree(self, key, sec, shape):
    count("start", self, key)
    shapes(key, sec)[shape]()
    count("end", self, key)
    return {"key": key}
'''
TASK: Final = "chaos.tree"
TWIGS: Final[Mapping[str, int]] = {
    **dict.fromkeys(("loop", "late", "group", "chain", "chord", "deep", "link", "replaced"), 3),
    **dict.fromkeys(("fails", "never ends"), 3),
    "chords": 7,
    "groups": 4,
    "retries": 1,
}
"""How many twigs each shape has that count themselves, where all goes well."""
SOUND: Final = ("loop", "group", "chain", "chord", "chords", "groups", "deep", "link", "replaced")
"""Shapes of which no twig fails by itself, nor runs twice."""


def keys(entry: str, shape: str) -> list[str]:
    """Under what the twigs of an entry count themselves."""
    return [f"{entry}/{number}" for number in range(1, TWIGS[shape] + 1)]
