"""A run that was sent by hand, in a simulated world, and the strategy that resumes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from pytest_manifest.broker.attempt import Attempt, attempt_of
from pytest_manifest.ledger import Ledger
from pytest_manifest.ledger.files import RunFiles
from pytest_manifest.manifest import Manifest, write_manifest
from pytest_manifest.run.changes import keep_manifest
from pytest_manifest.run.connections import RunState
from pytest_manifest.run.resume import Resume
from pytest_manifest.run.settings import RunSettings
from pytest_manifest.schema import Entry, Header, Receipt, VerdictStatus
from tests.reports import add_receipts
from tests.simulation.stack import BROKER, address, connected
from tests.simulation.world import SimulatedWorld
from tests.unit.ledger_support import INFO, verdict
from tests.unit.run_clocks import replaced_clocks
from tests.unit.run_world import Delivery, Message

AGE = timedelta(seconds=60)
"""How long ago the run was sent."""


def entry(name: str, **fields: Any) -> Entry:
    known = {"id": name, "task": "t", "idempotent": False, "timeout": 30}
    return Entry.model_validate({**known, **fields})


class ResumeRig:
    """Use :func:`resume_rig`."""

    def __init__(self, folder: Path, entries: Sequence[Entry], *, is_private: bool) -> None:
        self.folder = folder
        self.is_private = is_private
        self.world = SimulatedWorld()
        self.world.began_stream = True
        self.world.clock.now += 1000.0
        self.manifest = write_manifest(folder / "m.jsonl", Header(), entries)
        self.path = folder / "run.sqlite"
        self.moments: list[str] = []
        self.resumed: Resume | None = None
        self._reading: Ledger | None = None
        broker = "" if is_private else BROKER
        info = replace(
            INFO,
            manifest=self.manifest.path,
            sha256=self.manifest.sha256,
            entries=len(entries),
            is_private=is_private,
            broker=broker,
            stream_ttl=3600,
        )
        self.attempts = {one.id: attempt_of(INFO.run, one, 1, n) for n, one in enumerate(entries)}
        keep_manifest(self.manifest, self.path)
        with Ledger.create(self.path, info) as ledger:
            ledger.attempts.plan(
                (one.task_id, name, 1, n) for n, (name, one) in enumerate(self.attempts.items())
            )
            self.sent_at = self.world.clock.utc_now() - AGE
            ids = [one.task_id for one in self.attempts.values()]
            ledger.attempts.mark(ids, "sent", sent_at=self.sent_at)
            ledger.info.set_status("stopped")

    # What has happened

    @contextmanager
    def ledger(self) -> Iterator[Ledger]:
        """Open the ledger as it is on disk."""
        with Ledger.open(self.path, write=True) as ledger:
            yield ledger

    def task_id(self, name: str) -> str:
        return self.attempts[name].task_id

    def queue(self, *names: str) -> None:
        """Let their messages wait in the queue."""
        for name in names:
            self.world.queue.append(Message(self.attempts[name], self.sent_at))

    def begin(self, name: str) -> Delivery:
        """Let a worker begin its job, and tell so."""
        worker = self.world.workers["w1@box"]
        self.queue(name)
        self.world.queue.rotate(1)
        self.world.take(worker)
        delivery = self.world.begin(worker)
        assert delivery is not None
        return delivery

    def end(self, name: str, how: Any = "succeeded") -> None:
        """Let its job begin and end, and a worker tell so."""
        delivery = self.begin(name)
        self.world.end(self.world.workers["w1@box"], delivery, how)

    def judge(self, name: str, status: VerdictStatus, told: Receipt | None = None) -> None:
        with self.ledger() as ledger:
            if told is not None:
                add_receipts(ledger, [(self.task_id(name), None, told)])
            ledger.verdicts.record([(verdict(name, status), told)])

    def receipt(self, name: str, state: str = "rejected", **fields: Any) -> Receipt:
        """A worker's word that it has not begun the job."""
        bare = {"run": INFO.run, "entry": name, "attempt": 1, "task_id": self.task_id(name)}
        return Receipt.model_validate({**bare, "task": "t", "state": state, **fields})

    # The session that resumes it

    def make(
        self,
        selected: Sequence[str] | None = None,
        unsafe: bool = False,
        manifest: Manifest | None = None,
        **settings: Any,
    ) -> Resume:
        with self.ledger() as ledger:
            info = ledger.info.read()
        made = RunState(
            manifest or self.manifest,
            RunFiles(self.path),
            info,
            address(is_private=self.is_private),
            RunSettings(folder=self.folder, unsafe=unsafe, **settings),
        )
        names = list(self.attempts) if selected is None else selected
        self.resumed = Resume(made, names)
        return self.resumed

    def resume(self, selected: Sequence[str] | None = None, **more: Any) -> Resume:
        """Prepare the session, and let it count."""
        made = self.make(selected, **more)
        made.prepare(None)
        made.take_effect()
        return made

    def decided(self) -> dict[str, tuple[str, str]]:
        """What was decided of each entry, and why."""
        assert self.resumed is not None
        return {one.entry: (one.action, one.reason) for one in self.resumed.state.decisions}

    @property
    def reading(self) -> Ledger:
        """The ledger as it is on disk, open until the rig is no more."""
        if self._reading is None:
            self._reading = Ledger.open(self.path)
        return self._reading

    def statuses(self) -> dict[str, VerdictStatus]:
        with self.ledger() as ledger:
            return dict(ledger.verdicts.statuses())

    def to_send(self) -> list[Attempt]:
        assert self.resumed is not None
        return list(self.resumed.state.to_send)


@contextmanager
def resume_rig(folder: Path, *entries: Entry, is_private: bool = True) -> Iterator[ResumeRig]:
    """A run of these entries, ``a``, ``b`` and ``c`` by default, all of which were sent."""
    made = ResumeRig(folder, entries or [entry(name) for name in "abc"], is_private=is_private)
    with (
        replaced_clocks(made.world, "pytest_manifest.ledger"),
        connected(made.world, made.moments.append),
    ):
        try:
            yield made
        finally:
            if made._reading is not None:
                made._reading.close()
            if made.resumed is not None:
                made.resumed.state.lock.release()
