"""The terminal: a header, a plan's preview, and a summary with the places of everything written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from pytest_manifest.face.session import ManifestSession, short_path

if TYPE_CHECKING:
    from pytest_manifest.ledger import Ledger
    from pytest_manifest.run import Run


def header_lines(state: ManifestSession) -> list[str]:
    """What is about to happen, for pytest's header."""
    lines: list[str] = []
    for path in state.files:
        manifest = state.loaded().get(path)
        count = "" if manifest is None else f" ({len(manifest)} entries)"
        lines.append(f"manifest: {short_path(path, state.options.root)}{count}")
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
    if state.runs or state.notices:
        reporter.write_sep("=", "manifest runs")
        for notice in state.notices[state.notices_told :]:
            reporter.write_line(f"note: {notice}", yellow=True)
        for run in state.runs:
            for line in run_lines(run, state):
                reporter.write_line(line)


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


def run_lines(run: Run, state: ManifestSession) -> Iterator[str]:
    """A run in plain text: its verdicts, and where its documents are."""
    from pytest_manifest.ledger import OVER_BUDGET

    root = state.options.root
    name = short_path(run.manifest.path, root)
    with run.read() as ledger:
        counts, status, sending = ledger.verdict_counts(), ledger.status, ledger.send_states()
        entries, reasons = ledger.count_entries(), ledger.reasons()
        cost, over_budget = _cost_line(ledger, run), bool(ledger.noted(OVER_BUDGET))
    verdicts = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) or "none yet"
    yield f"{name}: run {run.info.run}, {_entries(entries)}: {verdicts}"
    if cost is not None:
        yield cost
    if reasons:
        again = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
        yield f"  further sendings: {again}"
    for correction in run.corrections:
        verdict = correction.verdict
        yield (
            f"  {verdict.entry!r} was {correction.before} at first and is {verdict.verdict}: "
            f"{verdict.sentence}"
        )
    for finding in run.findings:
        yield f"  {finding}"
    open_entries = entries - sum(counts.values())
    unsent, held = sending.get("planned", 0), counts.get("skipped", 0) > 0
    resume = "--resume --manifest-budget=MORE" if over_budget else "--resume"
    yield from _how_to_go_on(run, name, status, unsent, open_entries, held=held, resume=resume)
    if run.error is not None:
        yield f"  the run gave up: {run.error}"
    if run.ledger_path.parent != state.options.ledgers:
        yield "  judged apart: what the run itself has kept stays as it was"
        return
    yield f"  ledger    {short_path(run.ledger_path, root)}"
    yield f"  receipts  {short_path(run.receipts_path, root)}"
    yield f"  log       {short_path(run.log_path, root)}"
    for log in sorted(run.log_path.parent.glob(f"{run.info.run}.worker-*.log")):
        yield f"  worker    {short_path(log, root)}"


def _cost_line(ledger: Ledger, run: Run) -> str | None:
    """What the run has cost, where a receipt tells it or it was limited."""
    from pytest_manifest.ledger import BUDGET
    from pytest_manifest.schema import cost_text
    from pytest_manifest.verdict import Costs

    budget = ledger.noted(BUDGET)
    if not (budget or ledger.mentions_cost()):
        return None
    costs = Costs(ledger, run.manifest)
    total = costs.total()
    if not (budget or costs.told):
        return None
    limit = f" of a budget of {cost_text(float(budget))}" if budget else ""
    return f"  cost {cost_text(total)}{limit}"


def _entries(count: int) -> str:
    return "1 entry" if count == 1 else f"{count} entries"


def _how_to_go_on(
    run: Run, name: str, status: str, unsent: int, unjudged: int, *, held: bool, resume: str
) -> Iterator[str]:
    if status == "stopped" and unjudged:
        running = unjudged - unsent
        parts = [f"{unsent} not sent"] if unsent else []
        parts += [f"{running} that were running"] if running > 0 else []
        yield f"  stopped: {_entries(unjudged)} without a verdict ({', '.join(parts)})"
    if status == "stopped" or (status == "finished" and held):
        yield f"  to go on: pytest --manifest={name} {resume}"
    if status == "detached":
        left = f"; {_entries(unsent)} not sent" if unsent else ""
        yield f"  the workers go on without pytest{left}"
        if run.info.backend.startswith("rpc"):
            yield "  nobody can look at them later: rpc:// serves only the process that sent them"
        else:
            yield f"  to go on: pytest --manifest={name} --audit --wait"
            if unsent:
                yield f"  to send the rest: pytest --manifest={name} --resume"
