"""Where the end of a run says that its jobs can be watched."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from pytest_manifest.reporting import summary
from pytest_manifest.run.run import Run
from pytest_manifest.urls import StackAddress


def address(*, is_private: bool = False, flower: str = "") -> str | None:
    """What is said of a run on such a stack."""
    stack = StackAddress("redis://b", "redis://b", None, is_private, flower_url=flower)
    return summary._flower(cast("Run", SimpleNamespace(address=stack)))


def test_flower_is_named_where_somebody_says_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By ``MANIFEST_FLOWER_URL`` of an existing stack, without its password; ours knows its own."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("MANIFEST_FLOWER_URL", raising=False)
    assert address() is None
    monkeypatch.setenv("MANIFEST_FLOWER_URL", "https://ann:secret@flower.example/")
    assert address() == "https://ann:***@flower.example/tasks"
    assert address(is_private=True) is None
    assert address(flower="http://127.0.0.1:5555") == "http://127.0.0.1:5555/tasks"
