"""Define the baseline of a manifest: what a run that somebody approved had passed."""

from __future__ import annotations

from pytest_manifest.schema import fields
from pytest_manifest.schema.run_digest import DigestIds


class Baseline(fields.Document):
    """A run of a manifest that somebody has approved: what it had passed, and what not."""

    baseline: fields.Version = 1
    """The version of this format."""
    manifest: fields.Name
    """The name of the manifest's file, which it is the baseline of alone."""
    run: fields.Name
    """The run's id."""
    created_at: fields.Time
    """When the run was made."""
    approved_at: fields.Time
    """When it was approved."""
    approved_by: fields.Text
    """The user who has approved it."""
    entries: fields.Count
    """How many entries the run had."""
    not_passed: list[fields.Name]
    """The ids of those that had not passed, sorted."""
    passed_ids: DigestIds
    """The ids of those that had."""
    passed_works: DigestIds
    """The digests of the work of those that had: one that was renamed has passed all the same."""
