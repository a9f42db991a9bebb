"""Write a run's summary in Markdown, for the page of a step on GitHub or a file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import quote

from typing_extensions import Self

from pytest_manifest.analysis.statistics import Statistics
from pytest_manifest.ledger import BUDGET
from pytest_manifest.reporting import descendants
from pytest_manifest.reporting.markdown import code, escaped, fenced, link, table
from pytest_manifest.reporting.next_step import RunAgain
from pytest_manifest.reporting.run_report import ReportedRun, run_files
from pytest_manifest.reporting.terminal_statistics import duration_phrase
from pytest_manifest.schema import cost_text
from pytest_manifest.schema.summary import (
    SummaryCause,
    SummaryChange,
    SummaryComparison,
    SummarySpread,
    SummaryTask,
    SummaryTimeChange,
)
from pytest_manifest.text import limits_phrase, many, plural, short_path
from pytest_manifest.verdict.explanation import counts_text, ends_text

if TYPE_CHECKING:
    from pytest_manifest.manifest import Manifest


TASKS: Final = 50
CAUSES: Final = 50
AGAIN: Final = 3
"""Causes of which the command is shown that runs their first entry again."""
CHANGES: Final = 20
"""Rows of each table, at most: GitHub shows no summary of more than 1 MiB."""
_MESSAGE: Final = 300


def markdown(
    run: ReportedRun,
    statistics: Statistics,
    comparison: SummaryComparison | None,
    links: Links,
    root: Path,
    arguments: str = "",
) -> str:
    """Return the summary of one run; ``links`` has the addresses of files and entries.

    ``arguments``: what the command that runs an entry again needs beside its manifest.
    """
    again = RunAgain(short_path(run.manifest.path, root), arguments)
    paragraphs = [
        _heading(run, statistics, links, root),
        _metadata(run, statistics),
        _verdicts(statistics),
        *_causes(statistics.causes, run.manifest, links, again),
        *_messages(run, statistics),
        *_tasks(statistics.tasks),
        *_trees(statistics, run.manifest, links),
        *_changes(comparison),
        *_files(run, links, root),
    ]
    return "\n\n".join(paragraphs) + "\n\n"


def _heading(run: ReportedRun, found: Statistics, links: Links, root: Path) -> str:
    name = link(short_path(run.manifest.path, root), links.manifest(run.manifest.path))
    passed = found.outcomes.get("passed", 0)
    bad = found.outcomes.get("failed", 0) + found.outcomes.get("error", 0)
    entries = plural(found.entries, "entry")
    if bad:
        return f"### ❌ {name}: {bad} of {entries} failed"
    if passed < found.entries:
        return f"### ⚠️ {name}: {passed} of {entries} passed"
    return f"### ✅ {name}: {entries} passed"


def _metadata(run: ReportedRun, found: Statistics) -> str:
    plan = ":".join(part for part in (run.info.workflow, run.info.mode) if part)
    phrases = [f"Run {code(run.info.run)}" + (f" of {code(plan)}" if plan else "")]
    if found.duration is not None:
        phrases.append(duration_phrase(found))
    if found.workers:
        phrases.append("1 worker process" if len(found.workers) == 1 else _processes(found))
    if reused := sum(found.reused.values()):
        phrases.append(f"{plural(reused, 'entry')} reused from {plural(len(found.reused), 'run')}")
    phrases += [plural(found.further_sendings, "further sending")] if found.further_sendings else []
    phrases += [f"retried {plural(found.retries, 'time')}"] if found.retries else []
    if found.redeliveries:
        phrases.append(f"delivered more than once: {found.redeliveries}")
    with run.read() as ledger:
        budget = ledger.info.get_meta(BUDGET)
        key_limits = limits_phrase(ledger.info.key_limits())
    if found.cost is not None:
        limit = f" of a budget of {cost_text(float(budget))}" if budget else ""
        phrases.append(f"cost {cost_text(found.cost)}{limit}")
    phrases += [escaped(key_limits)] if key_limits else []
    return ", ".join(phrases) + "."


def _processes(found: Statistics) -> str:
    return f"{len(found.workers)} worker processes"


def _messages(run: ReportedRun, found: Statistics) -> Iterator[str]:
    """Yield the run's error, warnings and advice as a quotation."""
    messages = [f"the run gave up: {run.error}"] if run.error is not None else []
    messages += [*run.warnings, *found.advice]
    if messages:
        yield "\n".join(f"> {escaped(one, 500)}<br>" for one in messages[:CHANGES])


def _verdicts(found: Statistics) -> str:
    pairs = sorted(found.verdicts.items(), key=lambda pair: -pair[1])
    open_entries = found.entries - sum(found.verdicts.values())
    rows = [[kind, str(count)] for kind, count in pairs]
    rows += [["no verdict", str(open_entries)]] if open_entries else []
    return table(["Verdict", "Entries"], "-r", rows)


def _tasks(tasks: Sequence[SummaryTask]) -> Iterator[str]:
    heads = ["Task", "Entries", "Passed", "Failed", "Errors", "Wait, s", "Run, s", "Per s"]
    rows = [
        [
            code(row.task),
            str(row.count),
            str(row.passed),
            str(row.failed),
            str(row.errors),
            _times(row.wait),
            _times(row.runtime),
            "" if row.throughput is None else f"{row.throughput:.3g}",
        ]
        for row in tasks[:TASKS]
    ]
    yield table(heads, "-rrrrrrr", rows)
    left = len(tasks) - len(rows)
    yield "Times: median / 95th percentile / longest." + (
        f" {plural(left, 'further task')} not shown." if left else ""
    )


def _times(spread: SummarySpread | None) -> str:
    if spread is None:
        return ""
    return " / ".join(f"{value:.3f}" for value in (spread.p50, spread.p95, spread.max))


def _causes(
    causes: Sequence[SummaryCause], manifest: Manifest, links: Links, again: RunAgain
) -> Iterator[str]:
    if not causes:
        return
    yield "#### Failures by cause"
    rows = [
        [
            str(cause.count),
            code(cause.title),
            ", ".join(_entries(cause.examples, manifest, links)),
            code(cause.message, _MESSAGE),
            escaped(cause.step, _MESSAGE),
        ]
        for cause in causes[:CAUSES]
    ]
    yield table(["Entries", "Cause", "Such as", "What it says", "Next"], "r----", rows)
    if len(causes) > CAUSES:
        rest = causes[CAUSES:]
        entries = sum(cause.count for cause in rest)
        yield f"{plural(len(rest), 'further cause')} of {entries} entries not shown."
    commands = [again.command(cause.examples[0]) for cause in causes[:AGAIN]]
    yield "Run the first of a cause again:"
    yield "\n\n".join(map(fenced, commands))


def _entries(ids: Iterable[str], manifest: Manifest, links: Links) -> Iterator[str]:
    for name in ids:
        line = manifest.line_of(name) if name in manifest else None
        yield link(name, links.manifest(manifest.path, line))


def _trees(found: Statistics, manifest: Manifest, links: Links) -> Iterator[str]:
    """Yield how the tasks that jobs started ended, those that failed, and the slowest tree."""
    trees = found.descendants
    lines = [escaped(line.strip()) for line in descendants.untold_lines(trees, found.entries)]
    if trees.number:
        of, ends = many(trees.entries, "entry"), escaped(ends_text(trees.statuses))
        lines.insert(0, f"{many(trees.number, 'descendant')} of {of}: {ends}.")
    if not lines:
        return
    yield "#### Descendants"
    yield "<br>\n".join(lines)
    if trees.failed:
        rows = [
            [
                *_entries([one.entry], manifest, links),
                escaped(counts_text(one.statuses)),
                f"{code(one.task)} ({one.status})",
                code(one.sentence, _MESSAGE),
            ]
            for one in trees.failed
        ]
        yield table(["Entry", "Its tree", "First failed", "What it says"], "----", rows)
    if trees.more_failed:
        yield f"{plural(trees.more_failed, 'further entry')} with failed descendants not shown."
    if trees.slowest is not None:
        (name,) = _entries([trees.slowest.entry], manifest, links)
        phrase = descendants.slowest_phrase(trees.slowest, name)
        path = code(descendants.path_text(trees.slowest), 1000)
        yield f"{phrase[0].upper()}{phrase[1:]}.<br>\nCritical path: {path}"


def _changes(comparison: SummaryComparison | None) -> Iterator[str]:
    if comparison is None:
        return
    yield f"#### Since run {code(comparison.before.run)}"
    counts = {
        "newly failing": len(comparison.newly_failing),
        "fixed": len(comparison.fixed),
        "still failing": len(comparison.still_failing),
        "added": len(comparison.added),
        "removed": len(comparison.removed),
        "with other results": len(comparison.changed_results),
    }
    counted = [f"{count} {what}" for what, count in counts.items() if count]
    if comparison.before.cost is not None and comparison.after.cost is not None:
        before, after = cost_text(comparison.before.cost), cost_text(comparison.after.cost)
        counted.append(f"cost {before} before, {after} now")
    yield (", ".join(counted) or "no entry changed") + "."
    rows = [*_change_rows("newly failing", comparison.newly_failing)]
    rows += _change_rows("fixed", comparison.fixed)
    if rows:
        yield table(["What", "Entry", "Before", "Now"], "----", rows)
    times = [*comparison.slower[:CHANGES], *comparison.faster[:CHANGES]]
    if times:
        rows = [_time_row(change) for change in times]
        yield table(["Task", "Median before, s", "Now, s", "Ratio"], "-rrr", rows)


def _change_rows(what: str, changes: Sequence[SummaryChange]) -> list[list[str]]:
    return [[what, code(one.id), one.before or "", one.after or ""] for one in changes[:CHANGES]]


def _time_row(change: SummaryTimeChange) -> list[str]:
    times = f"{change.before:.3f}", f"{change.after:.3f}"
    return [code(change.task), *times, f"{change.ratio:.2f}"]


def _files(run: ReportedRun, links: Links, root: Path) -> Iterator[str]:
    names = [
        f"{kind} {link(short_path(path, root), links.file(path))}"
        for kind, path in run_files(run)
        if kind != "manifest"
    ]
    artifacts = links.artifacts()
    if artifacts is not None:
        names.append(f"[artifacts of this run]({artifacts}), where the workflow keeps them")
    yield "Files: " + ", ".join(names) + "."


# Links to the repository on GitHub, or to the files beside a summary


class Links(Protocol):
    """Addresses for a summary; a method returns None if it has no address."""

    def manifest(self, path: Path, line: int | None = None) -> str | None:
        """Return the address of the manifest, or of one of its lines."""

    def file(self, path: Path) -> str | None:
        """Return the address of a file that the run has left."""

    def artifacts(self) -> str | None:
        """Return the address of the page on which CI keeps files."""


@dataclass(frozen=True)
class LocalLinks:
    """Links for a Markdown file in ``folder``."""

    folder: Path

    def manifest(self, path: Path, line: int | None = None) -> str | None:
        return self.file(path) + (f"#L{line}" if line else "")

    def file(self, path: Path) -> str:
        return _quoted(Path(os.path.relpath(path.resolve(), self.folder.resolve())))

    def artifacts(self) -> str | None:
        return None


@dataclass(frozen=True)
class GitHubLinks:
    """Links for the page of a step; ``repository`` is its address, '' if it is not known."""

    repository: str
    commit: str
    run: str
    workspace: Path | None

    @classmethod
    def of_environment(cls) -> Self:
        """Make links from the variables that GitHub's runner sets."""
        get = os.environ.get
        server, name = get("GITHUB_SERVER_URL", ""), get("GITHUB_REPOSITORY", "")
        workspace = get("GITHUB_WORKSPACE")
        return cls(
            repository=f"{server}/{quote(name)}" if server and name else "",
            commit=quote(get("GITHUB_SHA", "")),
            run=quote(get("GITHUB_RUN_ID", "")),
            workspace=Path(workspace).resolve() if workspace else None,
        )

    def manifest(self, path: Path, line: int | None = None) -> str | None:
        if not (self.repository and self.commit and self.workspace):
            return None
        with contextlib.suppress(ValueError):
            inside = path.resolve().relative_to(self.workspace)
            fragment = f"#L{line}" if line else ""
            return f"{self.repository}/blob/{self.commit}/{_quoted(inside)}{fragment}"
        return None

    def file(self, path: Path) -> str | None:  # noqa: ARG002 - it is on the runner alone
        return None

    def artifacts(self) -> str | None:
        if not (self.repository and self.run):
            return None
        return f"{self.repository}/actions/runs/{self.run}#artifacts"


def _quoted(path: Path) -> str:
    return quote(os.fsencode(path.as_posix()))
