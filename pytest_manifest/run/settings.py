"""What a run is told before it begins."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class RunSettings:
    """``folder``: where ledgers are kept; ``window``: entries in flight at most; ``deadline``:
    seconds for the whole run; ``strict``: refuse the run for an unknown task; ``send_only``: end
    when all is sent."""

    folder: Path
    window: int = 10_000
    deadline: float = 6 * 3600.0
    strict: bool = False
    send_only: bool = False


@dataclass(frozen=True, slots=True)
class WorkerLoss:
    """A worker process of ours that ended; ``worker`` is its node name without the host."""

    worker: str
    returncode: int
