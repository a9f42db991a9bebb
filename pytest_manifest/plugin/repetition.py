"""Refuse to send one manifest twice: by two sessions at a time, or by two files of one session.

A session that dispatches a manifest looks for earlier unfinished runs, and a session that resumes
one looks for newer ones. Each has to record in a ledger what it does before the other looks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_manifest.errors import DispatchError
from pytest_manifest.ledger import Ledger
from pytest_manifest.ledger.run_files import RunFiles
from pytest_manifest.plugin.earlier_runs import ledger_to_resume, runs_in_the_way
from pytest_manifest.plugin.options import Options
from pytest_manifest.text import short_path

if TYPE_CHECKING:
    from pytest_manifest.manifest import Manifest
    from pytest_manifest.plugin.options import Options


@contextlib.contextmanager
def one_at_a_time(options: Options, manifests: Sequence[Manifest]) -> Iterator[None]:
    """Lock these manifests, so that no other session begins to send one of them."""
    from pytest_manifest.run.locks import one_dispatch_at_a_time

    with contextlib.ExitStack() as locks:
        for digest in sorted({manifest.sha256 for manifest in manifests}):
            locks.enter_context(one_dispatch_at_a_time(options.ledgers, digest))
        yield


def refuse_overtaken(options: Options, manifest: Manifest, ledger: Path) -> None:
    """Raise DispatchError where another session sends the manifest since ``ledger`` was chosen.

    Call it within :func:`one_at_a_time`.
    """
    from pytest_manifest.processes import is_held

    name = short_path(manifest.path, options.root)
    chosen = ledger_to_resume(options, manifest)
    if chosen != ledger:
        raise DispatchError(
            f"{name}: run {chosen.stem} of this manifest has begun meanwhile; go on with that one"
        )
    for path in runs_in_the_way(options, manifest):
        if path == ledger or not is_held(RunFiles(path).lock):
            continue
        with Ledger.open(path) as other:
            going_on = other.info.status != "finished"
        if going_on:
            raise DispatchError(
                f"{name}: run {path.stem} of this manifest is going on in another pytest; wait "
                "until that has ended"
            )


def refuse_copies(options: Options, manifests: Sequence[Manifest]) -> None:
    """Raise DispatchError where two files hold one manifest that must not be sent twice.

    The search for earlier runs cannot see it, as the runs of a session begin together.
    """
    seen: dict[str, Manifest] = {}
    for manifest in manifests:
        first = seen.setdefault(manifest.sha256, manifest)
        if first is not manifest and not manifest.header.rerun:
            names = [short_path(one.path, options.root) for one in (first, manifest)]
            raise DispatchError(
                f"nothing was sent: {names[0]} and {names[1]} are the same manifest, and its "
                "header says that this work must not be repeated; give one of them"
            )


def refuse_one_run_twice(
    options: Options, manifests: Sequence[Manifest], ledgers: Sequence[Path]
) -> None:
    """Raise DispatchError where two files belong to one run, which is resumed or audited once."""
    seen: dict[Path, Manifest] = {}
    for manifest, ledger in zip(manifests, ledgers, strict=True):
        first = seen.setdefault(ledger, manifest)
        if first is not manifest:
            names = [short_path(one.path, options.root) for one in (first, manifest)]
            raise DispatchError(
                f"{names[0]} and {names[1]} are both of run {ledger.stem}; give one of them"
            )
