"""What the benchmarks tell: the guard of ratios, and the page that is made of their results."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from benchmarks import dispatch
from benchmarks.__main__ import BENCHMARKS, PAGE, QUICK, RESULTS, with_figures
from benchmarks.guard import least, worse_ratios
from benchmarks.page import RAW, nearness, page, raw
from benchmarks.side_by_side import figure
from tests.services import ServiceUnavailableError


def row(ratio: float, **fields: Any) -> dict[str, Any]:
    """A figure as results.json has it."""
    made = {"name": "dispatch", "peer": "group", "ratio": ratio, "goal": 3.0, "at_most": False}
    return made | {"unit": "x", "values": [ratio], "details": {}, "met": ratio >= 3} | fields


@pytest.mark.parametrize(
    ("found", "before", "fields", "worse"),
    [
        (3.3, 4.0, {}, False),
        (3.0, 4.0, {}, True),
        (9.0, 4.0, {}, False),
        (1.2, 1.0, {"at_most": True}, False),
        (1.3, 1.0, {"at_most": True}, True),
        (0.1, 1.0, {"at_most": True}, False),
        (0.1, 9.0, {"goal": None}, False),
    ],
)
def test_a_ratio_is_worse_on_its_own_side(
    found: float, before: float, fields: dict[str, Any], worse: bool
) -> None:
    """By more than a quarter, where it has a goal; a better one is never worse."""
    lines = worse_ratios([row(found, **fields)], [row(before, **fields)])
    assert lines == (
        [f"dispatch, against group: {found:.2f} x, {before:.2f} before"] if worse else []
    )


def test_a_new_figure_is_held_against_nothing() -> None:
    assert worse_ratios([row(0.1)], [row(9.0, name="another")]) == []


def test_the_page_shows_the_newest_results() -> None:
    """It was not written by hand, nor forgotten when they were taken anew."""
    document = json.loads(RESULTS.read_text("utf-8"))
    assert PAGE.read_text("utf-8") == page(document)
    assert (PAGE.parent / "tables" / RAW).read_text("utf-8") == raw(document)
    told = {one["benchmark"] for one in document["figures"]} | set(document["left_out"])
    assert told == set(BENCHMARKS) == set(QUICK)


def test_figures_of_one_benchmark_leave_the_others_as_they_were() -> None:
    """In their order, and with what the others have left out; its own reasons are the new ones."""
    old, new = row(1.0, benchmark="trees"), row(2.0, benchmark="trees")
    other = row(1.0, benchmark="audit")
    document = {"figures": [old, other], "left_out": {"audit": ["no disk"], "trees": ["no time"]}}
    found = with_figures(document, "trees", [new], [])
    assert (found["figures"], found["left_out"]) == ([new, other], {"audit": ["no disk"]})
    found = with_figures(found, "dispatch", [], ["no server"])
    assert found["left_out"] == {"dispatch": ["no server"], "audit": ["no disk"]}


def test_the_page_says_which_goals_are_missed() -> None:
    """In words and in the plot, whichever side the goal is on."""
    rows = [
        row(2.0),
        row(4.0, name="other"),
        row(2.0, name="cost", goal=1.0, at_most=True, met=False),
    ]
    machine = {"day": "2026-01-01", "cores": 2, "memory_gb": 8, "processor": "p", "packages": {}}
    text = page({"machine": machine | {"system": "s", "python": "3"}, "figures": rows})
    missed = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| ")]
    assert missed[1:] == ["| dispatch", "| cost"]
    assert "1 of 3 goals are met." in text
    assert [round(near, 2) for near, _ in nearness(rows).values()] == [0.67, 1.33, 0.5]


def test_what_a_machine_lacks_is_left_out_and_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rest is measured; terminal, file and page name the part and the server."""

    def missing() -> Iterator[str]:
        raise ServiceUnavailableError("RabbitMQ is not installed")

    monkeypatch.setattr(dispatch, "rabbitmq_server", contextmanager(missing))
    monkeypatch.setattr(dispatch, "valkey_server", lambda: nullcontext("redis://"))
    monkeypatch.setattr(dispatch, "measure", lambda name, *_: [figure(name, "group", [1.0])])
    file = tmp_path / "figures.json"
    assert dispatch.main([f"--json={file}"]) == 0

    document = json.loads(file.read_text("utf-8"))
    reason = "dispatch on rabbitmq: RabbitMQ is not installed"
    assert document["left_out"] == [reason]
    assert [one["name"] for one in document["figures"]] == ["valkey"]
    assert f"left out: {reason}" in capsys.readouterr().out
    assert f"Left out: {reason}." in page(document | {"left_out": {"dispatch": [reason]}})


def test_the_work_of_an_entry_is_the_least_of_what_was_counted() -> None:
    """Of each kind: a session that waited longer has asked more often."""
    first = {"run": {"calls": 9.0, "commands": 2.0}, "audit": {"calls": 1.0, "commands": 0.0}}
    second = {"run": {"calls": 8.0, "commands": 3.0}, "audit": {"calls": 1.0, "commands": 0.1}}
    assert least(first, second) == {
        "run": {"calls": 8.0, "commands": 2.0},
        "audit": {"calls": 1.0, "commands": 0.0},
    }
