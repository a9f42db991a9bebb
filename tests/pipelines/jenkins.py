"""Read the shell steps of a Jenkinsfile: what Groovy hands to ``sh``, by the stage it stands in."""

from __future__ import annotations

import re
from pathlib import Path

STAGE = re.compile(r"stage\('(?P<stage>[^']+)'\)|sh '''(?P<script>.*?)'''", re.DOTALL)
SHEBANG = "#!/bin/bash -e\n"
VARIABLE = re.compile(r"^    ([A-Z_]+) = '([^']*)'", re.MULTILINE)


def scripts(path: Path) -> dict[str, str]:
    """The script of each stage that has one."""
    found: dict[str, str] = {}
    stage = ""
    for match in STAGE.finditer(path.read_text("utf-8")):
        if match["stage"]:
            stage = match["stage"]
            continue
        script = match["script"].replace("\\\\", "\\")
        assert script.startswith(SHEBANG), f"{stage}: the shell of an agent may be any"
        assert stage not in found
        found[stage] = script.removeprefix(SHEBANG)
    return found


def environment(path: Path) -> dict[str, str]:
    """The variables that the pipeline sets."""
    return dict(VARIABLE.findall(path.read_text("utf-8")))
