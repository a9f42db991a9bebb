"""Let the processes of one xdist session agree through files in a folder that only they know.

The kernel frees a lock when its holder dies. So whichever process needs a plan first makes it, and
where that process dies the next one makes it; none waits for a dead one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_manifest.bindings import Binding
from pytest_manifest.errors import DispatchError
from pytest_manifest.processes import boot_id, has_ended, locked, pid_namespace

if TYPE_CHECKING:
    import pytest

    from pytest_manifest.manifest.partition import Balance


@dataclass
class KnownPlan:
    """The state of a plan in this session: if it is made, and its file (None: an empty plan)."""

    _record: Path
    done: bool = False
    path: Path | None = None

    def finish(self, path: Path | None) -> None:
        _write(self._record, json.dumps(None if path is None else str(path.resolve())))


@dataclass(frozen=True, slots=True)
class Collection:
    """An xdist worker's collection: the binding of each test in order, and the error found in it.

    An xdist worker cannot show the user an error; the controller raises ``problem`` for it.
    """

    bindings: Sequence[Binding | None]
    problem: str | None = None


PREFIX = "pytest-manifest-"


class Coordination:
    """Exchange files in the folder that the controller makes and names to its xdist workers."""

    @classmethod
    def create(cls) -> Coordination:
        """Make the folder, and remove the folders of controllers that were killed.

        A pid means a process only in its own PID namespace, and containers may share the temporary
        folder, so a folder's name begins with the namespace of its pid.
        """
        top, here = Path(tempfile.gettempdir()), own_prefix()
        for folder in top.glob(f"{here}*-*"):
            owner = folder.name.removeprefix(here).partition("-")[0]
            if owner.isdecimal() and has_ended(int(owner)):
                shutil.rmtree(folder, ignore_errors=True)  # another user's folder stays
        return cls(Path(tempfile.mkdtemp(prefix=f"{here}{os.getpid()}-", dir=top)))

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def publish_balance(self, balance: Balance) -> None:
        """Tell the xdist workers the times by which every process divides the manifests."""
        document = {"run": balance.run, "seconds": dict(balance.seconds)}
        _write(self.folder / "balance.json", json.dumps(document))

    def balance(self) -> Balance:
        """Return the times that the controller has read; the ledger may have changed since."""
        from pytest_manifest.manifest.partition import Balance

        document = json.loads((self.folder / "balance.json").read_text("utf-8"))
        return Balance.of(document["run"], document["seconds"])

    @contextlib.contextmanager
    def planning(self, name: str) -> Iterator[KnownPlan]:
        """Hold the lock on making this plan; wait while another process of the session makes it."""
        record = self._plan_record(name)
        with locked(record.with_suffix(".lock")):
            known = KnownPlan(record)
            if record.exists():
                text = json.loads(record.read_text("utf-8"))
                known = KnownPlan(record, done=True, path=Path(text) if text else None)
            yield known

    def publish_plan(self, name: str, path: Path | None) -> None:
        """Tell the xdist workers what the controller planned; None: there is nothing to run."""
        KnownPlan(self._plan_record(name)).finish(path)

    def wait_for_plan(self, name: str) -> Path | None:
        """Wait in an xdist worker, without a time limit, until the controller has planned.

        Returns None for an empty plan, and where the controller has died.
        """
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
        """Tell the controller, from an xdist worker, what the worker collected."""
        rows = [
            b and (str(b.manifest), b.entry, b.whole_run, b.group, b.builtin)
            for b in collection.bindings
        ]
        document = {"rows": rows, "problem": collection.problem}
        _write(self.folder / f"collection-{worker}.json", json.dumps(document))

    def collection(self, worker: str) -> Collection:
        """Return what this xdist worker collected."""
        document = json.loads((self.folder / f"collection-{worker}.json").read_text("utf-8"))
        bindings = [row and Binding(Path(row[0]), *row[1:]) for row in document["rows"]]
        return Collection(bindings, document["problem"])

    def publish_runs(self, runs: Mapping[Path, Path], workers: int | None, *, owned: bool) -> None:
        """Tell the xdist workers each manifest's ledger, and what is known of the stack."""
        rows = {str(manifest): str(ledger) for manifest, ledger in runs.items()}
        with _writing(self._going_on):
            self._going_on.touch()
        _write(self.folder / "runs.json", json.dumps([rows, workers, owned]))

    def publish_end_of_runs(self) -> None:
        """Tell the xdist workers that no run will record further verdicts."""
        # A file is removed, not made: a full disk must not leave them waiting.
        self._going_on.unlink(missing_ok=True)

    def runs_ended(self) -> bool:
        return (self.folder / "runs.json").exists() and not self._going_on.exists()

    @property
    def _going_on(self) -> Path:
        return self.folder / "going-on"

    def runs(self) -> tuple[dict[Path, Path], int | None, bool]:
        """Return each manifest's ledger, and what is known of the stack."""
        rows, workers, owned = json.loads((self.folder / "runs.json").read_text("utf-8"))
        return {Path(m): Path(ledger) for m, ledger in rows.items()}, workers, owned


def joined(config: pytest.Config) -> Coordination | None:
    """Return, in an xdist worker, what its controller has named; None in other processes."""
    workerinput = getattr(config, "workerinput", None)
    if not isinstance(workerinput, dict) or "manifest" not in workerinput:
        return None
    return Coordination(Path(workerinput["manifest"]))


def own_prefix() -> str:
    """Return the prefix of the names of folders whose pids belong to this PID namespace."""
    pids = f"{boot_id()} {pid_namespace()}"  # of which either may be unknown
    return f"{PREFIX}{hashlib.sha256(pids.encode()).hexdigest()[:8]}-"


def _write(path: Path, text: str) -> None:
    """Replace the file atomically: a reader sees the whole text or no file."""
    scratch = path.with_suffix(".new")
    with _writing(path):
        scratch.write_text(text, encoding="utf-8")
        scratch.replace(path)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into a DispatchError."""
    try:
        yield
    except OSError as error:
        raise DispatchError(
            f"{path}: cannot be written ({error.strerror}); free some space where temporary files "
            "are, or name another folder for them (TMPDIR), then go on with --manifest-resume"
        ) from error
