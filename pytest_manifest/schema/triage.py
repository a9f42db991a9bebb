"""Define what is open over all runs of a folder: ``manifest triage --json``."""

from __future__ import annotations

from datetime import date

from pydantic import Field

from pytest_manifest.schema import fields
from pytest_manifest.schema.statuses import VerdictStatus


class TriageCause(fields.Document):
    """The open entries of a manifest with one cause."""

    cause: fields.Text
    """The cause in a line, as reports show it."""
    manifest: fields.Text
    """The manifest's file."""
    count: fields.Count
    """How many entries are open by it."""
    first_seen: fields.Time
    """When the run was made in which the first of them failed by it, and has ever since."""
    first_run: fields.Name
    """The id of that run."""
    owners: list[fields.Text]
    """Whose they are, by ``owner`` in their ``meta``, or by a tag ``owner:NAME``."""
    safe_to_run_again: fields.Count
    """How many of them can run again without doing something twice."""
    may_be_accepted: fields.Count
    """How many a disposition can accept; none that ran twice, was forged, or has no known end."""
    accepted: fields.Count
    """How many are accepted today by ``dispositions.toml``."""
    accepted_until: date | None
    """Until when the first of these is accepted; null: none is."""
    verdicts: list[VerdictStatus]
    """Their verdicts."""
    entries: list[fields.Name]
    """Their ids."""


class Triage(fields.Document):
    """The entries whose last run did not pass them, by cause, the largest first."""

    triage: fields.Version = 1
    """The version of this format."""
    open: fields.Count
    """How many entries are open."""
    causes: list[TriageCause]
    """By manifest and cause."""
    unjudged: dict[fields.Name, fields.Count] = Field(default_factory=dict)
    """How many entries of a manifest's newest run have no verdict, by its id: for these the run
    before counts."""
    going_on: list[fields.Name] = Field(default_factory=list)
    """The runs that a pytest follows, which are not counted."""
