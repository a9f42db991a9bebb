"""Serve a page about a run that goes on: ``manifest watch``, and ``pytest --manifest-live``."""

from __future__ import annotations

import json as json_module
import os
import socket
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TextIO

import typer
from pydantic import JsonValue

from pytest_manifest.analysis.dispositions import ACCEPTANCE
from pytest_manifest.cli.arguments import Folder, Json, complete_run
from pytest_manifest.cli.output import answer
from pytest_manifest.cli.stored_run import LAST, StoredRun
from pytest_manifest.errors import PlanError
from pytest_manifest.redaction.names import configure
from pytest_manifest.redaction.texts import hide_environment

if TYPE_CHECKING:
    from pytest_manifest.reporting.live_page.content import RunContent
    from pytest_manifest.reporting.live_page.server import LiveServer

LAST_PORT: Final = 65535
LEFT_SECONDS: Final = 5.0
"""Seconds after its last request for which a page that pytest has left is kept: as long as its
reader may take to load it again."""
_POLL_SECONDS: Final = 0.2


def watch(
    run: Annotated[
        str, typer.Argument(metavar="[RUN]", autocompletion=complete_run, show_default=False)
    ] = LAST,
    port: Annotated[
        int, typer.Option(min=0, max=LAST_PORT, metavar="N", help="on this port; 0: a free one")
    ] = 0,
    control: Annotated[
        bool,
        typer.Option("--control", help="with buttons that steer the run, as manifest ctl does"),
    ] = False,
    folder: Folder = None,
    json: Json = False,
) -> None:
    """Serve a page about a run, on 127.0.0.1, until Ctrl-C.

    RUN is a run's id, the beginning of one, "last", or the path of a ledger.
    """
    from pytest_manifest.reporting.live_page.content import RunContent
    from pytest_manifest.reporting.live_page.server import LiveServer, listening, new_token

    stored = StoredRun.named(run, folder)
    try:
        listener = listening(port)
    except OSError as error:
        raise PlanError(
            f"--port={port}: {os.strerror(error.errno or 0)}; name another, or none"
        ) from error
    content = RunContent(StoredRun.open, control=control, path=stored.ledger_path)
    server = LiveServer(listener, new_token(), content)
    about: dict[str, JsonValue] = {
        "run": stored.info.run,
        "address": server.address,
        "control": control,
    }
    answer(about, [f"run {stored.info.run}: {server.address}", "Ctrl-C ends it"], json=json)
    sys.stdout.flush()  # who starts it by a program waits for the address
    with suppress(KeyboardInterrupt):
        server.serve_forever(_POLL_SECONDS)


def serve_for_pytest() -> None:
    """Serve the page of a run of the pytest that has started this process, which says on stdin how.

    The first line has the socket, the token and the settings; each further one the ledger. When
    stdin ends, so has pytest: the page goes on for its readers alone. What becomes of it then is
    said on stdout.
    """
    from pytest_manifest.reporting.live_page.content import RunContent
    from pytest_manifest.reporting.live_page.server import LiveServer

    given = json_module.loads(sys.stdin.readline())
    configure(names=given["names"], is_on=given["redacts"])
    hide_environment()
    if given["accepts"]:
        ACCEPTANCE.now.begin_by(given["accepts"])
    opened = partial(StoredRun.open, by_settings=False)
    content = RunContent(opened, control=given["control"], root=Path(given["root"]))
    server = LiveServer(socket.socket(fileno=given["socket"]), given["token"], content)
    follower = threading.Thread(target=_follow, args=(sys.stdin, content, server), daemon=True)
    follower.start()
    server.serve_forever(_POLL_SECONDS)


def _follow(lines: TextIO, content: RunContent, server: LiveServer) -> None:
    """Show the ledgers that pytest names until it ends, and end once nobody reads the page."""
    for line in lines:
        content.path = Path(json_module.loads(line)["ledger"])
    stays = server.is_read(LEFT_SECONDS)
    with suppress(OSError):
        sys.stdout.write("stays\n" if stays else "ends\n")
        sys.stdout.flush()
    while server.is_read(LEFT_SECONDS):
        time.sleep(_POLL_SECONDS)
    server.close()
