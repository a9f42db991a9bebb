"""The picture of a tree in Allure: its rows, its colours, and nothing that acts."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace

from pytest_manifest.analysis.records import AttemptRecord
from pytest_manifest.analysis.tree_reading import DescendantRecord, tree_of
from pytest_manifest.reporting.allure.tree_picture import picture_of_tree
from tests.run_page_sample import sample_records, sample_tree

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = '</text><script>alert(1)</script><a href="javascript:x">&\x1b[31m\u202e]]>'


def root() -> AttemptRecord:
    last = next(iter(sample_records(1))).last
    assert last is not None
    return last


def made(count: int = 30) -> list[DescendantRecord]:
    return [one for _, one in sample_tree(root(), count).tasks]


def drawn(tasks: list[DescendantRecord], limit: int | None = None) -> ET.Element:
    picture = picture_of_tree(root(), tree_of(root(), tasks, limit))
    assert picture is not None
    return ET.fromstring(picture)


def texts(picture: ET.Element) -> Iterator[str]:
    return ("".join(one.itertext()) for one in picture.iter(f"{SVG}text"))


def bars(picture: ET.Element, colour: str) -> list[tuple[float, float]]:
    found = [one for one in picture.iter(f"{SVG}rect") if one.get("height") == "10"]
    return [
        (float(one.get("x", "")), float(one.get("width", "")))
        for one in found
        if one.get("fill") == colour
    ]


def test_each_task_has_its_row_and_its_bar() -> None:
    """In its status's colour; names of all, how long each ran, and what is not as usual."""
    tasks = made()
    picture = drawn(tasks)
    told = list(texts(picture))
    assert told.count("pages.render") == len([one for one in tasks if one.task == "pages.render"])
    assert len(bars(picture, "#2b7a5d")) == 30  # the job itself, and all but one
    assert len(bars(picture, "#b8322a")) == 1
    assert len([text for text in told if text.endswith(", failed")]) == 1
    assert len([text for text in told if text.endswith(", retry 1")]) == 1
    assert "not drawn" not in " ".join(told)
    wide = float(picture.get("width", ""))
    assert all(x > 0 and x + width < wide for x, width in bars(picture, "#2b7a5d"))


def test_what_never_ran_is_a_dot() -> None:
    """Where it was sent, with its verdict."""
    (*others, last) = made(6)
    lost = replace(last, status="lost", started_at=None, ended_at=None, runtime=None)
    picture = drawn([*others, lost])
    assert "lost" in texts(picture)
    assert len(list(picture.iter(f"{SVG}circle"))) == 1
    unsent = replace(lost, spawned_at=None)
    assert not list(drawn([*others, unsent]).iter(f"{SVG}circle"))


def test_what_is_left_out_is_counted() -> None:
    """Of large trees."""
    assert any("20 more descendants not drawn" in text for text in texts(drawn(made(50), 30)))


def test_names_of_tasks_do_nothing() -> None:
    """Shapes and text come of them, whatever they contain and however long they are."""
    tasks = [replace(one, task=HOSTILE * 9) for one in made(6)]
    picture = drawn(tasks)
    tags = {one.tag.removeprefix(SVG) for one in picture.iter()}
    assert tags <= {"svg", "rect", "path", "text", "circle"}
    names = {name for one in picture.iter() for name in one.attrib}
    assert not [
        name for name in names if name.startswith("on") or "href" in name or name == "style"
    ]
    assert all(len(text) <= 40 and re.fullmatch(r"[\x20-\x7e]*", text) for text in texts(picture))


def test_a_tree_without_times_is_not_drawn() -> None:
    """Nothing is known of when it was."""
    never = {"spawned_at": None, "started_at": None, "ended_at": None}
    tasks = [replace(one, **never) for one in made(6)]  # type: ignore[arg-type]  # times
    alone = replace(root(), sent_at=None, received_at=None, started_at=None, finished_at=None)
    assert picture_of_tree(alone, tree_of(alone, tasks)) is None
