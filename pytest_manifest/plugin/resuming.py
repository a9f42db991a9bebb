"""``--manifest-resume --collect-only``: what would be sent, by the ledger alone."""

from __future__ import annotations

import pytest

from pytest_manifest.bindings import binding_of
from pytest_manifest.plugin.earlier_runs import ledger_to_resume, stack_is_gone
from pytest_manifest.plugin.session import ManifestSession, user_errors


def preview_resume(session: pytest.Session, state: ManifestSession) -> None:
    """Note, for the summary, what ``--manifest-resume`` would do with each selected entry."""
    from pytest_manifest.plugin.dispatching import resume_rules
    from pytest_manifest.run import describe_decisions, preview

    bindings = [binding for item in session.items if (binding := binding_of(item)) is not None]
    with user_errors():
        state.select(bindings)
        for path, chosen in state.selected.items():
            manifest = state.load(path)
            ledger = ledger_to_resume(state.options, manifest)
            decided = preview(
                ledger,
                manifest,
                chosen.entries,
                resume_rules(state.options),
                stack_is_gone=stack_is_gone(ledger),
            )
            lines = describe_decisions(decided, every=True)
            state.resume_lines += lines or ["there is nothing to be sent: every entry has passed"]
