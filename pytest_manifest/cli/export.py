"""Write what a run has left in a format for other programs: ``manifest export``."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Final

import typer
from pydantic import JsonValue
from pydantic_core import to_json

from pytest_manifest.cli import arguments
from pytest_manifest.cli.output import answer, check_target
from pytest_manifest.cli.stored_run import StoredRun, report_mode
from pytest_manifest.files import FILE_MODE, folder_of
from pytest_manifest.manifest.writer import atomic_file, write_receipt_lines, writing
from pytest_manifest.redaction.texts import redact_url
from pytest_manifest.reporting.formats import BY_NAME, FORMATS, otlp_requests

_OWN: Final = ("receipts", "summary", "markdown", "page")
NAMES: Final = (*_OWN, *BY_NAME)
"""The formats of ``manifest export``: this project's own, then those of others."""

_FOREIGN: Final = "; ".join(f"{one.name}: {one.about}" for one in FORMATS)


def _known(name: str) -> str:
    if name not in NAMES:
        raise typer.BadParameter(f"{name!r} is none of {', '.join(NAMES)}.")
    return name


def export(
    run: arguments.RunId,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            "-f",
            callback=_known,
            autocompletion=lambda: list(NAMES),
            help=f"receipts: JSON lines; summary: a JSON document; markdown, page: the report of "
            f"what was completed; {_FOREIGN}",
        ),
    ] = "receipts",
    output: arguments.Output = None,
    endpoint: Annotated[
        str | None,
        typer.Option(metavar="URL", help="with --format=otlp: send it to a collector"),
    ] = None,
    force: arguments.Force = False,
    folder: arguments.Folder = None,
    json: arguments.Json = False,
) -> None:
    """Write what a run has left, in its own formats or in open ones.

    RUN is a run's id, the beginning of one, "last", or the path of a ledger.
    """
    if endpoint is not None:
        if form != "otlp" or output is not None:
            raise typer.BadParameter("--endpoint goes with --format=otlp, and without --output.")
        _send(StoredRun.named(run, folder), endpoint, json=json)
        return
    stored, mode = StoredRun.named(run, folder), report_mode()
    check_target(output, force=force, json=json)
    if output is None:
        with tempfile.TemporaryDirectory(prefix="manifest-export-") as scratch:
            path = Path(scratch) / "export"
            _write(form, stored, path, Path.cwd(), FILE_MODE)
            with path.open("rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer)
        return
    with writing(output):
        folder_of(output, mode)
    _write(form, stored, output, output.parent, mode)
    name, size = stored.info.run, output.stat().st_size
    document: dict[str, JsonValue] = {"run": name, "format": form, "file": str(output)}
    answer(document | {"bytes": size}, [f"{form} of run {name} in {output}"], json=json)


def _send(run: StoredRun, endpoint: str, *, json: bool) -> None:
    """Send the run's spans and metrics. Raises StackError where they are not taken."""
    from pytest_manifest.reporting.otlp.collector import Collector

    collector, size = Collector(endpoint), 0
    for signal, document in otlp_requests(run):
        collector.send(signal, document)
        size += len(to_json(document))
    name, shown = run.info.run, redact_url(endpoint)
    about: dict[str, JsonValue] = {"run": name, "format": "otlp", "file": shown, "bytes": size}
    only = "" if collector.takes_metrics else ", which takes no metrics"
    answer(about, [f"otlp of run {name} sent to {shown}{only}"], json=json)


def _write_receipts(run: StoredRun, path: Path, _home: Path, mode: int) -> None:
    from pytest_manifest.run.exports import exported_lines

    with run.read() as ledger:
        write_receipt_lines(path, exported_lines(ledger), mode=mode)


def _write_summary(run: StoredRun, path: Path, _home: Path, mode: int) -> None:
    from pytest_manifest.reporting.summary import SummaryWriter, make_summary

    with SummaryWriter() as writer:
        writer.finish(make_summary(run, Path.cwd(), take=writer.add))
        writer.write(path, mode)


def _write_markdown(run: StoredRun, path: Path, home: Path, mode: int) -> None:
    from pytest_manifest.reporting.markdown import Links, markdown
    from pytest_manifest.reporting.summary import make_summary

    text = markdown(run, make_summary(run, Path.cwd()), Links(home), Path.cwd())
    with atomic_file(path, mode) as file:
        file.write(text.encode())


def _write_page(run: StoredRun, path: Path, _home: Path, mode: int) -> None:
    from pytest_manifest.reporting.run_page.page import PageMetadata, write_page_of
    from pytest_manifest.reporting.summary import make_summary

    about = PageMetadata(make_summary(run, Path.cwd()))
    write_page_of(run, path, about, Path.cwd(), mode)


_WRITERS: Final[Mapping[str, Callable[[StoredRun, Path, Path, int], None]]] = {
    "receipts": _write_receipts,
    "summary": _write_summary,
    "markdown": _write_markdown,
    "page": _write_page,
}


def _write(form: str, run: StoredRun, path: Path, home: Path, mode: int) -> None:
    if form in _WRITERS:
        _WRITERS[form](run, path, home, mode)
        return
    from pytest_manifest.reporting.summary import make_summary

    BY_NAME[form].write(run, make_summary(run, Path.cwd()), path, mode)
