"""The text of a failed test."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from pytest_manifest.schema import Entry, Receipt
from pytest_manifest.verdict.explanation import AttemptLine, explain
from tests.reasons import noted
from tests.verdicts import evaluate

TRACEBACK = """Traceback (most recent call last):
  File "/srv/app/lib/python3.11/site-packages/celery/app/trace.py", line 453, in trace_task
    R = retval = fun(*args, **kwargs)
                 ^^^^^^^^^^^^^^^^^^^^
  File "/srv/app/lib/python3.11/site-packages/pytest_manifest/worker/execution.py", line 9, in run
    return task(*args)
  File "/srv/app/tasks/crud.py", line 31, in work
    raise ValueError("no such film")
ValueError: no such film
    really
"""
ENTRY = Entry.model_validate(
    {
        "id": "crud-0003",
        "task": "tasks.crud.work",
        "args": [1],
        "kwargs": {"data": {"title": "Alien"}},
        "meta": {"film": 7},
        "expect": {"result": {"lifecycle": ["created", "verified", "deleted"], "rows": True}},
    }
)


def receipt(**fields: Any) -> Receipt:
    """A receipt of the entry."""
    base = {
        "run": "20261124T150000-0a1b2c3d",
        "entry": "crud-0003",
        "attempt": 1,
        "task_id": "0a1b2c3d-x",
        "task": "tasks.crud.work",
        "state": "succeeded",
        "worker": "celery@w1",
        "host": "w1",
        "pid": 77,
        "queue": "celery",
        "sent_at": datetime(2026, 11, 24, 15, 0, 0, 250000, tzinfo=timezone.utc),
        "wait": 0.031,
        "runtime": 12.44,
        "cpu": 0.00004,
        "executions": 1,
    }
    return Receipt.model_validate({**base, **fields})


def explained(entry: Entry, evidence: Receipt | None) -> str:
    """The explanation of the verdict on it."""
    return explain(entry, evidence, evaluate(entry, evidence, attempt=1))


def test_expected_and_actual_stand_side_by_side() -> None:
    """The whole text of an ordinary failure."""
    found = receipt(
        result={"lifecycle": ["created", "deleted"], "rows": 1},
        redelivered=True,
        retries=2,
        executions=1,
        evidence={"pool": 5},
    )
    assert explained(ENTRY, found) == (
        "The task succeeded on celery@w1 (pid 77), but result.lifecycle[1] is 'deleted' where "
        "'verified' was expected (and 2 more differences); find out whether the task or the "
        "entry's 'expect' is wrong, and correct it.\n"
        "\n"
        "                       expected    actual\n"
        "  result.lifecycle[1]  'verified'  'deleted'\n"
        "  result.lifecycle[2]  'deleted'   absent\n"
        "  result.rows          True        1\n"
        "\n"
        "  entry     crud-0003\n"
        "  task      tasks.crud.work(1, data={'title': 'Alien'})\n"
        "  attempt   1, task id 0a1b2c3d-x\n"
        "  ran on    celery@w1, host w1, pid 77, queue celery\n"
        "  times     sent 2026-11-24 15:00:00.250000 UTC, waited 0.031 s, ran 12.4 s, CPU 4e-05 s\n"
        "  counts    redelivered, 2 retries\n"
        "  meta      {'film': 7}\n"
        "  evidence  {'pool': 5}"
    )


def test_earlier_attempts_are_told_of() -> None:
    """One line each, with why it was made, between the facts and the traceback."""
    error = {"type": "E", "message": "m", "traceback": "Traceback:\nE: m"}
    failed = receipt(state="failed", error=error, attempt=2)
    verdict = evaluate(ENTRY, failed, attempt=2)
    attempts = [
        AttemptLine(1, "crashed", "The process died\x1b[31m.\n"),
        AttemptLine(2, "failed", "The task raised E: m.", "crashed"),
    ]
    text = explain(ENTRY, failed, verdict, attempts)
    assert (
        "  meta      {'film': 7}\n"
        "\n"
        "Attempts:\n"
        "  1  crashed  The process died.\\n\n"
        "  2  failed   sent again (crashed): The task raised E: m.\n"
        "\n"
        "The worker's traceback:\n"
    ) in text


def test_a_single_attempt_needs_no_list() -> None:
    """Its sentence stands at the top already."""
    found = receipt()
    verdict = evaluate(ENTRY, found, attempt=1)
    single = [AttemptLine(1, verdict.verdict, verdict.sentence)]
    assert explain(ENTRY, found, verdict, single) == explain(ENTRY, found, verdict)


def test_what_a_forged_receipt_says_is_marked() -> None:
    """It is shown, for whoever looks for its origin, but not as a fact."""
    liar = receipt(entry="crud-0004")
    note = "it is of another entry: 'crud-0004', not 'crud-0003'"
    text = explain(ENTRY, liar, evaluate(ENTRY, liar, attempt=1, problem="forged", why=noted(note)))
    assert (
        "  receipt   what follows is what it says, true or not\n  attempt   1, task id 0a1b2c3d-x\n"
    ) in text


def test_the_traceback_is_the_tasks_own() -> None:
    """Frames of Celery and of this package are left out, with the lines that belong to them."""
    error = {"type": "ValueError", "message": "no such film", "traceback": TRACEBACK}
    text = explained(ENTRY, receipt(state="failed", error=error))
    assert text.endswith(
        "The worker's traceback:\n"
        "  Traceback (most recent call last):\n"
        '    File "/srv/app/tasks/crud.py", line 31, in work\n'
        '      raise ValueError("no such film")\n'
        "  ValueError: no such film\n"
        "      really"
    )


def test_a_traceback_of_internals_only_stays_whole() -> None:
    """A wrong number of arguments is seen in Celery's frames alone."""
    internal = "\n".join([*TRACEBACK.splitlines()[:4], "TypeError: work() takes 1 argument"])
    error = {"type": "TypeError", "message": "m", "traceback": internal}
    assert "in trace_task" in explained(ENTRY, receipt(state="failed", error=error))


def test_a_long_traceback_is_shortened_in_the_middle() -> None:
    """A recursion error does not fill the screen."""
    frames = "".join(f'  File "/srv/app/t.py", line {i}, in f\n    f()\n' for i in range(500))
    error = {"type": "E", "message": "m", "traceback": f"Traceback:\n{frames}E: m"}
    text = explained(ENTRY, receipt(state="failed", error=error))
    assert "... 942 lines left out ..." in text
    assert len(text.splitlines()) < 85


def test_log_lines_are_the_last_ones_and_plain() -> None:
    """Colours are gone, control characters visible, and what is left out is counted."""
    log = [f"line {i}" for i in range(30)] + [
        "\x1b[1;31mred\x1b[0m \x1b]0;title\x07\x07" + "x" * 900
    ]
    text = explained(ENTRY, receipt(log=log, log_dropped=5))
    assert "The task's last log lines (16 earlier ones not shown):\n  line 11\n" in text
    last = text.splitlines()[-1]
    assert last.startswith("  red \\x07xxx")
    assert len(last) <= 202


def test_without_a_receipt_there_is_what_the_entry_says() -> None:
    """The sentence, the entry and its call."""
    assert explained(ENTRY, None).splitlines()[2:] == [
        "  entry     crud-0003",
        "  task      tasks.crud.work(1, data={'title': 'Alien'})",
        "  meta      {'film': 7}",
    ]


def test_a_text_is_free_of_control_characters() -> None:
    """Whatever names and values a worker sends."""
    wild = receipt(
        worker="w\x1b[2J\x00", host="\x07", queue="q\r", result={"lifecycle": "\x1b[2J\n"}
    )
    text = explained(ENTRY, wild)
    assert [char for char in text if not char.isprintable() and char != "\n"] == []
