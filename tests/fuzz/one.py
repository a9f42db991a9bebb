"""Fuzz one target in this process: ``python -m tests.fuzz.one TARGET [options of libFuzzer]``.

libFuzzer ends the process, at a finding with its input in a file. Needs atheris.
"""

from __future__ import annotations

import sys
import zlib

import atheris
from loguru import logger

from tests.fuzz.targets import TARGETS

_BYTES_ONE_IN = 4
_COUNTED_ONE_IN = 64
"""How often work is counted, which takes several times as long."""


def main() -> None:
    """Import the target so that it is watched, and hand the process to libFuzzer."""
    logger.remove()
    target = TARGETS[sys.argv[1]]
    with atheris.instrument_imports(include=[f"pytest_manifest.{part}" for part in target.parts]):
        check = target.check
        for seed in target.inputs():  # what is imported late, too
            check(seed.read_bytes())
    # Not before: they import a part of what is watched.
    from tests.fuzz.mutating import mutated
    from tests.fuzz.oracles import expect_bounded_work

    def check_one(data: bytes) -> None:
        if zlib.crc32(data) % _COUNTED_ONE_IN:
            check(data)
        else:
            expect_bounded_work(check, data)

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        """Change lines of JSON, and one time in four bytes, as libFuzzer does."""
        if seed % _BYTES_ONE_IN == 0:
            return bytes(atheris.Mutate(data, most))
        return mutated(data, seed, most)

    atheris.Setup([sys.argv[0], *sys.argv[2:]], check_one, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
