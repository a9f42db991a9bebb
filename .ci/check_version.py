"""Check that a tag names the version that would be released: `check_version.py v1.2.3`.

The version is pyproject's, and CHANGELOG.md has a heading for it. Exits with what does not hold.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import tomllib

ROOT = Path(__file__).resolve().parent.parent


def faults(tag: str, root: Path = ROOT) -> list[str]:
    """Return what keeps this tag from being released."""
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    version = project["version"]
    found = []
    if tag != f"v{version}":
        found.append(f"the tag is {tag}, and pyproject.toml says {version}; tag v{version}")
    changes = (root / "CHANGELOG.md").read_text("utf-8")
    if re.search(rf"^## {re.escape(version)}( |$)", changes, re.MULTILINE) is None:
        found.append(f"CHANGELOG.md has no heading '## {version}'")
    return found


if __name__ == "__main__":
    sys.exit("\n".join(faults(sys.argv[1])) or None)
