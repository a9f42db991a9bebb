"""Write the page of many runs: one self-contained HTML file, with the run page's styles."""

from __future__ import annotations

from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Final

from pytest_manifest.analysis.digest import all_digests, without_parts
from pytest_manifest.analysis.many_runs import by_manifest, name_of, over_time
from pytest_manifest.files import FILE_MODE, folder_of
from pytest_manifest.manifest.writer import atomic_file
from pytest_manifest.reporting.run_page.page import ASSETS as SHARED
from pytest_manifest.reporting.run_page.page import hashes, script_json, shown, template
from pytest_manifest.reporting.run_report import RunReport, add_artifact
from pytest_manifest.schema.over_time import EntryOverTime, ManifestOverTime, RunsOverTime
from pytest_manifest.schema.run_digest import RunDigest

ASSETS: Final = Path(__file__).with_name("assets")


@cache
def _frame() -> tuple[str, str]:
    """Return what stands before the data, and behind it. Its policy allows just our own parts."""
    css, _, _ = (SHARED / "page.css").read_text("utf-8").partition("#print-table {")
    style = css + (ASSETS / "history.css").read_text("utf-8")
    ours = [(SHARED / "elements.js"), (ASSETS / "history.js")]
    code = "".join(path.read_text("utf-8") for path in ours)
    script = f"(function () {{\n'use strict';\n{code}}})();\n"
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; "
        f"style-src {hashes([style])}; script-src {hashes([script])}"
    )
    head, _, tail = template(ASSETS / "history.html").partition("{{data}}")
    head = head.replace("{{policy}}", policy).replace("{{styles}}", f"<style>{style}</style>\n")
    return head, tail.replace("{{scripts}}", f"<script>{script}</script>\n")


def write_history_page(path: Path, found: RunsOverTime, mode: int = FILE_MODE) -> None:
    """Write the page, whole or not at all, to a file of this mode. Raises OSError."""
    head, tail = _frame()
    document = {
        "written": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "manifests": [_document(one) for one in found.manifests],
    }
    data = f'<script type="application/json" id="data">{script_json(document)}</script>\n'
    folder_of(path, mode)
    with atomic_file(path, mode) as file:
        file.write(f"{head}{data}{tail}".encode())


def write_history_of_session(report: RunReport, path: Path) -> None:
    """Write the page of all runs that the manifests of a session have had, with those of it.

    A fault becomes a warning of the first run.
    """
    options, run = report.options, report.runs[0]
    with report.writing("the page of runs over time was not written", run):
        found: dict[str, RunDigest] = {}
        for one in report.runs:
            found |= all_digests(options.ledgers, one.manifest.path)
        if found:
            history = over_time(by_manifest(without_parts(found.values())))
            write_history_page(path, history, options.report_mode)
            add_artifact(report.config, "history", path)


def _document(found: ManifestOverTime) -> object:
    """Return a history as the page has it: entries, of which there are most, as lists."""
    document = found.model_dump(mode="json", exclude_defaults=True, exclude={"entries"})
    tasks = {one.task: number for number, one in enumerate(found.tasks)}
    entries = [_entry(one, tasks.get(one.task, -1)) for one in found.entries]
    return shown({**document, "name": name_of(found.manifest), "entries": entries})


def _entry(one: EntryOverTime, task: int) -> list[object]:
    return [one.id, task, one.kind, one.states, one.since, one.bad, one.runs, [*one.formerly]]
