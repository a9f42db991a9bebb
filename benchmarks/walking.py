"""A pytest plugin that counts the calls of each module of the package: ``-p benchmarks.walking``.

``walk.py`` holds sessions of few and of many entries against each other with it.
"""

from __future__ import annotations

import json
import sys
import threading
from collections import Counter
from pathlib import Path
from types import FrameType

ROOT = str(Path(__file__).parents[1] / "pytest_manifest")

_calls: Counter[str] = Counter()


def _profile(frame: FrameType, event: str, _argument: object) -> None:
    if event == "call" and frame.f_code.co_filename.startswith(ROOT):
        _calls[frame.f_code.co_filename] += 1


def pytest_configure() -> None:
    threading.setprofile(_profile)
    sys.setprofile(_profile)


def pytest_unconfigure() -> None:
    sys.setprofile(None)
    threading.setprofile(None)
    found = {name.removeprefix(f"{ROOT}/"): count for name, count in _calls.items()}
    Path("walk.json").write_text(json.dumps(found), "utf-8")
