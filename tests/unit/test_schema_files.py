"""The JSON Schema files: current, valid, and of one mind with the models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema_rs import Draft202012Validator
from pydantic import ValidationError

from pytest_manifest.schema import Entry, Header, Receipt, Verdict
from pytest_manifest.schema.answers import Answers
from pytest_manifest.schema.baseline import Baseline
from pytest_manifest.schema.diagnosis import Diagnosis
from pytest_manifest.schema.fields import Document
from pytest_manifest.schema.over_time import RunsOverTime
from pytest_manifest.schema.receipts import ExportedDescendant
from pytest_manifest.schema.run_digest import RunDigest
from pytest_manifest.schema.run_event import RunEvent
from pytest_manifest.schema.run_status import RunStatus
from pytest_manifest.schema.summary import RunSummary
from pytest_manifest.schema.triage import Triage
from pytest_manifest.schema.why import EntryWhy
from scripts import schemas
from scripts.schemas import main
from tests.unit.test_schema_models import ENTRY, RECEIPT

MODELS: dict[str, type[Document]] = {
    "manifest-entry": Entry,
    "manifest-header": Header,
    "receipt": Receipt,
    "receipt-descendant": ExportedDescendant,
    "verdict": Verdict,
    "run-diagnosis": Diagnosis,
    "run-summary": RunSummary,
    "run-digest": RunDigest,
    "runs-over-time": RunsOverTime,
    "run-status": RunStatus,
    "run-event": RunEvent,
    "triage": Triage,
    "entry-why": EntryWhy,
    "command-answers": Answers,
    "baseline": Baseline,
}
VERDICT = {"verdict": "passed", "entry": "a", "sentence": "It passed."}


def schema(name: str) -> dict[str, Any]:
    """The committed schema file."""
    path = schemas.FOLDER / f"{name}.schema.json"
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def accepts(name: str, document: object) -> bool:
    """Whether the schema file accepts the document."""
    validator = Draft202012Validator(schema(name), validate_formats=True)
    return validator.is_valid(document)


def model_accepts(name: str, document: object) -> bool:
    """Whether the model accepts the document."""
    try:
        MODELS[name].model_validate(document)
    except ValidationError:
        return False
    return True


def test_a_stale_file_is_found_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """--check exits with 1 and names the files; without it they are written."""
    monkeypatch.setattr(schemas, "FOLDER", tmp_path)
    assert main(["--check"]) == 1
    assert "receipt.schema.json: not current" in capsys.readouterr().err
    assert main([]) == 0
    assert len(list(tmp_path.glob("*.schema.json"))) == len(MODELS)
    assert main(["--check"]) == 0


@pytest.mark.parametrize("name", MODELS)
def test_the_files_are_valid_and_described(name: str) -> None:
    """Each is a JSON Schema 2020-12 with an id, a title, and a description for every field."""
    document = schema(name)
    Draft202012Validator(document)
    assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert document["$id"].endswith(f"/{name}.schema.json")
    assert document["title"]
    for part in [document, *document.get("$defs", {}).values()]:
        assert [key for key, field in part["properties"].items() if not field["description"]] == []
        assert part["additionalProperties"] is False


def entry(**fields: object) -> tuple[str, dict[str, Any]]:
    return "manifest-entry", {**ENTRY, **fields}


def receipt(**fields: object) -> tuple[str, dict[str, Any]]:
    return "receipt", {**RECEIPT, **fields}


GOOD = [
    entry(),
    entry(id="a/b[c]::d é 🎬", args=[1, None, {}], kwargs={"a": {"b": []}}, meta={"x": 1}),
    entry(queue="q", priority=255, countdown=0, expires=3.5, timeout=1, deadline=2, retries=1),
    entry(eta="2026-11-24T15:00:00Z", expires="2026-11-24T15:00:00.5+01:00", countdown=None),
    entry(idempotent=True, after=["b"], tags=["t"], cost=0),
    entry(expect={"result": None, "schema": {"type": "object"}, "max_runtime": 1, "max_wait": 0}),
    entry(expect={"state": "failed", "error": {"type": "E", "match": "^a+"}, "executions": 2}),
    ("manifest-header", {}),
    ("manifest-header", {"manifest": 1, "workflow": "w", "mode": "m", "params": {"n": 1}}),
    (
        "manifest-header",
        {"planned_at": "2026-11-24T15:00:00Z", "entries": 0, "sha256": "0" * 64, "rerun": False},
    ),
    receipt(),
    receipt(receipt=1, result=[1], error={"type": "E", "message": "m", "traceback": None}),
    receipt(worker="w", host="h", pid=1, queue="q", wait=-0.1, runtime=1, executions=2, retries=1),
    receipt(started_at="2026-11-24T15:00:00Z", log=["x"], log_dropped=1, cpu=0.1, max_rss=4096),
    receipt(evidence={"rows": 3}, args_sha256="a" * 64, redelivered=True, source="backend"),
    ("verdict", VERDICT),
    (
        "verdict",
        {**VERDICT, "attempt": 1, "mismatches": [{"path": "p", "expected": "1", "actual": "2"}]},
    ),
]
BAD = [
    ("manifest-entry", {"id": "a"}),
    ("manifest-entry", []),
    entry(timeot=1),
    entry(id=""),
    entry(id="a" * 201),
    entry(id="a\n"),
    entry(id="a\u200b"),
    entry(id="a\u00a0b"),
    entry(task=1),
    entry(args={}),
    entry(kwargs=[]),
    entry(priority=256),
    entry(priority=True),
    entry(countdown=-1),
    entry(countdown=1, eta="2026-11-24T15:00:00Z"),
    entry(eta="2026-11-24"),
    entry(eta="2026-11-24T15:00:00"),
    entry(eta="1700000000"),
    entry(eta=1),
    entry(expires="soon"),
    entry(expires=-1),
    entry(expires=True),
    entry(timeout="30"),
    entry(timeout=True),
    entry(timeout=0),
    entry(retries=-1),
    entry(retries=1.5),
    entry(idempotent=1),
    entry(after="b"),
    entry(tags=[1]),
    entry(meta=None),
    entry(expect=None),
    entry(expect={"state": "ok"}),
    entry(expect={"executions": 0}),
    entry(expect={"result_schema": {}}),
    entry(expect={"schema": {"type": "strin"}}),
    entry(expect={"schema": 3}),
    entry(expect={"error": {"type": "E"}}),
    entry(expect={"state": "succeeded", "error": {"type": "E"}}),
    entry(expect={"state": "failed", "error": {"match": "("}}),
    ("manifest-header", {"manifest": 2}),
    ("manifest-header", {"manifest": True}),
    ("manifest-header", {"entries": -1}),
    ("manifest-header", {"sha256": "A" * 64}),
    ("manifest-header", {"params": []}),
    receipt(state="SUCCESS"),
    receipt(receipt="1"),
    receipt(pid="1"),
    receipt(log="x"),
    receipt(error={"type": "E"}),
    receipt(attempt=-1),
    receipt(source="me"),
    ("verdict", {**VERDICT, "verdict": "ok"}),
    ("verdict", {**VERDICT, "mismatches": [{}]}),
]


@pytest.mark.parametrize(("name", "document"), GOOD)
def test_both_accept(name: str, document: object) -> None:
    """Schema file and model take the same good documents."""
    assert (accepts(name, document), model_accepts(name, document)) == (True, True)


@pytest.mark.parametrize(("name", "document"), BAD)
def test_both_refuse(name: str, document: object) -> None:
    """Schema file and model refuse the same bad documents."""
    assert (accepts(name, document), model_accepts(name, document)) == (False, False)


@pytest.mark.parametrize("document", [entry(after=["a"]), entry(id="a\u0378"), entry(retries=1.0)])
def test_what_only_the_model_refuses(document: tuple[str, object]) -> None:
    """JSON Schema cannot say these: a reference to itself, unassigned code points, 1.0 as 1."""
    assert (accepts(*document), model_accepts(*document)) == (True, False)
