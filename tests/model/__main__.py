"""Explore the model and print the table: ``python -m tests.model``, or ``make model``.

``--write`` puts it into the page of the promises.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.model.explore import BROKEN, HOLDS, UNTRUSTED, explore_all, missing_tools, table
from tests.page_tables import PROMISES, put

FOLDER = Path("build/model")


def main() -> int:
    """Print the table; return 1 where a promise is broken, or a broken rule breaks none."""
    lacking = missing_tools()
    if lacking:
        print(f"the model needs {' and '.join(lacking)}: apt-get install spin gcc libc6-dev")
        return 2
    processes = max(1, int(os.environ.get("MODEL_PROCESSES", "2")))
    explored = explore_all([*HOLDS, *BROKEN, *UNTRUSTED], FOLDER, processes)
    text = table(explored)
    print(text)
    (FOLDER / "table.md").write_text(text + "\n", "utf-8")
    if "--write" in sys.argv[1:]:
        put(PROMISES, "model", text)
    wrong = [one for one in explored if not one.as_expected]
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
