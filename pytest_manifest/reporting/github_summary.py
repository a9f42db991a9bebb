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

from pytest_manifest.reporting import descendants
from pytest_manifest.reporting.markdown import code, escaped, fenced, link, table
from pytest_manifest.reporting.next_step import RunAgain
from pytest_manifest.reporting.run_report import ReportedRun, run_files
from pytest_manifest.reporting.terminal_layout import Sheet
from pytest_manifest.reporting.terminal_statistics import comparison_lines, duration_phrase
from pytest_manifest.schema import cost_text
from pytest_manifest.schema.summary import (
    RunSummary,
    SummaryCause,
    SummaryComparison,
    SummarySpread,
    SummaryStatistics,
    SummaryTask,
)
from pytest_manifest.text import limits_phrase, many, plural, short_path
from pytest_manifest.verdict.explanation import counts_text, ends_text

if TYPE_CHECKING:
    from pytest_manifest.manifest import Manifest


TASKS: Final = 50
CAUSES: Final = 50
"""Rows of a table, at most: GitHub shows no summary of more than 1 MiB."""
AGAIN: Final = 3
"""Causes of which the command is shown that runs their first entry again."""
_MESSAGES: Final = 20
_MESSAGE: Final = 300
_WIDTH: Final = 120
"""Columns of what stands as in a terminal."""


def markdown(
    run: ReportedRun, summary: RunSummary, links: Links, root: Path, arguments: str = ""
) -> str:
    """Return the summary of one run; ``links`` has the addresses of files and entries.

    ``arguments``: what the command that runs an entry again needs beside its manifest.
    """
    found = summary.statistics
    again = RunAgain(short_path(run.manifest.path, root), arguments)
    paragraphs = [
        _heading(run, found, links, root),
        _metadata(summary),
        _verdicts(found),
        *_causes(found.causes, run.manifest, links, again),
        *_messages(run, found),
        *_tasks(found.tasks),
        *_trees(found, run.manifest, links),
        *_changes(summary.comparison),
        *_files(run, links, root),
    ]
    return "\n\n".join(paragraphs) + "\n\n"


def _heading(run: ReportedRun, found: SummaryStatistics, links: Links, root: Path) -> str:
    name = link(short_path(run.manifest.path, root), links.manifest(run.manifest.path))
    passed = found.outcomes.get("passed", 0)
    bad = found.outcomes.get("failed", 0) + found.outcomes.get("error", 0)
    entries = plural(found.entries, "entry")
    if bad:
        return f"### ❌ {name}: {bad} of {entries} failed"
    if passed < found.entries:
        return f"### ⚠️ {name}: {passed} of {entries} passed"
    return f"### ✅ {name}: {entries} passed"


def _metadata(summary: RunSummary) -> str:
    found, run = summary.statistics, summary.run
    plan = ":".join(part for part in (run.workflow, run.mode) if part)
    reused, of_runs = sum(found.reused.values()), plural(len(found.reused), "run")
    workers, cost, limit = len(found.workers), summary.cost, ""
    if cost.budget is not None:
        limit = f" of a budget of {cost_text(cost.budget)}"
    phrases = [
        f"Run {code(run.run)}" + (f" of {code(plan)}" if plan else ""),
        duration_phrase(found) if found.duration is not None else "",
        f"{workers} worker process{'es' if workers > 1 else ''}" if workers else "",
        f"{plural(reused, 'entry')} reused from {of_runs}" if reused else "",
        plural(found.further_sendings, "further sending") if found.further_sendings else "",
        f"retried {plural(found.retries, 'time')}" if found.retries else "",
        f"delivered more than once: {found.redeliveries}" if found.redeliveries else "",
        f"cost {cost_text(cost.total)}{limit}" if cost.total is not None else "",
        escaped(limits_phrase(run.key_limits)),
    ]
    return ", ".join(filter(None, phrases)) + "."


def _messages(run: ReportedRun, found: SummaryStatistics) -> Iterator[str]:
    """Yield the run's error, warnings and advice as a quotation."""
    messages = [f"the run gave up: {run.error}"] if run.error is not None else []
    messages += [*run.warnings, *found.advice]
    if messages:
        yield "\n".join(f"> {escaped(one, 500)}<br>" for one in messages[:_MESSAGES])


def _verdicts(found: SummaryStatistics) -> str:
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


def _trees(found: SummaryStatistics, manifest: Manifest, links: Links) -> Iterator[str]:
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
    """Yield what changed since another run, as the terminal shows it."""
    if comparison is not None:
        heading, *lines = comparison_lines(comparison, Sheet(width=_WIDTH, rich=True))
        yield f"#### {heading.text.strip().capitalize()}"
        yield fenced("\n".join(line.text.removeprefix("    ") for line in lines))


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
