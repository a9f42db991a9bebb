"""Planning, loading and digesting manifests, held against ``json.loads`` of every line.

    python -m benchmarks.codec [--sizes 1000,10000,100000] [--rounds N] [--json FILE]

``plan`` is ``PlanBuilder.add`` for every entry and ``freeze``, ``load`` is ``read_manifest`` and
``check`` is ``check_manifest`` (both check the whole file), ``digest`` is ``manifest_digest``, and
``iterate`` streams the entries of a manifest that was read. The peer parses each line of the same
file and does nothing with it.

Times are processor time of one process. Peer and ours take turns within a round, so that a busy
machine disturbs all alike; a ratio in the table is the median of the rounds' ratios of times (1.0:
as long as the peer). The figures that are told are ratios of entries a second. What the
planner itself does to make its arguments is measured apart and is in ``plan``;
``plan, net`` is without it. Growth is that of the time an entry takes from the smallest to the
largest size. Memory is the peak of a process of its own above what it had when its imports were
done.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from benchmarks.side_by_side import Figure, figure, tell
from pytest_manifest.manifest import check_manifest, manifest_digest, read_manifest
from pytest_manifest.planning import PlanBuilder, plan_spec

SIZES = (1_000, 10_000, 100_000)
GOALS = {"plan": 0.1, "load": 0.2, "digest": 0.5}
"""Entries a second, as parts of what ``json.loads`` parses."""
_WORK = 300_000
"""How many entries a way takes in all, in at least five rounds, where no rounds are given."""
_TO_BYTES = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in kilobytes on Linux
_ROOT = Path(__file__).resolve().parent.parent
_TEXT = (
    "The captain walks through the dark ship: somewhere behind her the creature breathes. "
    "She has found the cat, she has lost her crew, and the countdown is going on. "
)


class Plan(Protocol):
    """What a planner adds its entries to."""

    def add(self, task: str, *, id: str, **fields: object) -> None: ...  # noqa: A002


class Nowhere:
    """Takes entries and does nothing, to measure the planner alone."""

    def add(self, task: str, *, id: str, **fields: object) -> None:  # noqa: A002
        """Take one."""


class Row(NamedTuple):
    """What one kind of entry costs at one size; times in microseconds an entry."""

    kind: str
    entries: int
    times: Mapping[str, float]
    ratios: Mapping[str, float]
    memory: Mapping[str, float]
    """Bytes of peak memory an entry."""


def small(plan: Plan, count: int) -> None:
    """Jobs of an ordinary workflow, 250 bytes each; each tenth waits for another."""
    for i in range(count):
        waits = {"after": [f"corpus/film-{i - 1:07}"]} if i % 10 == 9 else {}
        plan.add(
            "tasks.crud.fast_crud_task",
            id=f"corpus/film-{i:07}",
            kwargs={"data": {"title": "Alien", "year": 1979, "cast": ["Weaver", "Skerritt"]}},
            timeout=30,
            expect={"result": {"lifecycle": ["created", "verified", "deleted"]}},
            **waits,
        )


def large(plan: Plan, count: int) -> None:
    """Batches for a language model, 2 kB each: texts, a cost, facts for the report."""
    for i in range(count):
        ids = [f"film-{i:07}/plot-{n}" for n in range(3)]
        plan.add(
            "tasks.rag.fill",
            id=f"fill-{i:07}",
            kwargs={
                "ids": ids,
                "data": {
                    "documents": [{"id": one, "title": "Alien", "text": _TEXT * 3} for one in ids],
                    "model": {"provider": "offline", "name": "extractive-1"},
                },
            },
            timeout=120.5,
            retries=2,
            idempotent=True,
            tags=["gap_fill"],
            cost=0.0125,
            meta={"passages": 3, "tokens": {"in": 812, "out": 240}},
            expect={"result": {"unfilled": [], "model": "extractive-1"}},
        )


KINDS: Mapping[str, Callable[[Plan, int], None]] = {"small": small, "large": large}


def planned(kind: str, count: int, path: Path) -> None:
    """Plans a manifest into ``path``, which must not exist."""
    builder = PlanBuilder(plan_spec(f"benchmark:{kind}", KINDS[kind]), {})
    KINDS[kind](builder, count)
    builder.freeze(path, path.parent)
    builder.close()


def loads(path: Path) -> None:
    """The peer: JSON without any care."""
    with path.open("rb") as file:
        for line in file:
            json.loads(line)


def iterate(path: Path) -> None:
    """What a dispatcher does after reading."""
    for _ in read_manifest(path):
        pass


def ways(kind: str, count: int, path: Path) -> Mapping[str, Callable[[], object]]:
    """What is measured, by name; ``path`` is the manifest that is read."""
    fresh = path.with_name("fresh.jsonl")

    def plan() -> None:
        fresh.unlink(missing_ok=True)
        planned(kind, count, fresh)

    return {
        "peer": lambda: loads(path),
        "arguments": lambda: KINDS[kind](Nowhere(), count),
        "plan": plan,
        "load": lambda: read_manifest(path),
        "check": lambda: check_manifest(path),
        "digest": lambda: manifest_digest(path),
        "read and iterate": lambda: iterate(path),
    }


def rounds_of(kind: str, count: int, rounds: int) -> Iterator[Mapping[str, float]]:
    """For each round the microseconds an entry that each way took; a first one warms up."""
    with tempfile.TemporaryDirectory(prefix="codec-") as folder:
        path = Path(folder) / "manifest.jsonl"
        planned(kind, count, path)
        acts = ways(kind, count, path)
        for number in range(rounds + 1):
            taken: dict[str, float] = {}
            for name, act in acts.items():
                start = time.process_time()
                act()
                taken[name] = (time.process_time() - start) / count * 1e6
            if number:
                yield taken | {"plan, net": taken["plan"] - taken["arguments"]}


def measured(kind: str, count: int, rounds: int, memory: Mapping[str, float]) -> Row:
    """Medians of all rounds, with the ``memory`` that was measured before."""
    seen = list(rounds_of(kind, count, rounds))
    times = {name: statistics.median(one[name] for one in seen) for name in seen[0]}
    ratios = {
        name: statistics.median(one[name] / one["peer"] for one in seen)
        for name in times
        if name not in ("peer", "arguments")
    }
    return Row(kind, count, times, ratios, memory)


def peaks(kind: str, count: int) -> Mapping[str, float]:
    """Bytes of peak memory an entry, for each way that is to keep little."""
    with tempfile.TemporaryDirectory(prefix="codec-") as folder:
        path = Path(folder) / "manifest.jsonl"
        return {way: peak(way, kind, count, path) / count for way in ("plan", "load", "check")}


def peak(way: str, kind: str, count: int, path: Path) -> float:
    """Bytes of peak memory of a process of its own above its start, which does one thing."""
    command = [sys.executable, "-m", "benchmarks.codec", "--peak", way, kind, str(count), str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=_ROOT)
    return float(done.stdout)


def print_peak(way: str, kind: str, count: int, path: Path) -> None:
    """In a process of its own, whose parent has done nothing yet: it starts with its peak."""
    acts: Mapping[str, Callable[[], object]] = {
        "plan": lambda: planned(kind, count, path),
        "load": lambda: read_manifest(path),
        "check": lambda: check_manifest(path),
    }
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    acts[way]()
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * _TO_BYTES)


def growth(rows: Sequence[Row], way: str) -> float:
    """By how much an entry's time grows from the smallest to the largest size: 0.1 is a tenth."""
    first, last = min(rows, key=_size), max(rows, key=_size)
    return last.times[way] / first.times[way] - 1


def _size(row: Row) -> int:
    return row.entries


def table(rows: Iterable[Row]) -> Iterator[str]:
    """All rows for people."""
    by_kind: dict[str, list[Row]] = {}
    for row in rows:
        by_kind.setdefault(row.kind, []).append(row)
    for kind, same in by_kind.items():
        yield f"{kind} entries"
        sizes = "".join(f"{row.entries:>20,}" for row in same)
        yield f"  {'entries':<18}{sizes}{'growth':>10}"
        peer = "".join(f"{row.times['peer']:>17.2f} us" for row in same)
        yield f"  {'json.loads':<18}{peer}{growth(same, 'peer'):>10.0%}"
        for way in same[0].ratios:
            cells = "".join(f"{row.times[way]:>8.2f} us {row.ratios[way]:>7.2f}x" for row in same)
            yield f"  {way:<18}{cells}{growth(same, way):>10.0%}"
        for way in same[0].memory:
            cells = "".join(f"{row.memory[way]:>18.0f} B" for row in same)
            yield f"  {'memory, ' + way:<18}{cells}"


def figures(rows: Sequence[Row]) -> list[Figure]:
    """The rates of each kind's largest size, as parts of the peer's; and how they grow."""
    found: list[Figure] = []
    for kind in dict.fromkeys(row.kind for row in rows):
        same = [row for row in rows if row.kind == kind]
        last = max(same, key=_size)
        found += [
            figure(
                f"{way}, {last.entries:,} {kind} entries",
                "json.loads of each line",
                [1 / last.ratios[way]],
                GOALS[way],
                us_an_entry=last.times[way],
                growth_of_an_entry=growth(same, way),
            )
            for way in ("plan", "load", "digest")
        ]
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints a table, and writes JSON where it is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="entries, with commas")
    parser.add_argument("--kinds", default=",".join(KINDS), help="of entries, with commas")
    parser.add_argument("--rounds", type=int, help="for each size; more for small ones by default")
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    parser.add_argument("--peak", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.peak:
        way, kind, count, path = options.peak
        print_peak(way, kind, int(count), Path(path))
        return 0
    cases = [
        (kind, size)
        for kind in options.kinds.split(",")
        for size in map(int, options.sizes.split(","))
    ]
    memory = {case: peaks(*case) for case in cases}  # before this process has grown
    rows = [
        measured(kind, size, options.rounds or min(41, max(5, _WORK // size)), memory[kind, size])
        for kind, size in cases
    ]
    print("\n".join(table(rows)))
    tell(figures(rows), options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
