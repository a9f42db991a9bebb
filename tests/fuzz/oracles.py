"""What must hold of any input, whatever it is: sentences, equal readings, bounded work."""

from __future__ import annotations

import atexit
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FrameType

from pytest_manifest.errors import ManifestError, ManifestToolError
from pytest_manifest.manifest.jsonl import MAX_FAULTS

MOST_CHARS = 1_500
"""Characters of a sentence: a terminal of 100 columns shows it on 15 lines."""
MOST_CALLS = 30_000_000
"""Calls of functions for the smallest input: a schema may ask for 100,000 steps."""
CALLS_A_BYTE = 5_000
MOST_VERDICT = 4_000
"""Characters of a verdict's sentence: it may name several values."""


class BrokenError(AssertionError):
    """What an input shows to be wrong."""


def expect(holds: object, what: str, *more: object) -> None:
    """Raise BrokenError where something does not hold, in the ordinary suite and under a fuzzer."""
    if not holds:
        raise BrokenError(": ".join([what, *(f"{one!r}"[:2_000] for one in more)]))


@cache
def scratch() -> Path:
    """A folder that goes with the process; in memory, where there is such a place."""
    memory = Path("/dev/shm")
    folder = tempfile.mkdtemp(prefix="fuzz-", dir=memory if memory.is_dir() else None)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def expect_sentence(text: str, most: int = MOST_CHARS) -> None:
    """A user can read it: words, on few lines, of characters that no terminal obeys."""
    expect(any(char.isalpha() for char in text), "no words", text)
    expect(len(text) <= most, f"a sentence of {len(text)} characters", text[:200])
    bad = [char for char in text if not (char.isprintable() or char in "\n\t")]
    expect(not bad, "characters that cannot be printed", bad[:5], text[:500])


def expect_refusal(error: ManifestToolError) -> None:
    """It says what is wrong, in a sentence for each fault, of which few are shown."""
    if not isinstance(error, ManifestError):
        expect_sentence(str(error))
        return
    expect(0 < len(error.faults) <= MAX_FAULTS, "no fault, or too many", len(error.faults))
    for fault in error.faults:
        expect_sentence(fault.message)
    lines = [fault.line for fault in error.faults]
    expect(lines == sorted(lines), "faults that are not in order", lines)
    expect_sentence(str(error), (MAX_FAULTS + 1) * (MOST_CHARS + 200))


def same(one: object, other: object) -> bool:
    """Tell whether two JSON values are the same, types included: 1 is not 1.0, nor true."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return one.hex() == other.hex()  # -0.0 is not 0.0
    return one == other


@contextmanager
def counted_calls() -> Iterator[Callable[[], int]]:
    """Count the calls of functions, of Python and of C, within the block."""
    count = 0

    def note(_frame: FrameType, event: str, _value: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield lambda: count
    finally:
        sys.setprofile(before)


def expect_bounded_work(check: Callable[[bytes], None], data: bytes) -> None:
    """Run a check; raise BrokenError where it takes more calls than the input's size allows."""
    with counted_calls() as calls:
        check(data)
    expect(calls() <= MOST_CALLS + CALLS_A_BYTE * len(data), "too much work", calls(), len(data))
