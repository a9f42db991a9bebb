"""Call the command ``manifest`` in this process, on runs that are made by hand."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from datetime import timedelta
from pathlib import Path
from unittest import mock

import pytest
from pydantic import JsonValue
from typer.testing import CliRunner

from pytest_manifest.broker.attempt import attempt_of
from pytest_manifest.cli.main import app, main
from pytest_manifest.ledger import Ledger
from pytest_manifest.manifest import read_manifest
from pytest_manifest.run.changes import keep_manifest
from pytest_manifest.schema import Receipt, VerdictStatus
from pytest_manifest.schema.wire import json_sha256
from tests.reports import add_receipts, run_info
from tests.unit.answers import hold
from tests.unit.ledger_support import MOMENT, NOTHING, verdict


def manifest(*arguments: str, status: int = 0) -> str:
    """What the command prints; it has to end with this exit status."""
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == status, (done.output, done.exception)
    return done.stdout


def as_json(*arguments: str, status: int = 0) -> dict[str, JsonValue]:
    """The JSON document that the command prints."""
    document: dict[str, JsonValue] = json.loads(manifest(*arguments, "--json", status=status))
    hold(arguments, document)
    return document


def called(*arguments: str) -> tuple[int, str, str]:
    """Call the command as a person does; return its status, and what it prints to each stream."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
    with (
        mock.patch("sys.argv", ["manifest", *arguments]),
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    status = ended.value.code or 0
    assert isinstance(status, int)
    for one in (out, err):
        one.seek(0)
    return status, out.read(), err.read()


def refusal(*arguments: str) -> str:
    """What a person reads on stderr of a command that is refused."""
    status, out, err = called(*arguments)
    assert (status, out) == (2, "")
    return err


def write_manifest(path: Path, *entries: Mapping[str, JsonValue]) -> Path:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), "utf-8")
    return path


def make_run(
    file: Path,
    number: int,
    statuses: Sequence[VerdictStatus | None],
    runtimes: Sequence[float] = (),
    results: Sequence[JsonValue] = (),
) -> Path:
    """Make the ledger of the ``number``-th run of a manifest in .manifest/runs beside it.

    Its entries have these statuses, None: no verdict yet.
    """
    whole = read_manifest(file)
    run = f"20261128T0300{number:02}-{number:08x}"
    at = MOMENT + timedelta(minutes=number)
    info = run_info(run, at, whole, stream_ttl=60, number=number)
    path = file.parent / ".manifest" / "runs" / f"{run}.sqlite"
    with Ledger.create(path, info) as ledger:
        keep_manifest(whole, path)
        for position, (entry, status) in enumerate(zip(whole, statuses, strict=True)):
            task_id = attempt_of(run, entry, 1).task_id
            ledger.attempts.plan([(task_id, entry.id, 1, position)])
            ledger.attempts.mark([task_id], "sent", sent_at=MOMENT)
            if status is None:
                continue
            result = results[position] if results and status == "passed" else None
            known: dict[str, object] = {
                **NOTHING,
                "run": run,
                "entry": entry.id,
                "attempt": 1,
                "task_id": task_id,
                "task": entry.task,
                "state": "succeeded" if status == "passed" else "failed",
                "worker": "w@host",
                "executions": 1,
                "runtime": runtimes[position] if runtimes else 0.5,
                **dict.fromkeys(("sent_at", "started_at", "finished_at"), MOMENT),
                "result": result,
                "result_sha256": json_sha256(result),
            }
            receipt = Receipt.model_validate(known)
            add_receipts(ledger, [(task_id, "x", receipt)])
            ledger.verdicts.record([(verdict(entry.id, status), receipt)])
        ledger.info.set_status("finished")
    return path
