"""An app with a receiver of every signal and every hook of a task is green, and followed."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import redis

from tests.frameworks.projects import INSTRUMENTED, Stranger, entry

pytestmark = pytest.mark.live

IN_MEMORY = "--manifest-broker=memory://"


def notes(project: Stranger, kind: str) -> Counter[str]:
    """What the app itself has noted of this kind, and how often."""
    lines = (project.folder / "notes.txt").read_text("utf-8").splitlines()
    told = (line.split(maxsplit=2)[1:] for line in lines)
    return Counter(rest for name, rest in told if name == kind)


@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_in_pools_without_processes(pool: str, tmp_path: Path, valkey: str) -> None:
    """There hooks are called in the worker's own process."""
    with redis.Redis.from_url(valkey) as client:
        client.flushall()
    project = Stranger("observed", tmp_path)
    project.use(valkey)
    with project.worker(*INSTRUMENTED, "--pool", pool):
        done = project.dispatch()
    assert project.verdicts() == project.expected()
    assert done.status == 0, done.text


def test_in_memory(tmp_path: Path) -> None:
    """Each hook is called as without us, and later sessions find the record as sound."""
    project = Stranger("observed", tmp_path)
    done = project.dispatch(IN_MEMORY)
    assert project.verdicts() == project.expected()
    assert done.status == 0, done.text
    hooks = notes(project, "hook")
    tries = {"fetch": 3, "delegate": 1, "print_receipt": 2}
    for name in ("price", "fetch", "refuse", "delegate", "order", "stock", "print_receipt"):
        begun = tries.get(name, 1) + (name == "price")  # which is what delegate was replaced by
        assert hooks[f"before_start shop.tasks.{name}"] == begun
    assert hooks["on_retry shop.tasks.fetch"] == 2
    assert hooks["on_failure shop.tasks.refuse"] == hooks["after_return shop.tasks.refuse"] == 1
    audit = project.dispatch(IN_MEMORY, "--manifest-audit")
    assert audit.status == 0, audit.text
    check = project.run("pytest_manifest", "check", "last")
    assert check.status == 0, check.text


def test_what_a_receiver_starts_decides(tmp_path: Path) -> None:
    """A job whose receiver starts another that fails has not passed, and one that is ignored has an
    end as well."""
    project = Stranger("observed", tmp_path)
    ignored = {"expect": {"state": "ignored"}}
    rows = {
        "rice": (entry("shop.tasks.order", "rice"), "passed"),
        "postrun": (entry("shop.tasks.order", "gin"), "failed"),
        "success": (entry("shop.tasks.stock", "gin"), "failed"),
        "left": (entry("shop.tasks.leave", "milk") | ignored, "passed"),
    }
    lines = (json.dumps({"id": name, **row}) for name, (row, _) in rows.items())
    (project.folder / "batch.jsonl").write_text("".join(f"{line}\n" for line in lines), "utf-8")
    done = project.dispatch(IN_MEMORY)
    assert project.verdicts() == {name: verdict for name, (_, verdict) in rows.items()}
    assert "record    consistent" in done.text
    assert "its descendant 'shop.tasks.print_receipt'" in done.text
    ran = {"order/rice": 1, "order/gin": 1, "stock/gin": 1, "leave/milk": 1}
    assert notes(project, "ran") == ran | {"receipt/rice": 1, "receipt/gin": 2}
