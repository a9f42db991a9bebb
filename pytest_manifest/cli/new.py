"""Write entries: of a task's signature, a CSV file's rows, a run, or a schedule of beat's."""

from __future__ import annotations

import csv as csv_module
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from shlex import join, quote
from typing import Annotated, Final

import typer
from pydantic import JsonValue, ValidationError

from pytest_manifest.cli import arguments
from pytest_manifest.cli.new_sources import Made, of_beat, of_run
from pytest_manifest.cli.output import answer, check_target, warn
from pytest_manifest.cli.stored_run import StoredRun, pytest_command
from pytest_manifest.cli.task_arguments import TaskSignature, TaskSignatures
from pytest_manifest.errors import PlanError
from pytest_manifest.ini import put_on_path
from pytest_manifest.manifest import dump_entry
from pytest_manifest.manifest.jsonl import Faults, file_error
from pytest_manifest.manifest.writer import write_receipt_lines, writing
from pytest_manifest.manifest.yaml_file import as_yaml, is_yaml
from pytest_manifest.schema import Entry
from pytest_manifest.schema.problems import problems
from pytest_manifest.text import plural

LONGEST_FIELD: Final = 2**31 - 1
"""The csv module's own limit of 128 KiB is less than a text for a language model may have."""

Task = Annotated[
    str | None,
    typer.Option("--from-task", metavar="NAME", help="the task's name, as workers know it"),
]
FromRun = Annotated[
    str | None,
    typer.Option(metavar="RUN", autocompletion=arguments.complete_run, help="the entries of a run"),
]
Failed = Annotated[
    bool, typer.Option("--failed", help="of that run those that failed, or were skipped for it")
]
FromBeat = Annotated[
    bool, typer.Option("--from-beat", help="an entry for each of the app's beat_schedule")
]
App = Annotated[
    str | None,
    typer.Option(
        metavar="MODULE:ATTRIBUTE", help="the Celery app; default: that of pytest's settings"
    ),
]
Csv = Annotated[
    Path | None, typer.Option(metavar="FILE", help="an entry for each row of a CSV file")
]
IdColumn = Annotated[
    str | None, typer.Option("--id", metavar="COLUMN", help="the column with the entries' ids")
]
Meta = Annotated[
    list[str] | None,
    typer.Option(metavar="COLUMN", help="a column that is shown in reports, but no argument"),
]


def csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield line and cells of each row of a CSV file in UTF-8; the first names the columns.

    Raises ManifestError where it is none.
    """
    csv_module.field_size_limit(LONGEST_FIELD)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv_module.reader(file, strict=True)
            columns = next(reader, [])
            _check_columns(path, columns)
            yield 1, columns
            for cells in filter(None, reader):
                line = reader.line_num
                if len(cells) != len(columns):
                    said = "the row has not as many values as there are columns"
                    raise file_error(path, said, line)
                yield line, cells
    except OSError as error:
        raise file_error(path, f"it cannot be read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        raise file_error(path, "it is not UTF-8; save it as UTF-8") from error
    except csv_module.Error as error:
        raise file_error(path, f"it is no CSV file ({error}); correct it") from error


def _check_columns(path: Path, columns: list[str]) -> None:
    if not columns:
        raise file_error(path, "there is no row with the columns' names; write one", 1)
    # Spreadsheets of many languages save that as CSV.
    if len(columns) == 1 and (found := next((one for one in ";\t|" if one in columns[0]), "")):
        said = f"the columns seem to be separated by {found!r}; save it with commas instead"
        raise file_error(path, said, 1)
    twice = {name for name in columns if columns.count(name) > 1}
    if twice:
        raise file_error(path, f"column {min(twice)!r} is there twice; rename one", 1)


def new(
    task: Task = None,
    from_run: FromRun = None,
    failed: Failed = False,
    from_beat: FromBeat = False,
    app: App = None,
    csv: Csv = None,
    id_column: IdColumn = None,
    meta: Meta = None,
    output: arguments.Output = None,
    force: arguments.Force = False,
    folder: arguments.Folder = None,
    json: arguments.Json = False,
) -> None:
    """Write the entries of a manifest: in YAML where FILE ends with .yaml.

    From a task's signature, of each row of a CSV file, of an earlier run, or of beat's schedule.
    """
    from pytest_manifest.stack.background import default_app

    check_target(output, force=force, json=json)
    if (task is not None) + (from_run is not None) + from_beat != 1:
        raise PlanError("of what? give one of --from-task, --from-run and --from-beat")
    if task is None and (csv or id_column or meta):
        raise PlanError("--csv, --id and --meta are of a task; give --from-task, too")
    if from_run is None and failed:
        raise PlanError("--failed chooses entries of a run; give --from-run, too")
    if csv is None and (id_column or meta):
        raise PlanError("--id and --meta name columns; give --csv, too")
    if from_run is not None:
        made = of_run(StoredRun.named(from_run, folder), failed=failed)
    elif from_beat:
        put_on_path(Path.cwd())
        made = of_beat(app or default_app(Path.cwd()))
    else:
        signature = TaskSignatures(app or default_app(Path.cwd())).of(task or "")
        made = Made(map(dump_entry, _entries(signature, csv, id_column, meta or ())))
    if output is None:
        _print(made)
    else:
        _save(made, output, is_sketch=task is not None and csv is None, json=json)


def _print(made: Made) -> None:
    for line in made.lines:
        sys.stdout.buffer.write(line + b"\n")
    for note in made.notes:
        warn(note)


def _save(made: Made, output: Path, *, is_sketch: bool, json: bool) -> None:
    """Write a file of entries, and say what is next; ``is_sketch``: it is to be filled in first."""
    count = _write(as_yaml(made.lines) if is_yaml(output) else made.lines, output)
    said = [f"{plural(count, 'entry')} in {output}", *made.notes]
    command = f"{join(pytest_command())} --manifest={quote(str(output))}"
    if is_sketch:
        said.append("Fill in what stands in <...>, and say what you expect; then check it:")
        command = f"manifest lint {output}"
    document: dict[str, JsonValue] = {"file": str(output), "entries": count, "next": command}
    answer(document | made.document, [*said, f"  {command}"], json=json)


def _write(lines: Iterator[bytes], output: Path) -> int:
    """Write lines to a file, and return how many there are; without one there is no file."""
    first = next(lines, None)
    if first is None:
        raise PlanError(f"there is no row, so {output} was not written")
    with writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
    return write_receipt_lines(output, chain([first], lines), mode=None)


def _entries(
    signature: TaskSignature, path: Path | None, ids: str | None, shown: Sequence[str]
) -> Iterator[Entry]:
    """Yield the entries of rows; ``ids``: the column with their ids; ``shown``: in reports."""
    name = signature.task.rpartition(".")[2]
    if path is None:
        yield _entry(f"{name}-1", signature, signature.arguments(), {})
        return
    optional = {one.name: one.default is not one.empty for one in signature.parameters}
    rows = csv_rows(path)
    _, columns = next(rows)
    taken = _argument_columns(signature, optional, path, columns, {*shown, *([ids] if ids else ())})
    faults = Faults(path)
    known: dict[str, int] = {}
    for number, (line, cells) in enumerate(rows, 1):
        row = dict(zip(columns, cells, strict=True))
        entry_id = row[ids] if ids else f"{name}-{number}"
        try:
            _check_id(entry_id, line, known)
            kwargs = {
                column: _value(signature, column, row[column])
                for column in taken
                # An empty cell leaves the argument to its default.
                if row[column] or not optional.get(column)
            }
            entry = _entry(entry_id, signature, kwargs, {column: row[column] for column in shown})
        except ValueError as error:
            faults.add(line, str(error))
            continue
        if not faults:
            yield entry
    faults.raise_any()


def _argument_columns(
    signature: TaskSignature,
    optional: Mapping[str, bool],
    path: Path,
    columns: Sequence[str],
    apart: set[str],
) -> list[str]:
    """Return the columns that are arguments. Raises PlanError for those that are nothing."""
    there = ", ".join(columns)
    if absent := apart.difference(columns):
        raise PlanError(f"{path}: there is no column {min(absent)!r}, but {there}")
    others = [name for name in columns if name not in apart or name in optional]
    unknown = [name for name in others if name not in optional]
    if unknown and not signature.takes_any_name:
        raise PlanError(
            f"{path}: {signature.task} has no argument {unknown[0]!r}; rename the column, "
            f"leave it out, or keep it for reports with --meta={quote(unknown[0])}"
        )
    missing = [
        name for name, is_optional in optional.items() if not (is_optional or name in others)
    ]
    if missing:
        raise PlanError(
            f"{path}: there is no column for {', '.join(map(repr, missing))} of "
            f"{signature.task}; its columns are {there}"
        )
    return others


def _check_id(entry_id: str, line: int, known: dict[str, int]) -> None:
    if (first := known.setdefault(entry_id, line)) != line:
        raise ValueError(f"id {entry_id!r} is that of row {first}, too; ids must be unique")


def _value(signature: TaskSignature, name: str, text: str) -> JsonValue:
    try:
        return signature.convert(name, text)
    except ValueError as error:
        raise ValueError(f"{name}={text!r}: {error}") from None


def _entry(
    entry_id: str,
    signature: TaskSignature,
    values: Mapping[str, JsonValue],
    meta: Mapping[str, JsonValue],
) -> Entry:
    args, kwargs = signature.call(values)
    fields = {"id": entry_id, "task": signature.task, "args": args, "kwargs": kwargs}
    try:
        return Entry.model_validate({**fields, "meta": dict(meta)})
    except ValidationError as error:
        raise ValueError("; ".join(problems(error, Entry))) from None
