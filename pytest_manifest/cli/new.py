"""Write entries for a task: of its signature, of a CSV file's rows, or of a query's.

Read rows for entries: from a CSV file, or from a database.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from shlex import join, quote
from typing import TYPE_CHECKING, Final, NamedTuple

from pydantic import JsonValue, ValidationError

from pytest_manifest.cli.output import check_target, make_folder, say, write_json
from pytest_manifest.cli.runs_folder import pytest_command
from pytest_manifest.cli.task_arguments import TaskSignature, TaskSignatures, jsonable
from pytest_manifest.errors import Fault, ManifestError, PlanError
from pytest_manifest.manifest import dump_entry
from pytest_manifest.manifest.writer import atomic_file
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
    csv.field_size_limit(LONGEST_FIELD)
    with ExitStack() as stack:
        with _csv_errors(path):
            file = stack.enter_context(path.open(encoding="utf-8-sig", newline=""))
            reader = csv.DictReader(file, strict=True)
            columns = list(reader.fieldnames or ())
        _check_separator(path, columns)
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
    except csv.Error as error:
        raise _fault(path, 0, f"it is no CSV file ({error}); correct it") from error


def _csv_rows(path: Path, reader: csv.DictReader[str]) -> Iterator[Row]:
    with _csv_errors(path):
        for values in reader:
            line = reader.line_num
            if None in values or None in values.values():
                raise _fault(path, line, "the row has not as many values as there are columns")
            yield Row(line, values)


def _check_separator(path: Path, columns: list[str]) -> None:
    """Refuse what spreadsheets of many languages save as CSV."""
    found = next((one for one in ";\t|" if len(columns) == 1 and one in columns[0]), None)
    if found:
        raise _fault(
            path, 1, f"the columns seem to be separated by {found!r}; save it with commas instead"
        )


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


@dataclass(frozen=True)
class Source:
    """The source of entries: a CSV file, a query of a database, or neither.

    ``id_column``: the column with their ids; ``meta``: columns that are no arguments, but are to be
    in reports.
    """

    csv: Path | None = None
    sql: str | None = None
    url: str | None = None
    id_column: str | None = None
    meta: Sequence[str] = ()

    def open(self) -> AbstractContextManager[Rows | None]:
        """Open the rows; None where there are none. Raises PlanError for what excludes itself."""
        if self.csv is not None and self.sql is not None:
            raise PlanError("--csv and --sql are two sources; choose one")
        if (self.sql is None) != (self.url is None):
            raise PlanError("--sql and --url go together; give the query and the database")
        if self.csv is not None:
            return csv_rows(self.csv)
        if self.sql is not None and self.url is not None:
            return sql_rows(self.sql, self.url)
        if self.id_column or self.meta:
            raise PlanError("--id and --meta name columns; give --csv or --sql, too")
        return nullcontext()


def run(
    task: str, app: str, source: Source, target: Path | None, *, force: bool, json: bool
) -> None:
    """Write the task's entries to a file, or to stdout where ``target`` is None."""
    check_target(target, force=force, json=json)
    signature = TaskSignatures(app).of(task)
    with source.open() as rows:
        lines = map(dump_entry, _entries(signature, rows, source))
        if target is None:
            for line in lines:
                sys.stdout.buffer.write(line + b"\n")
            return
        make_folder(target)
        with atomic_file(target) as file:
            count = 0
            for count, line in enumerate(lines, 1):  # noqa: B007 - the last number is the count
                file.write(line + b"\n")
            if not count:
                raise PlanError(f"there is no row, so {target} was not written")
    _report(target, count, filled=rows is not None, json=json)


def _report(target: Path, count: int, *, filled: bool, json: bool) -> None:
    start = join(pytest_command())
    command = f"{start} --manifest={target}" if filled else f"manifest lint {target}"
    if json:
        write_json({"file": str(target), "entries": count, "next": command})
        return
    say(f"{plural(count, 'entry')} in {target}")
    if not filled:
        say("Fill in what stands in <...>, and say what you expect; then check it:")
    say(f"  {command}")


def _entries(signature: TaskSignature, rows: Rows | None, source: Source) -> Iterator[Entry]:
    name = signature.task.rpartition(".")[2]
    if rows is None:
        yield _entry(f"{name}-1", signature, signature.arguments(), {})
        return
    maker = _EntryMaker(signature, rows, source, name)
    faults: list[Fault] = []
    more = 0
    for number, row in enumerate(rows.rows, 1):
        try:
            entry = maker.entry(number, row)
        except ValueError as error:
            more += len(faults) >= MOST_FAULTS
            if len(faults) < MOST_FAULTS:
                faults.append(Fault(rows.path, row.number, str(error)))
            continue
        if not faults:
            yield entry
    if faults:
        raise ManifestError(faults, more=more)


class _EntryMaker:
    """Make an entry of a row; what the columns are for is checked once."""

    def __init__(self, signature: TaskSignature, rows: Rows, source: Source, name: str) -> None:
        self._signature = signature
        self._rows = rows
        self._source = source
        self._name = name
        self._ids: dict[str, int] = {}
        parameters = {one.name: one for one in signature.parameters}
        self._arguments = self._argument_columns(parameters)
        missing = [
            name
            for name, one in parameters.items()
            if one.default is one.empty and name not in self._arguments
        ]
        if missing:
            raise PlanError(
                f"{rows.path}: there is no column for {', '.join(map(repr, missing))} of "
                f"{signature.task}; its columns are {', '.join(rows.columns)}"
            )
        self._optional = {name for name, one in parameters.items() if one.default is not one.empty}

    def _argument_columns(self, parameters: Mapping[str, object]) -> list[str]:
        """Return the columns that are arguments. Raises PlanError for those that are nothing."""
        source, columns = self._source, self._rows.columns
        for name in (source.id_column, *source.meta):
            if name is not None and name not in columns:
                raise PlanError(
                    f"{self._rows.path}: there is no column {name!r}, but {', '.join(columns)}"
                )
        apart = {source.id_column, *source.meta}
        arguments = [
            name
            for name in columns
            if name in parameters or (name not in apart and self._signature.takes_any_name)
        ]
        unknown = [name for name in columns if name not in arguments and name not in apart]
        if unknown:
            raise PlanError(
                f"{self._rows.path}: {self._signature.task} has no argument {unknown[0]!r}; rename "
                f"the column, leave it out, or keep it for reports with --meta={quote(unknown[0])}"
            )
        return arguments

    def entry(self, number: int, row: Row) -> Entry:
        """Return the entry of a row. Raises ValueError that says what is wrong with it."""
        kwargs = {
            name: self._value(name, row.values[name])
            for name in self._arguments
            if not self._is_left_out(name, row.values[name])
        }
        entry_id = self._id(number, row)
        first = self._ids.setdefault(entry_id, row.number)
        if first != row.number:
            raise ValueError(f"id {entry_id!r} is that of row {first}, too; ids must be unique")
        meta = {name: jsonable(row.values[name]) for name in self._source.meta}
        return _entry(entry_id, self._signature, kwargs, meta)

    def _id(self, number: int, row: Row) -> str:
        column = self._source.id_column
        if column is None:
            return f"{self._name}-{number}"
        if row.values[column] is None:
            raise ValueError(f"{column!r} is NULL, and has the ids; have the query leave it out")
        return str(row.values[column])

    def _is_left_out(self, name: str, value: object) -> bool:
        """Return whether an empty cell leaves the argument to its default."""
        return self._rows.are_text and value == "" and name in self._optional

    def _value(self, name: str, value: object) -> JsonValue:
        try:
            return self._signature.convert(name, value)
        except ValueError as error:
            if value == "" and self._rows.are_text:
                try:
                    return self._signature.convert(name, None)  # no value at all, where it may be
                except ValueError:
                    pass
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
