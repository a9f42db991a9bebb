"""How a run's thread and the rest of the process speak to one another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pytest_manifest.run.settings import WorkerLoss


@dataclass
class Signals:
    """``stop``: send no more and end; ``interrupted``: a person did that, so running jobs are
    waited for; ``hurry``: wait for nothing. ``settled`` is called with entry ids."""

    stop: threading.Event = field(default_factory=threading.Event)
    interrupted: threading.Event = field(default_factory=threading.Event)
    force_stop: threading.Event = field(default_factory=threading.Event)
    all_sent: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    on_verdicts: Callable[[Sequence[str]], None] = lambda _entries: None
    lost_workers: Callable[[], Sequence[WorkerLoss]] = lambda: ()
    stack_failure: Callable[[], str | None] = lambda: None
