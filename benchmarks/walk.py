"""Which modules an entry passes through, from its manifest's line to PASSED.

    python -m benchmarks.walk

A manifest of few and one of more entries are run on the stack in memory, whose worker is in this
process. A module that is called more often for more entries is on an entry's way.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Final

from benchmarks.side_by_side import PLUGIN, PYTEST, project, take, write_manifest

FEW: Final = 10
MANY: Final = 50
ROOT: Final = str(Path(__file__).parents[1])
WALKING: Final = ("-p", "benchmarks.walking")
RUN: Final = ("--manifest=m.jsonl", "--manifest-broker=memory://", "--manifest-rerun")


def calls(folder: Path, entries: int) -> dict[str, int]:
    """Run so many entries; return the calls of each module."""
    write_manifest(folder / "m.jsonl", entries)
    take([*PYTEST, *PLUGIN, *WALKING, *RUN], folder, env={"PYTHONPATH": ROOT})
    found: dict[str, int] = json.loads((folder / "walk.json").read_text("utf-8"))
    return found


def walk() -> dict[str, float]:
    """Return the modules on an entry's way, and how many calls of each it takes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project(folder, FEW)
        few, many = calls(folder, FEW), calls(folder, MANY)
    each = {name: (many[name] - few.get(name, 0)) / (MANY - FEW) for name in many}
    return {name: count for name, count in sorted(each.items()) if count >= 0.5}


def main() -> int:
    found = walk()
    for name, count in found.items():
        print(f"{count:8.1f}  {name}")
    print(f"{len(found)} modules")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
