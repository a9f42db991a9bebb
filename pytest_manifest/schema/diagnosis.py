"""Define the document that says why a run does not move: ``manifest doctor --json``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pytest_manifest.schema import fields

FindingCode = Literal[
    "not_followed",
    "follower_stopped",
    "unread_reports",
    "nothing_sent",
    "paused",
    "throttled",
    "broker",
    "store",
    "memory",
    "stream_gone",
    "clock",
    "no_consumer",
    "no_worker",
    "undecodable",
    "unknown_task",
    "busy_elsewhere",
    "held_back_by_worker",
    "takes_nothing",
    "silent_worker",
    "held_by_dead",
    "held_by_silent",
    "nowhere",
    "unknown_queue",
    "long_running",
]
HoldReason = Literal[
    "after", "canary", "key_limit", "budget", "window", "paused", "throttled", "ready"
]


class DiagnosisFinding(fields.Document):
    """A reason for which the run does not move."""

    code: FindingCode
    """Its kind."""
    sentence: fields.Text
    """What it is."""
    evidence: list[fields.Text]
    """What was seen, and where."""
    remedy: fields.Text
    """A command or a setting that helps."""
    entries: list[fields.Name] = Field(default_factory=list)
    """The first 20 entries that it is about."""
    count: fields.Count = 0
    """How many entries it is about; 0: it is about the whole run."""
    stacks: fields.Text | None = None
    """What the process does that runs the entry: the Python stacks of its threads."""


class DiagnosisUnseen(fields.Document):
    """Something that could not be seen."""

    what: fields.Text
    """What that is."""
    why: fields.Text
    """Why it could not be seen, and how it can be."""


class DiagnosisHold(fields.Document):
    """Entries that the controller has not sent yet."""

    why: HoldReason
    """What they wait for; ``ready``: nothing, they are the next."""
    entries: fields.Count
    """How many."""
    sentence: fields.Text
    """The same for people."""


class Diagnosis(fields.Document):
    """A run as it was found, and why it does not move."""

    diagnosis: fields.Version = 1
    """The version of this format."""
    run: fields.Name
    """The run's id."""
    manifest: fields.Text
    """The manifest's file."""
    status: Literal["running", "finished", "stopped", "detached"]
    """What the run's ledger says of it."""
    at: fields.Time
    """When it was looked at."""
    is_followed: bool
    """Whether a pytest is at work on it."""
    last_write: fields.Time | None
    """When the ledger was written last."""
    last_word: fields.Text | None
    """The last line of the run's log."""
    judged: fields.Count
    """Entries with a verdict that is an end."""
    in_flight: fields.Count
    """Entries that were sent and have none."""
    unsent: fields.Count
    """Entries that are yet to be sent."""
    moves: bool
    """Whether the ledger was written while it was looked at."""
    holds: list[DiagnosisHold]
    """What the controller waits for before it sends the rest."""
    findings: list[DiagnosisFinding]
    """Why it does not move; none: nothing was found."""
    unseen: list[DiagnosisUnseen]
    """What could not be seen."""
    looked_at: list[fields.Text]
    """What was looked at."""
