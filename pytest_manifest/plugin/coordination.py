"""Let the processes of one xdist session agree through files in a folder that only they know.

The kernel frees a lock when its holder dies. So whichever process needs a plan first makes it, and
where that process dies the next one makes it; none waits for a dead one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_manifest.bindings import Binding
from pytest_manifest.errors import DispatchError
from pytest_manifest.processes import boot_id, has_ended, locked, pid_namespace

if TYPE_CHECKING:
    import pytest

    from pytest_manifest.manifest.partition import Balance


class Collection(NamedTuple):
    """An xdist worker's collection: the binding of each test in order, and the error found in it.

    An xdist worker cannot show the user an error; the controller raises ``problem`` for it.
    """

    bindings: Sequence[Binding | None]
    problem: str | None = None


class KnownRuns(NamedTuple):
    """Name the ledgers of a session's runs, by manifest, and say what is known of their stack.

    ``workers``: processes that answered before dispatch, None where none did; ``owned``: the stack
    was started for these runs.
    """

    ledgers: Mapping[Path, Path]
    workers: int | None
    owned: bool


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
        self._write("balance", [balance.run, dict(balance.seconds)])

    def balance(self) -> Balance:
        """Return the times that the controller has read; the ledger may have changed since."""
        from pytest_manifest.manifest.partition import Balance

        return Balance.of(*self._read("balance"))

    def planned_once(self, name: str, make: Callable[[], Path | None]) -> Path | None:
        """Return the file of a plan, made by whichever process of the session wants it first.

        None for an empty plan. Others wait for that one, and make it themselves where it has died.
        """
        with locked(self._file(_record(name)).with_suffix(".lock")):
            if not self._file(_record(name)).exists():
                self.publish_plan(name, make())
            return self._plan(name)

    def publish_plan(self, name: str, path: Path | None) -> None:
        """Tell the xdist workers what the controller planned; None: there is nothing to run."""
        self._write(_record(name), path and path.resolve())

    def wait_for_plan(self, name: str) -> Path | None:
        """Wait in an xdist worker, without a time limit, until the controller has planned.

        Returns None for an empty plan, and where the controller has died.
        """
        controller = os.getppid()
        while not self._file(_record(name)).exists():
            if os.getppid() != controller:
                return None
            time.sleep(0.02)
        return self._plan(name)

    def _plan(self, name: str) -> Path | None:
        path = self._read(_record(name))
        return Path(path) if path else None

    def publish_collection(self, worker: str, collection: Collection) -> None:
        """Tell the controller, from an xdist worker, what the worker collected."""
        self._write(f"collection-{worker}", collection)

    def collection(self, worker: str) -> Collection:
        """Return what this xdist worker collected."""
        rows, problem = self._read(f"collection-{worker}")
        return Collection([row and Binding(Path(row[0]), *row[1:]) for row in rows], problem)

    def publish_runs(self, known: KnownRuns) -> None:
        """Tell the xdist workers each manifest's ledger, and what is known of the stack."""
        self._write("going-on", None)
        rows = {str(manifest): str(ledger) for manifest, ledger in known.ledgers.items()}
        self._write("runs", [rows, known.workers, known.owned])

    def publish_end_of_runs(self) -> None:
        """Tell the xdist workers that no run will record further verdicts."""
        # A file is removed, not made: a full disk must not leave them waiting.
        self._file("going-on").unlink(missing_ok=True)

    def runs_ended(self) -> bool:
        return self._file("runs").exists() and not self._file("going-on").exists()

    def runs(self) -> KnownRuns:
        """Return each manifest's ledger, and what is known of the stack."""
        rows, *stack = self._read("runs")
        return KnownRuns({Path(m): Path(ledger) for m, ledger in rows.items()}, *stack)

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _read(self, name: str) -> Any:  # whatever was written
        return json.loads(self._file(name).read_text("utf-8"))

    def _write(self, name: str, document: object) -> None:
        """Replace a file atomically: a reader sees all of it or no file.

        Raises DispatchError where it cannot be written.
        """
        path = self._file(name)
        scratch = path.with_suffix(".new")
        try:
            scratch.write_text(json.dumps(document, default=str), encoding="utf-8")
            scratch.replace(path)
        except OSError as error:
            raise DispatchError(
                f"{path}: cannot be written ({error.strerror}); free some space, or name another "
                "folder for temporary files (TMPDIR), then go on with --manifest-resume"
            ) from error


def _record(plan: str) -> str:
    return f"plan-{hashlib.sha256(plan.encode()).hexdigest()[:16]}"


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
