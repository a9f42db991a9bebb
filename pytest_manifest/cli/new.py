"""Write entries for a task: of its signature, of a CSV file's rows, or of a query's.

Read rows for entries: from a CSV file, or from a database.
"""

from __future__ import annotations

import csv as csv_module
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from shlex import join, quote
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

import typer
from pydantic import JsonValue, ValidationError

from pytest_manifest.cli import arguments
from pytest_manifest.cli.output import answer, check_target
from pytest_manifest.cli.stored_run import pytest_command
from pytest_manifest.cli.task_arguments import TaskSignature, TaskSignatures, jsonable
from pytest_manifest.errors import Fault, ManifestError, PlanError
from pytest_manifest.manifest import dump_entry
from pytest_manifest.manifest.writer import atomic_file, writing
from pytest_manifest.redaction.texts import redact_about, redact_url
from pytest_manifest.schema import Entry
from pytest_manifest.schema.problems import problems
from pytest_manifest.text import plural

if TYPE_CHECKING:
    from sqlalchemy import URL


LONGEST_FIELD: Final = 2**31 - 1
"""The csv module's own limit of 128 KiB is less than a text for a language model may have."""
READ_ONLY: Final = {
    "sqlite": "PRAGMA query_only = ON",
    **dict.fromkeys(("postgresql", "mysql", "mariadb", "oracle"), "SET TRANSACTION READ ONLY"),
}
"""What has a database refuse to write; on others a transaction is rolled back."""
QUERY: Final = Path("--sql")
"""What a query is called in messages."""


class Row(NamedTuple):
    """A row: where it is (a file's line, or its number) and its values by column."""

    number: int
    values: Mapping[str, object]


class Rows(NamedTuple):
    """Rows as they are read. ``path``: the file, or a name of the query, for messages."""

    path: Path
    columns: list[str]
    rows: Iterator[Row]
    are_text: bool
    """Whether every value is a text, as in a CSV file."""


@contextmanager
def csv_rows(path: Path) -> Iterator[Rows]:
    """Open a CSV file in UTF-8 whose first row names the columns.

    Raises ManifestError, also while rows are read, where it is none.
    """
    csv_module.field_size_limit(LONGEST_FIELD)
    with ExitStack() as stack:
        with _csv_errors(path):
            file = stack.enter_context(path.open(encoding="utf-8-sig", newline=""))
            reader = csv_module.DictReader(file, strict=True)
            columns = list(reader.fieldnames or ())
        # Spreadsheets of many languages save that as CSV.
        if len(columns) == 1 and (found := next((one for one in ";\t|" if one in columns[0]), "")):
            said = f"the columns seem to be separated by {found!r}; save it with commas instead"
            raise _fault(path, 1, said)
        _check_columns(path, columns)
        yield Rows(path, columns, _csv_rows(path, reader), are_text=True)


@contextmanager
def _csv_errors(path: Path) -> Iterator[None]:
    """Turn what reading raises into a ManifestError; what is done with the rows is not in here."""
    try:
        yield
    except OSError as error:
        raise _fault(path, 0, f"it cannot be read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        raise _fault(path, 0, "it is not UTF-8; save it as UTF-8") from error
    except csv_module.Error as error:
        raise _fault(path, 0, f"it is no CSV file ({error}); correct it") from error


def _csv_rows(path: Path, reader: csv_module.DictReader[str]) -> Iterator[Row]:
    with _csv_errors(path):
        for values in reader:
            line = reader.line_num
            if None in values or None in values.values():
                raise _fault(path, line, "the row has not as many values as there are columns")
            yield Row(line, values)


def _check_columns(path: Path, columns: list[str]) -> None:
    if not columns:
        raise _fault(path, 1, "there is no row with the columns' names; write one")
    twice = {name for name in columns if columns.count(name) > 1}
    if twice:
        raise _fault(path, 1, f"column {min(twice)!r} is there twice; rename one")


@contextmanager
def sql_rows(query: str, url: str) -> Iterator[Rows]:
    """Run a query that changes nothing; its rows are fetched as they are asked for.

    Raises PlanError where SQLAlchemy or the database's driver is not installed, or the database
    refuses the query.
    """
    try:
        import sqlalchemy
    except ImportError as error:
        raise PlanError(
            "--sql needs SQLAlchemy: pip install 'pytest-celery-manifest[sql]', and the driver of "
            "your database"
        ) from error
    with ExitStack() as stack:
        with _sql_errors(url):
            engine = sqlalchemy.create_engine(url)
            _check_file(engine.url)
            stack.callback(engine.dispose)
            connection = stack.enter_context(engine.connect())
            if engine.dialect.name in READ_ONLY:
                connection.exec_driver_sql(READ_ONLY[engine.dialect.name])
            # As it is written: a colon or a percent sign is none of SQLAlchemy's here.
            connection.execution_options(stream_results=True, no_parameters=True)
            found = connection.exec_driver_sql(query)
            columns = list(found.keys())
        _check_columns(QUERY, columns)
        yield Rows(QUERY, columns, _sql_rows(url, columns, found), are_text=False)


def _check_file(url: URL) -> None:
    """Raise PlanError where SQLite would make a new database."""
    name = (url.database or "").removeprefix("file:")
    in_memory = name in ("", ":memory:") or url.query.get("mode") == "memory"
    if url.get_backend_name() == "sqlite" and not in_memory and not Path(name).exists():
        raise PlanError(f"{name}: there is no such database; check the path")


@contextmanager
def _sql_errors(url: str) -> Iterator[None]:
    """Turn what the database raises into a PlanError; what is done with the rows is not in here."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except ImportError as error:
        raise PlanError(f"{redact_url(url)}: its driver is not installed ({error})") from error
    except (SQLAlchemyError, ValueError) as error:  # the latter for a port that is none
        reason = str(getattr(error, "orig", None) or error).partition("\n")[0]
        reason = redact_about(reason, url)  # a password that is not escaped is told in pieces
        raise PlanError(f"{redact_url(url)}: the query failed ({reason}); correct it") from error


def _sql_rows(url: str, columns: Sequence[str], found: Iterable[Sequence[object]]) -> Iterator[Row]:
    with _sql_errors(url):
        for number, values in enumerate(found, 1):
            yield Row(number, dict(zip(columns, values, strict=True)))


def _fault(path: Path, line: int, message: str) -> ManifestError:
    return ManifestError([Fault(path, line, message)])


MOST_FAULTS: Final = 20


def _source(
    path: Path | None, query: str | None, url: str | None
) -> AbstractContextManager[Rows | None]:
    """Open the rows; None where there are none. Raises PlanError for what excludes itself."""
    if path is not None and query is not None:
        raise PlanError("--csv and --sql are two sources; choose one")
    if (query is None) != (url is None):
        raise PlanError("--sql and --url go together; give the query and the database")
    if path is not None:
        return csv_rows(path)
    if query is not None and url is not None:
        return sql_rows(query, url)
    return nullcontext()


def new(
    task: Annotated[
        str, typer.Option("--from-task", metavar="NAME", help="the task's name, as workers know it")
    ],
    app: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:ATTRIBUTE", help="the Celery app; default: that of pytest's settings"
        ),
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="an entry for each row of a CSV file")
    ] = None,
    sql: Annotated[
        str | None, typer.Option(metavar="QUERY", help="an entry for each row that a query finds")
    ] = None,
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="the query's database, as SQLAlchemy names it")
    ] = None,
    id_column: Annotated[
        str | None, typer.Option("--id", metavar="COLUMN", help="the column with the entries' ids")
    ] = None,
    meta: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="a column that is shown in reports, but no argument"),
    ] = None,
    output: arguments.Output = None,
    force: arguments.Force = False,
    json: arguments.Json = False,
) -> None:
    """Write entries for a task.

    From its signature, or an entry for each row of a CSV file or of a database's query.
    """
    from pytest_manifest.stack.background import default_app

    check_target(output, force=force, json=json)
    signature = TaskSignatures(app or default_app(Path.cwd())).of(task)
    with _source(csv, sql, url) as rows:
        if rows is None and (id_column or meta):
            raise PlanError("--id and --meta name columns; give --csv or --sql, too")
        lines = map(dump_entry, _entries(signature, rows, id_column, meta or ()))
        if output is None:
            for line in lines:
                sys.stdout.buffer.write(line + b"\n")
            return
        with writing(output):
            output.parent.mkdir(parents=True, exist_ok=True)
        count = 0
        with atomic_file(output) as file:
            for line in lines:
                file.write(line + b"\n")
                count += 1
            if not count:
                raise PlanError(f"there is no row, so {output} was not written")
    filled = rows is not None
    command = (
        f"{join(pytest_command())} --manifest={output}" if filled else f"manifest lint {output}"
    )
    said = [f"{plural(count, 'entry')} in {output}", f"  {command}"]
    if not filled:
        said.insert(1, "Fill in what stands in <...>, and say what you expect; then check it:")
    answer({"file": str(output), "entries": count, "next": command}, said, json=json)


def _entries(
    signature: TaskSignature, rows: Rows | None, ids: str | None, shown: Sequence[str]
) -> Iterator[Entry]:
    """Yield the entries of rows; ``ids``: the column with their ids; ``shown``: in reports."""
    name = signature.task.rpartition(".")[2]
    if rows is None:
        yield _entry(f"{name}-1", signature, signature.arguments(), {})
        return
    optional = {one.name: one.default is not one.empty for one in signature.parameters}
    taken = _argument_columns(signature, optional, rows, {*shown, *([ids] if ids else ())})
    faults: list[Fault] = []
    more = 0
    known: dict[str, int] = {}
    for number, row in enumerate(rows.rows, 1):
        try:
            entry_id = _id(row, ids, f"{name}-{number}", known)
            kwargs = {
                column: _value(signature, column, row.values[column], are_text=rows.are_text)
                for column in taken
                # An empty cell leaves the argument to its default.
                if not (rows.are_text and row.values[column] == "" and optional.get(column))
            }
            meta = {column: jsonable(row.values[column]) for column in shown}
            entry = _entry(entry_id, signature, kwargs, meta)
        except ValueError as error:
            more += len(faults) >= MOST_FAULTS
            if len(faults) < MOST_FAULTS:
                faults.append(Fault(rows.path, row.number, str(error)))
            continue
        if not faults:
            yield entry
    if faults:
        raise ManifestError(faults, more=more)


def _argument_columns(
    signature: TaskSignature, optional: Mapping[str, bool], rows: Rows, apart: set[str]
) -> list[str]:
    """Return the columns that are arguments. Raises PlanError for those that are nothing."""
    there = ", ".join(rows.columns)
    if absent := apart.difference(rows.columns):
        raise PlanError(f"{rows.path}: there is no column {min(absent)!r}, but {there}")
    others = [name for name in rows.columns if name not in apart or name in optional]
    unknown = [name for name in others if name not in optional]
    if unknown and not signature.takes_any_name:
        raise PlanError(
            f"{rows.path}: {signature.task} has no argument {unknown[0]!r}; rename the column, "
            f"leave it out, or keep it for reports with --meta={quote(unknown[0])}"
        )
    missing = [
        name for name, is_optional in optional.items() if not (is_optional or name in others)
    ]
    if missing:
        raise PlanError(
            f"{rows.path}: there is no column for {', '.join(map(repr, missing))} of "
            f"{signature.task}; its columns are {there}"
        )
    return others


def _id(row: Row, column: str | None, name: str, known: dict[str, int]) -> str:
    value = name if column is None else row.values[column]
    if value is None:
        raise ValueError(f"{column!r} is NULL, and has the ids; have the query leave it out")
    if (first := known.setdefault(str(value), row.number)) != row.number:
        raise ValueError(f"id {str(value)!r} is that of row {first}, too; ids must be unique")
    return str(value)


def _value(signature: TaskSignature, name: str, value: object, *, are_text: bool) -> JsonValue:
    try:
        return signature.convert(name, value)
    except ValueError as error:
        if value == "" and are_text:
            with suppress(ValueError):
                return signature.convert(name, None)  # no value at all, where it may be
        raise ValueError(f"{name}={value!r}: {error}") from None


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
