"""Run the session with the secrets, and write the table of docs/evidence/security.md."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.canary import session
from tests.page_tables import put

PAGE: Final = Path("docs/evidence/security.md")


def main() -> int:
    """Write the table; return 1 where a secret was seen."""
    with tempfile.TemporaryDirectory(prefix="manifest-canary-") as folder:
        found = session.run(Path(folder))
    held = ", ".join(f"`{name}`" for name in session.MAY_HOLD[:3])
    looked = f"{len(found.looked_at)} files and outputs were looked at, and not: {held}."
    put(PAGE, "canary", f"{looked}\n\n{session.table(found.seen)}")
    for (kind, place), names in found.seen.items():
        print(f"{kind}, {place}: {', '.join(names)}")
    return 1 if found.seen else 0


if __name__ == "__main__":
    sys.exit(main())
