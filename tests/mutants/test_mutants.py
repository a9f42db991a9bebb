"""The machine that makes mutants: it kills what is tested, and finds what is not."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests import proof
from tests.house.conftest import ROOT
from tests.mutants.__main__ import TABLE
from tests.mutants.judging import (
    RAN,
    Outcome,
    changed_since,
    digest,
    judged,
    read_equivalent,
    read_outcome,
    rows_of,
    table,
)
from tests.mutants.making import Mutant, of_constants, users_of
from tests.mutants.modules import BY_NAME, JUDGES, Judge
from tests.mutants.running import MutantLoop, MutatedFinder
from tests.nodes import functions, outside_ring_1
from tests.page_tables import PROMISES, taken

SURVIVOR = Mutant("f", "a = 1", "a = 2")


@pytest.mark.parametrize("judge", JUDGES, ids=lambda one: one.name)
def test_what_is_written_down_is_in_the_module(judge: Judge) -> None:
    """Each test file is there, and each equivalent mutant changes lines that are."""
    for one in judge.tests:
        assert (ROOT / "tests" / one).is_file()
    lines = {
        line.strip() for line in (ROOT / "pytest_manifest" / judge.path).read_text().splitlines()
    }
    for mutant in read_equivalent(judge):
        name = mutant.where.rpartition(".")[2]
        assert any(name in line for line in lines), f"{judge.name} has no {mutant.where}"


def test_what_kills_mutants_is_of_ring_1() -> None:
    """A change of the code that judges is seen by what everyone waits for."""
    files = {file for judge in JUDGES for file in judge.tests}
    nodes = {f"{file}::{name}" for file in files for name in functions(file)}
    assert len(nodes) > 300
    assert outside_ring_1(nodes) == []


def test_what_is_of_ring_2_is_not_run_against_mutants(pytester: pytest.Pytester) -> None:
    """Nor is an example of a test that is of ring 1 otherwise."""
    pytester.makeini("[pytest]\nmarkers = ring: of a test")
    path = pytester.path / "tests" / "unit" / "test_a.py"
    path.parent.mkdir(parents=True)
    path.write_text(
        "import pytest\nlater = pytest.mark.ring(2)\n"
        "@later\ndef test_later(): pass\n"
        "@pytest.mark.parametrize('n', [1, pytest.param(2, marks=later)])\n"
        "def test_now(n): pass\n"
    )
    items, _ = pytester.inline_genitems(path)
    assert len(items) == 3
    loop = MutantLoop(JUDGES[0], MutatedFinder(JUDGES[0]), ())
    loop.pytest_collection_modifyitems(items)
    assert [one.name for one in items] == ["test_now[1]"]


def test_the_page_has_a_row_for_each_module() -> None:
    """With figures that add up, or "not run"; nothing survives there that is not written down."""
    text = taken(PROMISES, TABLE)
    rows = rows_of(text)
    assert text == table(rows, JUDGES)
    for line in rows.values():
        mutants, killed, equivalent, survived = (
            int(cell.replace(",", "")) for cell in line.split("|")[3:7]
        )
        assert mutants == killed + equivalent
        assert survived == 0


def test_what_has_changed_since_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each module of the page has a digest; where it is another one now, its figures are old."""
    monkeypatch.chdir(ROOT)
    ran = json.loads(RAN.read_text("utf-8"))
    assert set(ran) == set(rows_of(taken(PROMISES, TABLE)))
    now = tmp_path / "ran.json"
    now.write_text(json.dumps({name: digest(BY_NAME[name]) for name in ran}))
    assert changed_since(now) == set()
    monkeypatch.setattr(proof, "changed_since", lambda: set())
    whole = proof.in_mutants("S4")
    now.write_text(json.dumps(dict.fromkeys(ran, "0" * 64)))
    assert changed_since(now) == set(ran)
    monkeypatch.setattr(proof, "changed_since", lambda: {"verdict.expectations"})
    assert "1 changed since" not in whole
    assert "1 changed since" in proof.in_mutants("S4")
    assert proof.in_mutants("S4").split(";")[0] != whole.split(";")[0]


def test_only_what_is_written_down_may_survive() -> None:
    """And what is written down must: else it would hide a mutant that comes to be like it."""
    judge = JUDGES[0]
    outcome = Outcome(3, 1, Counter({SURVIVOR: 1}), Counter())
    bad = judged(judge, outcome, Counter())
    assert len(bad.faults) == 1
    assert "no test fails with this mutant: verdict.judge: f\n  - a = 1\n  + a = 2" in bad.faults
    assert judged(judge, outcome, Counter({SURVIVOR: 1})).faults == ()
    (late,) = judged(judge, outcome, Counter({SURVIVOR: 2})).faults
    assert late.startswith("written down as equivalent, and is not among the survivors")
    undecided = Outcome(1, 0, Counter(), Counter({SURVIVOR: 1}))
    (slow,) = judged(judge, undecided, Counter()).faults
    assert slow.startswith("its tests waited for too long")


def test_each_word_of_a_statement_is_changed_once() -> None:
    """A set loses each of its elements, a table each of its keys."""
    text = "QUERY = 'x'\nSOME = {1}\nTABLE: dict[str, int] = {}\n"
    assert ast.parse(text)
    values = {"QUERY": "SELECT a FROM b WHERE c = 1 AND d IS NULL", "SOME": frozenset({1, 2})}
    made = [one.mutant for one in of_constants(text, {**values, "TABLE": {"k": 1}})]
    assert [one.now for one in made if one.where == "QUERY"] == [
        "SELECT a FROM b WHERE c = 1 OR d IS NULL",
        "SELECT a FROM b WHERE c = 1 AND d IS NOT NULL",
        "SELECT a FROM b WHERE c <> 1 AND d IS NULL",
        "SELECT a FROM b WHERE c = 2 AND d IS NULL",
    ]
    assert [one.was for one in made if one.where != "QUERY"] == ["1", "2", "'k'"]


def test_a_constant_is_held_by_the_functions_that_name_it() -> None:
    """By all tests where something else does, as another constant."""
    text = "A = B = C = 1\nD = B + 1\ndef f():\n    return A\nclass K:\n    "
    text += "x = C\n    def g(self):\n        return A + C\n"
    assert users_of(text, "A") == {"x_f", "xǁKǁg"}
    assert users_of(text, "B") == users_of(text, "C") == users_of(text, "D") == set()


def test_mutants_of_a_module_are_killed_by_its_tests(tmp_path: Path) -> None:
    """By the real machine, with a module of the package; without its tests they would survive."""
    judge = BY_NAME["broker.locating.base"]
    out = tmp_path / "found.json"
    command = [sys.executable, "-m", "tests.mutants.running", judge.name, str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    outcome = read_outcome(out)
    assert judged(judge, outcome, read_equivalent(judge)).faults == ()
    assert outcome.killed > 100
    fates = Counter(one["fate"] for one in json.loads(out.read_text("utf-8")))
    assert set(fates) <= {"killed", "survived"}
