"""Run a planning function without a command line and without pytest."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from pydantic import JsonValue

from pytest_manifest.planning import PlanBuilder, PlanSpec, convert_options, plan_spec
from pytest_manifest.schema import Entry


def plan(planner: Callable[..., None], /, *fixtures: object, **options: JsonValue) -> list[Entry]:
    """Return the entries that ``planner`` plans, checked as in a manifest file, which is not kept.

    ``planner``: a planning fixture, or a function with the plan builder as its first parameter.
    ``fixtures``: values for the pytest fixtures that it asks for, in its own order. ``options``:
    its options, as texts of a command line or as values. Raises PlanError or ManifestError where
    planning it for real would be refused.
    """
    with (
        _planned(planner, fixtures, options) as builder,
        tempfile.TemporaryDirectory(prefix="manifest-testing-") as folder,
    ):
        manifest = builder.freeze(None, Path(folder))
        return [] if manifest is None else list(manifest)


def plan_notes(
    planner: Callable[..., None], /, *fixtures: object, **options: JsonValue
) -> list[str]:
    """Return the notes that ``planner`` adds to its preview; else as ``plan``."""
    with _planned(planner, fixtures, options) as builder:
        return builder.notes


@contextmanager
def _planned(
    planner: Callable[..., None], fixtures: tuple[object, ...], options: dict[str, JsonValue]
) -> Iterator[PlanBuilder]:
    declared = getattr(planner, "manifest_plan", None)
    spec = declared if isinstance(declared, PlanSpec) else plan_spec("testing:plan", planner)
    values = convert_options(spec, options)
    with closing(PlanBuilder(spec, values)) as builder:
        spec.function(builder, *fixtures, **values)
        yield builder
