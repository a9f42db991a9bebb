"""Compute the ids by which Allure matches tests across runs, processes and attempts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from pytest_manifest.manifest import Manifest

_ENCODED = json.JSONEncoder(ensure_ascii=False).encode
GROUP = "entries"
"""Names the test of a group of entries."""
BUILTIN = "entry"
"""Names the test of an entry that no test of the project verifies."""


def scopes(manifests: Iterable[Manifest], root: Path) -> dict[Path, str]:
    """Return the scope of each manifest's history ids, by the manifest's file.

    The scope is the workflow and its mode, so that a plan in a file of another name continues the
    same history. It is the file's path if the manifest has no workflow, or if another manifest of
    the session has the same workflow and mode.
    """
    found: dict[Path, str] = {}
    by_plan: dict[str, list[Path]] = {}
    for manifest in manifests:
        path = manifest.path.resolve()
        header = manifest.header
        found[path] = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
        if header.workflow:
            plan = _ENCODED([header.workflow, header.mode])
            by_plan.setdefault(plan, []).append(path)
    found |= {paths[0]: plan for plan, paths in by_plan.items() if len(paths) == 1}
    return found


def history_id(scope: str, test: str, entry: str, others: Iterable[tuple[str, str]] = ()) -> str:
    """Return an id that is equal for the same entry, plan and test, and differs for any other.

    ``others``: further parameters of the test. The id is hexadecimal: it stays unique in tools that
    fold case or drop punctuation.
    """
    return _digest(_ENCODED([scope, test, entry, sorted(others)]))


def result_id(history: str, task_id: str, turn: int) -> str:
    """Return the UUID of one attempt's result; a repeated report replaces the earlier file.

    ``turn``: how often this attempt was judged before, as pytest-rerunfailures does.
    """
    found = _digest(json.dumps([history, task_id, turn]))
    return f"{found[:8]}-{found[8:12]}-{found[12:16]}-{found[16:20]}-{found[20:]}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:32]
