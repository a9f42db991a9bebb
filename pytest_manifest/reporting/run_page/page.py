"""Write a page from top to bottom, in one pass over the run's records.

Collect the details of an entry for a page that opens it, with long texts cut.

Assemble the page's fixed parts: template, our styles and scripts, vendored libraries.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import cache
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from pydantic import JsonValue

from pytest_manifest.analysis.records import AttemptRecord, EntryRecord, origin_text
from pytest_manifest.errors import ManifestToolError
from pytest_manifest.files import FILE_MODE, folder_of
from pytest_manifest.manifest.writer import atomic_file
from pytest_manifest.reporting.figures import action_phrases, slowed_phrases
from pytest_manifest.reporting.next_step import RunAgain, worker_logs
from pytest_manifest.reporting.run_page import columns
from pytest_manifest.reporting.run_page.sections import section_documents
from pytest_manifest.reporting.run_report import ReportedRun, RunReport, add_artifact
from pytest_manifest.reporting.summary import compare_with_last, records_of, summary_of
from pytest_manifest.schema import Receipt
from pytest_manifest.schema.statuses import STATUSES, outcome_of
from pytest_manifest.schema.summary import RunSummary, SummaryComparison
from pytest_manifest.text import pictured, short_path

if TYPE_CHECKING:
    from pytest_manifest.run.run import Run


ASSETS: Final = Path(__file__).with_name("assets")
VENDOR: Final = Path(__file__).with_name("vendor")
LIBRARIES: Final = ("uPlot.iife.min.js", "tabulator.min.js")
STYLES: Final = ("uPlot.min.css", "tabulator_simple.min.css")
_ASSETS: Final = (
    "page.css",
    *("elements.js", "base.js", "names.js", "clocks.js", "again.js", "panel.js", "details.js"),
    *("trees.js", "plots.js", "timeline.js", "summary.js", "entries.js", "address.js", "main.js"),
)
"""Our styles and, in this order, our scripts."""
_MAP: Final = re.compile(r"(//|/\*)# sourceMappingURL=[^\s*]+( \*/)?")
"""Links to source maps, which a browser would look for; the page has none."""


@cache
def _frame() -> tuple[str, str]:
    """Return what stands before the data, and behind it: the template with styles and scripts.

    Its policy allows just these.
    """
    styles, scripts = ([vendored(name) for name in names] for names in (STYLES, LIBRARIES))
    css, *ours = ((ASSETS / name).read_text("utf-8") for name in _ASSETS)
    styles.append(css)
    scripts.append(f"(function () {{\n'use strict';\n{''.join(ours)}}})();\n")
    head, _, tail = template(ASSETS / "page.html").partition("{{data}}")
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; "
        f"style-src {hashes(styles)}; script-src {hashes(scripts)}"
    )
    head = head.replace("{{policy}}", policy)
    head = head.replace("{{styles}}", "".join(f"<style>{css}</style>\n" for css in styles))
    # The libraries' licences, which must go wherever they go, in an HTML comment.
    licences = [path.read_text("utf-8").strip() for path in sorted(VENDOR.glob("LICENSE.*.txt"))]
    tail = tail.replace("{{licences}}", "\n\n".join(licences).replace("--", "- -"))
    tail = tail.replace("{{scripts}}", "".join(f"<script>{js}</script>\n" for js in scripts))
    return head, tail


def template(path: Path) -> str:
    """Return a page's template: the head that all pages have, and what is in this file."""
    return (ASSETS / "head.html").read_text("utf-8") + path.read_text("utf-8")


def vendored(name: str) -> str:
    """Return the text of a file of a library, without the link to its source map."""
    return _MAP.sub("", (VENDOR / name).read_text("utf-8"))


def hashes(texts: Sequence[str]) -> str:
    """Return the sources of a policy that allow just these inline texts."""
    digests = [hashlib.sha256(text.encode()).digest() for text in texts]
    return " ".join(f"'sha256-{base64.b64encode(one).decode()}'" for one in digests)


MOST_CAUSES: Final = 50
MOST_CHANGES: Final = 200


def shown(value: object) -> object:
    """Return a JSON value as a page has it: texts visible, numbers rounded."""
    if isinstance(value, dict):
        return {name: shown(one) for name, one in value.items()}
    if isinstance(value, list):
        return [shown(one) for one in value]
    if isinstance(value, str):
        return pictured(value)
    return columns.rounded(value) if isinstance(value, float) else value


def statistics_document(summary: RunSummary) -> dict[str, object]:
    """Return the run's figures, without what the page has elsewhere."""
    found = summary.statistics
    figures = found.model_dump(exclude={"began", "ended", "descendants"})
    figures["causes"] = figures["causes"][:MOST_CAUSES]
    return {name: shown(value) for name, value in figures.items()} | {
        "more_causes": max(0, len(found.causes) - MOST_CAUSES),
        "cost": columns.rounded(summary.cost.total, columns.COST_DIGITS),
    }


def changes_document(found: SummaryComparison) -> dict[str, object]:
    """Return the changes since the other run; long lists are cut, with their full number."""
    return {
        name: {"count": len(value), "items": shown(value[:MOST_CHANGES])}
        if isinstance(value, list)
        else shown(value)
        for name, value in found.model_dump().items()
    }


Since = Callable[[datetime | None], float | None]
"""Seconds since the page's origin."""

_FAILURES_FIRST: Final = 4
"""Factor by which the texts of an entry that has not passed may be longer."""
_MISMATCHES: Final = 100


class Shortening:
    """Cut texts to ``limit`` characters, all visible; ``left_out`` counts those cut, by name."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.left_out: dict[str, int] = {}

    def head(self, name: str, text: str) -> str:
        """Return the beginning of a text."""
        return self._cut(name, text, pictured(text[: self.limit]))

    def tail(self, name: str, text: str) -> str:
        """Return the end of a text, which matters most in tracebacks and logs."""
        return self._cut(name, text, pictured(text[-self.limit :]))

    def json(self, name: str, value: JsonValue) -> str:
        """Return the beginning of a value as JSON."""
        return self.head(name, json.dumps(value, ensure_ascii=False, indent=2))

    def _cut(self, name: str, text: str, shown: str) -> str:
        if len(text) > self.limit:
            self.left_out[name] = self.left_out.get(name, 0) + len(text) - self.limit
        return shown


def details(record: EntryRecord, since: Since, limit: int) -> dict[str, object]:
    """Return everything about an entry as JSON values, each text of at most ``limit`` characters.

    An entry that has not passed may have four times as many.
    """
    text = Shortening(limit if record.outcome == "passed" else limit * _FAILURES_FIRST)
    entry, receipt, verdict = record.entry, record.receipt, record.verdict
    expected = entry.expect.model_dump(mode="json", by_alias=True, exclude_unset=True)
    shown: dict[str, object] = {
        "sentence": "" if verdict is None else text.head("verdict", record.sentence or ""),
        "args": text.json("args", list(entry.args)) if entry.args else None,
        "kwargs": text.json("kwargs", dict(entry.kwargs)) if entry.kwargs else None,
        "meta": text.json("meta", dict(entry.meta)) if entry.meta else None,
        "expected": text.json("expected", expected) if expected else None,
        "actual": _actual(record, text),
        "attempts": [_attempt(attempt, since) for attempt in record.attempts],
        "facts": [[name, text.head(name, value)] for name, value in _metadata(record)],
    }
    if verdict is not None and verdict.mismatches:
        some = verdict.mismatches[:_MISMATCHES]
        shown["mismatches"] = [
            [text.head("mismatches", part) for part in (m.path, m.expected, m.actual)] for m in some
        ]
        if len(verdict.mismatches) > len(some):
            shown["more_mismatches"] = len(verdict.mismatches) - len(some)
    if receipt is not None:
        shown |= _receipt(receipt, record, text)
    if text.left_out:
        shown["left_out"] = text.left_out
    return {name: value for name, value in shown.items() if value is not None}


def _receipt(receipt: Receipt, record: EntryRecord, text: Shortening) -> dict[str, object]:
    shown: dict[str, object] = {}
    if receipt.log:
        shown["log"] = text.tail("log", "\n".join(receipt.log))
        shown["dropped"] = receipt.log_dropped or None
    if receipt.evidence:
        shown["evidence"] = text.json("evidence", dict(receipt.evidence))
    error = receipt.error
    if error is not None:
        shown["error"] = {
            "type": text.head("error", error.type),
            "message": text.head("error", error.message),
            "place": None if record.error_place is None else pictured(record.error_place),
            "traceback": text.tail("traceback", error.traceback) if error.traceback else None,
        }
    if receipt.state == "succeeded":
        shown["result"] = text.json("result", receipt.result)
    return shown


def _actual(record: EntryRecord, text: Shortening) -> str | None:
    """Return the receipt's values for what the manifest's line expects, in its order, as JSON."""
    receipt, written = record.receipt, record.entry.expect.model_fields_set
    if receipt is None or not written:
        return None
    error = receipt.error
    answers: dict[str, JsonValue] = {"state": receipt.state}
    if {"result", "result_schema"} & written:
        answers["result"] = receipt.result
    if "error" in written or error is not None:
        answers["error"] = None if error is None else {"type": error.type, "message": error.message}
    times = {
        "max_runtime": columns.rounded(receipt.runtime),
        "max_wait": columns.rounded(receipt.wait),
    }
    numbers = times | {"executions": receipt.executions}
    answers |= {name.removeprefix("max_"): numbers[name] for name in numbers if name in written}
    return text.json("actual", answers)


def _attempt(attempt: AttemptRecord, since: Since) -> dict[str, object]:
    plain = ("number", "task_id", "kind", "reason", "wait", "runtime", "place", "host")
    found = {
        **{name: shown(getattr(attempt, name)) for name in plain},
        "outcome": outcome_of(attempt.kind),
        "sentence": attempt.sentence and pictured(attempt.sentence)[: columns.SENTENCE],
        "sent": since(attempt.sent_at),
        "received": since(attempt.received_at),
        "started": since(attempt.started_at),
        "finished": since(attempt.finished_at),
        "executions": attempt.executions if attempt.executions > 1 else None,
        "redelivered": attempt.redelivered or None,
        "retries": attempt.retries or None,
        "cost": columns.rounded(attempt.cost, columns.COST_DIGITS),
    }
    return {name: value for name, value in found.items() if value is not None}


def _metadata(record: EntryRecord) -> list[tuple[str, str]]:
    """Return labels and texts of short facts."""
    entry, receipt = record.entry, record.receipt
    rows = [
        ("line", str(record.line)),
        ("timeout", f"{entry.timeout:g} s"),
        ("after", ", ".join(entry.after)),
        *((f"key {name}", value) for name, value in entry.key.items()),
        ("retries allowed", str(entry.retries or "")),
        ("estimated cost", "" if entry.cost is None else f"{entry.cost:g}"),
        ("idempotent", "yes" if entry.idempotent else "no"),
        ("queue", (receipt and receipt.queue) or entry.queue or ""),
        ("reused from", "" if record.reused_from is None else origin_text(record.reused_from)),
    ]
    if receipt is not None:
        memory = receipt.max_rss
        rows += [
            ("state", receipt.state.replace("_", " ")),
            ("reported by", receipt.source),
            ("CPU", "" if receipt.cpu is None else f"{receipt.cpu:.3g} s"),
            ("memory, at most", "" if memory is None else f"{memory / 2**20:,.0f} MiB"),
            ("replaced", "by another task" if receipt.replaced else ""),
            ("code", receipt.code or ""),
        ]
    return [row for row in rows if row[1]]


# The page

BLOCK: Final = 200
"""Entries whose details are compressed together; opening one unpacks its block."""
DETAILS_BUDGET: Final = 4_500_000
"""Bytes of a page for details; table, plots and libraries take 1.2 MB at 10,000 entries."""
LONGEST: Final = 20_000
SHORTEST: Final = 300
"""Characters to which a passed entry's text is cut, at most and at least."""
FORMAT: Final = 1
_BREAKS_OUT: Final = re.compile("[<>&]")


@dataclass(frozen=True)
class PageMetadata:
    """The data of a page beside the records of its entries.

    ``sections``: those that projects add, as ``section_documents`` returns them; ``again``: how one
    entry is run again; ``logs``: worker and address, seen from the page, of workers' logs.
    """

    summary: RunSummary
    comparison: SummaryComparison | None = None
    trees: columns.TreeSource | None = None
    sections: Sequence[dict[str, object]] = ()
    again: RunAgain | None = None
    logs: Sequence[tuple[str, str]] = ()
    written: datetime = field(default_factory=lambda: datetime.now(timezone.utc))

    def document(self) -> dict[str, object]:
        """Return what the run was, and when the page was written."""
        run, again = self.summary.run, self.again
        remarks = [
            *run.findings,
            *slowed_phrases(run.throttled),
            *action_phrases(run.actions),
            *([f"The run gave up: {run.error}"] if run.error else []),
        ]
        return {
            "manifest": pictured(Path(run.manifest).name),
            "remarks": shown(remarks),
            **{
                name: shown(getattr(run, name))
                for name in ("workflow", "mode", "broker", "backend", "status")
            },
            "id": run.run,
            "created": run.created_at.isoformat(),
            "stack": "private" if run.owned else "existing",
            "sha256": run.manifest_sha256,
            "written": self.written.isoformat(timespec="seconds"),
            "again": None if again is None else [again.manifest, again.arguments],
            "logs": [list(one) for one in self.logs],
        }


def write_page(
    path: Path, metadata: PageMetadata, records: Iterable[EntryRecord], mode: int = FILE_MODE
) -> None:
    """Write the page, whole or not at all, to a file of this mode.

    Raises OSError if it cannot be written.
    """
    (head, tail), run = _frame(), metadata.summary.run
    plan = ":".join(part for part in (run.workflow, run.mode) if part)
    title = f"{plan or Path(run.manifest).name} - run {run.run}"
    folder_of(path, mode)
    with atomic_file(path, mode) as file:
        file.write(head.replace("{{title}}", html.escape(pictured(title)), 1).encode())
        _Body(file, metadata).write(records)
        file.write(tail.encode())


class _Body:
    """Write details in blocks as records come, then everything else."""

    def __init__(self, file: IO[bytes], metadata: PageMetadata) -> None:
        self._file = file
        self._metadata = metadata
        self._columns = columns.Columns(metadata.summary.run.created_at)
        self._over_time = columns.OverTime(self._columns.origin, metadata.written)
        source = metadata.trees
        self._trees = None if source is None else columns.TreeColumns(self._columns, source)
        self._blocks = 0
        self._expected = max(metadata.summary.statistics.entries, 1)
        # As if nothing could be compressed; the next limits are measured.
        first = max(DETAILS_BUDGET / self._expected / 2, SHORTEST * 4)
        self._limit = int(min(first, LONGEST))
        self._spent = 0

    def write(self, records: Iterable[EntryRecord]) -> None:
        """Write the details of each record, and all data after the last one."""
        found = map(self._details, records)
        while block := list(islice(found, BLOCK)):
            self._write_block(block)
        self._write_data()

    def _details(self, record: EntryRecord) -> dict[str, object]:
        """Collect an entry's row, points and trees, and return its details."""
        self._columns.add(record)
        self._over_time.add(record.receipt)
        if self._trees is not None:
            self._trees.add((len(self._columns.rows["id"]) - 1) % BLOCK, record)
        return details(record, self._columns.since, self._limit)

    def _write_block(self, block: list[dict[str, object]]) -> None:
        self._spent += self._write_packed(f"details-{self._blocks}", block)
        if self._trees is not None and (trees := self._trees.close_block(self._blocks)):
            self._write_packed(f"trees-{self._blocks}", trees)
        self._blocks += 1
        self._limit = self._next_limit(len(block))

    def _write_packed(self, name: str, value: object) -> int:
        """Write a value that the page unpacks when it is asked for; return its bytes."""
        packed = gzip.compress(script_json(value).encode(), compresslevel=6, mtime=0)
        block = base64.b64encode(packed)
        self._file.write(b'<script type="text/plain" id="%b">' % name.encode())
        self._file.write(block)
        self._file.write(b"</script>\n")
        return len(block)

    def _next_limit(self, just_now: int) -> int:
        """Return the limit at which the entries left would use the bytes left, within bounds.

        It supposes that their texts compress as well as those so far.
        """
        done = len(self._columns.rows["id"])
        rest = max(self._expected - done, just_now)
        share = (DETAILS_BUDGET - self._spent) / rest
        taken = self._spent / done
        return int(min(max(self._limit * share / taken, SHORTEST), LONGEST))

    def _write_data(self) -> None:
        about, comparison = self._metadata, self._metadata.comparison
        self._columns.number_causes(about.summary.statistics.causes)
        document = {
            "format": FORMAT,
            "run": about.document(),
            "figures": statistics_document(about.summary),
            "comparison": None if comparison is None else changes_document(comparison),
            "statuses": {name: one.outcome for name, one in STATUSES.items()},
            "details": {"size": BLOCK, "blocks": self._blocks},
            "over_time": self._over_time.document(),
            "trees": None if self._trees is None else self._trees.document(),
            "sections": list(about.sections),
            **self._columns.document(),
        }
        self._file.write(b'<script type="application/json" id="data">')
        self._file.write(script_json(document).encode())
        self._file.write(b"</script>\n")


def write_run_page(report: RunReport, run: Run) -> None:
    """Write the run's page to the file that the options name.

    A fault becomes a warning of the run, and the other files are written all the same.
    """
    if (path := report.options.report) is None:
        return
    if len(report.runs) > 1:  # each has its own beside it
        path = path.with_name(f"{path.stem}-{run.info.run}{path.suffix}")
    with report.writing("the run page was not written", run):
        found, sections = summary_of(run, report.config), _sections(report, run)
        comparison = found.comparison
        if report.options.compare is None:
            with suppress(ManifestToolError):
                comparison = compare_with_last(run, report)
        about = PageMetadata(found, comparison, sections=sections)
        options = report.options
        write_page_of(run, path, about, options.root, options.report_mode, options.stack_arguments)
        add_artifact(report.config, "page", path, run.info.run)


def write_page_of(
    run: ReportedRun, path: Path, about: PageMetadata, root: Path, mode: int, arguments: str = ""
) -> None:
    """Write the page of a run, whose manifest is typed as seen from ``root``.

    ``arguments``: what the command that runs an entry again needs beside. Raises OSError,
    ManifestError or LedgerError.
    """
    again = RunAgain(short_path(run.manifest.path, root), arguments)
    logs = list(worker_logs(run, path.parent))
    with run.read() as ledger, records_of(run) as records:
        trees = columns.trees_of(ledger)
        write_page(path, replace(about, trees=trees, again=again, logs=logs), records, mode)


def _sections(report: RunReport, run: Run) -> list[dict[str, object]]:
    """Return the sections that hooks add; where one fails, none: the page is written without."""
    with report.writing("the run page has no added sections", run):
        hook = report.config.hook.pytest_manifest_sections
        found = hook(config=report.config, run=run)
        # pluggy calls the hook that was registered last first; sections stand in reading order.
        return section_documents(one for added in reversed(found) for one in added)
    return []


def script_json(value: object) -> str:
    """Return ASCII JSON that cannot end a script element or open a comment, whatever it holds."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return _BREAKS_OUT.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
