"""A small project, in which pytest runs beside neighbours."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests import beside
from tests.plugin.conftest import JOBS, Project

VERIFY = """
def test_it_was_run_once(entry, receipt):
    assert receipt.attempt == 1
"""
ENTRIES = (
    {"id": "good", "task": "jobs.double", "kwargs": {"n": 2}, "expect": {"result": {"n": 4}}},
    {"id": "slow", "task": "jobs.nap", "kwargs": {"sec": 3, "key": "slow"}},
    {"id": "bad", "task": "jobs.fail", "kwargs": {"message": "no such film", "key": "bad"}},
    {"id": "wrong", "task": "jobs.double", "kwargs": {"n": 3}, "expect": {"result": {"n": 7}}},
)
VERDICTS = {"good": "passed", "slow": "passed", "bad": "failed", "wrong": "failed"}
RAN = {"2": 1, "slow": 1, "bad": 1, "3": 1}
PRIVATE = "--manifest-workers=1"


class Neighbourhood(Project):
    """A folder with a manifest of four jobs, two of which fail."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        super().__init__(pytester)
        self.write("jobs.py", JOBS)
        self.manifest("m.jsonl", ENTRIES)

    def ini(self, lines: str = "") -> None:
        """Configure pytest: one worker, and these lines."""
        self.write(
            "pytest.ini", f"[pytest]\nmanifest_app = jobs:app\nmanifest_workers = 1\n{lines}"
        )

    def run_beside(
        self, neighbours: tuple[str, ...], *options: str, expected: bool = True
    ) -> beside.Outcome:
        """Run the manifest beside these neighbours; hold what came of it against what must."""
        done = beside.run(
            self.path,
            ["pytest", "--manifest=m.jsonl", PRIVATE, *options],
            beside.environment(*neighbours),
        )
        if expected:
            self.expect(done)
        return done

    def expect(self, done: beside.Outcome) -> None:
        """Every verdict, every job's one run, and the exit status are as without neighbours."""
        assert self.verdicts() == VERDICTS, done.text
        assert self.ran() == RAN
        assert done.status == pytest.ExitCode.TESTS_FAILED


@pytest.fixture
def neighbourhood(pytester: pytest.Pytester) -> Neighbourhood:
    """The project, in a folder of its own."""
    made = Neighbourhood(pytester)
    made.ini()
    return made


@contextmanager
def report_portal() -> Iterator[tuple[str, list[str]]]:
    """Answer requests of ReportPortal's interface; yield the address, and the bodies received."""
    bodies: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        """Takes all."""

        def _take(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            bodies.append(f"{self.command} {self.path} {self.rfile.read(length).decode()}")
            answer = f'{{"id": "{uuid.uuid4()}", "number": 1, "message": "taken"}}'.encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = do_PUT = _take  # noqa: N815 - http.server's names

        def log_message(self, *_: object) -> None:
            """Write nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", bodies
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)
