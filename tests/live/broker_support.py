"""What tests of dispatching share: stock workers, and a proxy that cuts connections."""

from __future__ import annotations

import base64
import json
import os
import secrets
import socket
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import redis
from celery import Celery

from pytest_manifest.broker.attempt import Attempt, attempt_of, new_run_id
from pytest_manifest.broker.publisher import Publisher
from pytest_manifest.schema import Entry
from pytest_manifest.urls import StackAddress
from tests import processes
from tests.support import eventually

ROOT = Path(__file__).parents[2]
APP = "tests.live.broker_app:app"
SENT_AT = datetime(2026, 11, 24, 15, 0, 0, 123456, tzinfo=timezone.utc)


def database(url: str, number: int) -> str:
    """Return the URL of another database of the same Valkey, emptied."""
    parts = urlsplit(url)
    other = urlunsplit(parts._replace(path=f"/{number}"))
    with closing(redis.Redis.from_url(other)) as client:
        client.flushdb()
    return other


def address(
    broker: str, backend: str | None = None, *, app: str | None = None, owned: bool = False
) -> StackAddress:
    """Return an address; results are kept in the broker unless it says otherwise."""
    return StackAddress(broker, broker if backend is None else backend, app, owned)


def attempts(entries: Sequence[Entry], run: str | None = None) -> list[Attempt]:
    """Return first attempts of a new run, in order."""
    name = run or new_run_id()
    return [attempt_of(name, entry, 1) for entry in entries]


def entries(count: int, task: str = "stock.echo", **fields: Any) -> list[Entry]:
    """Return entries ``e-0``, ``e-1``, ... whose argument is their number."""
    return [Entry(id=f"e-{n}", task=task, args=[n], **fields) for n in range(count)]


@contextmanager
def publishing(where: StackAddress, *, stream: str = "manifest:x:receipts") -> Iterator[Publisher]:
    """Give a publisher and close it."""
    publisher = Publisher(where, stream=stream, ttl=600)
    try:
        yield publisher
    finally:
        publisher.close()


def messages(url: str, key: str = "celery") -> list[dict[str, Any]]:
    """Return the raw messages of a Redis queue, first sent first."""
    with closing(redis.Redis.from_url(url)) as client:
        raw: list[bytes] = client.lrange(key, 0, -1)  # type: ignore[assignment]  # not awaited
    return [json.loads(one) for one in reversed(raw)]


def queued_ids(url: str, key: str = "celery") -> list[str]:
    """Return the task ids that wait in a Redis queue."""
    return [message["headers"]["id"] for message in messages(url, key)]


def body(message: Mapping[str, Any]) -> Any:
    """Return the decoded JSON body of a raw Redis message: args, kwargs, embed."""
    return json.loads(base64.b64decode(message["body"]))


@contextmanager
def stock_worker(
    where: StackAddress,
    directory: Path,
    *,
    queues: str | None = None,
    pool: str = "solo",
    env: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
) -> Iterator[str]:
    """Run a stock ``celery worker`` of the test project until it answers; yield its node name."""
    name = f"w{secrets.token_hex(4)}@localhost"
    command = [sys.executable, "-m", "celery", "-A", APP, "worker", "-n", name, "-P", pool]
    command += ["-c", "1", "-l", "info", *options, *(["-Q", queues] if queues else [])]
    environment = dict(os.environ) | {
        "CELERY_BROKER_URL": where.broker_url,
        "CELERY_RESULT_BACKEND": where.backend_url,
        **(env or {}),
    }
    log = directory / f"{name}.log"
    with processes.child(command, log=log, cwd=ROOT, env=environment) as process:
        processes.wait_until(lambda: name in pinged(where), process, log=log, name="the worker")
        yield name


def pinged(where: StackAddress) -> set[str]:
    """Return the names of the workers that answer a ping, asked by Celery's own client."""
    from tests.live.broker_app import app as project

    client = Celery("ping", broker=where.broker_url, set_as_current=False)
    client.conf.broker_transport_options = project.conf.broker_transport_options
    with suppress(Exception), client.connection_for_write() as connection:
        replies = client.control.ping(timeout=0.3, connection=connection)
        return {name for reply in replies for name in reply}
    return set()


class CuttingProxy:
    """A TCP proxy that cuts every open connection once enough bytes have gone one way.

    ``cut_after``: bytes from the clients (or, with ``replies``, to them) until the cut; None for
    never. Later connections pass unhindered unless it is set again.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = socket.create_server((processes.LOOPBACK, 0))
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self.cut_after: int | None = None
        self.replies = False
        self.seen = 0
        self.cuts = 0
        self._paused = False
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        """Where clients connect."""
        port: int = self._listener.getsockname()[1]
        return port

    def arm(self, cut_after: int | None, *, replies: bool = False) -> None:
        """Count from 0 again, and cut after so many bytes."""
        with self._lock:
            self.seen, self.cut_after, self.replies = 0, cut_after, replies

    def retarget(self, url: str) -> None:
        """Lead later connections to another server."""
        parts = urlsplit(url)
        self._target = (str(parts.hostname), int(parts.port or 0))

    def pause(self) -> None:
        """Cut all open connections, and every later one as soon as it is made."""
        self._paused = True
        self.cut()

    def resume(self) -> None:
        """Let later connections pass again."""
        self._paused = False

    def cut(self) -> None:
        """Cut all open connections at once."""
        with self._lock:
            self._cut()

    def close(self) -> None:
        """Accept no more, and cut what is open."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _cut(self) -> None:
        self.cut_after = None
        self.cuts += 1
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._sockets.clear()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self._paused:
                    client.close()
                    continue
                try:
                    server = socket.create_connection(self._target)
                except OSError:
                    client.close()
                    continue
                with self._lock:
                    self._sockets += [client, server]
                for source, sink, reply in ((client, server, False), (server, client, True)):
                    threading.Thread(
                        target=self._pump, args=(source, sink, reply), daemon=True
                    ).start()

    def _pump(self, source: socket.socket, sink: socket.socket, reply: bool) -> None:
        with suppress(OSError, ValueError):
            while data := source.recv(4096):
                with self._lock:
                    if reply == self.replies:
                        self.seen += len(data)
                        if self.cut_after is not None and self.seen > self.cut_after:
                            # What is within the limit still arrives.
                            kept = len(data) - (self.seen - self.cut_after)
                            sink.sendall(data[: max(0, kept)])
                            self._cut()
                            return
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


@contextmanager
def proxied(url: str) -> Iterator[tuple[CuttingProxy, str]]:
    """Give a proxy before the server at ``url``, and the URL that goes through it."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    proxy = CuttingProxy((parts.hostname, parts.port))
    try:
        location = parts.netloc.rpartition(":")[0]
        yield proxy, urlunsplit(parts._replace(netloc=f"{location}:{proxy.port}"))
    finally:
        proxy.close()


def results_of(reader: Any, ids: Sequence[str], within: float = 20.0) -> dict[str, Any]:
    """Read until every id has a final state."""
    found: dict[str, Any] = {}

    def all_read() -> bool:
        found.update(reader.read([one for one in ids if one not in found]))
        return len(found) == len(ids)

    eventually(all_read, within=within, what=f"{len(ids)} final results")
    return found
