"""Check manifests: their form, forgotten placeholders, and what the tasks of an app accept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer
from pydantic import JsonValue

from pytest_manifest.cli import FOUND, arguments
from pytest_manifest.cli.output import answer
from pytest_manifest.cli.stored_run import hide_secrets
from pytest_manifest.cli.task_arguments import TaskSignatures
from pytest_manifest.errors import Fault, ManifestError
from pytest_manifest.manifest import read_manifest
from pytest_manifest.manifest.jsonl import open_regular
from pytest_manifest.redaction.texts import redact
from pytest_manifest.text import plural

MOST_FAULTS: Final = 10_000
"""Faults of a file that are named."""


def lint(
    files: arguments.Files,
    app: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:ATTRIBUTE", help="check names and arguments of this app's tasks, too"
        ),
    ] = None,
    json: arguments.Json = False,
) -> None:
    """Name every fault of manifests.

    Each with its file and line; the exit status is 1 where there is one.
    """
    hide_secrets()
    _check_readable(files)
    signatures = None if app is None else TaskSignatures(app)
    documents: list[JsonValue] = []
    lines: list[str] = []
    total = 0
    for path in files:
        entries, faults = _check(path, signatures)
        total += len(faults)
        no_fault = f"{path}: {plural(entries, 'entry')}, no fault"
        lines += [redact(str(one)) for one in faults] or [no_fault]
        rows: list[JsonValue] = [
            {"line": one.line or None, "message": redact(one.message)} for one in faults
        ]
        documents.append({"file": str(path), "entries": entries, "faults": rows})
    answer({"files": documents, "faults": total}, lines, json=json)
    if total:
        raise typer.Exit(FOUND)


def _check_readable(files: Sequence[Path]) -> None:
    """Raise ManifestError that names each file that cannot be opened."""
    faults: list[Fault] = []
    for path in files:
        try:
            open_regular(path).close()
        except ManifestError as error:
            faults += error.faults
    if faults:
        raise ManifestError(faults)


def _check(path: Path, signatures: TaskSignatures | None) -> tuple[int, list[Fault]]:
    """Return how many entries a file has, and its faults; those of its form come first, alone."""
    try:
        manifest = read_manifest(path, lean=True, most_faults=MOST_FAULTS, is_new=True)
    except ManifestError as error:
        faults = list(error.faults)
        if error.read_to is not None:
            said = f"the reading stopped here, after {MOST_FAULTS:,} faults; correct these first"
            faults.append(Fault(path, error.read_to, said))
        return 0, faults
    if signatures is None:
        return len(manifest), []
    return len(manifest), [
        Fault(path, line, f"entry {entry.id!r}: {message}")
        for line, entry in manifest.numbered()
        for message in signatures.problems(entry)
    ]
