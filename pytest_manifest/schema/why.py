"""Define the document that says why an entry has its verdict, and what to do: ``manifest why``."""

from __future__ import annotations

from pytest_manifest.schema import fields
from pytest_manifest.schema.statuses import Outcome, VerdictStatus


class WhyRule(fields.Document):
    """The rule of the judge that decided."""

    letter: fields.Text
    """The rule, by its letter in the judge."""
    code: fields.Text
    """The reason's code, by which programs tell reasons apart."""
    fact: fields.Count | None = None
    """The number of the fact that decided; null where it was none."""
    sentence: fields.Text
    """What was judged, by which fact and rule."""


class WhyFact(fields.Document):
    """Something that is recorded of the entry or of its run."""

    seq: fields.Count
    """Its place in the order of what is recorded."""
    at: fields.Text
    """When it was recorded, or when the worker says that it was."""
    source: fields.Text
    """Who knows it, like "controller" or "worker"."""
    task_id: fields.Text | None = None
    """The job that it is about; null of what is of the run."""
    what: fields.Text
    """Its kind."""
    fields: fields.JsonObject
    """What is known of it, by names that depend on its kind."""


class WhyAgain(fields.Document):
    """The answer to whether the entry may be sent again."""

    safe: bool
    """Whether it may, without running anything twice that is not to."""
    reason: fields.Text
    """Why, or why not, in a phrase."""
    idempotent: bool
    """Whether its manifest says that running it twice does no harm."""
    might_run_twice: bool
    """Whether it may have run already, and would run a second time."""


class EntryWhy(fields.Document):
    """Why an entry has its verdict, and what can be done."""

    run: fields.Text
    """The id of the run."""
    manifest: fields.Text
    """The path of the manifest."""
    entry: fields.Text
    """The id of the entry."""
    task: fields.Text | None = None
    """The task; null where the manifest cannot be read."""
    verdict: VerdictStatus | None = None
    """The status; null: there is no verdict yet."""
    outcome: Outcome
    """What a report shows of that status."""
    sentence: fields.Text | None = None
    """The verdict in a sentence, which may have words of the task's error."""
    attempts: fields.Count
    """How often it was sent."""
    rule: WhyRule | None = None
    """The rule that decided; null where the entry cannot be read."""
    again: WhyAgain | None = None
    """Whether it may be sent again; null where the entry cannot be read."""
    next: fields.Text | None = None
    """The command to run next; null where nothing is to be done."""
    insist: fields.Text | None = None
    """The command that sends it although it might run twice; null where it would not."""
    facts: list[WhyFact]
    """The newest of what is recorded, oldest first."""
    left_out: fields.Count
    """How many older ones are left out."""
