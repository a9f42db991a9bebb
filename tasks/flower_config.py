"""Have Flower ask for its password everywhere: the file that ``FLOWER_CONF`` names in compose.yaml.

Flower itself leaves ``/metrics`` and ``/healthcheck`` open, and the metrics name tasks and workers.
As a command, ``python tasks/flower_config.py URL`` asks such a page with the password of the
environment (``FLOWER_BASIC_AUTH``), for a health check; it fails where the page does not answer.
"""

from __future__ import annotations

import base64
import hmac
import os
import sys
import urllib.request

import prometheus_client
from flower.app import Flower
from tornado.web import RequestHandler


class Guarded(RequestHandler):
    """Answer to the name and password of ``FLOWER_BASIC_AUTH`` alone, as Flower's own do."""

    def prepare(self) -> None:
        """Refuse a request without them; status 401."""
        given = self.request.headers.get("Authorization", "").encode()
        if not hmac.compare_digest(given, authorization().encode()):
            self.set_status(401)
            self.set_header("WWW-Authenticate", 'Basic realm="flower"')
            self.finish()


class Metrics(Guarded):
    """Show what Prometheus reads of the workers."""

    def get(self) -> None:
        """Write the metrics of the workers that are there."""
        flower: Flower = self.application
        flower.purge_offline_worker_metrics()
        self.set_header("Content-Type", "text/plain")
        self.write(prometheus_client.generate_latest())


class Healthcheck(Guarded):
    """Say that Flower answers."""

    def get(self) -> None:
        """Write OK."""
        self.write("OK")


def authorization() -> str:
    """Make the header's value of the name and password that the environment has."""
    both = os.environ["FLOWER_BASIC_AUTH"].encode()
    return f"Basic {base64.b64encode(both).decode()}"


def ask(url: str) -> None:
    """Ask a page with the password; raise OSError where it is refused or nobody answers."""
    request = urllib.request.Request(url, headers={"Authorization": authorization()})  # noqa: S310 - compose.yaml's own
    urllib.request.urlopen(request, timeout=3).close()  # noqa: S310


if __name__ == "__main__":
    ask(sys.argv[1])
else:
    from flower.urls import handlers

    handlers[:0] = [("/metrics", Metrics), ("/healthcheck", Healthcheck)]
