"""Declare the command ``manifest`` and its subcommands; each is carried out by its own module."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from pytest_manifest.cli import INTERRUPTED, USER_ERROR, ExportFormat, prune, signing, stack
from pytest_manifest.cli.output import say, warn
from pytest_manifest.errors import ManifestToolError

app = typer.Typer(
    name="manifest",
    help="Batches of Celery jobs as pytest tests: the commands beside pytest.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run one command, and end the process with its exit status."""
    _run(app, "manifest")


def _run(program: typer.Typer, name: str) -> None:
    _open_streams()
    try:
        _write_all(program, name)
    except ManifestToolError as error:
        warn(f"{name}: {error}")
        sys.exit(USER_ERROR)
    except OSError as error:
        _leave_unwritten()
        if isinstance(error, BrokenPipeError):
            sys.exit(0)  # the reader of a pipe has seen enough
        what = error.filename or "its output"
        warn(f"{name}: {what}: {error.strerror or error}; check the place and its free space")
        sys.exit(USER_ERROR)


def _write_all(program: typer.Typer, name: str) -> None:
    """Run a command until all that it prints is written. Raises OSError where that fails."""
    try:
        program(prog_name=name)
    except SystemExit as ended:
        if _was_caused_by(BrokenPipeError, ended):
            sys.exit(0)
        sys.stdout.flush()
        if _was_caused_by(KeyboardInterrupt, ended):
            sys.exit(INTERRUPTED)
        raise


def _open_streams() -> None:
    """Have stdout and stderr lead nowhere where they are closed, as by cron's ``>&-``."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))


def _was_caused_by(kind: type[BaseException], ended: SystemExit) -> bool:
    """Return whether the command's framework has made an exit status of such an exception."""
    cause: BaseException | None = ended
    while cause is not None and not isinstance(cause, kind):
        cause = cause.__context__
    return cause is not None


def _leave_unwritten() -> None:
    """Have what is still to be printed lead nowhere: at exit Python would try again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run_ids(incomplete: str) -> list[str]:
    """Complete the id of a run in the folder that pytest uses."""
    from pytest_manifest.cli.runs_folder import LAST, run_ids, runs_folder

    known = [LAST, *run_ids(runs_folder(None))]
    return [run for run in known if run.startswith(incomplete)]


RunId = Annotated[str, typer.Argument(metavar="RUN", autocompletion=_run_ids, show_default=False)]
RunIds = Annotated[
    list[str], typer.Argument(metavar="RUN...", autocompletion=_run_ids, show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="print JSON")]
Runs = Annotated[
    Path | None,
    typer.Option(
        "--runs",
        metavar="FOLDER",
        help="where the runs are; default: .manifest/runs, or as pytest's manifest_dir says",
    ),
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="default: standard output")
]
Force = Annotated[bool, typer.Option("--force", help="replace a file that is there")]
Limit = Annotated[int, typer.Option(min=0, metavar="N", help="show so many at most; 0: all")]

app.add_typer(stack.app, name="stack")


def _show_version(*, wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        say(f"manifest {version('pytest-celery-manifest')}")
        raise typer.Exit


@app.callback()
def _common(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="show the version and stop"
        ),
    ] = False,
) -> None: ...


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", show_default=False)] = Path(),
    app: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:ATTRIBUTE", help="your Celery app; default: the one that is found"
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Make a first plan, and a first red test.

    For the Celery app that is found, else for one that is made; no file is ever overwritten.
    """
    from pytest_manifest.cli import init as command

    command.run(folder, app, json=json)


@app.command()
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
    output: Output = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Write entries for a task.

    From its signature, or an entry for each row of a CSV file or of a database's query.
    """
    from pytest_manifest.cli import new as command
    from pytest_manifest.stack.background import default_app

    source = command.Source(csv, sql, url, id_column, meta or ())
    command.run(task, app or default_app(Path.cwd()), source, output, force=force, json=json)


@app.command()
def lint(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", show_default=False)],
    app: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:ATTRIBUTE", help="check names and arguments of this app's tasks, too"
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Name every fault of manifests.

    Each with its file and line; the exit status is 1 where there is one.
    """
    from pytest_manifest.cli import lint as command

    command.run(files, app, json=json)


@app.command()
def show(
    what: Annotated[
        str, typer.Argument(metavar="FILE|RUN|ENTRY", autocompletion=_run_ids, show_default=False)
    ],
    status: Annotated[
        list[str] | None, typer.Option(metavar="STATUS", help="only these verdicts of a run")
    ] = None,
    task: Annotated[
        str | None, typer.Option(metavar="NAME", help="only this task; * stands for anything")
    ] = None,
    tag: Annotated[str | None, typer.Option(metavar="TAG", help="only with this tag")] = None,
    tree: Annotated[
        str | None,
        typer.Option(metavar="ENTRY", help="the tasks that the job of this entry of a run started"),
    ] = None,
    facts: Annotated[
        bool, typer.Option("--facts", help="all that is recorded of ENTRY, in order")
    ] = False,
    run: Annotated[
        str, typer.Option(metavar="RUN", autocompletion=_run_ids, help="the run of --facts")
    ] = "last",
    limit: Limit = 50,
    folder: Runs = None,
    json: Json = False,
) -> None:
    """Show a manifest's entries or a run's verdicts.

    RUN is a run's id, the beginning of one, "last", or the path of a ledger.
    """
    from pytest_manifest.cli import show as command
    from pytest_manifest.cli.runs_folder import runs_folder

    if facts:
        from pytest_manifest.cli.facts import show_facts

        show_facts(what, run, runs_folder(folder), limit, json=json)
        return
    chosen = command.Filter(frozenset(status or ()), task, tag, limit)
    command.run(what, runs_folder(folder), chosen, tree, json=json)


@app.command()
def runs(
    file: Annotated[Path, typer.Argument(metavar="FILE", show_default=False)],
    last: Annotated[int, typer.Option(min=1, metavar="N", help="the last N runs")] = 10,
    entry: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="only these entries")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="entries of which there is nothing to say, too")
    ] = False,
    limit: Limit = 50,
    folder: Runs = None,
    json: Json = False,
) -> None:
    """Show the history of a manifest's entries.

    Those that failed in their last run, are flaky or are getting slower.
    """
    from pytest_manifest.cli import history as command
    from pytest_manifest.cli.runs_folder import runs_folder

    choice = command.Choice(last, frozenset(entry or ()), everything, limit)
    command.run(file, runs_folder(folder), choice, json=json)


@app.command()
def diff(
    before: RunId,
    after: RunId,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="name all entries")] = False,
    folder: Runs = None,
    json: Json = False,
) -> None:
    """Say what changed between two runs.

    Verdicts, runtimes, results and costs, from the first run to the second. RUN is a run's id, the
    beginning of one, "last", or the path of a ledger.
    """
    from pytest_manifest.cli.history import show_changes
    from pytest_manifest.cli.runs_folder import find_run, runs_folder
    from pytest_manifest.cli.stored_run import StoredRun

    place = runs_folder(folder)
    earlier, later = (StoredRun.open(find_run(one, place)) for one in (before, after))
    show_changes(earlier, later, json=json, verbose=verbose)


@app.command()
def check(
    runs: RunIds,
    limit: Limit = 50,
    folder: Runs = None,
    json: Json = False,
) -> None:
    """Check the records of runs: what is promised of them holds.

    Each job sent once, no pass without its receipt, a verdict for each entry; the exit status is 1
    where a record breaks a promise. RUN is a run's id, the beginning of one, "last", or the path of
    a ledger.
    """
    from pytest_manifest.cli import check as command
    from pytest_manifest.cli.runs_folder import find_run, runs_folder

    place = runs_folder(folder)
    command.run([find_run(one, place) for one in runs], json=json, limit=limit)


@app.command()
def export(
    run: RunId,
    form: Annotated[
        ExportFormat,
        typer.Option(
            "--format",
            "-f",
            help="receipts: JSON lines; summary: a JSON document; csv: a row an entry; markdown, "
            "page: the report of what was completed",
        ),
    ] = ExportFormat.RECEIPTS,
    output: Output = None,
    force: Force = False,
    folder: Runs = None,
    json: Json = False,
) -> None:
    """Write what a run has left, in five formats.

    RUN is a run's id, the beginning of one, "last", or the path of a ledger.
    """
    from pytest_manifest.cli import export as command
    from pytest_manifest.cli.runs_folder import find_run, report_mode, runs_folder
    from pytest_manifest.cli.stored_run import StoredRun

    stored = StoredRun.open(find_run(run, runs_folder(folder)))
    command.run(stored, form, output, report_mode(), force=force, json=json)


@app.command()
def merge(
    runs: RunIds,
    into: Annotated[
        Path | None,
        typer.Option(
            "--into", "-o", metavar="FOLDER", help="where to make it; default: beside the first"
        ),
    ] = None,
    folder: Runs = None,
    json: Json = False,
) -> None:
    """Make one run of several, such as shards.

    RUN is a run's id, the beginning of one, "last", or the path of a ledger.
    """
    from pytest_manifest.cli import merge as command
    from pytest_manifest.cli.runs_folder import find_run, runs_folder

    command.run([find_run(run, runs_folder(folder)) for run in runs], into, json=json)


for _command in (prune.prune, signing.keygen, signing.sign, signing.verify):
    app.command()(_command)
