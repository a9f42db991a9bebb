"""One manifest given twice to a session, by two files: what must not be repeated is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_manifest.errors import DispatchError
from pytest_manifest.text import short_path

if TYPE_CHECKING:
    from pytest_manifest.manifest import Manifest
    from pytest_manifest.plugin.options import Options


def refuse_copies(options: Options, manifests: Sequence[Manifest]) -> None:
    """Raise DispatchError where two files hold one manifest that must not be sent twice.

    The look for earlier runs cannot see it: the runs of a session begin together.
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
    """Raise DispatchError where two files are both of one run, which is to be looked at once."""
    seen: dict[Path, Manifest] = {}
    for manifest, ledger in zip(manifests, ledgers, strict=True):
        first = seen.setdefault(ledger, manifest)
        if first is not manifest:
            names = [short_path(one.path, options.root) for one in (first, manifest)]
            raise DispatchError(
                f"{names[0]} and {names[1]} are both of run {ledger.stem}; give one of them"
            )
