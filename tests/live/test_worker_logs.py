"""Log lines in receipts: which are kept, how many, and that nothing else changes."""

from __future__ import annotations

import json

import pytest

from pytest_manifest.schema import Receipt
from tests.live.apps.worker_support import INCLUDE, STOCK, Bench, Flavour, bench_of

pytestmark = pytest.mark.live

RELAYED = "tests.live.apps.worker_relayed"
OWN_TEXT = {"MANIFEST_LOG_FORMAT": "text", "MANIFEST_LOG_LEVEL": "INFO"}
OWN_JSON = {"MANIFEST_LOG_FORMAT": "json", "MANIFEST_LOG_LEVEL": "INFO"}
OWN_QUIET = OWN_TEXT | {"MANIFEST_LOG_JOBS": "0"}
OWN = [
    Flavour("own-text", STOCK, INCLUDE, OWN_TEXT),
    Flavour("own-json", STOCK, INCLUDE, OWN_JSON),
]
FORKED = [
    Flavour("stock", STOCK, INCLUDE),
    Flavour("relayed", RELAYED, INCLUDE),
    *OWN,
]
FLAVOURS = [
    *FORKED,
    # Solo and threads die with a task that kills its process: nobody is left to tell of it.
    Flavour("solo", STOCK, (*INCLUDE, "--pool=solo")),
    Flavour("threads", STOCK, (*INCLUDE, "--pool=threads")),
]
bench = bench_of(FLAVOURS, pytest.mark.ring(1))


def messages(receipt: Receipt) -> list[str]:
    return [line.partition(": ")[2] for line in receipt.log]


def test_every_way_of_logging(bench: Bench) -> None:
    """loguru, the standard library, Celery's task logger and print are kept, each line once."""
    receipt = bench.ask("chatter", 3)
    lines = messages(receipt)
    assert lines == [
        *("loguru 0", "loguru 1", "loguru 2"),
        "stdlib says amqp://user:***@host/vhost",
        *("task logger", "printed", "from a thread"),
    ]
    assert receipt.log_dropped == 0
    assert all(" INFO " in line for line in receipt.log[:3])


def test_password_in_a_log_line_stays_here(bench: Bench) -> None:
    """What looks like a secret is in no receipt."""
    assert "hunter2secret" not in bench.ask("chatter").model_dump_json()


def test_last_lines_only(bench: Bench) -> None:
    """Of many lines the last 200 are kept, and the others are counted."""
    receipt = bench.ask("long_story", 1000)
    assert len(receipt.log) == 200
    assert receipt.log_dropped == 800
    assert messages(receipt)[-1].startswith("000999")


def test_last_bytes_only(bench: Bench) -> None:
    """Of long lines as many as go into 32 KiB are kept."""
    receipt = bench.ask("long_story", 100, 1000)
    size = sum(len(line.encode()) for line in receipt.log)
    assert 30 * 1024 < size <= 32 * 1024
    assert len(receipt.log) + receipt.log_dropped == 100


def test_exceptions_that_are_logged(bench: Bench) -> None:
    """A logged exception is kept with its traceback, line by line."""
    receipt = bench.ask("raise_and_log")
    assert receipt.log[0].endswith("caught")
    assert receipt.log[-1] == "KeyError: 'AN_INNER_MATTER'"


def test_lines_of_one_task_are_its_own(bench: Bench) -> None:
    """The next task begins with an empty log."""
    bench.ask("chatter")
    assert bench.ask("add", 1, 2).log == []


def test_loguru_knows_whose_line_it_is(bench: Bench) -> None:
    """loguru's context names run, entry, task and attempt while one of our tasks runs."""
    sent = bench.send("whole_context")
    assert bench.receipt(sent).result == {
        "run": sent.run,
        "entry": "the entry",
        "task_id": sent.task_id,
        "attempt": 2,
    }


def test_no_context_for_other_tasks(bench: Bench) -> None:
    """loguru's context is left alone for tasks that are not ours."""
    sent = bench.send("whole_context", ours=False)
    assert bench.app.AsyncResult(sent.task_id).get(timeout=30) == {}


def test_nothing_is_left_on_disk(bench: Bench) -> None:
    """The spool is empty when no task runs."""
    bench.settle()
    assert bench.spooled() == []


@pytest.mark.parametrize("bench", FORKED, indirect=True, ids=lambda flavour: flavour.name)
def test_a_killed_child_had_much_to_say(bench: Bench) -> None:
    """What a killed process said is bounded like everything else, and its evidence is kept."""
    receipt = bench.ask("long_story_and_die", 20_000)
    assert receipt.state == "crashed"
    assert len(receipt.log) == 200
    assert receipt.log_dropped == 19_800
    assert messages(receipt)[-1].startswith("019999")
    assert receipt.evidence == {"before": "the story"}
    assert bench.spooled() == []


@pytest.mark.parametrize("bench", OWN, indirect=True, ids=lambda flavour: flavour.name)
def test_own_workers_log_by_loguru(bench: Bench) -> None:
    """Workers of ours write Celery's records too in the format that was asked for."""
    bench.ask("chatter")
    lines = [line for line in bench.log.read_text().splitlines() if "received" in line]
    assert lines
    if bench.flavour.environment == OWN_JSON:
        document = json.loads(lines[-1])
        assert document["logger"] == "celery.worker.strategy"
    else:
        assert "celery.worker.strategy" in lines[-1]


QUIET = Flavour("own-quiet", STOCK, INCLUDE, OWN_QUIET)


@pytest.mark.parametrize("bench", [QUIET], indirect=True, ids=["own-quiet"])
def test_a_run_s_own_workers_say_nothing_of_jobs_that_succeed(bench: Bench) -> None:
    """Those that fail are told of, and what the job itself says is kept."""
    assert bench.ask("chatter").log
    assert bench.ask("fail").state == "failed"
    text = bench.log.read_text()
    assert "ready" in text
    assert "received" not in text
    assert "succeeded" not in text
    assert "raised unexpected" in text
