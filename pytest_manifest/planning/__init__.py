"""Collect a plan's entries, freeze them into a manifest file, and preview what it would run."""

from pytest_manifest.planning.builder import (
    PlanBuilder,
    PlanSpec,
    Preview,
    convert_options,
    plan_spec,
    preview,
)

__all__ = ["PlanBuilder", "PlanSpec", "Preview", "convert_options", "plan_spec", "preview"]
