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
from pytest_manifest.reporting.run_report import ReportedRun
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


class Command(str):
    """A line with a command by which a run goes on."""

    __slots__ = ()


def stopped(unsent: int, running: int) -> str:
    """Return the line on the entries that a stopped run has no verdict of."""
    shares = [f"{unsent} not sent"] if unsent else []
    if running > 0:
        shares.append(f"{running} that {'was' if running == 1 else 'were'} running")
    entries = plural(unsent + max(running, 0), "entry")
    return f"  stopped: {entries} without a verdict ({', '.join(shares)})"


def how_to_go_on(
    run: Run, name: str, status: str, unsent: int, unjudged: int, *, blocked: bool, resume: str
) -> Iterator[str]:
    """Yield what is left of a run and the commands that go on with it.

    ``unsent`` and ``unjudged`` entries; ``blocked``: some wait for others that did not pass;
    ``resume``: the options that send the rest.
    """
    if status == "stopped" and unjudged:
        yield stopped(unsent, unjudged - unsent)
    if status == "detached":
        yield from _detached(run, name, unsent)
    elif (
        status == "stopped" or blocked or any(one.action == "leave" for one in run.state.decisions)
    ):
        yield from _ended(run, name, status, resume, blocked=blocked)


def _detached(run: Run, name: str, unsent: int) -> Iterator[str]:
    left = f"; {plural(unsent, 'entry')} not sent" if unsent else ""
    with contextlib.suppress(ManifestToolError, OSError):
        if not unsent and not _unpassed(run):
            return  # what may go on is of entries that the manifest has no more
    yield f"  the workers go on without pytest{left}"
    command = f"pytest --manifest={name}"
    if run.info.backend.startswith("rpc"):
        yield "  nobody can look at them later: rpc:// serves only the process that sent them"
    elif run.signals.held_by_dead:
        yield Command(f"  to go on: {command} --manifest-resume --manifest-repair")
    elif run.signals.is_deserted:
        yield Command(f"  to go on: {command} --manifest-resume")
    else:
        yield Command(f"  to go on: {command} --manifest-audit=wait")
        if unsent:
            yield Command(f"  to send the rest: {command} --manifest-resume")


def _ended(run: Run, name: str, status: str, resume: str, *, blocked: bool) -> Iterator[str]:
    from pytest_manifest.run.resume import preview

    goes_on, decided = True, []
    with contextlib.suppress(ManifestToolError, OSError):
        names = _unpassed(run)
        decided = preview(run.ledger_path, run.manifest, names, stack_is_gone=False)
        after = {one.entry: run.manifest[one.entry].after for one in decided}
        goes_on = bool(names) and (not decided or bool(going_further(decided, after)))
    if goes_on:
        yield Command(f"  to go on: pytest --manifest={name} {resume}")
        return
    left = [one.entry for one in decided if one.action == "leave" and one.unsafe]
    if left:
        yield (
            f"  a resume sends nothing: {listed(list(map(repr, left)), SHOWN)} may have run and "
            f"{'is' if len(left) == 1 else 'are'} not idempotent"
        )
        unsafe = resume.replace("--manifest-resume", "--manifest-resume=unsafe")
        yield Command(f"  to run them again: pytest --manifest={name} {unsafe}")
        if status == "finished" and not blocked:
            yield Command(f"  or as a new run: pytest --manifest={name} --lf")


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
