"""Make a program that breaks a promise as small as it can be and still break it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from typing import TypeVar

from pytest_manifest.schema import Entry
from tests.simulation.program import Program
from tests.simulation.simulation import play

T = TypeVar("T")
PLAIN = Program(())
"""What a program is where nothing else was chosen."""


def promise_of(violation: str) -> str:
    """Give the promise that a violation begins with."""
    return violation.partition(" ")[0]


def breaks(program: Program) -> Sequence[str]:
    """Say how a program breaks promises, whatever its entries are called."""
    return [re.sub(r"\b[a-e]\b|\d+", "", one)[:80] for one in play(program).violations]


def shrink(program: Program, seconds: float = 60.0) -> Program:
    """Return a smaller program that breaks a promise in the same way, found in so many seconds."""
    broken = set(breaks(program))
    until = time.monotonic() + seconds

    def still_breaks(smaller: Program) -> bool:
        return time.monotonic() < until and not broken.isdisjoint(breaks(smaller))

    while True:
        before = program
        for smaller in (_fewer_steps, _fewer_sessions, _fewer_entries, _plainer):
            program = smaller(program, still_breaks)
        if program == before or time.monotonic() >= until:
            return program


def _fewer_steps(program: Program, still_breaks: Callable[[Program], bool]) -> Program:
    size = max(1, len(program.steps) // 2)
    while size:
        start = 0
        while start < len(program.steps):
            steps = (*program.steps[:start], *program.steps[start + size :])
            smaller = replace(program, steps=steps)
            if still_breaks(smaller):
                program = smaller
            else:
                start += size
        size //= 2
    for number, step in enumerate(program.steps):
        for plainer in (replace(step, moments=0), replace(step, number=0)):
            steps = (*program.steps[:number], plainer, *program.steps[number + 1 :])
            if steps != program.steps and still_breaks(replace(program, steps=steps)):
                program = replace(program, steps=steps)
    return program


def _fewer_sessions(program: Program, still_breaks: Callable[[Program], bool]) -> Program:
    for sessions in _without_one(program.sessions):
        if still_breaks(replace(program, sessions=sessions)):
            return _fewer_sessions(replace(program, sessions=sessions), still_breaks)
    return program


def _fewer_entries(program: Program, still_breaks: Callable[[Program], bool]) -> Program:
    for entries in _without_one(program.entries):
        names = {entry.id for entry in entries}
        known = tuple(
            entry.model_copy(update={"after": [name for name in entry.after if name in names]})
            for entry in entries
        )
        if known and still_breaks(replace(program, entries=known)):
            return _fewer_entries(replace(program, entries=known), still_breaks)
    for number, entry in enumerate(program.entries):
        for field in sorted(entry.model_fields_set - {"id", "task"}):
            document = entry.model_dump(mode="json", exclude_unset=True, exclude={field})
            plainer = Entry.model_validate(document)
            some = (*program.entries[:number], plainer, *program.entries[number + 1 :])
            if still_breaks(replace(program, entries=some)):
                return _fewer_entries(replace(program, entries=some), still_breaks)
    return program


def _plainer(program: Program, still_breaks: Callable[[Program], bool]) -> Program:
    for one in fields(program):
        if one.name in ("entries", "steps", "sessions", "note"):
            continue
        plainer = replace(program, **{one.name: getattr(PLAIN, one.name)})
        if plainer != program and still_breaks(plainer):
            program = plainer
    return program


def _without_one(some: Sequence[T]) -> Iterator[tuple[T, ...]]:
    return ((*some[:n], *some[n + 1 :]) for n in range(len(some)))
