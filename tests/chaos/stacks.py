"""The stacks that faults are injected into: the plugin's own, and ones that the harness owns."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeAlias, get_args
from urllib.parse import urlsplit, urlunsplit

import psutil

from tests.chaos.drain import Remains, count_amqp, drain_amqp, drain_redis
from tests.chaos.executions import running
from tests.chaos.kept import KeptData
from tests.chaos.proxy import Proxy
from tests.chaos.servers import Valkey, spawn
from tests.chaos.session import Family
from tests.conftest import missing
from tests.processes import ELSEWHERE, LOOPBACK, START_SECONDS, tail
from tests.support import eventually

Way: TypeAlias = Literal["pytest's broker", "pytest's store", "workers' broker", "workers' store"]
"""Who reaches what."""
WAYS: tuple[Way, ...] = get_args(Way)

WARM_SECONDS = 20.0
"""What workers may take to finish what they run, and to give back the rest."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What a scenario runs on.

    ``workers``: worker processes; ``slots``: jobs at once in each (external ones only);
    ``aof``: whether an external Valkey keeps what it holds; ``own_store``: results are in a Valkey
    of their own; ``sql``: they are in a database; ``elsewhere``: the workers' pids mean nothing out
    here; ``proxied``: the ways that lead through a proxy;
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
    proxied: tuple[Way, ...] = ()
    stock: bool = False
    cwd: str = "."


Servers: TypeAlias = Mapping[str, str]
"""URLs of servers that all rounds share: RabbitMQ's as "rabbitmq", PostgreSQL's as "postgres"."""
NO_SERVERS: Servers = {}


class Stack(Protocol):
    """Broker, result store and workers, as far as a fault needs them."""

    proxies: Mapping[Way, Proxy]

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

    def drain(self) -> list[Remains]:
        """End the workers, and take out what each broker still holds; pytest has ended before."""

    def stop(self) -> None:
        """End what the harness started."""

    def log(self) -> str:
        """The last lines of what the harness's processes said."""


class Embedded:
    """The plugin's private stack: found by its processes, supervised by its supervisor."""

    def __init__(self, setup: Setup, folder: Path, family: Family) -> None:
        self.proxies: Mapping[Way, Proxy] = {}
        self._setup = setup
        self._folder = folder
        self._family = family
        self._data = KeptData(folder / ".manifest" / "stacks")
        self._url = ""

    def start(self) -> None:
        """pytest starts it."""
        self._data.start()

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

    def drain(self) -> list[Remains]:
        """Its workers have ended with it; what its brokers held last is in their own files."""
        remains = []
        for number, copy in enumerate(self._data.copies(self._folder)):
            family = Family()
            server = Valkey(self._folder / f"drained-{number}", family, aof=True, data=copy)
            try:
                server.start()
                remains.append(drain_redis(server.url))
            finally:
                server.stop()
        return remains

    def stop(self) -> None:
        """It ends with pytest."""
        self._data.stop()

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

    def __init__(self, setup: Setup, folder: Path, servers: Servers, queue: str) -> None:
        self._queue = queue
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
        self.proxies: Mapping[Way, Proxy] = {
            way: Proxy(_location(self._direct(way))) for way in setup.proxied
        }
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
        broker, store = self._url("pytest's broker"), self._url("pytest's store")
        return [
            f"--manifest-broker={broker}",
            *([f"--manifest-backend={store}"] if store != broker else []),
        ]

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

    def drain(self) -> list[Remains]:
        """What workers run, or have in mind, they may finish; the rest goes back to the broker."""
        for proxy in self.proxies.values():
            proxy.heal()
        if not self._rabbitmq:
            self._valkey.process().resume()
        self._end_workers(gently=self._is_busy())
        for proxy in self.proxies.values():
            proxy.close()
        if self._rabbitmq:
            return [drain_amqp(self._rabbitmq, self._queue)]
        return [drain_redis(self._valkey.url)]

    def _is_busy(self) -> bool:
        """Whether a message is anywhere, or a job runs; those whose process was killed do not."""
        if any(psutil.pid_exists(job.pid) for job in running(self._folder)):
            return True
        if self._rabbitmq:
            return count_amqp(self._rabbitmq, self._queue) > 0
        return bool(drain_redis(self._valkey.url, look_only=True).messages)

    def _end_workers(self, *, gently: bool) -> None:
        workers = self.workers()
        children = [child for worker in workers for child in worker.children(recursive=True)]
        if gently:
            for worker in workers:
                worker.terminate()
            psutil.wait_procs(workers, timeout=WARM_SECONDS)
        for process in (*workers, *children):
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs([*workers, *children], timeout=START_SECONDS)

    def stop(self) -> None:
        for proxy in self.proxies.values():
            proxy.close()
        self._family.end(within=0.0)
        for process in self._started:
            process.wait(START_SECONDS)
        self._valkey.stop()
        self._store.stop()

    def log(self) -> str:
        logs = sorted(self._folder.glob("worker-*.log"))
        return "\n".join(f"-- {log.name}\n{tail(log)}" for log in logs)

    def _direct(self, way: Way) -> str:
        if way.endswith("broker"):
            return self.url()
        return self.store_url()

    def _url(self, way: Way) -> str:
        """The URL by which this way leads, through its proxy where it has one."""
        url = self._direct(way)
        if way not in self.proxies:
            return url
        parts = urlsplit(url)
        location = f"{parts.netloc.rpartition('@')[0]}@{LOOPBACK}:{self.proxies[way].port}"
        return urlunsplit(parts._replace(netloc=location))

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
        env = {"CELERY_BROKER_URL": self._url("workers' broker")}
        env["CELERY_RESULT_BACKEND"] = self._url("workers' store")
        env["CHAOS_HOME"] = str(self._folder)
        cwd = (self._folder / self._setup.cwd).resolve()
        self._started.append(spawn(command, self._family, log=log, cwd=cwd, env=env))
        return log


def _database(setup: Setup, folder: Path, servers: Servers) -> str:
    if setup.sql == "postgres":
        return servers["postgres"].replace("postgresql://", "db+postgresql+psycopg://", 1)
    return f"db+sqlite:///{folder}/results.sqlite" if setup.sql else ""


def _location(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.port, "only what is called by a port has a proxy"
    return parts.hostname or LOOPBACK, parts.port


def _is_ready(log: Path) -> bool:
    return log.exists() and " ready." in log.read_text("utf-8", "replace")
