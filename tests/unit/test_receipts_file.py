"""The receipts file: written whole, read with the same care as a manifest."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import pytest

from pytest_manifest.errors import ManifestError
from pytest_manifest.schema import ErrorInfo, Receipt
from tests.receipts_files import read_receipts, write_receipts

RUN = "20261124T150000-0a1b2c3d"


def receipt(entry: str, **fields: object) -> Receipt:
    """A receipt of an entry."""
    base = {"run": RUN, "entry": entry, "attempt": 1, "task_id": f"id-{entry}", "task": "t"}
    return Receipt.model_validate({**base, "state": "succeeded", **fields})


TRIED = {
    "retries": 0,
    "ended_at": datetime(2026, 11, 24, 15, tzinfo=timezone.utc),
    "error": ErrorInfo(type="OSError", message="busy"),
}
RECEIPTS = [
    receipt("a", retries=2, retried=[TRIED, {"retries": 1}]),
    receipt("é", result={"x": [1.0, None]}, runtime=0.25, executions=1, log=["one", "zwei ü"]),
    receipt("c", state="failed", error=ErrorInfo(type="E", message="m"), evidence={"rows": 3}),
    receipt(
        "d", finished_at=datetime(2026, 11, 24, 15, 0, 0, 1, tzinfo=timezone.utc), redelivered=True
    ),
]


def test_receipts_survive_the_file(tmp_path: Path) -> None:
    """What is written is what is read, in order; the number is returned; nothing else is left."""
    path = tmp_path / "receipts.jsonl"
    assert write_receipts(path, iter(RECEIPTS)) == 4
    assert list(read_receipts(path)) == RECEIPTS
    assert [file.name for file in tmp_path.iterdir()] == ["receipts.jsonl"]


def test_a_line_says_its_version_and_no_defaults(tmp_path: Path) -> None:
    """Lines stay short, and say what format they have."""
    write_receipts(tmp_path / "r", [receipt("a")])
    assert (tmp_path / "r").read_text() == (
        f'{{"receipt": 1, "run": "{RUN}", "entry": "a", "attempt": 1, "task_id": "id-a", '
        '"task": "t", "state": "succeeded"}\n'
    )


def test_no_receipts_are_a_valid_file(tmp_path: Path) -> None:
    """A run from which nothing came back is a fact, not a broken file."""
    assert write_receipts(tmp_path / "r", []) == 0
    assert list(read_receipts(tmp_path / "r")) == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"\n", "the line is blank"),
        (b"{\n", "bad JSON at column 2"),
        (b'{"entry": NaN}\n', "NaN is not JSON"),
        (b'{"a": 1, "a": 1}\n', 'duplicate key "a"'),
        (b'{"receipt": 2}\n', "names a version of the format"),
        (b'{"id": "a", "task": "t"}\n', "'run' is missing"),
        (b"\xff\n", "is not UTF-8"),
    ],
)
def test_faults_are_named_with_their_lines(tmp_path: Path, line: bytes, expected: str) -> None:
    """What stands before the first fault is read; then all faults are told at once."""
    path = tmp_path / "r.jsonl"
    write_receipts(path, RECEIPTS[:2])
    whole = path.read_bytes()
    path.write_bytes(whole + line + whole + b"oops")
    read: list[Receipt] = []
    with pytest.raises(ManifestError) as caught:
        read.extend(read_receipts(path))
    assert read == RECEIPTS[:2]
    assert f"{path}:3: " in str(caught.value)
    assert expected in str(caught.value)
    assert f"{path}:6: the last line has no newline" in str(caught.value)


def test_what_stands_before_a_fault_is_read(tmp_path: Path) -> None:
    """Reading streams: receipts come one by one until the first fault."""
    path = tmp_path / "r.jsonl"
    write_receipts(path, RECEIPTS)
    path.write_bytes(path.read_bytes() + b"oops\n")
    reading = read_receipts(path)
    assert [next(reading) for _ in RECEIPTS] == RECEIPTS
    with pytest.raises(ManifestError, match=r"r\.jsonl:5: bad JSON at column 1"):
        next(reading)


def test_a_missing_file_is_one_clear_error(tmp_path: Path) -> None:
    """As for manifests."""
    with pytest.raises(ManifestError, match="there is no such file"):
        list(read_receipts(tmp_path / "absent"))


def test_an_old_file_stays_when_gathering_breaks(tmp_path: Path) -> None:
    """Whole or not at all."""
    path = tmp_path / "r.jsonl"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError):
        write_receipts(path, (receipt(str(1 // n)) for n in (1, 0)))
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["r.jsonl"]
