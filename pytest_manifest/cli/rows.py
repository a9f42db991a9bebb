"""Read rows for entries: from a CSV file, or from a database."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from pytest_manifest.errors import Fault, ManifestError, PlanError
from pytest_manifest.redaction import redact_about, redact_url

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
