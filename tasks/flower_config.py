"""Have Flower ask for its password everywhere: the file that ``FLOWER_CONF`` names in compose.yaml.

Flower itself leaves ``/metrics`` and ``/healthcheck`` open, and the metrics name tasks and workers.
"""

from __future__ import annotations

import hmac

import prometheus_client
from flower.app import Flower
from flower.urls import handlers
from tornado.web import RequestHandler

from tasks.flower_check import authorization


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


handlers[:0] = [("/metrics", Metrics), ("/healthcheck", Healthcheck)]
