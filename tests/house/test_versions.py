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


@pytest.fixture(scope="module")
def noxfile(root: Path) -> dict[str, Any]:
    """What noxfile.py defines; nox registers its sessions, and warns of a second time."""
    return runpy.run_path(str(root / "noxfile.py"))


@pytest.fixture(scope="session")
def matrix(root: Path) -> dict[str, Any]:
    """What scripts/matrix.py defines: the chosen cells, and how their Pythons are found."""
    return runpy.run_path(str(root / "scripts" / "matrix.py"))


def test_the_page_has_the_table_of_what_was_run(
    root: Path, cells: dict[str, Cell], script: dict[str, Any]
) -> None:
    text = (root / "docs" / "reference" / "versions.md").read_text("utf-8")
    assert script["page"](text, cells.values()) == text


def test_the_matrix_runs_every_python_that_is_named(
    project: dict[str, Any], matrix: dict[str, Any], noxfile: dict[str, Any]
) -> None:
    """The classifiers name each that has a cell of scripts/matrix.py, and no other."""
    prefix = "Programming Language :: Python :: 3."
    named = [line.rpartition(" ")[2] for line in project["classifiers"] if line.startswith(prefix)]
    assert set(named) == {cell.python for cell in matrix["CELLS"]}
    assert tuple(named) == matrix["SUPPORTED"]
    assert noxfile["PYTHONS"] == named
    assert project["requires-python"] == f">={named[0]}"


def test_the_matrix_runs_the_lowest_versions_and_each_minor_one_of_celery(
    matrix: dict[str, Any],
) -> None:
    """The newest minor version is the one that is locked, and that the newest cell has."""
    assert {cell.versions for cell in matrix["CELLS"]} == {"min", "celery", "newest"}
    minors = [cell.celery for cell in matrix["CELLS"] if cell.celery]
    assert minors == ["5.4", "5.5", "5.6"]


def stub(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_minor_versions_take_turns(matrix: dict[str, Any]) -> None:
    """The lowest and the newest run each day, each of the others on one day of some."""
    days = [[cell.celery for cell in matrix["in_turn"](day)] for day in range(739_000, 739_003)]
    assert sorted(one[1] for one in days) == ["5.4", "5.5", "5.6"]
    assert all((one[0], *one[2:]) == ("", "") for one in days)


def test_a_python_is_installed_where_it_runs(matrix: dict[str, Any], tmp_path: Path) -> None:
    """A stand-in that refuses, as pyenv's do, is none; nor is what gives another version."""
    shims, real, other = tmp_path / "shims", tmp_path / "real", tmp_path / "other"
    stub(shims, "python3.12", "echo 'pyenv: python3.12: command not found' >&2; exit 127")
    stub(real, "python3.12", "echo 3.12")
    stub(real, "python3.9", "echo 3.9")
    stub(other, "python3.12", "echo 3.12")
    stub(other, "python3.13", "echo 3.11")
    stub(other, "python3.10", "echo 3.10")
    (other / "python3.10").chmod(0o644)
    places = [str(tmp_path / "none"), str(shims), str(real), str(other)]
    assert matrix["installed"](places) == {"3.12": str(real)}


@pytest.mark.parametrize(
    ("present", "pythons"),
    [
        (["3.10", "3.11", "3.12", "3.13", "3.14"], "3.10 3.11 3.12 3.13 3.14"),
        (["3.11", "3.14"], "3.11 3.11 3.11 3.14 3.14"),
        (["3.11", "3.13"], "3.11 3.11 3.11 3.13 3.13"),
        (["3.13"], "3.13 3.13 3.13 3.13 3.13"),
    ],
)
def test_a_cell_without_its_python_runs_with_the_nearest(
    matrix: dict[str, Any], present: list[str], pythons: str
) -> None:
    """No cell is left out, and each that has another Python than its own says so."""
    chosen = matrix["sessions"](present, matrix["CELLS"])
    assert [cell for _, cell, _ in chosen] == list(matrix["CELLS"])
    assert len({name for name, _, _ in chosen}) == len(chosen)
    for (name, cell, said), python in zip(chosen, pythons.split(), strict=True):
        assert name == cell.session(python)
        assert (f"Python {cell.python} is not here: with {python}" == said) is (
            python != cell.python
        )


SINCE = {
    "apprise",
    "celery",
    "jsonschema-rs",
    "kombu",
    "mcp",
    "protobuf",
    "pydantic",
    "pyyaml",
    "redis",
}
SINCE |= {"openlineage-python", "opentelemetry-exporter-otlp-proto-http", "opentelemetry-sdk"}
SINCE |= {"opentelemetry-instrumentation-celery", "pyarrow", "rich", "standardwebhooks"}
"""What is asked for since the row ``min`` was played last; empty again once it has been."""


def test_the_lowest_versions_were_run(project: dict[str, Any], cells: dict[str, Cell]) -> None:
    """What pyproject.toml asks for at least is what the row ``min`` has with the oldest Python.

    With newer ones some of them are not published, and the next have been taken.
    """
    extras = [item for group in project["optional-dependencies"].values() for item in group]
    asked = {
        found[1]: found[2]
        for item in [*project["dependencies"], *extras]
        if (found := re.match(r"([\w-]+)(?:\[\w+\])?>=([\w.]+)", item))
    }
    oldest = project["requires-python"].removeprefix(">=")
    have = cells[f"min py{oldest}"]["versions"]
    played = asked.keys() & have.keys() - SINCE
    lowest = {name: whole(have[name]) for name in played}
    assert lowest == {name: whole(asked[name]) for name in lowest}
    missing = {"hiredis", *SINCE - have.keys()}  # without hiredis the row is
    assert asked.keys() - have.keys() == missing


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
    assert outcome({"passed": 8, "failed": 0, "again": 1}) == "8 pass, 1 the second time"
    assert outcome({"passed": 8, "failed": 2}) == "**2 of 10 fail**"
    assert outcome(None) == "not run"


def test_a_test_that_fails_twice_over_is_one(noxfile: dict[str, Any], tmp_path: Path) -> None:
    """One with an error at its end, too, and a module that cannot be imported, count once."""
    report = tmp_path / "report.xml"
    failed = '<testcase classname="m" name="a"><failure/></testcase>'
    failed += '<testcase classname="m" name="a"><error/></testcase>'
    failed += '<testcase classname="" name="n"><error/></testcase>'
    other = (
        '<testcase classname="m" name="b"/><testcase classname="m" name="c"><skipped/></testcase>'
    )
    report.write_text(f"<testsuites><testsuite>{failed}{other}</testsuite></testsuites>")
    counted = noxfile["_counted"]
    assert counted(report) == {"passed": 1, "failed": 2, "skipped": 1}
    assert counted(tmp_path / "none.xml") == {"passed": 0, "failed": 0, "skipped": 0}
