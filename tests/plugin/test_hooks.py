"""The hooks for projects, by the very example of their document."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.docs.blocks import blocks
from tests.plugin.conftest import Project
from tests.plugin.ways import BOTH, xdist_in

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "hooks.md"
MEMORY = ("--manifest=m.jsonl", "--manifest-broker=memory://")


@contextmanager
def receiver() -> Iterator[tuple[str, list[bytes]]]:
    """Run a server on loopback; yield its URL and the bodies that were posted to it."""
    posted: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the base class's name
            posted.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/", posted
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("more", BOTH)
def test_a_finished_run_is_told_elsewhere_once(
    project: Project, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    """With its verdicts, which the summary has by then."""
    project.doubles(count=2)
    (conftest,) = (one for one in blocks(DOCUMENT) if one.options.get("title") == "conftest.py")
    project.write("conftest.py", conftest.body)
    with receiver() as (url, posted):
        monkeypatch.setenv("SLACK_WEBHOOK", url)
        project.run(*MEMORY, *more).assert_outcomes(passed=2)
    (text,) = (json.loads(body)["text"] for body in posted)
    assert text.startswith("run 2")
    assert text.endswith(": 2 passed")


REFUSE = """
from pytest_manifest.errors import DispatchError


def pytest_manifest_sending(manifest, entries, budget):
    if budget is not None:
        raise DispatchError(f"{manifest.path.name}: {list(entries)} and a budget of {budget:g}")
"""


@pytest.mark.parametrize("more", xdist_in(pytest.mark.ring(2)))
def test_a_project_refuses_what_is_to_be_sent(project: Project, more: tuple[str, ...]) -> None:
    """Before anything is; with the entries that are selected."""
    project.doubles(count=2)
    project.write("conftest.py", REFUSE)
    result = project.run(*MEMORY, "--manifest-budget=5", *more)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    said = result.stdout.str() + result.stderr.str()
    assert "m.jsonl: ['d-0', 'd-1'] and a budget of 5" in said
    assert not project.ledgers()
    project.run(*MEMORY, *more).assert_outcomes(passed=2)


def test_a_project_is_not_asked_about_what_is_reused(project: Project) -> None:
    """Where all of it is, nothing is sent, and there is nothing to be refused."""
    project.doubles(count=2)
    project.run(*MEMORY).assert_outcomes(passed=2)
    project.write("conftest.py", REFUSE)
    reuse = (*MEMORY, "--manifest-reuse=all", "--manifest-budget=5", "--manifest-rerun")
    project.run(*reuse).assert_outcomes(passed=2)
    project.doubles(count=3)
    result = project.run(*reuse)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "m.jsonl: ['d-2'] and a budget of 5" in result.stdout.str() + result.stderr.str()
    assert (len(project.ledgers()), len(project.order())) == (2, 2)


def test_a_project_refuses_what_is_to_be_sent_again(project: Project) -> None:
    """What has failed stays as it is."""
    wrong = {"id": "d-0", "task": "jobs.double", "args": [1], "expect": {"result": {"n": 9}}}
    project.manifest("m.jsonl", [wrong | {"idempotent": True}])
    project.write("conftest.py", REFUSE)
    project.run(*MEMORY).assert_outcomes(failed=1)
    result = project.run(*MEMORY, "--manifest-resume", "--manifest-budget=5")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "['d-0'] and a budget of 5" in result.stdout.str() + result.stderr.str()
    assert len(project.order()) == 1
