"""Check a corpus, load it, and show what the database holds, by a command."""

# ruff: noqa: T201 - printing is what a command is for

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from pytest_manifest.errors import ManifestToolError
from tasks.movie_bible.documents import Document
from tasks.movie_bible.fields import FIELDS
from tasks.movie_bible.records import LoadCounts
from tasks.movie_bible.settings import BibleSettings, bible_settings
from workflows.gap_fill.corpus.columns import COLUMNS, parse_mapping
from workflows.gap_fill.corpus.errors import CorpusError
from workflows.gap_fill.corpus.reading import corpus_path, read_corpus

if TYPE_CHECKING:
    from tasks.movie_bible.bible import MovieBible

PROGRAM: Final = "python -m workflows.gap_fill.corpus"
USER_ERROR: Final = 2
INTERRUPTED: Final = 130
SHOWN_EVERY: Final = 500


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 is success, 2 a user's error, 130 an interrupt."""
    arguments = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace], None] = arguments.run
    try:
        command(arguments)
        sys.stdout.flush()
    except ManifestToolError as error:
        _say(str(error), error)
        return USER_ERROR
    except BrokenPipeError:
        # The reader of a pipe has seen enough; nothing more may be written, at exit neither.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt as interrupt:
        _say("interrupted", interrupt)
        return INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="Read corpora, and load them into the movie bible."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    load = commands.add_parser("load", help="bring a corpus into the database; again is harmless")
    load.set_defaults(run=_load)
    check = commands.add_parser("check", help="read a corpus to its end, and change nothing")
    check.set_defaults(run=_check)
    stats = commands.add_parser("stats", help="show what the database has, and its gaps")
    stats.set_defaults(run=_stats)
    migrate = commands.add_parser("migrate", help="bring the database's tables up to date")
    migrate.set_defaults(run=_migrate)
    for command in (load, check):
        command.add_argument(
            "path",
            metavar="PATH",
            help="a .jsonl, .ndjson, .csv or .tsv file (or its .gz), a folder of .txt and .md "
            "files, or 'sample'",
        )
        command.add_argument(
            "--fields",
            metavar="OURS=THEIRS,...",
            default="",
            help=f"what columns are called in the file; ours are {', '.join(COLUMNS)}",
        )
    stats.add_argument(
        "--prompt-version",
        metavar="VERSION",
        help="count values of people and of this prompt version alone; default: of any",
    )
    for command in (load, stats, migrate):
        command.add_argument(
            "--database",
            metavar="URL",
            help="default: GAP_FILL_DATABASE_URL, MANIFEST_DATABASE_URL or DATABASE_URL (which, "
            "other than options, no list of processes shows), else a file in the project",
        )
    return parser


def _load(arguments: argparse.Namespace) -> None:
    documents = _documents(arguments)
    with _progress("loaded") as progress, _open(arguments) as bible:
        counts = bible.load(documents, progress=progress.loaded)
    if not counts.documents:
        raise CorpusError(f"{arguments.path}: holds no documents; nothing was loaded")
    print(
        f"{counts.documents:,} documents: {counts.inserted:,} new, {counts.updated:,} changed, "
        f"{counts.unchanged:,} as they were"
    )


def _check(arguments: argparse.Namespace) -> None:
    number, given = 0, dict.fromkeys(FIELDS, 0)
    documents = _documents(arguments)
    with _progress("read") as progress:
        for number, document in enumerate(documents, start=1):
            for name in document.given:
                given[name] += 1
            if number % SHOWN_EVERY == 0:
                progress.show(number)
    print(f"{number:,} documents, all of them good")
    _print_fields(number, given)


def _stats(arguments: argparse.Namespace) -> None:
    with _open(arguments) as bible:
        found = bible.statistics(arguments.prompt_version)
    print(f"{found.passages:,} passages of {found.films:,} films")
    for version, number in found.rows.items():
        print(f"{number:,} rows of prompt version {version}")
    _print_fields(found.passages, found.filled)


def _migrate(arguments: argparse.Namespace) -> None:
    from tasks.movie_bible.bible import MovieBible

    print(f"the tables are of version {MovieBible.migrate(_settings(arguments))}")


def _print_fields(passages: int, filled: Mapping[str, int]) -> None:
    print(f"{'field':12}{'filled':>10}{'gaps':>10}")
    for name in FIELDS:
        print(f"{name:12}{filled[name]:>10,}{passages - filled[name]:>10,}")


def _documents(arguments: argparse.Namespace) -> Iterator[Document]:
    mapping = parse_mapping(arguments.fields)
    return read_corpus(corpus_path(arguments.path), mapping=mapping)


def _open(arguments: argparse.Namespace) -> MovieBible:
    from tasks.movie_bible.bible import MovieBible  # loads SQLAlchemy

    return MovieBible.open(_settings(arguments))


def _settings(arguments: argparse.Namespace) -> BibleSettings:
    return bible_settings(arguments.database)


class _Progress:
    """A line of progress, overwritten while work goes on, if standard error is a terminal."""

    def __init__(self, verb: str) -> None:
        self.verb = verb
        self.done = 0
        self._watched = sys.stderr.isatty()

    def loaded(self, counts: LoadCounts) -> None:
        """Take note of what is in the database for good."""
        self.show(counts.documents)

    def show(self, number: int) -> None:
        self.done = number
        if self._watched:
            print(f"\r{self.verb} {number:,} documents", end="", file=sys.stderr, flush=True)

    def wipe(self) -> None:
        if self._watched and self.done:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


@contextmanager
def _progress(verb: str) -> Iterator[_Progress]:
    """Show progress; an error within gets a note of what was done before it."""
    progress = _Progress(verb)
    try:
        yield progress
    except (ManifestToolError, KeyboardInterrupt) as error:
        if progress.done:
            note = f"before it, {progress.done:,} documents were {verb}"
            note += ", and loading again is harmless" * (verb == "loaded")
            error.add_note(note)  # type: ignore[union-attr]  # no task runs below Python 3.11
        raise
    finally:
        progress.wipe()


def _say(sentence: str, error: BaseException) -> None:
    notes = [f" ({note})" for note in getattr(error, "__notes__", [])]
    print(f"corpus: {sentence}{''.join(notes)}", file=sys.stderr)
