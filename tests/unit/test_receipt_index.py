"""A receipts file that is asked for the receipts of entries, wherever they stand in it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from pytest_manifest.errors import ManifestError
from pytest_manifest.manifest import jsonl
from pytest_manifest.manifest.receipts import ReceiptIndex, receipt_line
from pytest_manifest.manifest.writer import dump_document
from pytest_manifest.schema import ErrorInfo, Receipt
from tests.receipts_files import write_receipts
from tests.unit.test_receipts_file import RECEIPTS, receipt

ODD_IDS = ['"a"', "back\\slash", "é/[x]::y", "漢字"]


def saved(folder: Path, receipts: Sequence[Receipt]) -> Path:
    path = folder / "r.jsonl"
    write_receipts(path, receipts)
    return path


def taken(path: Path, *entries: str) -> tuple[list[Receipt | None], int, int]:
    """The receipts of these entries, then what finish() counts."""
    with ReceiptIndex(path) as index:
        found = [None if one is None else one.receipt for one in index.take(entries)]
        return found, *index.finish()


def test_receipts_are_found_in_any_order(tmp_path: Path) -> None:
    """Of more entries than are asked for, or put away, at once."""
    receipts = [receipt(f"e-{n}") for n in range(1200)]
    path = saved(tmp_path, random.Random(3).sample(receipts, len(receipts)))
    with ReceiptIndex(path) as index:
        names = [one.entry for one in receipts]
        found = [one for start in (0, 700) for one in index.take(names[start : start + 700])]
        assert [one and one.receipt for one in found] == receipts
        assert index.finish() == (0, 0)
        assert index.runs == {receipts[0].run}


def test_ids_may_have_any_characters(tmp_path: Path) -> None:
    """Those too that JSON escapes."""
    receipts = [receipt(entry) for entry in ODD_IDS]
    assert taken(saved(tmp_path, receipts), *ODD_IDS) == (receipts, 0, 0)


def test_lines_that_others_have_written_are_read(tmp_path: Path) -> None:
    """Other spaces, another order, escapes."""
    path = tmp_path / "r.jsonl"
    path.write_text(
        '{"entry":"a","receipt":1,"run":"r","attempt":1,"task_id":"t","task":"t","state":"failed"}\n'
        '{"receipt": 1, "run": "r", "entry": "\\u00e9", "attempt": 1, "task_id": "t", "task": "t", '
        '"state": "succeeded", "log": ["\\ud83c"]}\n'
    )
    with ReceiptIndex(path) as index:
        first, second, none = index.take(["a", "é", "z"])
        assert (first and first.receipt.state, none) == ("failed", None)
        assert second is not None
        assert Receipt.model_validate_json(second.text) == second.receipt


def test_the_last_receipt_of_the_highest_attempt_counts(tmp_path: Path) -> None:
    """Second ones of the same attempt are counted, and those of other entries apart."""
    receipts = [
        receipt("a", attempt=2, pid=1),
        receipt("a", attempt=1, pid=2),
        receipt("b", attempt=1, pid=3),
        receipt("b", attempt=1, pid=4),
        receipt("b", attempt=2, pid=5),
        receipt("c", pid=6),
        receipt("c", pid=7),
        receipt("x", pid=8),
        receipt("x", pid=9),
    ]
    found, strange, doubled = taken(saved(tmp_path, receipts), "a", "b", "c")
    assert [one and one.pid for one in found] == [1, 5, 7]
    assert (strange, doubled) == (2, 2)


def test_every_fault_is_told_whoever_asks_for_what(tmp_path: Path) -> None:
    """Faults of receipts that were asked for, of others, and of lines that are no receipts."""
    path = saved(tmp_path, RECEIPTS)
    good = path.read_bytes().splitlines(keepends=True)
    broken = good[1].replace(b'"succeeded"', b'"well"')
    strange = good[2].replace(b'"entry": "c"', b'"entry": "z"').replace(b'"t"', b"1")
    path.write_bytes(b"".join([good[0], broken, strange, b"{\n", good[3], b"oops"]))
    with ReceiptIndex(path) as index:
        assert [one and one.receipt for one in index.take(["a", "é"])] == [RECEIPTS[0], None]
        with pytest.raises(ManifestError) as caught:
            index.finish()
    text = str(caught.value)
    assert [n for n in range(1, 8) if f"{path}:{n}: " in text] == [2, 3, 4, 6]


def test_the_index_keeps_no_receipts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line is checked once, and read again where it is taken."""
    parsed: list[int] = []
    parse = jsonl.parse_document

    def counting(line, model, faults):  # type: ignore[no-untyped-def]  # as parse_document
        parsed.append(line.number)
        return parse(line, model, faults)

    path = saved(tmp_path, RECEIPTS)
    monkeypatch.setattr(jsonl, "parse_document", counting)
    with ReceiptIndex(path) as index:
        assert parsed == [1, 2, 3, 4]
        list(index.take(["d", "é"]))
        index.finish()
    assert parsed == [1, 2, 3, 4, 4, 2]


MADE = [
    *RECEIPTS,
    receipt("e", wait=1.0, runtime=0.0, cpu=1e12, result=2.0, evidence={"cost": 1.0, "x": None}),
    receipt("f", result=False, executions=0, retries=3, pid=0),
    receipt("g", error=ErrorInfo(type="E", message="é\n", traceback="T"), log=["", "漢"]),
    receipt("h", sent_at="2026-11-24T15:00:00.100000Z", started_at="1999-01-01T00:00:00Z"),
]


@pytest.mark.parametrize("made", MADE, ids=lambda one: str(one.entry))
def test_a_line_is_made_of_what_the_ledger_keeps(made: Receipt) -> None:
    """The same bytes as of the document itself."""
    assert receipt_line(made.model_dump_json()) == dump_document(made)
    assert receipt_line(made.model_dump_json(exclude_defaults=True)) == dump_document(made)
