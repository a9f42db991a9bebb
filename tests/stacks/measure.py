"""Run the contract's work on one stack that is up, and say what became of each entry.

    python -m tests.stacks.measure FILE

A process of its own for each cell, as the app has its settings. ``FILE`` has a :class:`Job`.
Standard output is one JSON document, a :class:`Told`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from pytest_manifest.errors import ManifestToolError
from pytest_manifest.ledger import EntryVerdict
from pytest_manifest.schema import Entry, Receipt
from pytest_manifest.urls import StackAddress
from tests.contract.work import WORK, run_work, verdicts_of

APP: Final = "tests.stacks.app:app"


@dataclass(frozen=True)
class Job:
    """What is to be measured: where, whether workers can be told to revoke a job, and how long."""

    broker: str
    store: str
    folder: str
    has_remote_control: bool
    seconds: float = 45.0


@dataclass(frozen=True)
class Told:
    """What a run told: the error that ended it, status and message by entry, facts and notices.

    ``facts``: which parts of a receipt the stack fills.
    """

    seconds: float
    error: str
    verdicts: Mapping[str, tuple[str, str]]
    facts: tuple[str, ...]
    notices: tuple[str, ...]


def measure(job: Job) -> Told:
    """Run the work, to its end."""
    began = time.monotonic()
    address = StackAddress(job.broker, job.store, APP, is_private=False)
    try:
        run = run_work(address, Path(job.folder), work_for(job.has_remote_control), job.seconds)
    except ManifestToolError as error:
        return Told(time.monotonic() - began, str(error), {}, (), ())
    verdicts = verdicts_of(run)
    return Told(
        seconds=round(time.monotonic() - began, 1),
        error="" if run.error is None else str(run.error),
        verdicts={i: (v.verdict.verdict, v.verdict.sentence) for i, v in verdicts.items()},
        facts=tuple(facts_of(verdicts)),
        notices=tuple(dict.fromkeys([*run.notices, *run.live_warnings, *run.warnings])),
    )


def work_for(has_remote_control: bool) -> Mapping[str, Entry]:
    """Give the entries that can be asked for: without remote control none can be revoked."""
    return {name: one for name, one in WORK.items() if has_remote_control or name != "revoked"}


def facts_of(verdicts: Mapping[str, EntryVerdict]) -> list[str]:
    """Name the parts of a receipt that are there, by entries that must have them."""
    plain, talk = (_receipt(verdicts, name) for name in ("succeeds", "talks"))
    retried, failed = (_receipt(verdicts, name) for name in ("retries", "raises"))
    found = {
        "result": plain is not None and plain.result == 3,
        "error": failed is not None and failed.error is not None,
        "traceback": failed is not None and bool(failed.error and failed.error.traceback),
        "finished": plain is not None and plain.finished_at is not None,
        "started": plain is not None and plain.started_at is not None,
        "runtime": plain is not None and plain.runtime is not None,
        "worker": plain is not None and plain.worker is not None,
        "queue": plain is not None and plain.queue is not None,
        "retries": retried is not None and retried.retries == 2,
        "executions": plain is not None and plain.executions == 1 and plain.source == "worker",
        "arguments": plain is not None and plain.args_sha256 is not None,
        "log": talk is not None and any("loguru says" in line for line in talk.log),
        "evidence": talk is not None and bool(talk.evidence),
        "memory": plain is not None and plain.max_rss is not None,
    }
    return [name for name, is_there in found.items() if is_there]


def _receipt(verdicts: Mapping[str, EntryVerdict], entry: str) -> Receipt | None:
    return verdicts[entry].receipt if entry in verdicts else None


if __name__ == "__main__":
    print(json.dumps(asdict(measure(Job(**json.loads(Path(sys.argv[1]).read_text("utf-8")))))))
