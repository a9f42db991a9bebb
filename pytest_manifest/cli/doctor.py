"""Say why a run does not move: ``manifest doctor``."""

from __future__ import annotations

import os
import shutil
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from pytest_manifest.cli import FOUND, arguments
from pytest_manifest.cli.arguments import complete_run
from pytest_manifest.cli.output import say, write_json
from pytest_manifest.cli.stored_run import LAST, StoredRun, put_root_on_path, pytest_setting
from pytest_manifest.errors import StackError
from pytest_manifest.redaction.texts import HIDDEN, redact_url
from pytest_manifest.text import duration, plural, printable
from pytest_manifest.urls import StackAddress, is_in_process

if TYPE_CHECKING:
    from pytest_manifest.run.diagnosis import Stack
    from pytest_manifest.schema.diagnosis import Diagnosis, DiagnosisFinding

NARROWEST: Final = 40
WIDEST: Final = 120
CELERYS: Final = "/celery/app/trace.py"
"""The file of Celery that calls tasks."""

Run = Annotated[
    str, typer.Argument(metavar="[RUN]", autocompletion=complete_run, show_default=False)
]
App = Annotated[
    str | None,
    typer.Option(metavar="MODULE:APP", help="default: MANIFEST_APP, or pytest's manifest_app"),
]
Broker = Annotated[
    str | None,
    typer.Option(metavar="URL", help="the run's broker, where its password is not known here"),
]
Backend = Annotated[
    str | None, typer.Option(metavar="URL", help="the run's result store, likewise")
]


def doctor(
    run: Run = LAST,
    app: App = None,
    broker: Broker = None,
    backend: Backend = None,
    folder: arguments.Folder = None,
    json: arguments.Json = False,
) -> None:
    """Say why a run does not move.

    Reads its ledger and asks its broker, workers and result store; changes nothing. The exit status
    is 1 where something is found. RUN is a run's id, the beginning of one, "last" (the default), or
    the path of a ledger.
    """
    stored = StoredRun.named(run, folder)

    from pytest_manifest.run.diagnosis import diagnose

    stack = _stack_of(stored, app, broker, backend)
    with stored.read() as ledger:
        found = diagnose(ledger, stored.manifest, stored.files, stack)
    if json:
        write_json(found.model_dump(mode="json"))
    else:
        for line in _lines(found):
            say(line)
    if found.findings:
        raise typer.Exit(FOUND)


# The stack


def _stack_of(
    stored: StoredRun, named: str | None, broker: str | None, backend: str | None
) -> Stack:
    """Return the stack that a run was sent to, as far as it can be found from here."""
    from pytest_manifest.broker.client import load_app
    from pytest_manifest.run.diagnosis import Stack
    from pytest_manifest.stack.state import private_stack

    app, unusable = named or os.environ.get("MANIFEST_APP") or pytest_setting("manifest_app"), ""
    if app is not None:
        try:
            put_root_on_path()
            load_app(StackAddress("", "", app, is_private=False))
        except StackError as error:
            app, unusable = None, str(error)
    if is_in_process(stored.info.broker):
        found, why = None, "it is in the memory of the pytest that follows the run"
    elif stored.info.is_private and broker is None:
        with stored.read() as ledger:
            data = ledger.info.get_meta("stack_data")
        found = private_stack(Path(data), app) if data else None
        why = "the run's private stack is gone, with the pytest that had started it"
    else:
        found = _external(stored, app, broker, backend)
        why = (
            f"the run was sent to {stored.info.broker}, and nothing here names that with its "
            "password; name it with --broker=URL"
        )
    return Stack(found, why, app or "APP", unusable)


def _external(
    stored: StoredRun, app: str | None, broker: str | None, backend: str | None
) -> StackAddress | None:
    """Return the existing stack of a run; None where its broker's password is not known."""
    from pytest_manifest.broker.client import load_app, own_broker
    from pytest_manifest.broker.stores import own_store
    from pytest_manifest.stack.state import running_stack

    info, running = stored.info, running_stack()
    if broker is None and running is not None and redact_url(running.broker_url) == info.broker:
        return running
    known = [os.environ.get("CELERY_BROKER_URL"), pytest_setting("manifest_broker")]
    loaded = None if app is None else load_app(StackAddress("", "", app, is_private=False))
    if loaded is not None and (own := own_broker(loaded)):
        known.append(own.url)
    url = broker or _match(info.broker, known)
    if url is None:
        return None
    stores = [url, os.environ.get("CELERY_RESULT_BACKEND"), pytest_setting("manifest_backend")]
    stores += [] if loaded is None else [own_store(loaded, url)]
    store = backend or _match(info.backend, stores) or info.backend
    return StackAddress(url, store, app, is_private=False)


def _match(shown: str, known: Iterable[str | None]) -> str | None:
    """Return which of these a ledger shows without its password; itself, where it has none."""
    found = next((one for one in known if one and redact_url(one) == shown), None)
    return found if found is not None or HIDDEN in shown else shown


# What is printed


def _lines(found: Diagnosis) -> Iterator[str]:
    yield (
        f"run {found.run} of {found.manifest} ({found.status}): {found.judged:,} judged, "
        f"{found.in_flight:,} in flight, {found.unsent:,} not sent"
    )
    follower = "a pytest follows it" if found.is_followed else "no pytest follows it"
    if found.last_write is not None:
        ago = duration(max(0.0, (found.at - found.last_write).total_seconds()))
        follower += f"; its ledger was written last {ago} ago"
    yield follower + (", and was written just now: it moves" if found.moves else "")
    if found.last_word and found.status != "finished":
        yield from _wrapped("last word ", found.last_word)
    for hold in found.holds:
        yield from _wrapped("not sent  ", f"{hold.sentence} ({hold.why})")
    for number, finding in enumerate(found.findings, 1):
        yield ""
        yield from _of_finding(number, finding)
    if found.unseen:
        yield ""
    for one in found.unseen:
        yield from _wrapped("cannot see ", f"{one.what}: {one.why}")
    yield ""
    seen = ", ".join(found.looked_at)
    many = plural(len(found.findings), "finding")
    yield from _wrapped("", f"{many if found.findings else 'nothing found'}; looked at {seen}")


def _of_finding(number: int, finding: DiagnosisFinding) -> Iterator[str]:
    yield from _wrapped(f"{number}. ", finding.sentence)
    for one in finding.evidence:
        yield from _wrapped("   seen: ", one)
    if finding.stacks:
        yield "   its process does:"
        yield from (f"     {line}" for line in _own_frames(printable(finding.stacks)))
    yield from _wrapped("   do: ", finding.remedy)


def _own_frames(stacks: str) -> Iterator[str]:
    """Yield the frames of tasks, without Celery's below them; all where no thread runs a task."""
    threads = [one.splitlines() for one in stacks.split("\n\n") if one.strip()]
    of_tasks = [one for one in threads if any(CELERYS in line for line in one)]
    for lines in of_tasks or threads:
        own = next((n for n, line in enumerate(lines) if CELERYS in line), len(lines))
        yield from lines[:own]
        if own < len(lines):
            yield f"  and {len(lines) - own} of Celery's below; --json has all"


def _wrapped(head: str, text: str) -> list[str]:
    """Break a line as the terminal is wide; what follows stands below its text."""
    width = min(max(shutil.get_terminal_size().columns, NARROWEST), WIDEST)
    whole = f"{head}{' '.join(printable(text).split())}"
    indent = " " * (len(head) - len(head.lstrip()) + 3)
    return textwrap.wrap(
        whole, width, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
    )
