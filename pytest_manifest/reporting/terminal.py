"""The terminal: a header, a plan's preview, and a summary with the places of everything written."""

from __future__ import annotations

import pytest

from pytest_manifest.face.session import ManifestSession, short_path


def header_lines(state: ManifestSession) -> list[str]:
    """What is about to happen, for pytest's header."""
    from pytest_manifest.verdict.text import plural

    lines: list[str] = []
    for path in state.files:
        manifest = state.loaded().get(path)
        name = short_path(path, state.options.root)
        if manifest is None:
            lines.append(f"manifest: {name}")
        elif (shard := state.options.shard) is None:
            lines.append(f"manifest: {name} ({plural(len(manifest), 'entry')})")
        else:
            own = len(state.share(manifest))
            lines.append(f"manifest: {name}, {shard.words}: {own:,} of {len(manifest):,} entries")
    return lines


def write_summary(reporter: pytest.TerminalReporter, state: ManifestSession) -> None:
    """Previews of what was planned, then one block a run."""
    if state.empty_plan:
        reporter.write_sep("=", "manifest")
        reporter.write_line(
            f"plan {state.options.plan}: nothing to do; no manifest was written, nothing was sent"
        )
        _write_notes(reporter, state, state.plans.find(state.options.plan or "").name)
    if state.options.plan and state.planned:
        _write_previews(reporter, state)
    if state.resume_lines and not state.options.may_dispatch:
        reporter.write_sep("=", "resume: what would be done")
        for line in state.resume_lines:
            reporter.write_line(line)
    if not (state.runs or state.notices):
        return
    if state.runs and reporter.verbosity < 0:
        from pytest_manifest.reporting.run_block import write_runs_in_short

        write_runs_in_short(reporter, state)
        return
    reporter.write_sep("=", "manifest runs")
    for notice in state.notices[state.notices_told :]:
        reporter.write_line(f"note: {notice}", yellow=True)
    if state.runs:
        from pytest_manifest.reporting.run_block import write_runs

        write_runs(reporter, state)


def _write_previews(reporter: pytest.TerminalReporter, state: ManifestSession) -> None:
    from pytest_manifest.planning import preview

    reporter.write_sep("=", "plan")
    for manifest in state.planned:
        for line in preview(manifest).lines():
            reporter.write_line(line.replace(str(state.options.root) + "/", ""))
        _write_notes(reporter, state, f"{manifest.header.workflow}:{manifest.header.mode}")
        if not state.runs:
            name = short_path(manifest.path, state.options.root)
            reporter.write_line(f"nothing was sent; to dispatch it: pytest --manifest={name}")


def _write_notes(reporter: pytest.TerminalReporter, state: ManifestSession, plan: str) -> None:
    """What the planner says beside the preview."""
    for note in state.plans.notes.get(plan, ()):
        reporter.write_line(f"  {note}")
