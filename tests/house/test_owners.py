"""Each promise and each row of the reference has one test that owns it, and the test is there."""

from __future__ import annotations

import pytest

from tests.nodes import Node, marked, missing, outside_ring_1
from tests.owners import (
    ALL,
    OTHERS,
    RING2,
    SPELLED,
    owner_of,
    read,
    row_of,
    rows,
    tables,
    unmentioned,
)

TABLES = read()
OWNED = {key: table for key, table in TABLES.items() if key not in OTHERS}
ROWS = rows()
BY_THEIR_MODEL = (
    *("receipt-format.md", "summary-format.md", "status-format.md"),
    "digest-format.md",
)
"""Their fields are those of models, each of which the page lists by a test of its own."""


def test_each_row_has_an_owner() -> None:
    """A row that is added to a page is added to the file, with the test that holds it."""
    lacking = [
        f"{key}: {name}"
        for key, names in ROWS.items()
        for name in names
        if owner_of(name, TABLES.get(key, {})) is None
    ]
    assert lacking == []


def test_each_owner_has_a_row() -> None:
    """What is on no page is owned by nobody, and no row by two."""
    idle = [
        f"{key}: {name}"
        for key, table in OWNED.items()
        for name in table
        if name != ALL and name not in ROWS.get(key, {})
    ]
    idle += [key for key in OWNED if not ROWS.get(key)]
    assert idle == []
    assert [key for key, table in OWNED.items() if ALL in table and len(table) > 1] == []


def test_each_owner_is_there() -> None:
    """By its file and its function."""
    nodes = {node for table in OWNED.values() for node in table.values()}
    assert missing(nodes) == []


def test_owners_are_of_ring_1_but_where_a_reason_says_why_not() -> None:
    """What everyone waits for holds each promise; a reason that is needed no longer goes."""
    nodes = {node for table in OWNED.values() for node in table.values()}
    assert outside_ring_1(nodes) == sorted(TABLES[RING2])
    assert all(TABLES[RING2].values())


@pytest.mark.parametrize(
    ("source", "ring"),
    [
        ("{}", None),
        ("@pytest.mark.ring(2)\n{}", 2),
        ("pytestmark = pytest.mark.ring(2)\n{}", 2),
        ("pytestmark = [pytest.mark.x, pytest.mark.ring(2)]\n@pytest.mark.ring(1)\n{}", 1),
        ("DEAR = pytest.mark.ring(2)\n@DEAR\n{}", 2),
        (
            "@pytest.mark.parametrize('a', [1, pytest.param(2, marks=pytest.mark.ring(2))])\n{}",
            None,
        ),
        ("@pytest.mark.parametrize('a', [pytest.param(2, marks=pytest.mark.ring(1))])\n{}", 1),
        (
            (
                "X = pytest.mark.parametrize('a', [1, pytest.param(2, marks=pytest.mark.ring(2))])"
                "\n@X\n{}"
            ),
            None,
        ),
    ],
)
def test_a_ring_is_read_from_marks(source: str, ring: int | None) -> None:
    """As pytest would have it; of one whose examples are of several rings the lowest."""
    assert dict(marked(source.format("def test_a(): ..."))) == {"test_a": ring}
    if not source.startswith("pytestmark"):
        whole = source.format("class TestX:\n    def test_a(): ...")
        assert dict(marked(whole)) == {"TestX::test_a": ring}


def test_each_owner_spells_what_it_owns() -> None:
    """Else the claim would be empty; ``spelled`` says what a file has instead of a name."""
    silent = [
        f"{key}: {name}: {node}"
        for key, names in ROWS.items()
        if not key.partition("#")[0].endswith(BY_THEIR_MODEL)
        for name, codes in names.items()
        if (node := owner_of(name, TABLES.get(key, {}))) is not None
        for code in ((TABLES[SPELLED][name],) if name in TABLES[SPELLED] else codes)
        if unmentioned(code, Node.read(node).text)
    ]
    assert silent == []


def test_what_is_spelled_otherwise_is_a_row() -> None:
    assert set(TABLES[SPELLED]) <= {name for names in ROWS.values() for name in names}


@pytest.mark.parametrize(
    ("line", "name", "codes"),
    [
        ("| `--x=WORKFLOW[:MODE]` | runs |", "--x", ("--x",)),
        ("| `--x NAME=VALUE` | an option |", "--x", ("--x",)),
        ("| `manifest(plan, **options)` | plans |", "manifest", ("manifest",)),
        ("| `m lint FILE...` | names |", "m lint FILE...", ("m lint FILE...",)),
        ("| `a`, `b` | c |", "a, b", ("a", "b")),
        ("| `a`: so | c |", "a: so", ("a",)),
    ],
)
def test_a_row_is_named_by_its_first_cell(line: str, name: str, codes: tuple[str, ...]) -> None:
    assert row_of(line) == (name, codes)


def test_rows_of_one_name_are_told_apart_by_what_follows() -> None:
    """As an exit status, of which there are several; else they are refused."""
    text = "## h\n| status | when |\n|---|---|\n| 0 | all is well here |\n| 0 | all is planned |\n"
    assert [*dict(tables("p", text))["p#h"]] == ["0 all is well here", "0 all is planned"]
    with pytest.raises(ValueError, match="two rows of one name"):
        dict(tables("p", text.replace("status", "number")))


def test_a_name_is_looked_for_whole() -> None:
    """A longer option does not spell a shorter one."""
    assert unmentioned("--manifest-plan", "--manifest-plan-run")
    assert not unmentioned("--manifest-plan-run", "plan_run=True")
    assert unmentioned("manifest_plan", "manifest_plans = x")
    assert unmentioned("MANIFEST_APP", "manifest_app")
    assert unmentioned("manifest keygen [FILE]", "manifest sign")
    assert not unmentioned("manifest keygen [FILE]", 'manifest("keygen")')
