"""Declare ``manifest stack``: broker and workers in the background, without containers."""

# ruff: noqa: T201 - printing is what a command is for

from __future__ import annotations

import os
from json import dumps
from pathlib import Path
from typing import Annotated, Final

import typer

from pytest_manifest.cli import NOT_UP
from pytest_manifest.cli.arguments import Json
from pytest_manifest.cli.output import answer, say, warn, write_json
from pytest_manifest.text import printable

LAST_PORT: Final = 65535

app = typer.Typer(
    help="Keep a broker and workers running.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

# What a command needs is imported by it: status and url must not wait for Celery.


@app.command()
def up(
    app: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:ATTRIBUTE",
            help="the Celery app; default: MANIFEST_APP, or manifest_app in pytest's configuration",
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, metavar="N", help="worker processes; default: one for each core")
    ] = os.cpu_count() or 1,
    flower: Annotated[
        bool,
        typer.Option(
            "--flower",
            help="run Flower, too, on loopback behind a password (the events that it needs cost "
            "the workers a third of their throughput)",
        ),
    ] = False,
    flower_port: Annotated[
        int | None,
        typer.Option(
            min=1, max=LAST_PORT, metavar="PORT", help="run Flower on this port, not a free one"
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="how long the workers may take to answer")
    ] = 60.0,
    json: Json = False,
) -> None:
    """Start it, and wait for its workers.

    A stack that is up already is left as it is.
    """
    from pytest_manifest.stack.background import default_app, status_document
    from pytest_manifest.stack.background import up as start
    from pytest_manifest.stack.settings import Settings

    wanted = Settings(
        app=app or default_app(Path.cwd()),
        workers=workers,
        cwd=str(Path.cwd()),
        flower=flower or flower_port is not None,
        flower_port=flower_port or 0,
    )
    for line in start(wanted, timeout):
        if not json:
            say(line)
    if json:
        write_json(status_document())


@app.command()
def status(json: Json = False) -> None:
    """Show broker, workers and queues.

    The exit status is 3 where no stack is up.
    """
    from pytest_manifest.stack.background import status as describe
    from pytest_manifest.stack.background import status_document

    if json:
        document = status_document()
        write_json(document)
        if not document["up"]:
            raise typer.Exit(NOT_UP)
        return
    lines = describe()
    if not lines:
        raise _not_up()
    for line in lines:
        say(line)


@app.command()
def logs(
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="go on until Ctrl-C, or the stack's end")
    ] = False,
    json: Json = False,
) -> None:
    """Print what the worker and its processes have logged."""
    from pytest_manifest.stack.background import logs as read
    from pytest_manifest.stack.settings import WORKER

    lines = read(follow=follow)
    if lines is None:
        raise _not_up()
    for line in lines:
        text = dumps({"worker": WORKER, "line": line}) if json else printable(line)
        print(text, flush=True)  # the next one may be long in coming


@app.command()
def url(json: Json = False) -> None:
    """Print the broker's URL with its password.

    For pytest --manifest-broker="$(manifest stack url)".
    """
    from pytest_manifest.stack.state import running_stack

    address = running_stack()
    if address is None:
        raise _not_up()
    document = {"broker": address.broker_url, "backend": address.backend_url}
    answer(document, [address.broker_url], json=json)


@app.command()
def down(json: Json = False) -> None:
    """End all of it."""
    from pytest_manifest.stack.background import down as end

    done = end()
    answer({"up": False, "done": done}, [done], json=json)


def _not_up() -> typer.Exit:
    warn("manifest stack: no stack is up; start one with: manifest stack up")
    return typer.Exit(NOT_UP)
