"""Write, or check, the JSON Schema files: ``python -m pytest_manifest.schema [--check]``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pytest_manifest.schema.generate import stale, write


def main(arguments: Sequence[str] | None = None) -> int:
    """Return exit code 0, or 1 where ``--check`` finds files that are not current."""
    parser = argparse.ArgumentParser(
        prog="python -m pytest_manifest.schema",
        description="Write the JSON Schemas of all file formats.",
    )
    parser.add_argument("--check", action="store_true", help="write nothing; fail if one is stale")
    if not parser.parse_args(arguments).check:
        for path in write():
            sys.stdout.write(f"wrote {path}\n")
        return 0
    paths = stale()
    for path in paths:
        sys.stderr.write(f"{path}: not current; run python -m pytest_manifest.schema\n")
    return 1 if paths else 0


if __name__ == "__main__":
    raise SystemExit(main())
