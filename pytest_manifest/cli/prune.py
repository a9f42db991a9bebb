"""Remove old runs, and none that an unfinished one needs: ``manifest prune``."""

from __future__ import annotations

import json as json_module
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Annotated, Final

import typer

from pytest_manifest.cli import arguments
from pytest_manifest.cli.output import answer
from pytest_manifest.cli.stored_run import runs_folder
from pytest_manifest.errors import DispatchError, LedgerError, ManifestError, PlanError
from pytest_manifest.ledger import Ledger, find_runs
from pytest_manifest.ledger.commands import KEPT
from pytest_manifest.ledger.files import RunFiles
from pytest_manifest.text import plural

_AGE: Final = re.compile(r"(\d{1,6})([hdw])", re.ASCII)
_UNITS: Final = {"h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True, slots=True)
class _StoredRun:
    """A run; ``needs``: the ids of runs without which it cannot be completed or judged.

    ``only_once``: its manifest is not to be sent again, which its ledger shows.
    """

    ledger: Path
    created_at: datetime
    sha256: str
    is_finished: bool
    only_once: bool
    needs: frozenset[str]

    @property
    def run(self) -> str:
        return self.ledger.stem

    @classmethod
    def read(cls, path: Path) -> _StoredRun:
        """Read what is to be known of a run. Raises LedgerError."""
        with Ledger.open(path) as ledger:
            info, shard = ledger.info.read(), ledger.info.shard()
            balance = None if shard is None else shard.balance
            needs = {*ledger.info.merged(), *ledger.queries.reused_runs()}
            is_asked = any(one.action in KEPT for one in ledger.commands.open())
            is_judged = ledger.info.status == "finished" and not ledger.attempts.has_undecided()
            return cls(
                path,
                info.created_at,
                info.sha256,
                is_judged and not is_asked,
                _is_only_once(RunFiles(path).manifest(info.sha256)),
                frozenset(needs if balance is None else {*needs, balance.run}),
            )


def age(text: str, option: str = "--older") -> timedelta:
    """Read an age like ``30d``, ``12h`` or ``4w``. Raises PlanError where it is none."""
    match = _AGE.fullmatch(text)
    if match is None:
        raise PlanError(
            f"{option}={text}: name a number of hours, days or weeks, like 12h, 30d, 4w"
        )
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def prune(
    keep: Annotated[int, typer.Option(min=0, metavar="N", help="keep the newest N runs")] = 30,
    older: Annotated[
        str, typer.Option(metavar="AGE", help="keep those that are younger, like 12h, 30d, 4w")
    ] = "30d",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="name them, and remove nothing")
    ] = False,
    folder: arguments.Folder = None,
    json: arguments.Json = False,
) -> None:
    """Remove old runs, and keep their digests for 'manifest history'.

    Never one that is unfinished, or that an unfinished one needs, nor the last one of a manifest
    that is to be run only once.
    """
    before = datetime.now(timezone.utc) - age(older)
    stored: list[_StoredRun] = []
    for path in find_runs(runs_folder(folder)):
        with suppress(LedgerError):  # one that cannot be read is kept
            stored.append(_StoredRun.read(path))
    needed = _needed(stored)
    old = [one for one in stored[: len(stored) - keep] if one.created_at < before]
    chosen = [one for one in old if one.run not in needed]
    sizes = {one.run: _size(one) for one in chosen}
    dropped = chosen if dry_run else [one for one in chosen if _remove(one)]
    size = sum(sizes[one.run] for one in dropped)
    names, kept = [one.run for one in dropped], len(stored) - len(dropped)
    needed_ones = len(old) - len(chosen)
    rest = f", {needed_ones} of them old, but unfinished or needed" if needed_ones else ""
    total = f"{plural(len(dropped), 'run')}, {size / 1e6:.1f} MB; kept: {plural(kept, 'run')}{rest}"
    answer(
        {"dry_run": dry_run, "dropped": [*names], "bytes": size, "kept": kept},
        [*(f"{'would drop' if dry_run else 'dropped'} {name}" for name in names), total],
        json=json,
    )


def _needed(stored: Sequence[_StoredRun]) -> frozenset[str]:
    """Return the ids of unfinished runs, of what they need, and of runs that forbid another."""
    by_id = {one.run: one for one in stored}
    newest = {one.sha256: one.run for one in stored if one.only_once}
    waiting = [*newest.values(), *(one.run for one in stored if not one.is_finished)]
    needed: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            waiting += by_id[name].needs if name in by_id else ()
    return frozenset(needed)


def _remove(one: _StoredRun) -> bool:
    """Remove a run's files but its digest; return whether it was there, and not gone on with."""
    from pytest_manifest.analysis.digest import make_digest, write_digest
    from pytest_manifest.run.locks import RunLock

    lock = RunLock(RunFiles(one.ledger).lock)
    try:
        lock.acquire(one.run)
        if not _StoredRun.read(one.ledger).is_finished:
            return False
        files = RunFiles(one.ledger)
        if not files.digest.exists():
            with suppress(LedgerError, ManifestError):  # no history of what cannot be read
                write_digest(make_digest(one.ledger), one.ledger)
        for path in files.all():
            if path != files.digest:
                path.unlink(missing_ok=True)
    except (DispatchError, LedgerError):  # another pytest has it
        return False
    except OSError as error:
        raise LedgerError(f"{one.ledger}: cannot be removed ({error.strerror})") from error
    finally:
        lock.release()
    return True


def _size(one: _StoredRun) -> int:
    files = RunFiles(one.ledger)
    dropped = (path for path in files.all() if path != files.digest and path.exists())
    return sum(path.stat().st_size for path in dropped)


def _is_only_once(manifest: Path) -> bool:
    """Return whether the header of a kept manifest forbids to run it again."""
    with suppress(OSError, ValueError), manifest.open("rb") as file:
        first = next((raw for raw in file if not raw.startswith(b"#")), b"{}")
        header: object = json_module.loads(first)
        return isinstance(header, Mapping) and header.get("rerun") is False
    return False
