"""Remember where this process is connected to Celery and others, and take that back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final

from pytest_manifest.process_state import ProcessState


class Connections:
    """The connections of this process, each made once, until closed; those of ``before`` stay."""

    def __init__(self, before: Connections | None = None) -> None:
        self._made: set[str] = set() if before is None else set(before._made)
        self._ends = ExitStack()

    def make(self, name: str, connect: Callable[[], Callable[[], object]]) -> None:
        """Call ``connect``, which returns what takes it back; a second time do nothing."""
        if self.is_first(name):
            self._ends.callback(connect())

    def is_first(self, name: str) -> bool:
        """Return whether this name was not asked for before."""
        if name in self._made:
            return False
        self._made.add(name)
        return True

    def receive(self, signal: Any, receiver: Callable[..., object], name: str) -> None:
        """Connect a receiver to a signal of Celery's."""

        def connect() -> Callable[[], object]:
            signal.connect(receiver, weak=False, dispatch_uid=name)
            return lambda: signal.disconnect(dispatch_uid=name)

        self.make(name, connect)

    def close(self) -> None:
        """Take back what was connected here."""
        self._ends.close()


connections: Final = ProcessState(Connections, inherit=Connections, is_of_worker=True)
