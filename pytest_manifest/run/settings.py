"""Hold the settings of a run, and the signals between its thread and the rest of the process."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

WINDOW: Final = 10_000
"""Entries in flight at most, unless set otherwise."""

_RATE: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)/([smh])", re.ASCII)
_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0}
_KEYED: Final = re.compile(
    r"(?:([A-Za-z0-9_.-]{1,60}(?:=.{1,200})?):)?([^:]*)",  # a name as ``KEY_NAME`` of manifests
    re.ASCII | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Rate:
    """Hold how many messages may be sent a second, minute or hour (``unit``: s, m, h)."""

    number: float
    unit: str = "s"

    @classmethod
    def parse(cls, text: str) -> Rate | None:
        """Return the rate that is written like ``200/s``, ``30/m`` or ``0.5/h``; None: it is
        none."""
        found = _RATE.fullmatch(text)
        return cls(float(found[1]), found[2]) if found and float(found[1]) else None

    @classmethod
    def parse_keyed(cls, text: str) -> tuple[str, Rate] | None:
        """Return what a rate is of, and it: ``NAME=VALUE:N/s``, ``NAME:N/s``, or "" for ``N/s``."""
        found = _KEYED.fullmatch(text)
        rate = cls.parse(found[2]) if found else None
        return None if found is None or rate is None else (found[1] or "", rate)

    @property
    def per_second(self) -> float:
        return self.number / _UNITS[self.unit]

    def shared(self, by: int) -> Rate:
        """Return the part that each of so many has."""
        return Rate(self.number / by, self.unit)

    def __str__(self) -> str:
        return f"{self.number:.6g}/{self.unit}"


OnStop = Literal["revoke", "detach"]
"""Whether a stopped run takes back the jobs that it sent, or leaves them to the workers."""


@dataclass(frozen=True, slots=True)
class FailureLimit:
    """Limit how many entries may fail before no more are sent: a number, or as a float a share of
    all (0.0 to 1.0)."""

    most: int | float

    def allows(self, failed: int, entries: int) -> bool:
        """Return whether sending may go on with so many failed of so many entries."""
        return failed <= (self.most if isinstance(self.most, int) else self.most * entries)

    @classmethod
    def parse(cls, text: str) -> FailureLimit:
        """Read ``5`` or ``2%``. Raises ValueError where it is neither."""
        if text.endswith("%"):
            share = float(text[:-1]) / 100
            if not 0 <= share <= 1:
                raise ValueError(text)
            return cls(share)
        most = int(text)
        if most < 0:
            raise ValueError(text)
        return cls(most)

    def __str__(self) -> str:
        return str(self.most) if isinstance(self.most, int) else f"{self.most * 100:g}%"


@dataclass(frozen=True, slots=True)
class EarlierRuns:
    """Hold the ledgers of earlier runs, the first to be asked first.

    ``are_named``: the user has named them, so that one which cannot be used is a fault.
    """

    ledgers: Sequence[Path]
    are_named: bool = False


@dataclass(frozen=True, slots=True)
class RunSettings:
    """Hold what is decided before a run starts.

    ``folder``: where ledgers are kept; ``window``: entries in flight at most, None for what suits
    the run (see ``window_for``); ``deadline``: seconds for the whole run; ``strict``: refuse the
    run for an unknown task; ``allow``: patterns of the tasks that may be sent, None for all but
    Celery's own; ``send_only``: end when all is sent; ``canary``: entries that are tried
    before the others, 0 for none; ``max_failed``: stop sending beyond it, ``revoke_on_max_failed``:
    and take back what waits; ``budget``: what the run may cost, in the entries' unit, None for no
    limit; ``key_limits``: jobs in flight at most of each value of a key, by the key's name;
    ``rates``: how fast is sent at most, by ``NAME=VALUE`` of a key, or by its NAME (each value of
    it), "": all together; ``queue_depth``: messages, also of others, beyond which none are added to
    a queue;
    ``kills``: deaths of a worker after which an entry is quarantined; ``grace``: seconds
    that running jobs are waited for when the run is interrupted; ``on_stop``: None for what suits
    the stack (ours: revoke, another's: detach); ``repair``: requeue messages that a dead worker
    holds on a broker that is not ours, too; ``unsafe``: send again, and requeue, also what may
    have begun and is not idempotent; ``low_memory``: read what is to be sent from the manifest
    again when its turn comes, and keep it not; ``receipt_keys``: the public keys, as PEM,
    by one of which each report of a worker must be signed, None where it need not be; ``reuse``:
    the runs whose passes count for the same work, None: of none; ``accept``: the risks with which
    a run is sent all the same, by their words of ``manifest_accept``;
    ``own_apply_async``: whether tasks that override it make their messages by it; ``no_worker``:
    seconds without any worker after which it ends, 0 for no limit; ``traces``: messages name the
    spans that they belong to; ``trace_note``: of what trace the run is, see ``schema.tracing``;
    ``arguments``: those of pytest by which another session finds run and stack, without passwords.
    """

    folder: Path
    window: int | None = None
    deadline: float = 6 * 3600.0
    strict: bool = False
    allow: Sequence[str] | None = None
    send_only: bool = False
    canary: int = 0
    max_failed: FailureLimit | None = None
    revoke_on_max_failed: bool = False
    budget: float | None = None
    key_limits: Mapping[str, int] = field(default_factory=dict)
    rates: Mapping[str, Rate] = field(default_factory=dict)
    queue_depth: int | None = None
    kills: int = 3
    grace: float = 10.0
    on_stop: OnStop | None = None
    repair: bool = False
    unsafe: bool = False
    low_memory: bool = False
    receipt_keys: str | None = None
    reuse: EarlierRuns | None = None
    accept: Collection[str] = ()
    own_apply_async: bool = False
    no_worker: float = 120.0
    traces: bool = False
    trace_note: str = ""
    arguments: Sequence[str] = ()

    def window_for(self, slots: int) -> int:
        """Return the most entries in flight, where workers run ``slots`` jobs at once (0: not
        known).

        A job in flight can no longer be held back: with a budget the window is what keeps the
        workers busy, and no more.
        """
        if self.send_only:
            return sys.maxsize  # no verdict is waited for that would make room
        if self.window is not None:
            return self.window
        return WINDOW if self.budget is None else max(2, 2 * slots)


@dataclass(frozen=True, slots=True)
class WorkerLoss:
    """Hold how one of our own worker processes ended.

    ``worker`` is its node name without the host, ``tail`` the last lines of its log.
    """

    worker: str
    returncode: int
    tail: tuple[str, ...] = ()


@dataclass
class Signals:
    """Connect a run's thread with the rest of the process.

    ``stop``: send no more and end; ``interrupted``: a person stopped it, so running jobs are waited
    for; ``force_stop``: wait for nothing. ``on_verdicts`` is called with entry ids.
    ``end_session`` ends the whole session as Ctrl-C does, where there is one. ``repeats``: entries
    that have been reported, and are sent again.
    ``held_by_dead``: a worker that is gone holds messages, and nobody may move them here;
    ``health``: the project's, None where it has none.
    ``is_deserted``: the run ended as nobody was there. ``nobody_since``: when the last sign of a
    worker came, where none is there (monotonic s).
    """

    stop: threading.Event = field(default_factory=threading.Event)
    interrupted: threading.Event = field(default_factory=threading.Event)
    force_stop: threading.Event = field(default_factory=threading.Event)
    all_sent: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    on_verdicts: Callable[[Sequence[str]], None] = lambda _entries: None
    lost_workers: Callable[[], Sequence[WorkerLoss]] = lambda: ()
    stack_failure: Callable[[], str | None] = lambda: None
    health: Callable[[], object] | None = None
    end_session: Callable[[], None] | None = None
    repeats: int = 0
    nobody_since: float | None = None
    held_by_dead: bool = False
    is_deserted: bool = False

    def end(self) -> None:
        """Release whoever waits for the run, as it is over."""
        self.all_sent.set()
        self.ended.set()
        self.on_verdicts([])
