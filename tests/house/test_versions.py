"""pyproject.toml asks for what the matrix has run, no more and no less; the page tells the same."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import tomllib

Cell = dict[str, Any]


@pytest.fixture(scope="session")
def project(root: Path) -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    return table


@pytest.fixture(scope="session")
def cells(root: Path) -> dict[str, Cell]:
    """The cells of the matrix that were run, as the page has them."""
    path = root / "docs" / "reference" / "versions.json"
    found: dict[str, Cell] = json.loads(path.read_text("utf-8"))
    return found


@pytest.fixture(scope="session")
def script(root: Path) -> dict[str, Any]:
    """What scripts/versions.py defines."""
    return runpy.run_path(str(root / "scripts" / "versions.py"))


@pytest.fixture(scope="session")
def chosen(root: Path) -> str:
    """The script with the chosen cells."""
    return (root / "scripts" / "matrix").read_text("utf-8")


def test_the_page_has_the_table_of_what_was_run(
    root: Path, cells: dict[str, Cell], script: dict[str, Any]
) -> None:
    text = (root / "docs" / "reference" / "versions.md").read_text("utf-8")
    assert script["page"](text, cells.values()) == text


def test_the_matrix_runs_every_python_that_is_named(project: dict[str, Any], chosen: str) -> None:
    """The classifiers name each that has a cell of scripts/matrix, and no other."""
    prefix = "Programming Language :: Python :: 3."
    named = {line.rpartition(" ")[2] for line in project["classifiers"] if line.startswith(prefix)}
    assert named == set(re.findall(r"^cell -s '?\w+-(3\.\d+)", chosen, re.MULTILINE))
    oldest = min(named, key=lambda version: int(version.partition(".")[2]))
    assert project["requires-python"] == f">={oldest}"


def test_the_matrix_runs_the_lowest_versions_and_each_minor_one_of_celery(chosen: str) -> None:
    """The newest minor version is the one that is locked, and that the newest cell has."""
    cells = re.findall(r"^cell -s '?(\w+)-3\.\d+(?:\((5\.\d+)\))?", chosen, re.MULTILINE)
    assert {kind for kind, _ in cells} == {"min", "celery", "newest"}
    assert [minor for _, minor in cells if minor] == ["5.3", "5.4", "5.5", "5.6"]


def test_the_lowest_versions_were_run(project: dict[str, Any], cells: dict[str, Cell]) -> None:
    """What pyproject.toml asks for at least is what the row ``min`` has."""
    extras = [item for group in project["optional-dependencies"].values() for item in group]
    asked = {
        found[1]: found[2]
        for item in [*project["dependencies"], *extras]
        if (found := re.match(r"([\w-]+)(?:\[\w+\])?>=([\w.]+)", item))
    }
    for cell in cells.values():
        if cell["cell"] == "min":
            lowest = {name: whole(number) for name, number in cell["versions"].items()}
            assert {name: whole(asked[name]) for name in lowest if name in asked} == {
                name: number for name, number in lowest.items() if name in asked
            }


def whole(version: str) -> tuple[int, ...]:
    numbers = [int(number) for number in re.findall(r"\d+", version)]
    return tuple(numbers + [0] * (3 - len(numbers)))


def test_what_the_page_has_has_passed(cells: dict[str, Cell]) -> None:
    """No cell has a test that failed or was skipped, or a suite of which nothing ran."""
    for name, cell in cells.items():
        for suite, counts in cell["suites"].items():
            assert counts["passed"], (name, suite)
            assert counts["failed"] == counts["skipped"] == 0, (name, suite)


def test_a_run_takes_the_place_of_its_cell(script: dict[str, Any]) -> None:
    """Suites that it did not run stay only where they are of the same versions."""
    versions = {"python": "3.11.7", "celery": "5.7.0"}
    passed = {"passed": 3, "failed": 0, "skipped": 0}
    old = {"cell": "newest", "versions": versions, "suites": {"unit": passed}}
    run = {"cell": "newest", "versions": versions, "suites": {"contract": passed}}
    key = "newest py3.11"
    assert set(script["merged"]({key: old}, [run])[key]["suites"]) == {"unit", "contract"}
    newer = {**run, "versions": {**versions, "celery": "5.8.0"}}
    assert set(script["merged"]({key: old}, [newer])[key]["suites"]) == {"contract"}


def test_the_table_tells_failures_and_gaps(script: dict[str, Any]) -> None:
    """A cell with a failed test says how many; a suite that did not run says that."""
    outcome = script["outcome"]
    assert outcome({"passed": 8, "failed": 0}) == "8 pass"
    assert outcome({"passed": 8, "failed": 2}) == "**2 of 10 fail**"
    assert outcome(None) == "not run"
