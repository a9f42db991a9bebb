"""Does a change make an entry cost more? Work is counted, so that a noisy machine tells the same.

    python -m benchmarks.guard [--update]
    python -m benchmarks.guard --ratios [NAME ...]

A manifest of trivial jobs is run on a real Valkey with a worker of ours, and its run is audited;
once with few entries and once with more. What an entry costs is the difference: Python calls,
statements of SQLite and opened files of the pytest process, and commands that the broker was sent
by everybody. Each is held against the committed ``guard.json``; more than its tolerance above that
fails. ``--update`` writes what is found, for a change that is meant.

``--ratios`` takes the benchmarks anew, all or those that are named, and holds their ratios, never
their times, against the committed ``results.json``: those that have a goal and are worse by more
than a quarter fail. It wants a quiet machine, and half an hour for all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, cast

import redis

from benchmarks.page import Results
from benchmarks.side_by_side import PLUGIN, PYTEST, take, write_manifest
from benchmarks.throughput import Bench
from tests.services import valkey_server

COMMITTED: Final = Path(__file__).with_name("guard.json")
FEW, MANY = 100, 500
TOLERANCE: Final = {
    "python_calls": 0.1,
    "sql_statements": 0.1,
    "files_opened": 0.1,
    "broker_commands": 0.15,
}
LEAST = 0.02
"""Of anything, an entry: below that a difference is that of two sips, and none of entries."""
AGAIN = 2
"""How often what is more than it was is counted once more."""
SLACK = 0.25
"""By how much a ratio may be worse than the committed one, which is as noisy itself."""
COUNTING = ("-p", "benchmarks.counting")


def counted(bench: Bench, entries: int, *options: str) -> dict[str, float]:
    """What a session does with so many entries; it must pass."""
    write_manifest(bench.folder / "m.jsonl", entries)
    command = [*PYTEST, *PLUGIN, *COUNTING, "--manifest=m.jsonl", *options]
    root = str(Path(__file__).parents[1])
    with redis.Redis.from_url(bench.url) as client:
        client.config_resetstat()
        take(command, bench.folder, env={"PYTHONPATH": root})
        commands = commands_of(client)
    counts = json.loads((bench.folder / "counts.json").read_text("utf-8"))
    return {**dict.fromkeys(TOLERANCE, 0), **counts, "broker_commands": commands}


def commands_of(client: redis.Redis) -> int:
    """Commands that the broker has been sent, but for those by which idle workers wait."""
    statistics = cast("Mapping[str, Mapping[str, int]]", client.info("commandstats"))
    waiting = ("cmdstat_brpop", "cmdstat_info", "cmdstat_config", "cmdstat_ping")
    return sum(row["calls"] for name, row in statistics.items() if not name.startswith(waiting))


def costs(bench: Bench) -> dict[str, dict[str, float]]:
    """What an entry costs, by kind of session and kind of work."""
    found: dict[str, dict[str, float]] = {}
    with bench.own_worker():
        for name, options in (
            ("run", [f"--manifest-broker={bench.url}"]),
            ("audit", ["--manifest-audit"]),
        ):
            few, many = (_of(bench, size, options) for size in (FEW, MANY))
            found[name] = {
                kind: round((many[kind] - few[kind]) / (MANY - FEW), 2) for kind in TOLERANCE
            }
    return found


def _of(bench: Bench, entries: int, options: Sequence[str]) -> dict[str, float]:
    if "--manifest-audit" in options:  # of a run of this very manifest
        counted(bench, entries, f"--manifest-broker={bench.url}", "--manifest-rerun")
    return counted(bench, entries, *options)


def differences(
    found: Mapping[str, Mapping[str, float]], wanted: Mapping[str, Mapping[str, float]]
) -> list[str]:
    """A line for each cost that has grown beyond its tolerance."""
    worse: list[str] = []
    for name, kinds in found.items():
        for kind, value in kinds.items():
            before = wanted[name][kind]
            if value > before * (1 + TOLERANCE[kind]) + LEAST:
                worse.append(f"{name}: {value:g} {kind} an entry, {before:g} before")
    return worse


def least(
    one: Mapping[str, Mapping[str, float]], other: Mapping[str, Mapping[str, float]]
) -> dict[str, dict[str, float]]:
    """The smaller of two counts of each kind."""
    return {
        name: {kind: min(value, other[name][kind]) for kind, value in kinds.items()}
        for name, kinds in one.items()
    }


def worse_ratios(found: Results, committed: Results) -> list[str]:
    """A line for each figure with a goal whose ratio is worse than the committed one."""
    before = {(row["name"], row["peer"]): row["ratio"] for row in committed}
    worse: list[str] = []
    for row in found:
        was = before.get((row["name"], row["peer"]))
        if was is None or row["goal"] is None:
            continue
        limit = was * (1 + SLACK) if row["at_most"] else was / (1 + SLACK)
        if row["ratio"] > limit if row["at_most"] else row["ratio"] < limit:
            of = f"{row['name']}, against {row['peer']}"
            worse.append(f"{of}: {row['ratio']:.2f} {row['unit']}, {was:.2f} before")
    return worse


def guard_ratios(names: Sequence[str]) -> list[str]:
    """Take benchmarks anew; what has become worse. Raises SystemExit for an unknown name."""
    from benchmarks.__main__ import BENCHMARKS, RESULTS, run

    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        raise SystemExit(f"no such benchmark: {', '.join(unknown)} ({', '.join(BENCHMARKS)})")
    committed = json.loads(RESULTS.read_text("utf-8"))["figures"]
    return [
        line
        for name in names or BENCHMARKS
        for line in worse_ratios(run(name, BENCHMARKS[name])[0], committed)
    ]


def guard_counts(*, update: bool) -> list[str]:
    """Count the work of an entry; what has become more, unless the committed counts are updated.

    A session that waits longer asks more often. That can only add, so what is more is counted anew.
    """
    wanted = json.loads(COMMITTED.read_text("utf-8"))
    with tempfile.TemporaryDirectory() as name, valkey_server() as url:
        found = costs(Bench(Path(name), url, FEW))
        for _ in range(AGAIN):
            if update or not differences(found, wanted):
                break
            found = least(found, costs(Bench(Path(name), url, FEW)))
    print(json.dumps(found, indent=1))
    if update:
        COMMITTED.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
        return []
    return differences(found, wanted)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--update", action="store_true", help="commit to what is found")
    parser.add_argument("--ratios", nargs="*", metavar="NAME", help="take benchmarks, not counts")
    options = parser.parse_args(arguments)
    os.environ.pop("PYTHONPATH", None)
    if options.ratios is None:
        worse = guard_counts(update=options.update)
        meant = "python -m benchmarks.guard --update"
    else:
        worse = guard_ratios(options.ratios)
        meant = "python -m benchmarks"
    for line in worse:
        print(f"costs more than it did: {line}")
    if worse:
        print(f"find out why or, where it is meant, commit to it: {meant}")
    return 1 if worse else 0


if __name__ == "__main__":
    raise SystemExit(main())
