"""The names of runs and attempts."""

from __future__ import annotations

import re
import uuid
from datetime import datetime, timedelta, timezone

import pytest

from pytest_manifest.broker import attempt
from pytest_manifest.schema import Entry

RUN = "20261124T150000-0a1b2c3d"


def test_run_id_is_time_and_chance() -> None:
    """A run's name is its UTC second and eight random hex characters."""
    moment = datetime(2026, 11, 24, 16, 0, 0, tzinfo=timezone(timedelta(hours=1)))

    assert re.fullmatch(r"20261124T150000-[0-9a-f]{8}", attempt.new_run_id(moment))
    assert attempt.new_run_id(moment) != attempt.new_run_id(moment)
    assert abs(
        datetime.strptime(attempt.new_run_id()[:15] + "Z", "%Y%m%dT%H%M%S%z")
        - datetime.now(timezone.utc)
    ) < (timedelta(seconds=5))


def test_task_id_belongs_to_one_attempt() -> None:
    """The id is the same for the same run, entry and number, and another for any other."""
    ids = {
        attempt.task_id_for(run, entry, number, place)
        for run in (RUN, "20261124T150000-ffffffff")
        for entry in ("a", "b", "é/[::]")
        for number in (1, 2)
        for place in (0, 5)
    }

    assert len(ids) == 24
    assert len({task_id[19:] for task_id in ids}) == 12, "what is drawn is of no place"
    assert attempt.task_id_for(RUN, "a", 1, 5) == "0a1b2c3d-0000-8005-af8b-24e72999dc03"
    assert attempt.attempt_of(RUN, Entry(id="a", task="t"), 1, 5).task_id == attempt.task_id_for(
        RUN, "a", 1, 5
    )


@pytest.mark.parametrize("place", [0, 9, 0xFFF, 0x1000, 0xFFFFFFF])
def test_a_task_id_is_a_uuid_of_our_own_form(place: int) -> None:
    """RFC 9562, 5.8: run, place and what is drawn, around version and variant."""
    for number in range(1, 20):
        text = attempt.task_id_for(RUN, "a", number, place)
        name = uuid.UUID(text)
        assert (str(name), len(text)) == (text, 36)
        assert (name.version, name.variant) == (8, uuid.RFC_4122)
        assert name.int >> 96 == 0x0A1B2C3D
        assert (name.int >> 80 & 0xFFFF) << 12 | name.int >> 64 & 0xFFF == place


def test_all_bits_are_drawn() -> None:
    """Each of the 62 is set in about half of the ids."""
    ids = [uuid.UUID(attempt.task_id_for(RUN, f"e-{place}", 1)).int for place in range(1000)]
    assert all(400 < sum(one >> bit & 1 for one in ids) < 600 for bit in range(62))


def test_an_id_is_of_its_attempt_wherever_the_entry_stood() -> None:
    """And of no other, nor is any text."""
    made = attempt.task_id_for(RUN, "a", 1, 77)
    assert attempt.is_of_attempt(made, RUN, "a", 1)
    assert not attempt.is_of_attempt(made, RUN, "a", 2)
    assert not attempt.is_of_attempt(made, RUN, "b", 1)
    assert not attempt.is_of_attempt(made, f"{RUN[:-1]}e", "a", 1)
    others = (
        "",
        "x",
        "-",
        "--",
        "-0-",
        f"{made}0",
        made.replace("-804d-", "-804D-"),
        RUN,
        f"{made}-",
    )
    for other in (*others, made.replace("-804d-", "-904d-"), made.replace("-0000-", "-0_00-")):
        assert not attempt.is_of_attempt(other, RUN, "a", 1)


def test_task_ids_come_in_the_order_of_entries() -> None:
    """As text, by which they are stored."""
    ids = [attempt.task_id_for(RUN, f"e-{place}", 1, place) for place in range(0, 1 << 28, 99_991)]
    assert ids == sorted(ids)


def test_task_ids_of_a_run_have_a_common_prefix() -> None:
    """Every id begins with the run's eight characters, for whoever subscribes by pattern."""
    assert attempt.run8(RUN) == "0a1b2c3d"
    assert attempt.task_id_for(RUN, "x", 3).startswith("0a1b2c3d-")
