"""The whole text of a failure: each line of it, where it stands, and what is cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, TypeAlias

import pytest

from pytest_manifest.schema import Entry, ErrorInfo, Mismatch, Receipt, Verdict, VerdictStatus
from pytest_manifest.verdict import problems
from pytest_manifest.verdict.explanation import (
    AttemptLine,
    TreeText,
    best_known,
    brief,
    error_place,
    explain,
    next_step,
    task_traceback,
)
from pytest_manifest.verdict.reasons import Finding, Reason, Said, verdict_by, verdict_of
from pytest_manifest.verdict.tree import ByDescendant

Fields: TypeAlias = Mapping[str, Any]
SENT = datetime(2026, 11, 24, 15, 0, 1, 250000, tzinfo=timezone.utc)
ENTRY = Entry(id="a", task="jobs.t")
BARE: Fields = {"run": "r", "entry": "a", "attempt": 1, "task_id": "t-a", "task": "jobs.t"}
OWN = '  File "/srv/jobs.py", line 12, in work\n    fail()\n'
CELERY = '  File "/lib/site-packages/celery/app/trace.py", line 453, in trace\n    run()\n'
BEGIN = "Traceback (most recent call last):\n"


def entry(**fields: Any) -> Entry:
    return Entry.model_validate({"id": "a", "task": "jobs.t", **fields})


def receipt(state: str = "succeeded", **fields: Any) -> Receipt:
    return Receipt.model_validate({**BARE, "state": state, **fields})


def error(traceback: str | None = None, message: str = "no", kind: str = "Boom") -> ErrorInfo:
    return ErrorInfo(type=kind, message=message, traceback=traceback)


def verdict(status: VerdictStatus = "failed", *mismatches: Mismatch) -> Verdict:
    return Verdict(
        verdict=status, entry="a", attempt=1, sentence="It is so.", mismatches=list(mismatches)
    )


def mismatch(path: str = "result.a", expected: str = "1", actual: str = "2") -> Mismatch:
    return Mismatch(path=path, expected=expected, actual=actual)


def text(
    told: Receipt | None = None,
    *mismatches: Mismatch,
    status: VerdictStatus = "failed",
    of: Entry = ENTRY,
    attempts: Sequence[AttemptLine] = (),
    tree: TreeText | None = None,
) -> str:
    return explain(of, told, verdict(status, *mismatches), attempts, tree)


HEAD = "It is so.\n\n  entry     a\n  task      jobs.t()"
ATTEMPT = f"{HEAD}\n  attempt   1, task id t-a"


def test_all_that_is_known_has_its_place() -> None:
    """The sentence, the differences, the facts, the attempts, the worker's words, the tree's."""
    child = receipt("failed", worker="v@i", error=error(f"{BEGIN}{OWN}Boom: no"), log=["gave up"])
    found = text(
        receipt(error=error(f"{BEGIN}{OWN}Boom: so"), log=["began"], evidence={"n": 1}),
        mismatch(),
        mismatch("state", "succeeded", "failed"),
        of=entry(args=[1], kwargs={"b": "x"}, meta={"film": 7}),
        attempts=[
            AttemptLine(1, "lost", "Nobody has it."),
            AttemptLine(2, "crashed", "It died.\nThen.", "lost"),
        ],
        tree=TreeText("2 descendants", "jobs.u", "t-u", child),
    )
    assert found == (
        "It is so.\n"
        "\n"
        "            expected   actual\n"
        "  result.a  1          2\n"
        "  state     succeeded  failed\n"
        "\n"
        "  entry     a\n"
        "  task      jobs.t(1, b='x')\n"
        "  attempt   1, task id t-a\n"
        "  meta      {'film': 7}\n"
        "  evidence  {'n': 1}\n"
        "  tree      2 descendants\n"
        "\n"
        "Attempts:\n"
        "  1  lost     Nobody has it.\n"
        "  2  crashed  sent again (lost): It died.\\nThen.\n"
        "\n"
        "The worker's traceback:\n"
        "  Traceback (most recent call last):\n"
        '    File "/srv/jobs.py", line 12, in work\n'
        "      fail()\n"
        "  Boom: so\n"
        "\n"
        "The task's last log lines:\n"
        "  began\n"
        "\n"
        "The descendant 'jobs.u':\n"
        "  task id   t-u\n"
        "  ran on    v@i\n"
        "\n"
        "The descendant's traceback:\n"
        "  Traceback (most recent call last):\n"
        '    File "/srv/jobs.py", line 12, in work\n'
        "      fail()\n"
        "  Boom: no\n"
        "\n"
        "The descendant's last log lines:\n"
        "  gave up"
    )


def test_little_is_known_without_a_receipt() -> None:
    """And a single attempt needs no list."""
    assert text() == HEAD
    assert text(attempts=[AttemptLine(1, "lost", "Nobody has it.")]) == HEAD
    assert text(status="forged") == HEAD
    assert text(receipt()) == ATTEMPT
    assert text(tree=TreeText("2 descendants")) == f"{HEAD}\n  tree      2 descendants"


def test_what_is_not_to_be_believed_is_marked() -> None:
    """Before the first of what the receipt says."""
    marked = "\n  receipt   what follows is what it says, true or not\n  attempt "
    assert text(receipt(), status="forged") == ATTEMPT.replace("\n  attempt ", marked)


def test_a_descendant_without_a_receipt_has_none() -> None:
    """Its names are told without what a terminal obeys."""
    found = text(tree=TreeText("1 descendant", "jobs.\x07", "t\x1b[2J\x07"))
    assert found == (
        f"{HEAD}\n  tree      1 descendant\n\n"
        "The descendant 'jobs.\\\\x07':\n  task id   t\\x07\n  receipt   none received"
    )


def test_a_descendant_that_said_little_has_no_more() -> None:
    """Neither traceback nor log lines."""
    found = text(tree=TreeText("1 descendant", "jobs.u", "t-u", receipt(pid=7)))
    assert found.endswith("The descendant 'jobs.u':\n  task id   t-u\n  ran on    pid 7")


def test_no_part_of_it_has_a_secret() -> None:
    """Wherever entry and receipt have it under its name, it is in none of all these texts."""
    ours, theirs = "correct horse battery", "nine-lives-of-a-cat"
    both = f"with {ours} and {theirs}"
    raised = error(f"{BEGIN}{OWN}Boom: {both}", message=both)
    found = explain(
        entry(args=[f"for {theirs}"], kwargs={"password": ours}),
        receipt(error=raised, log=[both], evidence={"token": theirs}),
        verdict("failed", mismatch(actual=both)).model_copy(update={"sentence": both}),
        [AttemptLine(1, "lost", both), AttemptLine(2, "failed", both)],
        TreeText("1 descendant", "jobs.u", "t-u", receipt(error=raised, log=[both])),
    )
    assert ours not in found
    assert theirs not in found
    assert found.count("with ") == 8


# Cells and cuts


def test_cells_are_cut_in_their_middle_and_stand_on_one_line() -> None:
    """Sixty characters of each column."""
    found = text(None, mismatch("p" * 61, "e\tf\n", "a" * 61), mismatch("q" * 60, "", ""))
    rows = found.split("\n\n")[1].splitlines()
    assert rows == [
        " " * 64 + "expected  actual",
        f"  {'p' * 29}...{'p' * 28}  e f\\n     {'a' * 29}...{'a' * 28}",
        f"  {'q' * 60}",
    ]


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"args": [1, "x"], "kwargs": {}}, "jobs.t(1, 'x')"),
        ({"kwargs": {"b": 1, "c": None}}, "jobs.t(b=1, c=None)"),
        ({"args": ["a" * 59]}, f"jobs.t('{'a' * 27}...{'a' * 28}')"),
        ({"kwargs": {"b": "a" * 59}}, f"jobs.t(b='{'a' * 27}...{'a' * 28}')"),
        ({"args": [1] * 50}, f"jobs.t({'1, ' * 16}1...{', 1' * 16})"),
        ({"args": ["é\u202e\n"]}, "jobs.t('é\\u202e\\n')"),
    ],
)
def test_arguments_are_told_in_bounds(fields: Fields, line: str) -> None:
    """Sixty characters of each, a hundred of all, on one line."""
    assert text(of=entry(**fields)).splitlines()[3] == f"  task      {line}"


def test_what_is_added_is_told_in_bounds() -> None:
    """A hundred characters of what the plan and the task itself have added."""
    long = {"k": "x" * 100}
    cut = f"{{'k': '{'x' * 42}...{'x' * 46}'}}"
    lines = text(receipt(evidence=long), of=entry(meta=long)).splitlines()
    assert lines[-2:] == [f"  meta      {cut}", f"  evidence  {cut}"]
    assert len(cut) == 100


def test_attempts_are_told_in_bounds() -> None:
    """Two hundred characters of each message; hostile words are escaped."""
    attempts = [
        AttemptLine(1, "l\x07", "m" * 201),
        AttemptLine(12, "unknown_task", "\x1b[31mred", "so\tit\nwas"),
    ]
    assert text(attempts=attempts).split("\n\n")[2] == (
        f"Attempts:\n  1  l\\x07         {'m' * 99}...{'m' * 98}\n"
        "  12  unknown_task  sent again (so it\\nwas): red"
    )


# Where and when it ran


@pytest.mark.parametrize(
    ("fields", "lines"),
    [
        ({}, []),
        ({"worker": "w\x07"}, ["ran on    w\\x07"]),
        ({"host": "h\x07"}, ["ran on    host h\\x07"]),
        ({"pid": 0}, ["ran on    pid 0"]),
        ({"queue": "q\x07"}, ["ran on    queue q\\x07"]),
        (
            {"worker": "w", "host": "h", "pid": 7, "queue": "q"},
            ["ran on    w, host h, pid 7, queue q"],
        ),
        ({"sent_at": SENT}, ["times     sent 2026-11-24 15:00:01.250000 UTC"]),
        ({"wait": 0.0}, ["times     waited 0 s"]),
        ({"runtime": 0.0}, ["times     ran 0 s"]),
        ({"cpu": 0.0}, ["times     CPU 0 s"]),
        (
            {"sent_at": SENT, "wait": 1, "runtime": 2.5, "cpu": 0.5},
            ["times     sent 2026-11-24 15:00:01.250000 UTC, waited 1 s, ran 2.5 s, CPU 0.5 s"],
        ),
        ({"executions": 1}, []),
        ({"executions": 2}, ["counts    2 executions"]),
        ({"redelivered": True}, ["counts    redelivered"]),
        ({"retries": 1}, ["counts    1 retry"]),
        (
            {"executions": 3, "redelivered": True, "retries": 2},
            ["counts    3 executions, redelivered, 2 retries"],
        ),
        (
            {"pid": 7, "wait": 1, "retries": 1},
            ["ran on    pid 7", "times     waited 1 s", "counts    1 retry"],
        ),
    ],
)
def test_where_and_when_it_ran_is_told_as_far_as_it_is_known(
    fields: Fields, lines: Sequence[str]
) -> None:
    """Each in its line, and no line of nothing."""
    assert text(receipt(**fields)) == "".join([ATTEMPT, *(f"\n  {line}" for line in lines)])


DIED: Fields = {"started_at": SENT, "finished_at": SENT + timedelta(seconds=70)}


@pytest.mark.parametrize(
    ("state", "fields", "known"),
    [
        ("crashed", DIED, True),
        ("failed", DIED, False),
        ("crashed", {**DIED, "started_at": None}, False),
        ("crashed", {**DIED, "finished_at": None}, False),
        ("crashed", {**DIED, "runtime": 1.0}, False),
    ],
)
def test_when_a_process_died_is_not_known_exactly(
    state: str, fields: Fields, *, known: bool
) -> None:
    """It was between two times, which are told."""
    said = "began 15:00:01.250000, was found dead 15:01:11.250000 UTC"
    assert (said in text(receipt(state, **fields))) == known
    assert ("began" in text(receipt(state, **fields))) == known


# Tracebacks


def test_a_traceback_has_sixty_lines_and_no_more() -> None:
    """Half of them from its beginning, half from its end."""
    lines = [f"  line {number}" for number in range(61)]
    whole = text(receipt(error=error("\n".join(lines[:60]))))
    assert whole.split("traceback:\n")[1] == "\n".join(f"  {line}" for line in lines[:60])
    cut = text(receipt(error=error("\n".join(lines))))
    shown = [*lines[:30], "  ... 1 line left out ...", *lines[-30:]]
    assert cut.split("traceback:\n")[1] == "\n".join(f"  {line}" for line in shown)


def test_an_error_without_a_traceback_has_none() -> None:
    """Nothing is said of it."""
    for told in (error(), error("")):
        assert text(receipt(error=told)) == ATTEMPT


def test_a_traceback_is_told_without_what_a_terminal_obeys() -> None:
    """Nor with spaces at the ends of its lines."""
    found = text(receipt(error=error(f"{BEGIN}\x1b[31m{OWN}\n   \nBoom: \x07  ")))
    assert found.endswith("    fail()\n\n\n  Boom: \\x07")


@pytest.mark.parametrize(
    ("inner", "kept"),
    [
        (CELERY, False),
        ('  File "/lib/dist-packages/kombu/x.py", line 1, in f\n    g()\n', False),
        ('  File "/lib/site-packages/billiard/x.py", line 1, in f\n    g()\n', False),
        ('  File "/lib/site-packages/pytest_manifest/x.py", line 1, in f\n    g()\n', False),
        ('  File "/w/pytest_manifest/worker/x.py", line 1, in f\n    g()\n    ^^^\n', False),
        ('  File "C:\\lib\\site-packages\\celery\\x.py", line 1, in f\n    g()\n', False),
        ('  File "/w/pytest_manifest/x.py", line 1, in f\n    g()\n', True),
        ('  File "/lib/site-packages/celery_more/x.py", line 1, in f\n', True),
    ],
)
def test_frames_of_others_are_left_out(inner: str, *, kept: bool) -> None:
    """With the lines that belong to them, up to a line that does not."""
    lines = task_traceback(f"{BEGIN}{inner}{OWN}{inner}Boom: no\n  more\n\n")
    some = inner.splitlines() if kept else []
    whole = [BEGIN.strip(), *some, *OWN.splitlines(), *some, "Boom: no", "  more"]
    assert lines == whole


def test_a_traceback_of_others_frames_alone_stays_whole() -> None:
    """A wrong number of arguments is seen in no other."""
    assert task_traceback(f"{BEGIN}{CELERY}TypeError: no\n") == [
        *f"{BEGIN}{CELERY}".splitlines(),
        "TypeError: no",
    ]
    assert task_traceback("no frames\n  at all\n\n") == ["no frames", "  at all"]


CHAINED = (
    f"{BEGIN}{OWN}KeyError: 1\n\nDuring handling of the above exception, another exception "
    f"occurred:\n\n{BEGIN}{OWN.replace('12', '34').replace('work', 'charge')}Boom: no\n"
)
GROUP = """  + Exception Group Traceback (most recent call last):
  |   File "/srv/jobs.py", line 5, in work
  |     raise both
  | ExceptionGroup: two (2 sub-exceptions)
  +-+---------------- 1 ----------------
    | Traceback (most recent call last):
    |   File "/srv/jobs.py", line 6, in first
    |     fail()
    | Boom: one
    +---------------- 2 ----------------
    | Boom: two
    |   File "/srv/none.py", line 1, in message
    +------------------------------------
"""


@pytest.mark.parametrize(
    ("traceback", "place"),
    [
        (None, None),
        ("", None),
        ("Boom: no", None),
        (f"{BEGIN}{OWN}Boom: no", "jobs.py:12 in work"),
        (f"{BEGIN}{OWN}{CELERY}Boom: no", "jobs.py:12 in work"),
        (f"{BEGIN}{CELERY}Boom: no", "trace.py:453 in trace"),
        (CHAINED, "jobs.py:34 in charge"),
        (f'{BEGIN}{OWN}Boom: no\n  File "/x/said.py", line 1, in it', "jobs.py:12 in work"),
        (f'{BEGIN}{OWN}\n  File "/srv/more.py", line 1, in it\nBoom: no', "more.py:1 in it"),
        (f"{OWN}Boom: no", None),
        (f'{BEGIN}  File "C:\\jobs\\x.py", line 3, in f\nE: no', "x.py:3 in f"),
        (f'{BEGIN}  File "<stdin>", line 3\nSyntaxError: no', "<stdin>:3"),
        (f'{BEGIN}  File "/s/{"n" * 90}.py", line 3, in f\nE', f"{'n' * 77}.py:3 in f"),
        (f'{BEGIN}  File "x.py", line 3, in {"f" * 81}\nE', f"x.py:3 in {'f' * 80}"),
        (f'{BEGIN}  File "/s/\x07.py", line 3, in f\nE', "x07.py:3 in f"),
        (GROUP, "jobs.py:6 in first"),
        (f"  | {BEGIN}  | {OWN}", None),
    ],
)
def test_the_place_of_an_error_is_its_last_frame(traceback: str | None, place: str | None) -> None:
    """Of the task's own, and of its traceback: not of its message."""
    assert error_place(traceback) == place


# Log lines


def test_the_last_log_lines_are_told() -> None:
    """Twenty, with the number of those before."""
    lines = [f"line {number}" for number in range(21)]
    said = "The task's last log lines"
    shown = "".join(f"\n  {line}" for line in lines[1:])
    assert text(receipt(log=lines[1:])).split("\n\n")[-1] == f"{said}:{shown}"
    one = f"{said} (1 earlier one not shown):{shown}"
    assert text(receipt(log=lines)).split("\n\n")[-1] == one
    assert text(receipt(log=lines[1:], log_dropped=1)).split("\n\n")[-1] == one
    more = text(receipt(log=lines, log_dropped=2)).split("\n\n")[-1]
    assert more == f"{said} (3 earlier ones not shown):{shown}"


def test_log_lines_are_told_in_bounds() -> None:
    """Two hundred characters of each, without what a terminal obeys."""
    found = text(receipt(log=["a\tb\nc\x07", "x" * 201])).splitlines()
    assert found[-2:] == ["  a b\\nc\\x07", f"  {'x' * 99}...{'x' * 98}"]


# Lists of failures

NEVER = ("rejected", "expired", "unknown_task", "revoked")
BY_ITSELF = (*NEVER, "forged", "quarantined", "lost")


@pytest.mark.parametrize("status", ["failed", "timed_out", "crashed", "duplicated", "unknown"])
def test_a_failure_is_explained_by_its_error(status: VerdictStatus) -> None:
    """Where it has one, and nothing of it was compared."""
    told = receipt("failed", error=error())
    assert best_known(verdict(status), told) == error()
    assert best_known(verdict(status), receipt()) is None
    assert best_known(verdict(status), None) is None


@pytest.mark.parametrize("status", BY_ITSELF)
def test_what_a_job_raised_does_not_explain_this(status: VerdictStatus) -> None:
    """The verdict is about something else."""
    told = receipt("failed", error=error())
    assert best_known(verdict(status), told) is None
    assert best_known(verdict(status, mismatch("state")), told) is None
    assert best_known(verdict(status, mismatch()), told) == mismatch()


@pytest.mark.parametrize(
    ("path", "status", "raised", "by"),
    [
        ("result.a", "failed", True, "mismatch"),
        ("result.a", "failed", False, "mismatch"),
        ("code", "failed", True, "error"),
        ("code", "failed", False, None),
        ("expect.schema", "failed", True, "error"),
        ("expect.schema", "failed", False, None),
        ("descendants", "failed", True, "error"),
        ("descendants", "failed", False, None),
        ("state", "failed", True, "error"),
        ("state", "failed", False, "mismatch"),
        ("state", "timed_out", True, "error"),
        ("state", "timed_out", False, None),
    ],
)
def test_a_difference_explains_a_failure(
    path: str, status: VerdictStatus, *, raised: bool, by: str | None
) -> None:
    """The first, unless it only says that there was a failure."""
    told = receipt("failed", error=error() if raised else None)
    found = best_known(verdict(status, mismatch(path), mismatch("result.b")), told)
    assert found == {"error": error(), "mismatch": mismatch(path), None: None}[by]


@pytest.mark.parametrize(
    ("found", "told", "line"),
    [
        (verdict("failed", mismatch()), receipt(), "result.a is 2 where 1 was expected"),
        (verdict(), receipt("failed", error=error()), "Boom: no"),
        (verdict(), receipt("failed", error=error(message="")), "Boom"),
        (verdict("timed_out"), receipt("failed", error=error()), "It is so."),
        (verdict("lost"), None, "It is so."),
        (
            verdict(),
            receipt("failed", error=error(message="a\n \x1b[31mb\t\x07")),
            r"Boom: a b \x07",
        ),
        (verdict(), receipt(error=error(message="m" * 295)), f"Boom: {'m' * 143}...{'m' * 148}"),
        (verdict(), receipt(error=error(message="m" * 294)), f"Boom: {'m' * 294}"),
    ],
)
def test_a_failure_has_one_line(found: Verdict, told: Receipt | None, line: str) -> None:
    """What best explains it, in three hundred characters at most."""
    assert brief(found, told) == line


def test_a_failure_that_rests_on_a_descendant_says_what_that_did() -> None:
    """Whatever its own sentence is."""
    reason = ByDescendant(
        task="jobs.u",
        task_id="t-u",
        parent="jobs.t",
        ended="failed",
        why=Said(text="It did."),
        total=1,
    )
    found = verdict_by("a", 1, Finding("failed", reason, [mismatch("descendants")]))
    assert found.sentence == (
        "The job passed, but its descendant 'jobs.u' (t-u), started by 'jobs.t', failed: It did. "
        "(it has 1 descendant)"
    )
    assert brief(found, receipt()) == "its descendant 'jobs.u' failed: It did."


def test_a_long_line_of_a_traceback_is_cut() -> None:
    """An error's message may be a whole document."""
    shown = text(receipt(error=error(f"{BEGIN}{OWN}ValueError: {'x' * 15_000}")))
    assert max(map(len, shown.splitlines())) <= 1002
    assert "xxx...xxx" in shown


def test_a_failure_has_its_file_and_line() -> None:
    shown = explain(ENTRY, None, verdict(), place="m.jsonl:17")
    assert "  entry     a\n  line      m.jsonl:17\n" in shown


@pytest.mark.parametrize(
    ("status", "reason", "step"),
    [
        ("unknown", problems.NeverSent(), "send it with --manifest-resume"),
        ("passed", Said(text="The job passed."), ""),
    ],
)
def test_what_to_do_is_of_the_reason(status: VerdictStatus, reason: Reason, step: str) -> None:
    """One without advice has none."""
    assert next_step(verdict_of("a", 1, status, reason)) == step
