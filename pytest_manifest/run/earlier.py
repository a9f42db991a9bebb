"""An earlier run taken up again: what is prepared counts once the whole session may go on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from pytest_manifest.ledger import OTHER_BROKER, Ledger
from pytest_manifest.run.other_broker import is_other_broker
from pytest_manifest.run.run import Run


class EarlierRun(Run):
    """A run whose ledger is there already.

    All that :meth:`prepare` writes is one transaction, which :meth:`take_effect` commits: a session
    that is refused, by this run, by another one, by the budget or by Ctrl-C, leaves the ledger as
    it was, with every verdict that was in it.
    """

    _open_ledger: Ledger | None = None
    _new_file: Path | None = None
    """A file beside the ledger that only what is prepared speaks of."""

    def _take_up(self) -> Ledger:
        """The ledger, for this process alone, to be written in whatever comes of it."""
        self._lock.acquire(self.info.run)
        self._open_ledger = Ledger.open(self.ledger_path, write=True)
        self._open_ledger.defer_commits()
        if is_other_broker(self.info, self.address):
            self._open_ledger.set_meta(OTHER_BROKER, self.info.broker)
        return self._open_ledger

    def take_effect(self) -> None:
        held = self._open_ledger
        if held is not None:
            held.commit_deferred()
            self._new_file = None
            self._close_ledger()

    def abandon(self) -> None:
        self._close_publisher()
        self._close_ledger()
        if self._new_file is not None:
            self._new_file.unlink(missing_ok=True)
        self._lock.release()

    def _close_ledger(self) -> None:
        """Close the ledger; what does not stand yet never will."""
        held, self._open_ledger = self._open_ledger, None
        if held is not None:
            held.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Ledger]:
        if self._open_ledger is not None:
            yield self._open_ledger
        else:
            with super()._writing() as ledger:
                yield ledger
