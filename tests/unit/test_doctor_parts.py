"""What ``manifest doctor`` finds without a stack, and how a process shows what it does."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pytest_manifest.cli import FOUND
from pytest_manifest.ledger import Ledger, utc_now
from pytest_manifest.ledger.files import RunFiles
from pytest_manifest.processes import holder_of, is_stopped, locked, stacks_of, take_lock
from pytest_manifest.run.fact_log import stamp
from pytest_manifest.run.ledger_findings import last_word
from pytest_manifest.schema.run_facts import SetBack
from pytest_manifest.stack.health import server_state
from tests.reports import started
from tests.services import valkey_server
from tests.support import eventually
from tests.unit.cli_support import as_json, make_run, manifest, write_manifest
from tests.unit.ledger_support import verdict

SHOWS = "from pytest_manifest.processes import show_stacks\nshow_stacks()\n"
HANGS = "def hang():\n    {}\n\nprint('here', flush=True)\nhang()\n"
SLEEPS = HANGS.format("import time; time.sleep(60)")
IN_C = HANGS.format("import re; re.match('(a+)+b', 'a' * 40)")


@contextmanager
def process(code: str) -> Iterator[int]:
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as one:
        assert one.stdout is not None
        assert one.stdout.readline() == b"here\n"
        yield one.pid
        assert one.poll() is None, "it was ended by the question"
        one.kill()


def test_the_last_word_of_a_log_is_one_line(tmp_path: Path) -> None:
    """A record that had several was written as one; an empty log has none."""
    log = tmp_path / "run.log"
    assert last_word(log) is None
    log.write_text("1 | a\n2 | no worker answers:\\n\\n  a@b\\n  c@d\n\n", "utf-8")
    assert last_word(log) == "2 | no worker answers: a@b c@d"


@pytest.mark.parametrize("hangs", [SLEEPS, IN_C], ids=["sleeps", "in C"])
def test_a_process_shows_what_it_does(hangs: str) -> None:
    """Also one that gives Python no turn; asked twice, it shows the same twice."""
    with process(SHOWS + hangs) as pid:
        eventually(lambda: "in hang" in (stacks_of(pid) or ""), what="it hangs")
        first, second = stacks_of(pid), stacks_of(pid)
    assert first is not None
    assert first == second


NO_MORE = "import signal\nsignal.signal(signal.SIGUSR2, signal.SIG_DFL)\n"


@pytest.mark.parametrize("code", [SLEEPS, SHOWS + NO_MORE + SLEEPS], ids=["never", "no more"])
def test_a_process_that_shows_nothing_gets_no_signal(code: str) -> None:
    with process(code) as pid:
        assert stacks_of(pid) is None


def test_a_process_that_is_gone_shows_nothing() -> None:
    with process(SHOWS + SLEEPS) as pid:
        pass
    eventually(lambda: stacks_of(pid) is None, what="it is gone")


def test_the_holder_of_a_lock_is_known(tmp_path: Path) -> None:
    """And whether it is stopped."""
    path = tmp_path / "a.lock"
    assert holder_of(path) is None
    code = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from pytest_manifest.processes import take_lock\n"
        "take_lock(Path(sys.argv[1]))\nprint('here', flush=True)\nos.kill(os.getpid(), 19)\n"
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as one:
        assert one.stdout is not None
        one.stdout.readline()
        assert holder_of(path) == one.pid
        eventually(lambda: is_stopped(one.pid), what="it is stopped")
        one.kill()
    assert take_lock(path) is not None


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run without a stack, of which one entry has no verdict."""
    monkeypatch.chdir(tmp_path)
    for name in ("MANIFEST_APP", "CELERY_BROKER_URL"):
        monkeypatch.delenv(name, raising=False)
    file = write_manifest(tmp_path / "m.jsonl", *({"id": n, "task": "t"} for n in "ab"))
    path = make_run(file, 1, ["passed", None])
    with Ledger.open(path, write=True) as ledger:
        ledger.info.set_status("running")
    return path


def test_without_a_stack_the_ledger_speaks(run: Path) -> None:
    """What is known is said, in words and for programs, and what cannot be seen."""
    text = manifest("doctor", status=FOUND)
    assert f"run {run.stem}" in text
    assert "1 judged, 1 in flight, 0 not sent" in text
    assert "1. no pytest follows the run any more" in text
    assert "--manifest-resume" in text
    assert "cannot see broker, workers and result store: the run's private stack is gone" in text
    document = as_json("doctor", run.stem, status=FOUND)
    assert document["diagnosis"] == 1
    assert document["is_followed"] is False


def test_what_is_judged_without_a_report_is_not_in_flight(run: Path) -> None:
    """An audit may find a report of it yet, but nobody waits for it.

    What is unknown a resume looks for, but not the session that has called it so.
    """
    names = {"b": "cancelled", "c": "lost", "d": "timed_out", "e": None, "f": "unknown"}
    file = write_manifest(Path("n.jsonl"), *({"id": name, "task": "t"} for name in ("a", *names)))
    path = make_run(file, 2, ["passed", *([None] * len(names))])
    with Ledger.open(path, write=True) as ledger:
        ledger.verdicts.record([(verdict(n, kind), None) for n, kind in names.items() if kind])
        ledger.info.set_status("running")
    found = as_json("doctor", path.stem, status=FOUND)
    assert (found["judged"], found["in_flight"]) == (4, 2)
    with locked(RunFiles(path).lock):
        found = as_json("doctor", path.stem)
    assert (found["judged"], found["in_flight"]) == (5, 1)


@pytest.mark.parametrize(
    ("by", "words"), [(9.0, "9 s ahead of the controller's"), (-9.0, "9 s behind the controller's")]
)
def test_a_workers_clock_that_differs(run: Path, by: float, words: str) -> None:
    """It says that a job began after that was read, or before it was sent."""
    now = utc_now()
    with Ledger.open(run, write=True) as ledger:
        (row,) = ledger.attempts.of_entry("b")
        ledger.attempts.mark([row.task_id], "sent", sent_at=now)
        fact = started(row.task_id, "x", now + timedelta(seconds=by), worker="w@far")
        object.__setattr__(fact, "at", now)
        ledger.events.add([fact])
    (clock,) = [one for one in _findings() if one["code"] == "clock"]
    assert words in clock["sentence"]
    assert "w@far" in clock["sentence"]


def _findings() -> Any:
    return as_json("doctor", status=FOUND)["findings"]


def test_a_clock_that_was_set_back(run: Path) -> None:
    with Ledger.open(run, write=True) as ledger:
        ledger.facts.append([(None, SetBack(**stamp(), by=120.0, most=120.0))])
    (clock,) = [one for one in _findings() if one["code"] == "clock"]
    assert "was set back by 2 min 00 s" in clock["sentence"]


def test_a_stopped_run_can_go_on(run: Path) -> None:
    """Nothing more is sent of it, and nobody is at fault."""
    with Ledger.open(run, write=True) as ledger:
        ledger.info.set_status("stopped")
    (finding,) = _findings()
    assert finding["sentence"] == "the run was stopped, and nothing more is sent"


@pytest.mark.live
def test_a_servers_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its memory, what it threw away, and its clock beside ours."""
    from redis import Redis

    with valkey_server() as url, Redis.from_url(url) as client:
        state = server_state(client)
        assert (state.most, state.evicted, state.refuses) == (0, 0, "")
        assert abs(state.ahead) <= state.within + 1
        real = time.time
        monkeypatch.setattr("pytest_manifest.stack.health.time.time", lambda: real() - 60)
        assert server_state(client).ahead == pytest.approx(60, abs=1)
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("maxmemory", int(client.info("memory")["used_memory"]) + 500_000)
        for number in range(2000):
            client.set(f"k{number}", "x" * 1000)
        assert server_state(client).evicted > 0
        assert server_state(client).policy == "allkeys-lru"
        client.replicaof("127.0.0.1", 1)
        assert server_state(client).refuses == "it is a replica"
