"""Hand a test out to an xdist worker when the verdict of its entry is there."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from xdist.scheduler import LoadScheduling

from pytest_manifest.bindings import Binding
from pytest_manifest.plugin.session import manifest_session

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.workermanage import WorkerController

CHUNK = 20
"""Ready tests handed to an xdist worker at once, and twice as many quick ones: enough to hide a
round trip, few enough to leave tests for the other workers."""
QUICK = 0.01
"""Seconds below which a test is so quick that it does not matter which xdist worker runs it."""


class AsCompletedScheduling:
    """Hand out an entry's test to an xdist worker only when its verdict is there.

    Implements xdist's ``Scheduling``. An xdist worker runs a test only when it holds another one or
    was told to finish, so one ready test can be parked in it until the next is ready: new tests go
    first to a worker with a parked one. Where no test is of an entry this is xdist's own load
    scheduling, which keeps the list of workers in any case.
    """

    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None:
        self.config = config
        """What schedulers of xdist's own have as well; plugins read it (pytest-rerunfailures)."""
        self._load = LoadScheduling(config, log)
        self._state = manifest_session(config)
        self._ready: deque[int] = deque()
        self._by_subject: dict[tuple[Path, str], list[int]] = {}
        self._by_run: dict[Path, list[int]] = {}
        self._with_next: set[int] = set()
        """Tests after which the next one of the same entry has to go to the same worker."""
        self._pending: dict[WorkerController, list[int]] = {}
        self._collection: list[str] = []
        self._bound = self._begun = False
        self._quick = False

    def bind(self, bindings: Sequence[Binding | None], collection: Sequence[str]) -> None:
        """Set what each test waits for; all xdist workers have the same collection."""
        self._bound = True
        self._collection = list(collection)
        for index, binding in enumerate(bindings):
            if binding is not None and binding.subject is not None:
                self._by_subject.setdefault((binding.manifest, binding.subject), []).append(index)
            elif binding is not None and binding.whole_run:
                self._by_run.setdefault(binding.manifest, []).append(index)
            else:
                self._ready.append(index)

    @property
    def nodes(self) -> list[WorkerController]:
        workers: list[WorkerController] = self._load.nodes
        return workers

    @property
    def collection_is_completed(self) -> bool:
        return bool(self._load.collection_is_completed)

    @property
    def tests_finished(self) -> bool:
        if not self._bound:
            return bool(self._load.tests_finished)
        if not self.collection_is_completed or self._left:
            return False
        return all(len(pending) < 2 for pending in self._pending.values())

    @property
    def has_pending(self) -> bool:
        # Nothing is pending before the first test is handed out: xdist then ends its status line.
        if not self._bound:
            return bool(self._load.has_pending)
        return self._begun and (self._left or any(self._pending.values()))

    def add_node(self, node: WorkerController) -> None:
        self._load.add_node(node)
        self._pending[node] = []

    def add_node_collection(self, node: WorkerController, collection: Sequence[str]) -> None:
        if not self._begun:
            self._load.add_node_collection(node, collection)
        elif list(collection) != self._collection:
            # It replaces a crashed worker, and would run other tests by the same indices.
            self._state.report.notices.append(
                f"xdist worker {node.gateway.id} has collected other tests"
            )

    @property
    def _left(self) -> bool:
        return bool(self._ready or self._by_subject or self._by_run)

    @property
    def unassigned(self) -> int:
        """Count the tests that no xdist worker has been given."""
        if not self._bound:
            return 0
        waiting = [*self._by_subject.values(), *self._by_run.values()]
        return len(self._ready) + sum(map(len, waiting))

    def schedule(self) -> None:
        if not self._bound:
            self._load.schedule()
            return
        self._begun = True
        self.pump()

    def mark_test_complete(
        self, node: WorkerController, item_index: int, duration: float = 0
    ) -> None:
        if not self._bound:
            self._load.mark_test_complete(node, item_index, duration)
            return
        self._pending[node].remove(item_index)
        self._quick = duration < QUICK
        self.pump()

    def mark_test_pending(self, item: str) -> None:
        if not self._bound:
            self._load.mark_test_pending(item)
            return
        self._ready.appendleft(self._collection.index(item))
        self.pump()

    def remove_pending_tests_from_node(
        self, node: WorkerController, indices: Sequence[int]
    ) -> None:
        self._load.remove_pending_tests_from_node(node, indices)

    def remove_node(self, node: WorkerController) -> str | None:
        pending = self._pending.pop(node)
        crashed: str | None = self._load.remove_node(node)
        if not self._bound or not pending:
            return crashed
        self._ready.extend(pending[1:])
        self.pump()
        return self._collection[pending[0]]

    def pump(self) -> None:
        """Hand out the ready tests; when no test is left, let the xdist workers finish."""
        if not self._begun:
            return
        self._absorb()
        nodes = [node for node in self.nodes if not node.shutting_down]
        if self._ready and nodes:
            # Slow tests: hand the last ones out singly, to the worker that is done first.
            rounds, most = (1, 2 * CHUNK) if self._quick else (2, CHUNK)
            share = max(1, min(most, len(self._ready) // (rounds * len(nodes))))
            # Workers with one parked test first: it does not run before another one arrives.
            nodes.sort(key=lambda n: (len(self._pending[n]) != 1, len(self._pending[n])))
            for node in nodes:
                pending = len(self._pending[node])
                if pending < 2 or 2 * pending <= share:
                    self._give(node, share + 1 - pending)
        if not self._left:
            for node in nodes:
                node.shutdown()

    def _give(self, node: WorkerController, number: int) -> None:
        tests: list[int] = []
        while self._ready and (len(tests) < number or tests[-1] in self._with_next):
            tests.append(self._ready.popleft())
        if tests:
            self._pending[node].extend(tests)
            node.send_runtest_some(tests)

    def _absorb(self) -> None:
        reader = self._state.verdicts
        if reader is None:
            return
        for subject in reader.refresh():
            self._make_ready(self._by_subject.pop(subject, ()))
        for manifest in list(self._by_run):
            if reader.is_ready(Binding(manifest, None, whole_run=True)):
                self._ready.extend(self._by_run.pop(manifest))
        if self._state.session_runs.all_ended():
            # No further verdict will come; each test that is left reports that it has none.
            for subject in reader.refresh():
                self._make_ready(self._by_subject.pop(subject, ()))
            for indices in self._by_subject.values():
                self._make_ready(indices)
            for indices in self._by_run.values():
                self._ready.extend(indices)
            self._by_subject.clear()
            self._by_run.clear()

    def _make_ready(self, tests: Sequence[int]) -> None:
        """Queue the tests of one entry, for one xdist worker: a failed job fails one of them."""
        self._ready.extend(tests)
        self._with_next.update(tests[:-1])
