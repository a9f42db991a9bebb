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

    _held: Ledger | None = None
    _made: Path | None = None
    """A file beside the ledger that only what is prepared speaks of."""

    def _take_up(self) -> Ledger:
        """The ledger, for this process alone, to be written in whatever comes of it."""
        self._lock.acquire(self.info.run)
        self._held = Ledger.open(self.ledger_path, write=True)
        self._held.defer_commits()
        if is_other_broker(self.info, self.address):
            self._held.set_meta(OTHER_BROKER, self.info.broker)
        return self._held

    def take_effect(self) -> None:
        held = self._held
        if held is not None:
            held.commit_deferred()
            self._made = None
            self._let_go()

    def abandon(self) -> None:
        self._close_publisher()
        self._let_go()
        if self._made is not None:
            self._made.unlink(missing_ok=True)
        self._lock.release()

    def _let_go(self) -> None:
        """Close the ledger; what does not stand yet never will."""
        held, self._held = self._held, None
        if held is not None:
            held.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Ledger]:
        if self._held is not None:
            yield self._held
        else:
            with super()._writing() as ledger:
                yield ledger
