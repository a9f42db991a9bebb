"""Run a manifest on a stack in one call, for tests: send, collect and judge."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Protocol

from pytest_manifest.ledger import EntryVerdict
from pytest_manifest.manifest import Manifest, write_manifest
from pytest_manifest.run import RunSettings, dispatch_run
from pytest_manifest.schema import Entry, Header
from pytest_manifest.stack.in_memory import MemoryStack
from pytest_manifest.urls import StackAddress

DEADLINE: Final = 60.0  # s


class Stack(Protocol):
    """A stack, as far as a run needs one; ``MemoryStack`` and ``EmbeddedStack`` both are."""

    @property
    def failure(self) -> str | None:
        """Return why the stack has ended, or None while it runs."""

    def wait_broker(self, timeout: float) -> StackAddress:
        """Wait for the broker, up to ``timeout`` s, and return the stack's address."""


def run(
    work: Manifest | Iterable[Entry], stack: Stack, *, deadline: float = DEADLINE
) -> dict[str, EntryVerdict]:
    """Send all of ``work`` to ``stack`` once, and return verdict and receipt by entry id.

    What has no receipt after ``deadline`` s is judged ``timed_out``. Nothing is left behind but the
    messages of what was still waiting then. Raises DispatchError, StackError or ManifestError
    where the run could not be made.
    """
    with tempfile.TemporaryDirectory(prefix="manifest-testing-") as name:
        folder = Path(name)
        manifest = work if isinstance(work, Manifest) else _manifest(folder, work)
        settings = RunSettings(folder=folder / "runs", deadline=deadline)
        made = dispatch_run(manifest, manifest.ids, stack.wait_broker(deadline), settings)
        made.watch_stack(lambda: (), lambda: stack.failure)
        made.prepare(expected_workers=1 if isinstance(stack, MemoryStack) else None)
        made.start()
        try:
            made.ended.wait()
        finally:
            made.stop()
        if made.error is not None:
            raise made.error
        with made.read() as ledger:
            return {one.verdict.entry: one for one in ledger.queries.all_verdicts()}


def _manifest(folder: Path, entries: Iterable[Entry]) -> Manifest:
    return write_manifest(folder / "testing.jsonl", Header(), entries)
