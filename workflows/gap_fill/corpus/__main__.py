"""Run the command ``python -m workflows.gap_fill.corpus``."""

from __future__ import annotations

import sys

from workflows.gap_fill.corpus.cli import main

if __name__ == "__main__":
    sys.exit(main())
