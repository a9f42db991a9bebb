"""What users may set changes how a worker logs, and never how it takes or acknowledges messages."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from pytest_manifest import processes
from tests.live.apps.worker_support import INCLUDE, ROOT, Flavour, running_worker

pytestmark = pytest.mark.live

TABLE = ROOT / "docs" / "reference" / "configuration.md"
WORKERS = re.compile(r"^\| `(MANIFEST_\w+)` \| instrumented workers \|", re.MULTILINE)
VALUES: Mapping[str, str] = {
    "MANIFEST_LOG_FORMAT": "json",
    "MANIFEST_LOG_LEVEL": "WARNING",
    "MANIFEST_LOG_JOBS": "0",
    "MANIFEST_RESULT_LIMIT": "2048",
    "MANIFEST_STACKS": "1",
}


def ways(valkey: str, environment: Mapping[str, str]) -> dict[str, str]:
    """What such a worker takes and acknowledges messages with, by its own word."""
    flavour = Flavour("ways", "tests.live.apps.worker_ways", INCLUDE, environment)
    with running_worker(valkey, valkey, flavour) as bench:
        answers = bench.app.control.broadcast(
            "ways", destination=[bench.node], reply=True, timeout=30, limit=1
        )
    ((found,),) = (answer.values() for answer in answers)
    return {**found.pop("settings"), **found}


def test_no_documented_variable_changes_how_messages_are_taken(valkey: str) -> None:
    documented = set(WORKERS.findall(TABLE.read_text("utf-8"))) - {"MANIFEST_SPOOL"}
    assert documented == set(VALUES)
    assert processes.SUPERVISED not in TABLE.read_text("utf-8")

    usual, with_all = ways(valkey, {}), ways(valkey, VALUES)

    assert with_all == usual
    assert ways(valkey, {processes.SUPERVISED: "1", **VALUES}) != usual  # it can tell
