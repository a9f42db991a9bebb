"""Have Flower ask for its password everywhere: the file that ``FLOWER_CONF`` names in compose.yaml.

Flower itself leaves ``/metrics`` and ``/healthcheck`` open, and the metrics name tasks and workers.
As a command, ``python tasks/flower_config.py URL`` asks such a page with the password of the
environment (``FLOWER_BASIC_AUTH``), for a health check; it fails where the page does not answer.
"""

from __future__ import annotations

import base64
import os
import sys
import urllib.request


def require_password() -> None:
    """Put the same two pages before Flower's own, with the check that all its other pages have."""
    from flower.urls import handlers
    from flower.views import monitor
    from tornado.web import authenticated

    class Metrics(monitor.Metrics):
        @authenticated
        async def get(self) -> None:
            await super().get()

    class Healthcheck(monitor.Healthcheck):
        @authenticated
        async def get(self) -> None:
            await super().get()

    handlers[:0] = [("/metrics", Metrics), ("/healthcheck", Healthcheck)]


def ask(url: str) -> None:
    """Ask a page with the password; raise OSError where it is refused or nobody answers."""
    password = base64.b64encode(os.environ["FLOWER_BASIC_AUTH"].encode()).decode()
    headers = {"Authorization": f"Basic {password}"}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - compose.yaml's own
    urllib.request.urlopen(request, timeout=3).close()  # noqa: S310


if __name__ == "__main__":
    ask(sys.argv[1])
else:
    require_password()
