"""What variables say of a worker's own log: in a process, as its handlers are replaced."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

SCRIPT = """
import logging
from pytest_manifest.worker.job import set_up_own_logging, sets_up_logging
if sets_up_logging():
    set_up_own_logging()
for name in ("shop", "celery.app.trace"):
    logging.getLogger(name).info("said quietly")
    logging.getLogger(name).warning("said loudly")
"""
QUIET, LOUD = "said quietly", "said loudly"


def logged(**variables: str) -> list[str]:
    """The lines of such a process's log."""
    environment = {name: value for name, value in os.environ.items() if "MANIFEST" not in name}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=environment | {f"MANIFEST_{name}": value for name, value in variables.items()},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stderr.splitlines()


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, [LOUD]),
        ({"LOG_FORMAT": "text"}, [QUIET, LOUD, QUIET, LOUD]),
        ({"LOG_FORMAT": "text", "LOG_LEVEL": "warning"}, [LOUD, LOUD]),
        ({"LOG_FORMAT": "text", "LOG_JOBS": "0"}, [QUIET, LOUD, LOUD]),
        ({"LOG_FORMAT": "text", "LOG_JOBS": "0", "LOG_LEVEL": "DEBUG"}, [QUIET, LOUD] * 2),
    ],
    ids=["none", "MANIFEST_LOG_FORMAT", "MANIFEST_LOG_LEVEL", "MANIFEST_LOG_JOBS", "debug"],
)
def test_variables_set_up_the_log_of_a_worker(variables: dict[str, str], words: list[str]) -> None:
    """Without a format it is left as it is; ``LOG_JOBS=0`` is about Celery's lines alone."""
    lines = logged(**variables)
    assert [next(word for word in (QUIET, LOUD) if word in line) for line in lines] == words


def test_a_log_in_json_has_an_object_a_line() -> None:
    found = [json.loads(line) for line in logged(LOG_FORMAT="json")]
    assert [one["message"] for one in found] == [QUIET, LOUD] * 2
