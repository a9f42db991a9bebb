"""Saying what goes with the private stack that somebody may have counted on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_manifest.run import Run
    from pytest_manifest.stack.embedded import EmbeddedStack


def say_what_is_left(stack: EmbeddedStack, run: Run) -> None:
    """Among the run's findings: jobs that jobs have sent, and that nobody has waited for."""
    address = stack.address
    if address is None:
        return
    from pytest_manifest.stack.leftovers import children_left, sentence

    left = children_left(address.broker_url)
    if left:
        run.findings.append(sentence(left))
