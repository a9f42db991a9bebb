"""Ask the worker of this host whether it answers: ``python -m tasks.ping``, a health check.

As ``celery inspect ping`` does, at half of its cost: that also imports all of Celery's commands.
Asked before the worker is ready, it asks again each second; an answer counts however late, as on a
machine with much to do each takes longer than that.
"""

from __future__ import annotations

import socket
import sys
import time
from typing import Final

from pytest_manifest.compat.kombu import publish_command
from tasks import app

PATIENCE_SECONDS: Final = 30.0
"""Less than the time-out of the check in compose.yaml, by what a busy machine takes for imports."""
AGAIN_SECONDS: Final = 1.0
POLL_SECONDS: Final = 0.02


def answers(node: str) -> bool:
    """Return whether the worker of this name answers within ``PATIENCE_SECONDS``."""
    with app.connection_for_write() as connection:
        channel = connection.channel()
        mailbox = app.control.mailbox(connection)
        # One queue for the answers to all questions: Celery's own ping forgets the former ones'.
        replies = mailbox.get_reply_queue()(channel)
        replies.declare()
        try:
            deadline = time.monotonic() + PATIENCE_SECONDS
            again = 0.0
            while (now := time.monotonic()) < deadline:
                if now >= again:
                    publish_command(mailbox, channel, "ping", {}, "health", to=[node])
                    again = now + AGAIN_SECONDS
                if replies.get(no_ack=True) is not None:
                    return True
                time.sleep(POLL_SECONDS)
            return False
        finally:
            replies.delete()


if __name__ == "__main__":
    sys.exit(0 if answers(f"celery@{socket.gethostname()}") else 1)
