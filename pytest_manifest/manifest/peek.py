"""What a line is about, at a glance: for lines that were found to be valid."""

from __future__ import annotations

import json
import re
from typing import Final

# Keys are unique, so what stands first stands alone; an escape needs the whole parser.
_AS_WE_WRITE: Final = re.compile(rb'\{"id": ?"([^"\\]*)", ?"task": ?"([^"\\]*)"[,}]').match


def id_and_task(raw: bytes) -> tuple[str, str]:
    """The entry's id and task; a tenth of what parsing the line costs, where it is as we write."""
    told = _AS_WE_WRITE(raw)
    if told is not None:
        return told[1].decode(), told[2].decode()
    entry = json.loads(raw)
    return entry["id"], entry["task"]
