"""Seconds from Ctrl-C until `make test` and all that it has started have ended.

    python -m benchmarks.interrupt [--rounds=N] [COMMAND ...]

The command (``make test``) is interrupted as a terminal does it, as soon as servers and workers
run among its tests. What is still there when it has ended is printed; the exit status says whether
there was anything, or whether it took more than five seconds.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Final

import psutil

from tests.interrupting import described, interrupted

ROOT: Final = Path(__file__).resolve().parents[1]
MOST_SECONDS: Final = 5.0
PARTS: Final = ("valkey", "celery")
"""What command lines say of a server and of a worker."""


def _are_in_the_middle(processes: list[psutil.Process]) -> bool:
    lines = "\n".join(map(described, processes))
    return all(part in lines for part in PARTS)


def main() -> int:
    """Interrupt the command, and print what came of it, round by round."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.interrupt")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("command", nargs="*", default=["make", "test"])
    options = parser.parse_args()
    broken = False
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "output.txt"
            seen = interrupted(options.command, log=log, ready=_are_in_the_middle, cwd=ROOT)
        print(f"{seen.seconds:.1f} s, status {seen.status}, left: {seen.left or 'nothing'}")
        print(f"  {' | '.join(seen.output.splitlines()[-3:])}")
        broken = broken or bool(seen.left) or seen.seconds > MOST_SECONDS
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
