"""By what Allure knows a test again: in another run, in another process, in another attempt."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from pytest_manifest.manifest import Manifest

_ENCODED = json.JSONEncoder(ensure_ascii=False).encode
GROUP = "entries"
"""The test of a group of entries."""
BUILTIN = "entry"
"""The test of an entry that no test of the project verifies."""


def scopes(manifests: Iterable[Manifest], root: Path) -> dict[Path, str]:
    """What each manifest's entries belong to, by the manifest's file.

    The workflow and its mode where there is one, so that a plan of another name has the same
    history; the file where two manifests of a session have those in common, or have none.
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
    """The same for the same entry of the same plan under the same test, and for no other.

    ``others``: further parameters of the test. It is hexadecimal, so nothing that folds case or
    drops punctuation can make one of two.
    """
    return _digest(_ENCODED([scope, test, entry, sorted(others)]))


def result_id(history: str, task_id: str, turn: int) -> str:
    """A UUID of one attempt's result; when it is reported again, it takes its own place.

    ``turn``: how often this attempt was judged before, as rerunfailures does.
    """
    found = _digest(json.dumps([history, task_id, turn]))
    return f"{found[:8]}-{found[8:12]}-{found[12:16]}-{found[16:20]}-{found[20:]}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:32]
