"""The stacks that faults are injected into: the plugin's own, and ones that the harness owns."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeAlias
from urllib.parse import urlsplit, urlunsplit

import psutil

from tests.chaos.proxy import Proxy
from tests.chaos.servers import Valkey, spawn
from tests.chaos.session import Family
from tests.conftest import missing
from tests.processes import ELSEWHERE, LOOPBACK, START_SECONDS, tail
from tests.support import eventually


@dataclass(frozen=True, slots=True)
class Setup:
    """What a scenario runs on.

    ``workers``: worker processes; ``slots``: jobs at once in each (external ones only);
    ``aof``: whether an external Valkey keeps what it holds; ``own_store``: results are in a Valkey
    of their own; ``sql``: they are in a database; ``elsewhere``: the workers' pids mean nothing out
    here; ``proxy``: who reaches the broker by a proxy;
    ``stock``: the workers know nothing of manifests; ``cwd``: a folder below the project's, with
    another edition of the app for the workers.
    """

    kind: Literal["embedded", "valkey", "rabbitmq"] = "embedded"
    workers: int = 2
    slots: int = 2
    aof: bool = True
    own_store: bool = False
    sql: Literal["", "sqlite", "postgres"] = ""
    elsewhere: bool = False
    proxy: Literal["", "driver", "all"] = ""
    stock: bool = False
    cwd: str = "."


Servers: TypeAlias = Mapping[str, str]
"""URLs of servers that all rounds share: RabbitMQ's as "rabbitmq", PostgreSQL's as "postgres"."""
NO_SERVERS: Servers = {}


class Stack(Protocol):
    """Broker, result store and workers, as far as a fault needs them."""

    proxy: Proxy | None

    def options(self) -> list[str]:
        """What pytest is told of it."""

    def url(self) -> str:
        """The broker's own URL, past any proxy."""

    def store_url(self) -> str:
        """The result store's own URL."""

    def workers(self) -> list[psutil.Process]:
        """The main processes of the workers."""

    def broker(self) -> psutil.Process:
        """The broker's process."""

    def start(self) -> None:
        """Start what the harness starts, before pytest."""

    def after_broker_death(self) -> None:
        """Somebody killed the broker: start it again, where nobody else does."""

    def after_worker_death(self) -> None:
        """Somebody killed a worker: start another, where nobody else does."""

    def stop(self) -> None:
        """End what the harness started."""

    def log(self) -> str:
        """The last lines of what the harness's processes said."""


class Embedded:
    """The plugin's private stack: found by its processes, supervised by its supervisor."""

    def __init__(self, setup: Setup, family: Family) -> None:
        self.proxy: Proxy | None = None
        self._setup = setup
        self._family = family
        self._url = ""

    def start(self) -> None:
        """pytest starts it."""

    def options(self) -> list[str]:
        return [f"--manifest-workers={self._setup.workers}"]

    def url(self) -> str:
        if not self._url:
            self._url = eventually(self._find_url, within=START_SECONDS, what="a worker")
        return self._url

    def store_url(self) -> str:
        return self.url()

    def workers(self) -> list[psutil.Process]:
        return main_workers(self._family)

    def broker(self) -> psutil.Process:
        def found() -> list[psutil.Process]:
            return [p for p in self._family.members() if "valkey" in p.name()]

        return eventually(found, within=START_SECONDS, what="the private Valkey")[0]

    def after_broker_death(self) -> None:
        """Its supervisor starts it again."""

    def after_worker_death(self) -> None:
        """Its supervisor starts another."""

    def stop(self) -> None:
        """It ends with pytest."""

    def log(self) -> str:
        return ""

    def _find_url(self) -> str:
        for worker in self.workers():
            with suppress(psutil.Error):
                return worker.environ().get("CELERY_BROKER_URL", "")
        return ""


def main_workers(family: Family) -> list[psutil.Process]:
    """The workers of a family, without their pool's children, by pid."""
    found: dict[int, tuple[psutil.Process, int]] = {}
    for process in family.members():
        with suppress(psutil.Error):
            command = process.cmdline()
            # What leads into another namespace runs the worker and is none.
            if "celery" in command and "worker" in command and command[0] != ELSEWHERE[0]:
                found[process.pid] = (process, process.ppid())
    return [found[pid][0] for pid in sorted(found) if found[pid][1] not in found]


class External:
    """A Valkey (and a RabbitMQ's URL, where that is the broker) with workers of the harness."""

    def __init__(self, setup: Setup, folder: Path, servers: Servers) -> None:
        self.proxy: Proxy | None = None
        self._setup = setup
        self._folder = folder
        self._family = Family()
        self._started: list[subprocess.Popen[bytes]] = []
        self._valkey = Valkey(folder / "broker", self._family, aof=setup.aof)
        self._store = self._valkey
        if setup.own_store:
            self._store = Valkey(folder / "store", self._family, aof=True)
        self._rabbitmq = servers["rabbitmq"] if setup.kind == "rabbitmq" else ""
        self._database = _database(setup, folder, servers)
        if setup.proxy:
            self.proxy = Proxy((LOOPBACK, self._valkey.port))
        self._number = 0

    def start(self) -> None:
        """Start everything; returns when the workers are ready."""
        self._valkey.start()
        if self._store is not self._valkey:
            self._store.start()
        logs = [self._start_worker() for _ in range(self._setup.workers)]
        for log in logs:
            eventually(lambda log=log: _is_ready(log), within=START_SECONDS, what="a worker is up")  # type: ignore[misc]  # mypy cannot infer a lambda with a default

    def options(self) -> list[str]:
        broker = self._rabbitmq or self._through(self._setup.proxy != "")
        options = [f"--manifest-broker={broker}"]
        if self._rabbitmq or self._setup.own_store:
            options += [f"--manifest-backend={self._store.url}"]
        if self._database:
            options += [f"--manifest-backend={self._database}"]
        if self._setup.proxy == "driver":  # by another port it would not be the workers' store
            options += [f"--manifest-backend={self._valkey.url}"]
        return options

    def url(self) -> str:
        return self._rabbitmq or self._valkey.url

    def store_url(self) -> str:
        return self._database or self._store.url

    def workers(self) -> list[psutil.Process]:
        return main_workers(self._family)

    def broker(self) -> psutil.Process:
        if not self._rabbitmq:
            return self._valkey.process()
        ours = psutil.Process().children(recursive=True)
        servers = [process for process in ours if "beam" in process.name()]
        if not servers:
            missing("the RabbitMQ that was given by its URL is not ours to stop")
        return servers[0]

    def after_broker_death(self) -> None:
        self._valkey.start()

    def after_worker_death(self) -> None:
        self._start_worker()

    def stop(self) -> None:
        if self.proxy is not None:
            self.proxy.close()
        self._family.end(within=0.0)
        for process in self._started:
            process.wait(START_SECONDS)
        self._valkey.stop()
        self._store.stop()

    def log(self) -> str:
        logs = sorted(self._folder.glob("worker-*.log"))
        return "\n".join(f"-- {log.name}\n{tail(log)}" for log in logs)

    def _through(self, proxied: bool) -> str:
        parts = urlsplit(self._valkey.url)
        if not proxied or self.proxy is None:
            return self._valkey.url
        location = parts.netloc.rpartition(":")[0]
        return urlunsplit(parts._replace(netloc=f"{location}:{self.proxy.port}"))

    def _start_worker(self) -> Path:
        self._number += 1
        log = self._folder / f"worker-{self._number}.log"
        command = [sys.executable, "-m", "celery", "-A", "chaosapp:app", "worker", "-l", "info"]
        # One that takes a dead one's place has its name, as by systemd.
        name = f"outside{(self._number - 1) % self._setup.workers + 1}@%h"
        command += ["-n", name, "-c", str(self._setup.slots)]
        command += ["--without-gossip", "--without-mingle"]
        command = [*ELSEWHERE, *command] if self._setup.elsewhere else command
        command += [] if self._setup.stock else ["-I", "pytest_manifest.worker"]
        broker = self._rabbitmq or self._through(self._setup.proxy == "all")
        store = self._store.url if self._rabbitmq or self._setup.own_store else broker
        store = self._database or store
        env = {"CELERY_BROKER_URL": broker, "CELERY_RESULT_BACKEND": store}
        env["CHAOS_HOME"] = str(self._folder)
        cwd = (self._folder / self._setup.cwd).resolve()
        self._started.append(spawn(command, self._family, log=log, cwd=cwd, env=env))
        return log


def _database(setup: Setup, folder: Path, servers: Servers) -> str:
    if setup.sql == "postgres":
        return servers["postgres"].replace("postgresql://", "db+postgresql+psycopg://", 1)
    return f"db+sqlite:///{folder}/results.sqlite" if setup.sql else ""


def _is_ready(log: Path) -> bool:
    return log.exists() and " ready." in log.read_text("utf-8", "replace")
