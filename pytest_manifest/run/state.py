"""Hold what a run's handle, its strategy and its connections share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from pytest_manifest.broker.attempt import Attempt
from pytest_manifest.broker.bounded import WaitBudget
from pytest_manifest.ledger import RunInfo
from pytest_manifest.ledger.run_files import RunFiles
from pytest_manifest.manifest import Manifest
from pytest_manifest.run.locks import RunLock
from pytest_manifest.run.pending import PendingAttempts
from pytest_manifest.run.resume_rules import Decision
from pytest_manifest.run.settings import RunSettings, Signals
from pytest_manifest.urls import StackAddress


@dataclass
class RunState:
    """Hold one run's inputs, and what comes up while it is prepared and goes on."""

    manifest: Manifest
    files: RunFiles
    info: RunInfo
    address: StackAddress
    settings: RunSettings
    signals: Signals = field(default_factory=Signals)
    wait_budget: WaitBudget = field(default_factory=WaitBudget)
    pending: PendingAttempts = field(default_factory=PendingAttempts)
    to_send: Sequence[Attempt] = ()
    decisions: Sequence[Decision] = ()
    """What is done with each entry of a run that is resumed."""
    costs: dict[str, Decimal] = field(default_factory=dict)
    """What attempts of an earlier part of the run have cost, by task id."""
    workers: int | None = None
    """Workers that answered; None where that is not known."""
    leaves_jobs: bool = False
    """Whether a stack of ours may still hold jobs for a resume to take up: from the start until
    an end in good order shows that it does not, however much goes wrong between."""
    notices: list[str] = field(default_factory=list)
    """Messages to be shown before the first test."""
    live_warnings: list[str] = field(default_factory=list)
    """Messages to be shown at once, while the run is going on."""
    warnings: list[str] = field(default_factory=list)
    """Messages for the summary."""

    def __post_init__(self) -> None:
        self.lock = RunLock(self.files.lock)
