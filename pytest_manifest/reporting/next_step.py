"""Name the command by which a run goes on: one that gets some of its entries further, or none.

Name the command that runs one entry of a run again, and the logs of a run's workers.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from pytest_manifest.errors import ManifestToolError
from pytest_manifest.reporting.run_report import ReportedRun, RunReport
from pytest_manifest.schema.statuses import BAD, outcome_of
from pytest_manifest.text import listed, plural

if TYPE_CHECKING:
    from pytest_manifest.run.resume_rules import Decision
    from pytest_manifest.run.run import Run


_LOG: Final = re.compile(r"\.worker-(\d+)\.log$")
"""The end of the name of a private worker's log, with the worker's number."""


@dataclass(frozen=True)
class RunAgain:
    """The manifest as it is typed, and what else the command needs: ``arguments`` with a space."""

    manifest: str
    arguments: str = ""

    def command(self, entry: str) -> str:
        """Return the command that sends this entry alone, in a run of its own."""
        name = self.manifest
        return shlex.join(["pytest", f"--manifest={name}", f"{name}::entry[{entry}]"]) + (
            self.arguments
        )


def worker_logs(run: ReportedRun, folder: Path) -> Iterator[tuple[str, str]]:
    """Yield worker and address, as seen from this folder, of the logs that the run has kept."""
    for path in run.files.worker_logs():
        if (found := _LOG.search(path.name)) is not None:
            relative = Path(os.path.relpath(path.resolve(), folder.resolve()))
            yield f"manifest{found[1]}", quote(os.fsencode(relative.as_posix()))


MOST: Final = 1000
"""Entries without a pass that are looked at: of more, these say what a resume would do."""
SHOWN: Final = 3
"""Names that a message lists."""


def is_command(line: str) -> bool:
    """Return whether a line of the terminal has a command of pytest's, which is not wrapped."""
    return ": pytest --" in line


def stopped(unsent: int, running: int) -> str:
    """Return the line on the entries that a stopped run has no verdict of."""
    shares = [f"{unsent} not sent"] if unsent else []
    if running > 0:
        shares.append(f"{running} that {'was' if running == 1 else 'were'} running")
    entries = plural(unsent + max(running, 0), "entry")
    return f"  stopped: {entries} without a verdict ({', '.join(shares)})"


def command_of(report: RunReport, *runs: Run) -> str:
    """Return the command that names the manifests of runs, and their shard if they are one."""
    with runs[0].read() as ledger:
        shard = ledger.info.shard()
    part = "" if shard is None else f" --manifest-shard={shard}"
    names = "".join(f" --manifest={name}" for name in dict.fromkeys(map(report.name_of, runs)))
    return f"pytest{names}{part}"


def failed_last(report: RunReport, *runs: Run) -> str:
    """Return the command of a new run of what has failed, "" where it would be refused."""
    insists = report.options.rerun
    if not (insists or all(run.manifest.header.rerun for run in runs)):
        return ""
    return f"{command_of(report, *runs)} --lf{' --manifest-rerun' if insists else ''}"


def next_steps(run: Run, report: RunReport) -> Iterator[str]:
    """Yield what is left to do, also with ``-q``: the commands by which to go on."""
    from pytest_manifest.ledger import OVER_BUDGET

    if report.options.receipts is not None:  # the run that they are of may be anywhere
        return
    with run.read() as ledger:
        counts, sending = ledger.verdicts.counts(), ledger.attempts.send_states()
        left = ledger.attempts.count_entries() - sum(counts.values())
        status, over_budget = ledger.info.status, ledger.info.get_meta(OVER_BUDGET)
        merged = ledger.info.merged()
    if status == "running":  # its pytest has ended without recording it
        status = "stopped" if run.info.is_private else "detached"
    if merged:  # it cannot be resumed itself
        if status != "finished" or left:
            yield (
                "  to complete it: go on with the unfinished runs that it was merged of, each with "
                "--manifest-resume and its --manifest-shard, then merge again"
            )
        return
    unsent, not_run = sending.get("planned", 0), sending.get("withdrawn", 0)
    blocked = counts.get("skipped", 0) > 0 or (counts.get("timed_out", 0) > 0 < unsent + not_run)
    resume = "--manifest-resume --manifest-budget=MORE" if over_budget else "--manifest-resume"
    command = command_of(report, run)
    steps: Iterator[str] = iter(())
    if status == "stopped" and left:
        yield stopped(unsent, left - unsent)
    if status == "detached":
        steps = _detached(run, command, unsent)
    elif status == "stopped" or blocked or any(d.action == "leave" for d in run.state.decisions):
        anew = failed_last(report, run) if status == "finished" and not blocked else ""
        steps = _ended(run, command, resume, anew)
    for line in steps:
        yield line + (report.options.stack_arguments if is_command(line) else "")


def _detached(run: Run, command: str, unsent: int) -> Iterator[str]:
    left = f"; {plural(unsent, 'entry')} not sent" if unsent else ""
    with contextlib.suppress(ManifestToolError, OSError):
        if not unsent and not _unpassed(run):
            return  # what may go on is of entries that the manifest has no more
    yield f"  the workers go on without pytest{left}"
    if run.info.backend.startswith("rpc"):
        yield "  nobody can look at them later: rpc:// serves only the process that sent them"
    elif run.signals.held_by_dead:
        mode = "=unsafe" if run.state.settings.unsafe else ""  # what that may move is counted, too
        yield f"  to go on: {command} --manifest-resume{mode} --manifest-repair"
    elif run.signals.is_deserted:
        yield f"  to go on: {command} --manifest-resume"
    else:
        yield f"  to go on: {command} --manifest-audit=wait"
        if unsent:
            yield f"  to send the rest: {command} --manifest-resume"


def _ended(run: Run, command: str, resume: str, anew: str) -> Iterator[str]:
    """Yield how a run goes on that has ended.

    ``resume``: the options that send the rest; ``anew``: the command of a new run of what has
    failed, "" where there is none.
    """
    from pytest_manifest.run.resume import preview

    goes_on, decided = True, []
    with contextlib.suppress(ManifestToolError, OSError):
        names = _unpassed(run)
        decided = preview(run.ledger_path, run.manifest, names, stack_is_gone=False)
        # What this session has looked for, and left, the next one will not find either.
        left_now = {one.entry: one for one in run.state.decisions if one.action == "leave"}
        decided = [left_now.get(d.entry, d) if d.action == "wait" else d for d in decided]
        after = {one.entry: run.manifest[one.entry].after for one in decided}
        goes_on = bool(names) and (not decided or bool(going_further(decided, after)))
    if goes_on:
        yield f"  to go on: {command} {resume}"
        return
    left = [one.entry for one in decided if one.action == "leave" and one.unsafe]
    if left:
        risky = [one for one in left if not run.manifest[one].idempotent]
        are = "is" if len(risky) == 1 else "are"
        whys = [f"may have run and {are} not idempotent"] if risky else []
        if len(risky) < len(left):
            whys.append("killed its worker too often")
        some = listed(list(map(repr, left)), SHOWN)
        yield f"  a resume sends nothing: {some} {' or '.join(whys)}"
        unsafe = resume.replace("--manifest-resume", "--manifest-resume=unsafe")
        yield f"  to run them again: {command} {unsafe}"
        # Tests that are skipped, as of what was taken back, are none that failed last.
        with run.read() as ledger:
            statuses = ledger.verdicts.statuses()
        if anew and all(outcome_of(statuses.get(one)) in BAD for one in left):
            yield f"  or as a new run: {anew}"


def going_further(
    decided: Sequence[Decision], prerequisites: Mapping[str, Sequence[str]]
) -> frozenset[str]:
    """Return the entries that a resume would send or wait for, and that nothing holds back."""
    going = {one.entry for one in decided if one.action in ("send", "wait")}
    stuck = {one.entry for one in decided} - going
    while held := {one for one in going if stuck & set(prerequisites.get(one, ()))}:
        going -= held
        stuck |= held
    return frozenset(going)


def _unpassed(run: Run) -> list[str]:
    """Return the run's entries of this manifest that have not passed, some of many."""
    with run.read() as ledger:
        statuses = ledger.verdicts.statuses()
        planned = {row.entry for row in ledger.attempts.newest()}
    ids = (one for one in run.manifest.ids if one in planned and statuses.get(one) != "passed")
    return list(islice(ids, MOST))
