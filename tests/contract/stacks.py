"""The stacks that keep the contract, each as a context that gives one running."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from celery import Celery
from kombu import Connection

from pytest_manifest.stack.client import EmbeddedStack
from pytest_manifest.stack.settings import Settings
from pytest_manifest.testing import MemoryStack
from pytest_manifest.urls import StackAddress
from tests import processes
from tests.contract.app import ROUTED

ROOT = Path(__file__).parents[2]
APP = "tests.contract.app:app"
OTHER_QUEUE = "contract-other"
START_SECONDS = 60.0


@dataclass(frozen=True)
class ExternalStack:
    """A broker and workers that nobody here supervises."""

    address: StackAddress
    failure: str | None = None

    def wait_broker(self, timeout: float) -> StackAddress:
        """The address; it answers already."""
        return self.address


@contextmanager
def memory() -> Iterator[MemoryStack]:
    """Broker, store and worker in this process."""
    with MemoryStack(APP) as stack:
        yield stack


@contextmanager
def embedded(concurrency: int = 1) -> Iterator[EmbeddedStack]:
    """A Valkey and a worker of our own."""
    stack = EmbeddedStack(Settings(APP, concurrency, str(ROOT)))
    try:
        stack.start()
        stack.wait_broker(START_SECONDS)
        stack.wait_workers(START_SECONDS)
        yield stack
    finally:
        stack.stop()


@contextmanager
def external(broker: str, backend: str, concurrency: int = 1) -> Iterator[ExternalStack]:
    """A broker that is there already, with a worker as its owner starts one."""
    name = f"w{secrets.token_hex(4)}@localhost"
    command = [sys.executable, "-m", "celery", "-A", APP, "worker", "-n", name, "-c"]
    command += [
        f"{concurrency}",
        "-l",
        "info",
        "-I",
        "pytest_manifest.worker",
        "-Q",
        f"celery,{ROUTED},{OTHER_QUEUE}",
    ]
    environment = os.environ | {"CELERY_BROKER_URL": broker, "CELERY_RESULT_BACKEND": backend}
    with processes.temporary_directory() as directory:
        log = directory / "worker.log"
        with processes.child(command, log=log, cwd=ROOT, env=environment) as process:
            processes.wait_until(
                lambda: name in _pinged(broker), process, log=log, name="the worker"
            )
            yield ExternalStack(StackAddress(broker, backend, APP, is_private=False))
    _delete_queues(broker)


def _delete_queues(broker: str) -> None:
    """Other tests of this session have the same broker."""
    with Connection(broker) as connection:
        for name in ("celery", ROUTED, OTHER_QUEUE):
            connection.default_channel.queue_delete(name)


def _pinged(broker: str) -> set[str]:
    with (
        suppress(Exception),
        Celery("ping", broker=broker, set_as_current=False) as client,
        client.connection_for_write() as connection,
    ):
        replies = client.control.ping(timeout=0.3, connection=connection)
        return {name for reply in replies for name in reply}
    return set()
