"""Servers that all processes of one run of this suite share: RabbitMQ and PostgreSQL.

The process that asks first starts the server; the others read its address from a file. Each has a
virtual host or a database of its own there. Whoever uses a server holds a lock for it, and the one
that has started it ends it when nobody does any more; the kernel takes the locks of a process that
was killed. A server ends with the process that started it, however that ends (``processes.child``).

A test that stops a server, or says how it is to behave, starts one for itself. Valkey is one for
each process: it is there in a tenth of a second, and tests empty, freeze and fill it.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from tests import services

PLACES: Final = 16
"""How many virtual hosts the shared RabbitMQ has, one for each process."""


class Shared:
    """The shared servers of a run, found by files in ``folder``; ``number``: of this process."""

    def __init__(self, folder: Path, number: int) -> None:
        self.number = number
        self._folder = folder
        self._used: dict[str, TextIOWrapper] = {}
        self._owned: dict[str, ExitStack] = {}

    def address(self, name: str, server: Callable[[], AbstractContextManager[str]]) -> str:
        """Return the URL of the server of this name; start it where nobody has yet."""
        with self._locked(name, "start"):
            if name not in self._used:
                self._used[name] = _lock(self._folder / f"{name}.use", fcntl.LOCK_SH)
            place = self._folder / f"{name}.url"
            try:
                owner = _lock(self._folder / f"{name}.owner", fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return place.read_text("utf-8")
            with ExitStack() as stack:
                stack.callback(_unlock, owner)
                url = stack.enter_context(server())
                place.write_text(url, "utf-8")
                self._owned[name] = stack.pop_all()
        return url

    def close(self) -> None:
        """Give up all servers; end those that this process has started once nobody uses them."""
        for use in self._used.values():
            _unlock(use)
        self._used.clear()
        while self._owned:
            name, stack = self._owned.popitem()
            with self._locked(name, "use"), stack:
                pass

    @contextmanager
    def _locked(self, name: str, what: str) -> Iterator[None]:
        lock = _lock(self._folder / f"{name}.{what}", fcntl.LOCK_EX)
        try:
            yield
        finally:
            _unlock(lock)


def _lock(path: Path, how: int) -> TextIOWrapper:
    """Open a file and lock it; raises BlockingIOError where that would have to wait."""
    file = path.open("a", encoding="utf-8")
    try:
        fcntl.flock(file, how)
    except BaseException:
        file.close()
        raise
    return file


def _unlock(file: TextIOWrapper) -> None:
    # Said, as a child that was forked meanwhile may have the same open file.
    fcntl.flock(file, fcntl.LOCK_UN)
    file.close()


@contextmanager
def rabbitmq(shared: Shared) -> Iterator[str]:
    """Yield the URL of a virtual host of the shared RabbitMQ, which this process has for itself."""
    names = [f"process-{number}" for number in range(PLACES)]
    url = shared.address("rabbitmq", lambda: services.rabbitmq_server(names))
    yield urlsplit(url)._replace(path=f"/{names[shared.number]}").geturl()


@contextmanager
def postgres(shared: Shared) -> Iterator[str]:
    """Yield the URL of a database of the shared PostgreSQL, which this process has for itself."""
    url = shared.address("postgres", services.postgres_server)
    name = f"process_{shared.number}"
    with psycopg.connect(url, autocommit=True) as connection:
        found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name])
        if found.fetchone() is None:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    yield urlsplit(url)._replace(path=f"/{name}").geturl()


KEY: Final = pytest.StashKey[Shared]()


def of(config: pytest.Config, factory: pytest.TempPathFactory) -> Shared:
    """Return what this process shares with the others of its run."""
    if KEY not in config.stash:
        worker: dict[str, str] | None = getattr(config, "workerinput", None)
        base = factory.getbasetemp()
        folder = base if worker is None else base.parent
        number = 0 if worker is None else int(worker["workerid"].removeprefix("gw"))
        config.stash[KEY] = Shared(folder, number % PLACES)
        config.add_cleanup(partial(close, config))  # where a session has the fixtures alone
    return config.stash[KEY]


def close(config: pytest.Config) -> None:
    """Give up what this process shares."""
    if KEY in config.stash:
        config.stash[KEY].close()
        del config.stash[KEY]
