"""Memory: checking and streaming a manifest do not keep its entries."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_manifest.manifest import check_manifest, read_manifest
from tests.receipts_files import read_receipts

SMALL, LARGE = 2_000, 12_000


def lines(count: int, rest: str) -> str:
    """JSON lines with long values, numbered."""
    return "".join(rest.replace("#", str(i)) for i in range(count))


@pytest.fixture
def growth(tmp_path: Path) -> Callable[[str, Callable[[Path], Callable[[], object]]], float]:
    """Bytes of peak memory that one more line costs; the way's first call is not measured."""

    def peak(path: Path, prepare: Callable[[Path], Callable[[], object]]) -> int:
        act = prepare(path)
        act()  # what the first call alone keeps, such as modules and compiled patterns
        gc.collect()
        tracemalloc.start()
        try:
            act()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    def measure(line: str, prepare: Callable[[Path], Callable[[], object]]) -> float:
        peaks = []
        for count in (SMALL, LARGE):
            path = tmp_path / f"{count}.jsonl"
            path.write_text(lines(count, line))
            peaks.append(peak(path, prepare))
        return (peaks[1] - peaks[0]) / (LARGE - SMALL)

    return measure


ENTRY = f'{{"id": "corpus/film-#", "task": "t", "meta": {{"text": "{"x" * 500}"}}}}\n'
RECEIPT = (
    '{"run": "r", "entry": "e-#", "attempt": 1, "task_id": "t-#", "task": "t", '
    f'"state": "succeeded", "result": "{"x" * 500}"}}\n'
)


def test_a_check_keeps_a_few_bytes_an_entry(
    growth: Callable[[str, Callable[[Path], Callable[[], object]]], float],
) -> None:
    """12 bytes, and what arrays allocate ahead; an entry kept whole would be thousands."""
    assert growth(ENTRY, lambda path: lambda: check_manifest(path)) < 40


def test_a_check_of_who_waits_for_whom_keeps_a_few_bytes_more(
    growth: Callable[[str, Callable[[Path], Callable[[], object]]], float],
) -> None:
    """12 bytes each that is waited for, and some 300 while circles are looked for."""
    waiting = f'{{"id": "e-#", "task": "t", "after": ["e-%"], "meta": {{"text": "{"x" * 500}"}}}}\n'

    def forwards(path: Path) -> Callable[[], object]:
        written = path.read_text().splitlines(keepends=True)
        others = [*range(1, len(written)), None]
        path.write_text(
            "".join(
                text.replace("e-%", f"e-{other}") if other else text.replace('["e-%"]', "[]")
                for text, other in zip(written, others, strict=True)
            )
        )
        return lambda: check_manifest(path)

    assert growth(waiting, forwards) < 450


def test_streaming_keeps_nothing(
    growth: Callable[[str, Callable[[Path], Callable[[], object]]], float],
) -> None:
    """Entries of a manifest that was read, and receipts, go by one at a time."""

    def entries(path: Path) -> Callable[[], object]:
        manifest = read_manifest(path)
        return lambda: sum(1 for _ in manifest)

    assert growth(ENTRY, entries) < 1
    assert growth(RECEIPT, lambda path: lambda: sum(1 for _ in read_receipts(path))) < 1
