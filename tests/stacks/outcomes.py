"""What of a cell's verdicts is as the contract has it, and what is not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from tests.contract.test_outcomes import KINDS
from tests.contract.work import WORK

FACTS: Final = (
    "result",
    "error",
    "traceback",
    "finished",
    "started",
    "runtime",
    "worker",
    "queue",
    "retries",
    "executions",
    "arguments",
    "log",
    "evidence",
    "memory",
)
"""What a receipt may tell of a job, beyond its verdict."""
_PROCESS: Final = re.compile(r"\bw[0-9a-f]{8}@localhost\b")
_PID: Final = re.compile(r"\bpid \d+")
_PORT: Final = re.compile(r"(?<=127\.0\.0\.1:)\d+")
_FOLDER: Final = re.compile(r"/[\w/]*manifest-test-\w+")
_ADDRESS: Final = re.compile(r"0x[0-9a-f]{6,}")


def expected(entry: str) -> str:
    """Give the verdict that an entry of the contract is to have."""
    return KINDS.get(entry, "passed")


def summary_of(told: Mapping[str, Any]) -> dict[str, Any]:
    """Cut what :mod:`tests.stacks.measure` says down to what the table keeps.

    ``others``: entry -> the verdict that is not the contract's, and its sentence. ``lacks``: the
    facts that are not told. Names that differ from run to run are taken out.
    """
    others = {
        entry: [status, neutral(sentence)]
        for entry, (status, sentence) in told["verdicts"].items()
        if status != expected(entry)
    }
    return {
        "asked": len(told["verdicts"]),
        "error": neutral(told["error"]),
        "others": others,
        "lacks": [fact for fact in FACTS if fact not in told["facts"]],
        "notices": [neutral(notice) for notice in told["notices"]],
        "seconds": told["seconds"],
    }


def neutral(sentence: str) -> str:
    """Take out of a sentence what is different each time."""
    sentence = _PROCESS.sub("worker@host", sentence)
    sentence = _PORT.sub("PORT", _PID.sub("pid N", sentence))
    return _ADDRESS.sub("0x...", _FOLDER.sub("DIRECTORY", sentence))


def statuses() -> dict[str, list[str]]:
    """Map each verdict of the contract -> its entries."""
    found: dict[str, list[str]] = {}
    for entry in WORK:
        found.setdefault(expected(entry), []).append(entry)
    return found
