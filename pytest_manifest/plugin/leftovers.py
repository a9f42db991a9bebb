"""Warn of child jobs that are lost with a private stack."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections import Counter

    from pytest_manifest.run import Run
    from pytest_manifest.stack.embedded import EmbeddedStack
    from pytest_manifest.stack.in_memory import MemoryStack


def report_leftovers(stack: EmbeddedStack, run: Run) -> None:
    """Add to the run's warnings the jobs that jobs have sent and that no job has waited for."""
    address = stack.address
    if address is None:
        return
    from pytest_manifest.stack.queues import unfinished_children

    _say(unfinished_children(address.broker_url), run, "private stack")


def report_leftovers_in_memory(stack: MemoryStack, run: Run) -> None:
    """Add the same warning for the stack that runs in this process."""
    _say(stack.children_left(), run, "in-memory stack")


def _say(left: Counter[str], run: Run, stack: str) -> None:
    if left:
        from pytest_manifest.stack.queues import unfinished_message

        run.warnings.append(unfinished_message(left, stack))
