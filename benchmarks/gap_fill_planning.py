"""What planning a large corpus costs: memory and time of ``pytest --manifest-plan=gap_fill``.

    python benchmarks/gap_fill_planning.py [PASSAGES ...]

For each size (10,000 and 100,000) a corpus of passages of about 600 characters is loaded into an
SQLite database in a temporary folder, and planned from twice: from the database, and from the
corpus beside an empty database, where every entry carries its documents. Each step runs in a
process of its own; printed are its peak resident memory and time, and how the peaks of the sizes
relate: flat memory is a ratio near 1.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

SIZES = (10_000, 100_000)
ROOT = Path(__file__).resolve().parent.parent
TEXT = (
    "The captain walks through the dark ship, and somewhere behind her the creature breathes. "
    "She has found the cat, she has lost her crew, and the countdown is going on. "
)
_TO_BYTES = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in kilobytes on Linux


def corpus(path: Path, number: int) -> None:
    """Passages of as many films, all without any field."""
    with path.open("w", encoding="utf-8") as file:
        for n in range(number):
            text = f"{n}: {TEXT * 4}"[:600]
            title = f"Film {n}"
            line = {"id": f"film-{n:07}/plot", "film": f"film-{n:07}", "title": title, "text": text}
            file.write(json.dumps(line) + "\n")


def run(arguments: Sequence[str], environment: Mapping[str, str]) -> tuple[float, float]:
    """Run a command of the project; its peak memory in MB, and its seconds."""
    code = (
        "import resource, subprocess, sys\n"
        "done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, text=True)\n"
        "print(done.stdout, file=sys.stderr)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
        "sys.exit(done.returncode)\n"
    )
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, sys.executable, "-m", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    took = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stderr}")
    return int(done.stdout) * _TO_BYTES / 1e6, took


def measure(number: int, folder: Path) -> dict[str, tuple[float, float]]:
    """The steps for one size, in its folder."""
    path = folder / "corpus.jsonl"
    corpus(path, number)

    def plan(name: str, database: str, *options: str) -> tuple[float, float]:
        url = {"GAP_FILL_DATABASE_URL": f"sqlite:///{folder}/{database}", "TEXT_MODEL": "offline"}
        manifest = f"--manifest={folder}/{name}.jsonl"
        quiet = ["-q", "-p", "no:cacheprovider", "-o", f"manifest_dir={folder}/runs"]
        return run(["pytest", "--manifest-plan=gap_fill", manifest, *options, *quiet], url)

    loaded = {"GAP_FILL_DATABASE_URL": f"sqlite:///{folder}/loaded.sqlite3"}
    return {
        "load the corpus": run(["workflows.gap_fill.corpus", "load", str(path)], loaded),
        "plan from the database": plan("a", "loaded.sqlite3"),
        "plan from the corpus": plan("b", "empty.sqlite3", f"--manifest-plan-opt=corpus={path}"),
    }


def main() -> None:
    sizes = [int(text) for text in sys.argv[1:]] or list(SIZES)
    peaks: dict[str, list[float]] = {}
    # The children's peak begins with ours, so this process stays small.
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _TO_BYTES / 1e6
    print(f"{'step':<24}{'passages':>10}{'peak MB':>10}{'seconds':>10}   (own peak {own:.0f} MB)")
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="gap-fill-") as folder:
            for step, (peak, took) in measure(size, Path(folder)).items():
                print(f"{step:<24}{size:>10,}{peak:>10.1f}{took:>10.1f}", flush=True)
                peaks.setdefault(step, []).append(peak)
    if len(sizes) > 1:
        for step, values in peaks.items():
            print(f"{step}: peak {values[-1] / values[0]:.2f} times that of {sizes[0]:,} passages")


if __name__ == "__main__":
    main()
