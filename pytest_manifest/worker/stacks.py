"""Answer what a process of this worker does at this moment: a command of Celery's remote control.

Imported only by workers whose user has asked for that by ``MANIFEST_STACKS``.
"""

from __future__ import annotations

from celery.worker.control import inspect_command

from pytest_manifest.processes import stacks_of
from pytest_manifest.schema.wire import STACKS_MARK

SECONDS = 1.0
"""Seconds for which the worker may wait for its process; meanwhile it takes no message."""


@inspect_command(name=STACKS_MARK, args=[("pid", int)], signature="<pid>")  # type: ignore[untyped-decorator]  # Celery has no types
def show_stacks(_state: object, pid: int, **_: object) -> dict[str, str | None]:
    """Return the stacks of a process of this machine that shows them, None where it does not."""
    return {"stacks": stacks_of(pid, SECONDS)}
