"""Asking workers whether they are there."""

from __future__ import annotations

import time
from types import TracebackType

import redis
from celery import Celery
from kombu.exceptions import OperationalError
from redis.backoff import NoBackoff
from redis.retry import Retry

from pytest_manifest.stack.address import StackAddress

POLL_SECONDS = 0.01
REPLY_SECONDS = 0.5
BLIND_PING_SECONDS = 15.0
# Without these kombu tries a broker that is gone a hundred times before it says so.
TRANSPORT_OPTIONS = {"max_retries": 1, "interval_start": 0, "socket_timeout": 2.0}


class WorkerProbe:
    """Pings workers of a private stack until as many as expected have answered.

    A ping is lost on a worker that does not listen yet, and who has sent it then waits for a second
    and more: it is sent when as many listen, and else hardly ever.
    """

    def __init__(self, address: StackAddress, expected: int) -> None:
        self._expected = expected
        self._app = Celery("manifest-probe", broker=address.broker_url, set_as_current=False)
        self._app.conf.broker_transport_options = TRANSPORT_OPTIONS
        # An app's workers answer in its own serializer; they are ours, on a broker of our own.
        self._app.conf.accept_content = ["json", "pickle", "yaml", "msgpack"]
        # No retries of its own: they would hide for seconds that the keeper has given up.
        self._redis = redis.Redis.from_url(
            address.broker_url, socket_timeout=2.0, retry=Retry(NoBackoff(), 0)
        )
        self._blind_ping_at = time.monotonic() + BLIND_PING_SECONDS
        self.answered: set[str] = set()

    def __enter__(self) -> WorkerProbe:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._redis.close()
        self._app.close()

    @property
    def complete(self) -> bool:
        return len(self.answered) >= self._expected

    def ask(self, seconds: float) -> None:
        """Look for up to ``seconds``, and ping if it is time to; ``answered`` holds who replied.

        A broker that is down at this moment is no error here: its keeper restarts it, or gives up
        and says why.
        """
        try:
            if self._heard_listeners(seconds) or time.monotonic() >= self._blind_ping_at:
                self._ping()
        except (redis.RedisError, OperationalError, OSError):
            time.sleep(POLL_SECONDS)

    def _heard_listeners(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            # kombu subscribes by pattern, which PUBSUB NUMSUB does not count, unless it is told
            # not to.
            clients: list[dict[str, str]] = self._redis.client_list(_type="pubsub")
            listeners = [one for one in clients if {one["psub"], one["sub"]} != {"0"}]
            if len(listeners) >= self._expected:
                return True
            time.sleep(POLL_SECONDS)
        return False

    def _ping(self) -> None:
        # A new connection each time: after an unanswered ping the old one is still in a BRPOP for
        # up to a second, and hears nothing before that.
        with self._app.connection_for_write() as connection:
            replies: list[dict[str, object]] = self._app.control.ping(
                timeout=REPLY_SECONDS, limit=self._expected, connection=connection
            )
        for reply in replies:
            self.answered |= reply.keys()
        self._blind_ping_at = time.monotonic() + BLIND_PING_SECONDS
