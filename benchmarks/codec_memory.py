"""What the codec costs: memory of a check at 100,000 and a million entries, and time an entry.

    python benchmarks/codec_memory.py [ENTRIES ...]

For each size a manifest is written to a temporary folder, checked, read, and iterated over, each
in a process of its own. Printed are the peak resident memory of that process above what
it had after its imports, and the time. ``json.loads`` of every line is the yardstick.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from pytest_manifest.manifest import check_manifest, read_manifest, write_manifest
from pytest_manifest.schema import Entry, Expectations, Header

SIZES = (100_000, 1_000_000)
_TO_BYTES = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in kilobytes on Linux


def plan(count: int) -> Iterator[Entry]:
    """Entries like those of an ordinary workflow, one by one; each tenth waits for another."""
    for i in range(count):
        yield Entry(
            id=f"corpus/film-{i:07}",
            task="tasks.crud.fast_crud_task",
            kwargs={"data": {"title": "Alien", "year": 1979, "cast": ["Weaver", "Skerritt"]}},
            timeout=30,
            after=[f"corpus/film-{i - 1:07}"] if i % 10 == 9 else [],
            expect=Expectations(result={"lifecycle": ["created", "verified", "deleted"]}),
        )


def write(path: Path) -> None:
    """Writes as many entries as the file's name says."""
    write_manifest(path, Header(workflow="benchmark"), plan(int(path.stem)))


def loads(path: Path) -> None:
    """The yardstick: JSON without any care."""
    with path.open("rb") as file:
        for line in file:
            json.loads(line)


def iterate(path: Path) -> None:
    """What a dispatcher does: read, then stream."""
    for _ in read_manifest(path):
        pass


WAYS: Mapping[str, Callable[[Path], object]] = {
    "write_manifest": write,
    "json.loads": loads,
    "check_manifest": check_manifest,
    "read_manifest": read_manifest,
    "read and iterate": iterate,
}


def measure(way: str, path: Path) -> None:
    """In a process of its own: prints peak memory above the start (bytes), and seconds.

    A process starts with its parent's peak, so the parent must never do the work itself.
    """
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    WAYS[way](path)
    took = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print((peak - before) * _TO_BYTES, took)


def main(sizes: tuple[int, ...]) -> None:
    """Writes a manifest of each size and measures every way to read it."""
    print(f"{'entries':>9}  {'':16}  {'peak MB':>8}  {'bytes/entry':>11}  {'us/entry':>8}")
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{size}.jsonl"
            for way in WAYS:
                command = [sys.executable, __file__, "--measure", way, str(path)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                peak, took = map(float, done.stdout.split())
                each = f"{peak / size:>11.1f}  {took / size * 1e6:>8.2f}"
                print(f"{size:>9}  {way:16}  {peak / 1e6:>8.1f}  {each}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2], Path(sys.argv[3]))
    else:
        main(tuple(map(int, sys.argv[1:])) or SIZES)
