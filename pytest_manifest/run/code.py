"""The code of the tasks here, as it was whenever something was sent."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime

from pytest_manifest.ledger import BAD_ROW_ERRORS, Ledger, damaged, utc_now
from pytest_manifest.schema.code_digest import code_digest

CODE_HISTORY = "code_history"


def code_key(run: str) -> str:
    """The key under which a merged ledger has the history of one of its runs."""
    return f"{CODE_HISTORY}:{run}"


class CodeHistory:
    """Digests by task name, and the moments (UTC) from which they held.

    A run that is gone on with after a task was mended has receipts of both codes, and each is held
    against the code of its own sending.
    """

    def __init__(self, ledger: Ledger, key: str = CODE_HISTORY) -> None:
        try:
            self._steps: list[tuple[datetime, dict[str, str]]] = [
                (datetime.fromisoformat(since), dict(digests))
                for since, digests in json.loads(ledger.get_meta(key) or "[]")
            ]
        except BAD_ROW_ERRORS as error:
            raise damaged(ledger.path, error) from error

    def digest(self, task: str, sent_at: datetime | None) -> str | None:
        """The digest of a task's code when it was sent; None where that is not known."""
        for since, digests in reversed(self._steps):
            if task in digests and (sent_at is None or since <= sent_at):
                return digests[task]
        return None


def record_code(ledger: Ledger, names: Iterable[str], tasks: Mapping[str, object]) -> None:
    """Keep the digests of these tasks' code as it is now, before something is sent."""
    found = {name: code_digest(tasks[name]) for name in sorted(set(names) & set(tasks))}
    steps = json.loads(ledger.get_meta(CODE_HISTORY) or "[]")
    steps.append([utc_now().isoformat(), {n: digest for n, digest in found.items() if digest}])
    ledger.set_meta(CODE_HISTORY, json.dumps(steps))
