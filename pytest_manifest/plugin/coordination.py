"""How the processes of one xdist session agree: files in a folder that only they know.

A lock that the kernel frees when its holder dies cannot leave the others waiting, so whoever
needs a plan first makes it, and a process that dies at it is simply followed by the next.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass
class KnownPlan:
    """What this session knows of a plan: whether it is made, and its file (None: an empty plan)."""

    _record: Path
    done: bool = False
    path: Path | None = None

    def finish(self, path: Path | None) -> None:
        _write(self._record, json.dumps(None if path is None else str(path.resolve())))


Row = tuple[str, str | None, bool, str | None]
"""A test's binding: manifest, entry, whether it waits for the whole run, group of entries."""


@dataclass(frozen=True, slots=True)
class Collection:
    """What an xdist worker collected: each test's binding in order, and what is wrong with it.

    A worker cannot report an error of its own making to the user; the controller does it for it.
    """

    rows: Sequence[Row | None]
    problem: str | None = None


PREFIX = "pytest-manifest-"


class Coordination:
    """The folder that the controller makes and names to its workers."""

    @classmethod
    def create(cls) -> Coordination:
        """Make the folder, and clear away those of controllers that were killed.

        Pids of another container mean nothing here, and it may share this folder's place: a name
        says in which PID namespace its pid is one.
        """
        from pytest_manifest.schema.identity import has_ended

        top, here = Path(tempfile.gettempdir()), own_prefix()
        for folder in top.glob(f"{here}*-*"):
            owner = folder.name.removeprefix(here).partition("-")[0]
            if owner.isdecimal() and has_ended(int(owner)):
                shutil.rmtree(folder, ignore_errors=True)  # another user's cannot be, and stays
        return cls(Path(tempfile.mkdtemp(prefix=f"{here}{os.getpid()}-", dir=top)))

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextlib.contextmanager
    def planning(self, name: str) -> Iterator[KnownPlan]:
        """Hold the right to make this plan; waits while another process of the session makes it."""
        record = self._plan_record(name)
        with record.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            known = KnownPlan(record)
            if record.exists():
                text = json.loads(record.read_text("utf-8"))
                known = KnownPlan(record, done=True, path=Path(text) if text else None)
            yield known

    def publish_plan(self, name: str, path: Path | None) -> None:
        """Tell the workers what the controller planned; None where there is nothing to run."""
        KnownPlan(self._plan_record(name)).finish(path)

    def wait_for_plan(self, name: str) -> Path | None:
        """In a worker: wait until the controller has planned, however long that takes."""
        record = self._plan_record(name)
        controller = os.getppid()
        while not record.exists():
            if os.getppid() != controller:
                return None
            time.sleep(0.02)
        text = json.loads(record.read_text("utf-8"))
        return Path(text) if text else None

    def _plan_record(self, name: str) -> Path:
        key = hashlib.sha256(name.encode()).hexdigest()[:16]
        return self.folder / f"plan-{key}.json"

    def publish_collection(self, worker: str, collection: Collection) -> None:
        """Tell the controller, in a worker, what was collected."""
        told = {"rows": list(collection.rows), "problem": collection.problem}
        _write(self.folder / f"collection-{worker}.json", json.dumps(told))

    def collection(self, worker: str) -> Collection:
        told = json.loads((self.folder / f"collection-{worker}.json").read_text("utf-8"))
        rows = [None if row is None else (row[0], row[1], row[2], row[3]) for row in told["rows"]]
        return Collection(rows, told["problem"])

    def publish_runs(self, runs: Mapping[Path, Path], facts: Mapping[str, object]) -> None:
        """Tell which ledger holds which manifest's verdicts, and what is known of the stack."""
        rows = {str(manifest): str(ledger) for manifest, ledger in runs.items()}
        _write(self.folder / "runs.json", json.dumps({"runs": rows, "facts": dict(facts)}))

    def publish_end_of_runs(self) -> None:
        """Tell the workers that no more verdicts will come."""
        (self.folder / "ended").touch()

    def runs_ended(self) -> bool:
        return (self.folder / "ended").exists()

    def runs(self) -> tuple[dict[Path, Path], dict[str, object]]:
        told = json.loads((self.folder / "runs.json").read_text("utf-8"))
        return {Path(m): Path(ledger) for m, ledger in told["runs"].items()}, told["facts"]


def own_prefix() -> str:
    """What the names of folders begin with whose pids are ones of this PID namespace."""
    from pytest_manifest.schema.identity import boot_id, pid_namespace

    pids = f"{boot_id()} {pid_namespace()}"
    return f"{PREFIX}{hashlib.sha256(pids.encode()).hexdigest()[:8]}-"


def _write(path: Path, text: str) -> None:
    """Write at once: a reader sees the whole text or no file."""
    scratch = path.with_suffix(".new")
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(path)
