"""Test planners and verifiers: plans without a file, receipts made by hand, a run in one call.

``MemoryStack`` runs jobs by a real Celery worker, in threads of this process. Nothing here imports
pytest.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Final, Protocol

from pydantic import JsonValue

from pytest_manifest.broker.attempt import attempt_of, new_run_id
from pytest_manifest.ledger import EntryVerdict
from pytest_manifest.manifest import Manifest, write_manifest
from pytest_manifest.planning import PlanBuilder, PlanSpec, convert_options, plan_spec
from pytest_manifest.run.dispatch import dispatch_run
from pytest_manifest.run.settings import RunSettings
from pytest_manifest.schema import Entry, ErrorInfo, Header, Receipt, State
from pytest_manifest.schema.statuses import NEVER_STARTED_STATES
from pytest_manifest.schema.wire import arguments_sha256, json_sha256
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
        manifest = work
        if not isinstance(manifest, Manifest):
            manifest = write_manifest(folder / "testing.jsonl", Header(), manifest)
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


WAIT: Final = 0.05  # s
RUNTIME: Final = 0.1  # s


def make_receipt(
    entry: Entry,
    *,
    state: State | None = None,
    result: JsonValue = None,
    error: BaseException | ErrorInfo | None = None,
    **fields: Any,
) -> Receipt:
    """Return the receipt of a first attempt of ``entry`` that has just ended; digests, times fit.

    ``state`` is ``succeeded``, or ``failed`` where there is an ``error``, unless it is given.
    ``fields`` are further fields of the receipt, and replace what is made here: ``runtime`` (s),
    ``log``, ``evidence``, ``attempt``, ... Raises pydantic's ValidationError for what a receipt
    cannot hold.
    """
    state = state or ("succeeded" if error is None else "failed")
    if isinstance(error, BaseException):
        error = ErrorInfo(type=type(error).__name__, message=str(error))
    run = fields.pop("run", None) or new_run_id()
    attempt = attempt_of(run, entry, fields.pop("attempt", 1))
    made: dict[str, Any] = {
        "run": run,
        "entry": entry.id,
        "attempt": attempt.number,
        "task_id": attempt.task_id,
        "task": entry.task,
        "state": state,
        "result": result,
        "error": error,
        "worker": "memory@localhost",
        "host": "localhost",
        "queue": entry.queue or "celery",
        "args_sha256": arguments_sha256(entry.args, entry.kwargs),
        "result_sha256": json_sha256(result) if state == "succeeded" else None,
        **_times(state, fields),
    }
    return Receipt(**(made | fields))


def _times(state: State, fields: dict[str, Any]) -> dict[str, Any]:
    """Make the times of a receipt; a job that never began has only those of sending and ending."""
    ended = fields.get("finished_at") or datetime.now(timezone.utc)
    if state in NEVER_STARTED_STATES:
        sent = ended - timedelta(seconds=WAIT)
        return {"sent_at": sent, "received_at": ended, "finished_at": ended, "executions": 1}
    runtime, wait = fields.get("runtime", RUNTIME), fields.get("wait", WAIT)
    begun = ended - timedelta(seconds=runtime or 0.0)
    sent = begun - timedelta(seconds=wait or 0.0)
    return {
        "sent_at": sent,
        "received_at": sent,
        "started_at": begun,
        "finished_at": ended,
        "wait": wait,
        "runtime": runtime,
        "executions": 1,
        "pid": 1,
    }


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


__all__ = ["MemoryStack", "make_receipt", "plan", "plan_notes", "run"]
