"""Serve as a process, and print its URL: ``python -m tests.workflows.gemini_server --port 0``."""

from __future__ import annotations

import argparse
import json
import signal
import threading
from dataclasses import asdict
from pathlib import Path

from tests.workflows.gemini_server.script import Script
from tests.workflows.gemini_server.server import KEY, gemini_server


def main() -> None:
    """Serve until SIGTERM or Ctrl-C, then write the calls to ``--log``, one JSON object a line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.workflows.gemini_server", description=__doc__
    )
    parser.add_argument("--port", type=int, default=0, help="0, the default, takes a free one")
    parser.add_argument("--key", default=KEY, help="the API key that is accepted")
    parser.add_argument("--script", type=Path, help="a JSON file: faults, rates, poison, ...")
    parser.add_argument("--log", type=Path, help="where to write the calls at the end")
    given = parser.parse_args()
    script = Script.model_validate_json(given.script.read_bytes()) if given.script else Script()
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with gemini_server(script, key=given.key, port=given.port) as server:
        print(server.url, flush=True)
        ended.wait()
    if given.log is not None:
        lines = [json.dumps(asdict(call), ensure_ascii=False) for call in server.calls]
        given.log.write_text("".join(f"{line}\n" for line in lines), "utf-8")


if __name__ == "__main__":
    main()
