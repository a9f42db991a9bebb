"""What a hostile input costs grows with its size, and no faster: counted, not timed."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from loguru import logger

from pytest_manifest.errors import ManifestError
from pytest_manifest.manifest import read_manifest
from pytest_manifest.manifest.jsonl import LIMITS, MAX_FAULTS, MOST_COUNTED
from pytest_manifest.manifest.receipts import ReceiptIndex
from pytest_manifest.results.records import LOGGED
from pytest_manifest.schema import Receipt
from tests.fuzz.large import MANIFESTS, ONE_LINE, STREAMS, Maker, Records, finished
from tests.fuzz.of_stream import records
from tests.fuzz.oracles import counted_calls, expect_refusal
from tests.receipts_files import read_receipts

SMALL, FACTOR = 300, 4
SLACK = 1.5
"""How much more than its size the work of an input may grow."""
MEGABYTE = 1 << 20
MEMORY_A_BYTE = 60
LOG_LINES = 10 * LOGGED


def work(read: Callable[[], object]) -> int:
    """Count the calls that a reading takes."""
    with counted_calls() as calls:
        read()
    return calls()


def reading(path: Path, content: bytes) -> Callable[[], None]:
    path.write_bytes(content)

    def read() -> None:
        try:
            read_manifest(path, is_new=True)
        except ManifestError as error:
            expect_refusal(error)

    return read


@pytest.fixture
def log() -> Iterator[list[str]]:
    """What is logged, at any level."""
    lines: list[str] = []
    handler = logger.add(lines.append, level=0, format="{message}")
    yield lines
    logger.remove(handler)


@pytest.mark.parametrize("maker", MANIFESTS.values(), ids=MANIFESTS)
def test_the_work_of_a_manifest_grows_with_its_size(maker: Maker, tmp_path: Path) -> None:
    """Four times as large, it takes no more than six times the calls."""
    path = tmp_path / "m.jsonl"
    reading(path, maker(3))()  # what is imported is no work of the input
    small = work(reading(path, maker(SMALL)))
    large = work(reading(path, maker(FACTOR * SMALL)))
    assert large <= FACTOR * SLACK * small + 10_000


@pytest.mark.parametrize("name", ONE_LINE)
def test_the_memory_of_a_line_is_bounded_by_its_size(name: str, tmp_path: Path) -> None:
    """Whatever is wrong with it, and however often: a line may have 16 MiB."""
    maker = MANIFESTS[name]
    content = maker(SMALL * MEGABYTE // len(maker(SMALL)))
    read = reading(tmp_path / "m.jsonl", content)
    tracemalloc.start()
    try:
        read()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= 8 * MEGABYTE + MEMORY_A_BYTE * len(content)


@pytest.mark.parametrize("maker", STREAMS.values(), ids=STREAMS)
def test_the_work_of_records_grows_with_their_number(maker: Records, log: list[str]) -> None:
    """And their log does not; what came of them is a few sentences."""
    records(maker(3))
    small = work(lambda: records(maker(SMALL)))
    del log[:]
    large = work(lambda: records(maker(FACTOR * SMALL)))
    assert large <= FACTOR * SLACK * small + 20_000
    assert len(log) <= LOG_LINES
    assert max(map(len, log), default=0) < 1_000


def receipt(**fields: Any) -> bytes:
    run = {"run": "20261124T150000-0123abcd", "entry": "a", "attempt": 1, "task_id": "t"}
    return json.dumps(run | {"task": "t", "state": "succeeded"} | fields).encode() + b"\n"


def read_index(path: Path) -> None:
    """Read a file as an audit does."""
    with ReceiptIndex(path) as index:
        list(index.descendants())
        index.finish()


@pytest.mark.parametrize(
    "line",
    [b"{\n", receipt(attempt=-1), receipt(nope=1), b'{"descendant": 1}\n', b"\n"],
    ids=["no JSON", "a number", "a field", "a descendant", "blank"],
)
def test_a_receipts_file_that_is_wrong_everywhere_is_not_read_to_its_end(
    line: bytes, tmp_path: Path
) -> None:
    """What is shown is shown, and the message says where the reading stopped."""
    path = tmp_path / "receipts.jsonl"
    path.write_bytes(receipt() + line * 3 * MOST_COUNTED)
    with pytest.raises(ManifestError) as read:
        list(read_receipts(path))
    with pytest.raises(ManifestError) as indexed:
        read_index(path)
    for error in (read.value, indexed.value):
        assert len(error.faults) == MAX_FAULTS
        assert error.read_to is not None
        assert error.read_to < 2 * MOST_COUNTED
        assert "where the reading stopped" in str(error)


def test_a_long_line_of_a_receipts_file_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the limit that holds for manifests, too."""
    path = tmp_path / "receipts.jsonl"
    path.write_bytes(receipt() + receipt(result="x" * 1_000))
    monkeypatch.setitem(LIMITS, "line", 1_000)
    with pytest.raises(ManifestError, match=":2: the line has more than 1,000 bytes"):
        ReceiptIndex(path)


@pytest.mark.parametrize("field", ["attempt", "executions", "pid", "max_rss", "children"])
def test_a_receipts_file_has_no_number_that_nothing_can_have(field: str, tmp_path: Path) -> None:
    """Or what is done with it later would fail: a database, a report."""
    path = tmp_path / "receipts.jsonl"
    path.write_bytes(receipt(**{field: 10**400}))
    with pytest.raises(ManifestError, match=field):
        list(read_receipts(path))


ITEMS = 2_500


def test_a_long_array_is_checked_no_further_than_to_its_first_faults(tmp_path: Path) -> None:
    """Millions of faults, each of which is told, would take gigabytes."""
    path = tmp_path / "m.jsonl"
    names = [f"n{number}" for number in range(ITEMS)]
    path.write_bytes(json.dumps({"id": "a", "task": "t", "tags": names}).encode() + b"\n")
    assert read_manifest(path)["a"].tags == names
    bad = {"id": "a", "task": "t", "tags": [*names, 1, *names, *[2] * ITEMS]}
    path.write_bytes(json.dumps(bad).encode() + b"\n")
    with pytest.raises(ManifestError) as refused:
        read_manifest(path)
    (fault,) = refused.value.faults
    assert fault.message == f"'tags[{ITEMS}]' must be text, not 1"
    expect_refusal(refused.value)


def test_long_arrays_of_a_receipt_are_taken_whole() -> None:
    """As they came from a stream, and as they were stored."""
    retried = [{"retries": n, "started_at": "2026-11-24T15:00:02Z"} for n in range(ITEMS)]
    document = json.loads(receipt(log=["x"] * ITEMS, retried=retried))
    found = Receipt.model_validate(document)
    assert (len(found.log), len(found.retried)) == (ITEMS, ITEMS)
    assert Receipt.model_validate_json(found.model_dump_json()) == found


def test_a_record_of_very_many_faults_is_told_by_their_number(log: list[str]) -> None:
    """And its log line is as short as any."""
    unknown = {f"k{number}": number for number in range(ITEMS)}
    said = records([json.dumps(finished(0, **unknown)).encode()])
    assert any(f"it has {ITEMS:,} faults" in line for line in log)
    assert said[0] == "1 record or result could not be read and counted for nothing; see the log"
