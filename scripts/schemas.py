"""Write, or check, the JSON Schema files: ``python -m scripts.schemas [--check]``.

Generate the JSON Schemas of the formats from the models, and keep them beside the models.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import sys
import textwrap
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from pytest_manifest.schema.answers import Answers
from pytest_manifest.schema.baseline import Baseline
from pytest_manifest.schema.diagnosis import Diagnosis
from pytest_manifest.schema.fields import Document
from pytest_manifest.schema.models import Entry, Header
from pytest_manifest.schema.over_time import RunsOverTime
from pytest_manifest.schema.receipts import ExportedDescendant, Receipt, Verdict
from pytest_manifest.schema.run_digest import RunDigest
from pytest_manifest.schema.run_event import RunEvent
from pytest_manifest.schema.run_status import RunStatus
from pytest_manifest.schema.summary import RunSummary
from pytest_manifest.schema.triage import Triage
from pytest_manifest.schema.why import EntryWhy

FOLDER: Final = Path(__file__).parents[1] / "pytest_manifest" / "schema"
_BASE = "https://pytest-celery-manifest.invalid/schema/1/"
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_DOCUMENTS: Mapping[str, tuple[type[Document], str]] = {
    "manifest-entry": (Entry, "Manifest entry: one background job"),
    "manifest-header": (Header, "Manifest header: the optional first line of a manifest"),
    "run-diagnosis": (Diagnosis, "Diagnosis of a run: why it does not move"),
    "run-summary": (RunSummary, "Run summary: the outcome of a run, and the files it has left"),
    "run-digest": (RunDigest, "Run digest: a run that is over, for a history of many"),
    "runs-over-time": (RunsOverTime, 'Runs over time: what "manifest history" says of many runs'),
    "run-status": (RunStatus, "Run status: a run at one moment"),
    "run-event": (RunEvent, "Run event: what happened to a run, as webhooks have it"),
    "command-answers": (Answers, "Answers of commands: what each prints with --json"),
    "entry-why": (EntryWhy, "Why an entry has its verdict, and what can be done"),
    "baseline": (Baseline, "Baseline: what an approved run of a manifest had passed"),
    "triage": (Triage, "Triage: what is open over all runs, by cause"),
    "receipt": (Receipt, "Receipt: what became of one attempt"),
    "receipt-descendant": (
        ExportedDescendant,
        "Descendant: a task that a job started, in a file of receipts",
    ),
    "verdict": (Verdict, "Verdict: a receipt judged by its entry's expectations"),
}


def schemas() -> dict[Path, str]:
    """Return the text of every schema file, by its path."""
    return {
        FOLDER / f"{name}.schema.json": _text(name, model, title)
        for name, (model, title) in _DOCUMENTS.items()
    }


def stale() -> list[Path]:
    """Return the schema files that are missing or differ from the models."""
    return [
        path
        for path, text in schemas().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]


def write() -> list[Path]:
    """Write the files that are stale, and return them."""
    paths = stale()
    for path, text in schemas().items():
        if path in paths:
            path.write_text(text, encoding="utf-8")
    return paths


def _text(name: str, model: type[Document], title: str) -> str:
    schema = model.model_json_schema(by_alias=True)
    _describe(schema, model)
    if model is Entry:
        _add_rules_between_fields(schema)
    _simplify(schema)
    head = {"$schema": _DIALECT, "$id": f"{_BASE}{name}.schema.json", "title": title}
    del schema["title"]
    return json.dumps(head | schema, indent=2) + "\n"


def _describe(schema: dict[str, Any], model: type[Document]) -> None:
    """Add to every field the docstring below it as its description, in place.

    Pydantic can do so itself (``use_attribute_docstrings``), but then parses the sources at every
    import, which costs each process 18 ms.
    """
    by_name: dict[str, type[Document]] = {cls.__name__: cls for cls in Document.__subclasses__()}
    parts = [(schema, model)]
    parts += [(part, by_name[name]) for name, part in schema.get("$defs", {}).items()]
    for part, cls in parts:
        docs = _docstrings(cls)
        for name, info in cls.model_fields.items():
            key = info.alias or name
            field = part["properties"][key]
            part["properties"][key] = {"description": docs[name], **field}


def _docstrings(model: type[Document]) -> dict[str, str]:
    """Return the docstring below each field in the model's source, by the field's name."""
    (cls,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    body = cls.body if isinstance(cls, ast.ClassDef) else []
    return {
        field.target.id: inspect.cleandoc(doc.value.value)
        for field, doc in pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(doc, ast.Expr)
        and isinstance(doc.value, ast.Constant)
        and isinstance(doc.value.value, str)
    }


def _add_rules_between_fields(schema: dict[str, Any]) -> None:
    """Add the rules of validators that compare fields, which pydantic's schema lacks, in place."""
    schema["not"] = {
        "description": "countdown and eta exclude each other",
        "required": ["countdown", "eta"],
        "properties": {"countdown": {"type": "number"}, "eta": {"type": "string"}},
    }
    expectations = schema["$defs"]["Expectations"]
    expectations["if"] = {"required": ["error"], "properties": {"error": {"type": "object"}}}
    expectations["then"] = {
        "description": "an expected error goes with a state that is not succeeded",
        "required": ["state"],
        "properties": {"state": {"not": {"const": "succeeded"}}},
    }
    expectations["properties"]["schema"]["anyOf"][0] = {"type": "object", "$ref": _DIALECT}
    match = schema["$defs"]["ExpectedError"]["properties"]["match"]
    match["anyOf"][0]["format"] = "regex"


def _simplify(schema: object) -> None:
    """Drop the titles that repeat a property's name, in place."""
    if isinstance(schema, dict):
        for field in schema.get("properties", {}).values():
            if isinstance(field, dict) and isinstance(field.get("title"), str):
                del field["title"]
        for part in schema.values():
            _simplify(part)
    elif isinstance(schema, list):
        for part in schema:
            _simplify(part)


def main(arguments: Sequence[str] | None = None) -> int:
    """Return exit code 0, or 1 where ``--check`` finds files that are not current."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.schemas",
        description="Write the JSON Schemas of all file formats.",
    )
    parser.add_argument("--check", action="store_true", help="write nothing; fail if one is stale")
    if not parser.parse_args(arguments).check:
        for path in write():
            sys.stdout.write(f"wrote {path}\n")
        return 0
    paths = stale()
    for path in paths:
        sys.stderr.write(f"{path}: not current; run python -m scripts.schemas\n")
    return 1 if paths else 0


if __name__ == "__main__":
    raise SystemExit(main())
