"""Ask the worker of this host whether it answers: ``python -m tasks.ping``, a health check.

As ``celery inspect ping`` does, at half of its cost: that also imports all of Celery's commands.
Asked before the worker is ready, it asks again for some seconds.
"""

from __future__ import annotations

import socket
import sys
from typing import Final

from tasks import app

TRIES: Final = 8
TRY_SECONDS: Final = 1.0


def answers(node: str) -> bool:
    """Return whether the worker of this name answers, within ``TRIES * TRY_SECONDS`` seconds."""
    return any(app.control.ping([node], timeout=TRY_SECONDS) for _ in range(TRIES))


if __name__ == "__main__":
    sys.exit(0 if answers(f"celery@{socket.gethostname()}") else 1)
