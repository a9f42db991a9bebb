"""Write Markdown: foreign text as text, and a run's summary, for a step on GitHub or a file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from typing_extensions import Self

from pytest_manifest.reporting import figures
from pytest_manifest.reporting.figures import Sheet, comparison_lines, duration_phrase
from pytest_manifest.reporting.next_step import RunAgain
from pytest_manifest.reporting.run_report import ReportedRun, run_files
from pytest_manifest.text import listed, many, middle, pictured, plural, short_path, visible
from pytest_manifest.verdict.explanation import counts_text, ends_text

if TYPE_CHECKING:
    from pytest_manifest.manifest import Manifest
    from pytest_manifest.schema import summary as schema

MOST: Final = 1 << 20
"""Characters of a text that is shown whole."""

# Characters that may begin or end markup in Markdown, in HTML, or in GitHub's own syntax:
# names (@), emoji (:), formulas ($), links (://, www.), and at a paragraph's beginning a list's.
# An underscore within a word begins nothing.
_SPECIAL: Final = re.compile(
    r"[&<>|`*\[\]#~\\!@$:^{}]|(?<![^\W_])_|_(?![^\W_])|(?i:(?<=www)\.)|^[-+=]|(?<=^\d)[.)]"
)


def escaped(text: str, limit: int = 200) -> str:
    """Return the text on one line, cut in the middle, with Markdown and HTML escaped."""
    line = " ".join(pictured(text).split())
    return _SPECIAL.sub(lambda match: f"&#{ord(match.group())};", middle(line, limit))


def code(text: str, limit: int = 200) -> str:
    """Return the text on one line as HTML code, for a table's cell or within a line.

    A code span in backticks would serve except with ``|`` in a table.
    """
    return f"<code>{escaped(text, limit)}</code>" if text else ""


def verbatim(text: str) -> str:
    """Return the text on one line as a code span, for where HTML is not shown."""
    shown = visible(text).replace("\n", "\\n").replace("\t", " ")
    room = " " if "`" in shown or not shown.strip() else ""
    fence = _fence(shown, 1)
    return f"{fence}{room}{shown}{room}{fence}"


def fenced(text: str) -> str:
    """Return the text as a block of code, which GitHub shows with a button to copy."""
    shown = pictured(text)
    fence = _fence(shown, 3)
    return f"{fence}console\n{shown}\n{fence}"


def _fence(text: str, least: int) -> str:
    longest = max(map(len, re.findall("`+", text)), default=0)
    return "`" * max(least, longest + 1)


def link(text: str, address: str | None) -> str:
    """Return the text as code that leads to the address, if there is one."""
    return code(text) if address is None else f"[{code(text)}]({address})"


def table(heads: Sequence[str], sides: str, rows: Iterable[Sequence[str]]) -> str:
    """Return a table; ``sides`` has an ``r`` for each column that is aligned right."""
    rule = ["--:" if side == "r" else "---" for side in sides]
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, rule, *rows))


# A run's summary

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
    run: ReportedRun, summary: schema.RunSummary, links: Links, root: Path, arguments: str = ""
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
        *_accepted(summary.accepted),
        *_messages(run, found, summary.run),
        *_tasks(found.tasks),
        *_trees(found, run.manifest, links),
        *_changes(summary.comparison),
        *_files(run, links, root),
    ]
    return "\n\n".join(paragraphs) + "\n\n"


def _heading(run: ReportedRun, found: schema.SummaryStatistics, links: Links, root: Path) -> str:
    name = link(short_path(run.manifest.path, root), links.manifest(run.manifest.path))
    passed = found.outcomes.get("passed", 0)
    bad = found.outcomes.get("failed", 0) + found.outcomes.get("error", 0)
    entries = plural(found.entries, "entry")
    if bad:
        return f"### ❌ {name}: {bad} of {entries} failed"
    if passed < found.entries:
        return f"### ⚠️ {name}: {passed} of {entries} passed"
    return f"### ✅ {name}: {entries} passed"


def _metadata(summary: schema.RunSummary) -> str:
    found, run = summary.statistics, summary.run
    plan = ":".join(part for part in (run.workflow, run.mode) if part)
    reused, of_runs = sum(found.reused.values()), plural(len(found.reused), "run")
    workers = len(found.workers)
    phrases = [
        f"Run {code(run.run)}" + (f" of {code(plan)}" if plan else ""),
        duration_phrase(found) if found.duration is not None else "",
        f"{workers} worker process{'es' if workers > 1 else ''}" if workers else "",
        f"{plural(reused, 'entry')} reused from {of_runs}" if reused else "",
        plural(found.further_sendings, "further sending") if found.further_sendings else "",
        f"retried {plural(found.retries, 'time')}" if found.retries else "",
        f"delivered more than once: {found.redeliveries}" if found.redeliveries else "",
        figures.cost_phrase(summary.cost),
        escaped(figures.limits_of(run)),
    ]
    return ", ".join(filter(None, phrases)) + "."


def _accepted(some: Sequence[schema.SummaryAccepted]) -> Iterator[str]:
    if some:
        rows = [
            [str(one.count), code(listed(one.examples, 3), _MESSAGE), code(one.text, _MESSAGE)]
            for one in some[:_MESSAGES]
        ]
        heads = ["Entries", "Such as", "Why"]
        yield f"#### Accepted failures\n\n{table(heads, 'r--', rows)}"


def _messages(
    run: ReportedRun,
    found: schema.SummaryStatistics,
    described: schema.SummaryRun,
) -> Iterator[str]:
    """Yield error, warnings and advice, what slowed a run and who steered it, as a quotation."""
    messages = [f"the run gave up: {run.error}"] if run.error is not None else []
    messages += [*run.warnings, *figures.slowed_phrases(described.throttled)]
    messages += [*figures.action_phrases(described.actions), *found.advice]
    if messages:
        yield "\n".join(f"> {escaped(one, 500)}<br>" for one in messages[:_MESSAGES])


def _verdicts(found: schema.SummaryStatistics) -> str:
    pairs = sorted(found.verdicts.items(), key=lambda pair: -pair[1])
    open_entries = found.entries - sum(found.verdicts.values())
    rows = [[kind, str(count)] for kind, count in pairs]
    rows += [["no verdict", str(open_entries)]] if open_entries else []
    return table(["Verdict", "Entries"], "-r", rows)


def _tasks(tasks: Sequence[schema.SummaryTask]) -> Iterator[str]:
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


def _times(spread: schema.SummarySpread | None) -> str:
    if spread is None:
        return ""
    return " / ".join(f"{value:.3f}" for value in (spread.p50, spread.p95, spread.max))


def _causes(
    causes: Sequence[schema.SummaryCause], manifest: Manifest, links: Links, again: RunAgain
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
    if rest := causes[CAUSES:]:
        entries = sum(cause.count for cause in rest)
        yield f"{plural(len(rest), 'further cause')} of {entries} entries not shown."
    commands = [again.command(cause.examples[0]) for cause in causes[:AGAIN]]
    yield "Run the first of a cause again:"
    yield "\n\n".join(map(fenced, commands))


def _entries(ids: Iterable[str], manifest: Manifest, links: Links) -> Iterator[str]:
    for name in ids:
        line = manifest.line_of(name) if name in manifest else None
        yield link(name, links.manifest(manifest.path, line))


def _trees(found: schema.SummaryStatistics, manifest: Manifest, links: Links) -> Iterator[str]:
    """Yield how the tasks that jobs started ended, those that failed, and the slowest tree."""
    trees = found.descendants
    of, ends = many(trees.entries, "entry"), escaped(ends_text(trees.statuses))
    lines = [f"{many(trees.number, 'descendant')} of {of}: {ends}."] if trees.number else []
    lines += filter(None, [escaped(figures.untold_phrase(trees, found.entries))])
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
        phrase = figures.slowest_phrase(trees.slowest, name)
        path = code(figures.path_text(trees.slowest), 1000)
        yield f"{phrase[0].upper()}{phrase[1:]}.<br>\nCritical path: {path}"


def _changes(comparison: schema.SummaryComparison | None) -> Iterator[str]:
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
    if links.artifacts:
        names.append(f"[artifacts of this run]({links.artifacts}), where the workflow keeps them")
    yield "Files: " + ", ".join(names) + "."


@dataclass(frozen=True)
class Links:
    """Addresses of files and entries, None where there is none, for a Markdown file in ``folder``.

    ``blob``: the address of ``folder`` on GitHub, at this commit, for a step's page, "" where that
    is unknown; ``artifacts``: that of the page on which CI keeps files.
    """

    folder: Path
    blob: str | None = None
    artifacts: str = ""

    @classmethod
    def on_github(cls) -> Self:
        """Make links for the page of a step, by the variables that GitHub's runner sets."""
        names = ("SERVER_URL", "REPOSITORY", "SHA", "RUN_ID", "WORKSPACE")
        server, name, commit, run, workspace = (os.environ.get(f"GITHUB_{n}", "") for n in names)
        repository = f"{server}/{quote(name)}" if server and name else ""
        known = repository and commit and workspace
        return cls(
            Path(workspace).resolve(),
            f"{repository}/blob/{quote(commit)}" if known else "",
            f"{repository}/actions/runs/{quote(run)}#artifacts" if repository and run else "",
        )

    def manifest(self, path: Path, line: int | None = None) -> str | None:
        """Return the address of the manifest, or of one of its lines."""
        fragment = f"#L{line}" if line else ""
        if self.blob is None:
            return f"{self.file(path)}{fragment}"
        inside = path.resolve()
        if not self.blob or not inside.is_relative_to(self.folder):
            return None
        return f"{self.blob}/{_quoted(inside.relative_to(self.folder))}{fragment}"

    def file(self, path: Path) -> str | None:
        """Return the address of a file that the run has left; on GitHub it is on the runner."""
        if self.blob is not None:
            return None
        return _quoted(Path(os.path.relpath(path.resolve(), self.folder.resolve())))


def _quoted(path: Path) -> str:
    return quote(os.fsencode(path.as_posix()))
