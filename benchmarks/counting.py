"""A pytest plugin that counts work instead of time: what a process does, whatever else goes on.

From the collection to the end it counts calls of Python functions (in all threads), statements that
SQLite executes and files that are opened, and writes them to ``counts.json`` in the root folder.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import threading
from collections import Counter
from collections.abc import Callable
from types import FrameType

import pytest

POLL_PERIOD = 0.5
"""Seconds between two polls here. A batch of receipts costs as much as some entries, and a slow
machine would bring more and smaller ones."""

counts: Counter[str] = Counter()
counting = False


def _profile(_frame: FrameType, event: str, _argument: object) -> None:
    if event == "call":
        counts["python_calls"] += 1


def _statement(_text: str) -> None:
    if counting:
        counts["sql_statements"] += 1


def _audit(event: str, _arguments: tuple[object, ...]) -> None:
    if event == "open" and counting:
        counts["files_opened"] += 1


sys.addaudithook(_audit)
_connect: Callable[..., sqlite3.Connection] = sqlite3.connect


def _traced(*arguments: object, **options: object) -> sqlite3.Connection:
    connection = _connect(*arguments, **options)
    connection.set_trace_callback(_statement)
    return connection


# SQLite tells of a connection, but not before it can be asked to trace.
setattr(sqlite3, "connect", _traced)  # noqa: B010  # its many overloads are not those of _traced


@pytest.hookimpl(tryfirst=True)
def pytest_collection() -> None:
    from pytest_manifest.run import engine

    global counting
    engine.POLL_PERIOD = POLL_PERIOD
    counting = True
    threading.setprofile(_profile)
    sys.setprofile(_profile)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    global counting
    counting = False
    sys.setprofile(None)
    threading.setprofile(None)
    (config.rootpath / "counts.json").write_text(json.dumps(counts), "utf-8")
