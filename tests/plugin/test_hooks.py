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


@pytest.mark.parametrize("more", [(), ("-n", "1")], ids=["plain", "xdist"])
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
