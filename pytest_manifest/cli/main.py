"""Run the command ``manifest``; each of its subcommands is a module of its own.

What these import at their top comes at once: not Celery, ``run`` and ``reporting``.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from typing import Annotated

import typer

from pytest_manifest.cli import (
    INTERRUPTED,
    USER_ERROR,
    check,
    ctl,
    doctor,
    export,
    history,
    init,
    lint,
    mcp,
    merge,
    new,
    prune,
    show,
    signing,
    stack,
    status,
    triage,
    watch,
    why,
)
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
    _open_streams()
    try:
        _write_all()
    except ManifestToolError as error:
        warn(f"manifest: {error}")
        sys.exit(USER_ERROR)
    except OSError as error:
        # Have what is still to be printed lead nowhere: at exit Python would try again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            sys.exit(0)  # the reader of a pipe has seen enough
        what = error.filename or "its output"
        warn(f"manifest: {what}: {error.strerror or error}; check the place and its free space")
        sys.exit(USER_ERROR)


def _write_all() -> None:
    """Run a command until all that it prints is written. Raises OSError where that fails."""
    try:
        app(prog_name="manifest")
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


def _show_version(*, wanted: bool) -> None:
    if wanted:
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


for _command in (
    *(init.init, new.new, lint.lint, show.show, status.status, why.why, watch.watch, prune.prune),
    *(check.check, doctor.doctor, export.export, merge.merge, mcp.mcp),
    history.history,
    *(signing.keygen, signing.sign, signing.verify),
):
    app.command()(_command)
app.add_typer(stack.app, name="stack")
app.add_typer(ctl.app, name="ctl")
app.add_typer(triage.app, name="triage")
