"""Put the last table of ``make chaos`` into its page: ``python -m tests.chaos``."""

from __future__ import annotations

from pathlib import Path

from tests.page_tables import FAULTS, put

if __name__ == "__main__":
    put(FAULTS, "chaos", Path("build/chaos.md").read_text("utf-8").strip())
