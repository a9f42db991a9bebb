"""Compare the result store that workers report with the one that is read from.

A store is guessed easily and found to be wrong late: jobs that have succeeded are then ``lost``,
with the advice to send them again. Names alone do not tell all: workers in containers call the same
server otherwise. So different is what differs in kind, in the database within a server, in the port
of one host, or in whether it is the broker itself; hosts alone are only told of.

Tell Redis servers apart by their ids, each asked by a connection as the app makes its own.

A URL does not say all: an authority for TLS, a user or a time limit may be in the app's settings.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import SplitResult, parse_qsl, urlsplit

from celery import VERSION, Celery, Task
from celery.backends.base import DisabledBackend
from loguru import logger

from pytest_manifest import urls as addresses
from pytest_manifest.broker.checks import some_of
from pytest_manifest.broker.client import connect, result_backend
from pytest_manifest.broker.workers import Worker
from pytest_manifest.redaction.texts import redact_about, redact_url

if TYPE_CHECKING:
    from celery.backends.base import Backend


TIMEOUT: Final = 2.0
"""Seconds for each answer; who does not answer by then has not told."""
LIMITS: Final = {"socket_connect_timeout": TIMEOUT, "socket_timeout": TIMEOUT}
KEEPS_ENDS: Final = (5, 6)
"""The Celery from which on a stock worker keeps the end of a job that asks for it, though its task
ignores results, as it does what a message says, and not only the task."""
KEEPS_RETRIES: Final = (5, 7)
"""The one from which on it keeps the end of its retry, too, which until then does not ask."""


class Servers:
    """Ask the servers behind URLs of brokers and stores for their run ids, each URL once.

    None where one does not say it.
    """

    def __init__(self, app: Celery, address: addresses.StackAddress) -> None:
        self._app = app
        self._address = address
        self.id_of_broker = cache(partial(_run_id, self._ask_broker))
        self.id_of_store = cache(partial(_run_id, self._ask_store))

    def _ask_broker(self, url: str) -> object:
        place = replace(self._address, broker_url=url)
        with connect(self._app, place, LIMITS) as connection, connection.channel() as channel:
            return channel.client.info("server")

    def _ask_store(self, url: str) -> object:
        backend = result_backend(self._app, replace(self._address, backend_url=url))
        backend.connparams.update(LIMITS, retry_on_timeout=False)
        client = backend.client
        try:
            return client.info("server")
        finally:
            client.connection_pool.disconnect()


def _run_id(ask: Callable[[str], object], url: str) -> str | None:
    if not addresses.is_redis_server(url):
        return None
    try:
        said = ask(url)
    except Exception as error:  # of the app's settings, too, which another place may not suit
        logger.debug(
            "{} does not say who it is: {}", redact_url(url), redact_about(str(error), url)
        )
        return None
    found = said.get("run_id") if isinstance(said, dict) else None
    return found if isinstance(found, str) and found else None


def is_same(one: str | None, other: str | None) -> bool:
    """Tell whether two ids, each None where it is unknown, are of one server."""
    return one is not None and one == other


def with_host(url: str, host: str, port: int | None) -> str:
    """Exchange the host of a URL; our password stays, as workers do not tell theirs."""
    parts = urlsplit(url)
    login, at_sign, _ = parts.netloc.rpartition("@")
    name = f"[{host}]" if ":" in host else host
    place = name if port is None else f"{name}:{port}"
    return parts._replace(netloc=f"{login}{at_sign}{place}").geturl()


Comparison = Literal["same", "perhaps", "other"]

NONE: Final = "disabled"
DATABASES: Final = ("db", "database")
REDIS_PORT: Final = 6379
LOOPBACK: Final = ("localhost", "127.0.0.1", "::1", "")


@dataclass(frozen=True, slots=True)
class _Store:
    """A store's name, taken apart: of what kind, on which server, and what there."""

    scheme: str
    host: str = ""
    port: int | None = None
    database: str = ""

    def is_on(self, other: _Store) -> bool:
        """Tell whether both are on one server."""
        return (self.scheme, self.host, self.port) == (other.scheme, other.host, other.port)


def own_store(app: Celery, broker: str) -> str | None:
    """Give the result store that the app names, for a stack with this broker; None: none.

    The environment is left out: it may speak of another stack. Where the app keeps results on its
    own broker's server, they are on this one's.
    """
    url = _configured_store(app)
    store, own, given = map(_parse, (url, str(app.conf.get("broker_url") or ""), broker))
    if store.scheme == NONE:
        return None
    # All sentinels look like one server there, which these are only if one is among both.
    apart = addresses.scheme_of(broker) == addresses.SENTINEL and _hosts(url).isdisjoint(
        _hosts(broker)
    )
    if (store.is_on(given) and not apart) or not store.is_on(own):
        return url
    if not addresses.is_redis_server(broker):
        return None if given.scheme == store.scheme else url  # its name there is unknown
    try:
        parts = urlsplit(broker)
    except ValueError:  # no URL: whoever connects says so
        return None
    query = parts.query or urlsplit(url).query
    return parts._replace(path=f"/{store.database}", query=query).geturl()


def other_store(app: Celery, address: addresses.StackAddress) -> str | None:
    """Return the store that the app's settings name, without the password, where the address names
    another; else None."""
    own = _configured_store(app)
    if _parse(own).scheme == NONE or _parse(own) == _parse(address.backend_url):
        return None
    return redact_url(own)


def refusals(
    app: Celery, address: addresses.StackAddress, tasks: Iterable[Task], workers: Sequence[Worker]
) -> tuple[list[str], list[str]]:
    """Say why results would not be found: refusals, and warnings where that is uncertain.

    ``tasks``: those of the jobs, as far as the app has them here.
    """
    if address.is_managed or address.is_private:
        return [], []
    # A task's store is called here as the app calls its other one.
    known = {_parse(address.backend_url), _parse(_configured_store(app))}
    read = redact_url(address.backend_url)
    refused, told = [], []
    servers = Servers(app, address)
    for worker in workers:
        alike = compare(address, worker)
        if alike != "same" and is_proven_same(address, worker, servers):
            alike = "same"
        said = redact_url(worker.store or "")
        if alike == "other":
            refused.append(_in_vain(worker, said, read))
        elif alike == "perhaps":
            told.append(
                f"worker {worker.name} calls its result store {said}, and this run reads from "
                f"{read}: if these are two stores, no result will be found"
            )
        if refused:
            break
    refused += [
        f"task {task.name} keeps its results in a store of its own, {redact_url(own)}, and this "
        f"run would look for them in {read}: leave its backend= out, or run it on a private stack"
        for task, own in _with_own_store(tasks)
        if _parse(own) not in known
    ]
    return refused[:1], told[:1]


def unkept_ends(
    workers: Iterable[Worker], tasks_by_queue: Mapping[str, Collection[str]]
) -> tuple[list[str], list[str]]:
    """Say of which tasks stock workers keep no end, and of which none of a job that was retried."""
    never, retried = dict[str, set[str]](), dict[str, set[str]]()
    for worker in workers:
        version = _version(worker.celery)
        if not worker.is_stock or version >= KEEPS_RETRIES:
            continue
        mine = worker.queues
        tasks = {
            t for name, some in tasks_by_queue.items() if mine is None or name in mine for t in some
        }
        if forgotten := tasks & worker.ignoring:
            (never if version < KEEPS_ENDS else retried).setdefault(worker.name, set()).update(
                forgotten
            )
    return (
        _unkept(never, KEEPS_ENDS, "a job that has ended"),
        _unkept(retried, KEEPS_RETRIES, "one that was retried"),
    )


def _unkept(found: Mapping[str, Collection[str]], until: tuple[int, int], which: str) -> list[str]:
    """Word of which jobs these workers, by name with their tasks, keep nothing."""
    if not found:
        return []
    tasks = sorted({task for some in found.values() for task in some})
    sentence = (
        f"{some_of(tasks)}: results are ignored, and with a Celery before "
        f"{'.'.join(map(str, until))} {some_of(sorted(found))} store nothing of {which}, which "
        "would be 'unknown': set ignore_result=False on the task, or start your workers with -I "
        "pytest_manifest.worker"
    )
    return [sentence]


def _version(told: str | None) -> tuple[int, ...]:
    """Read a version of Celery; of a worker that does not tell it, that of this process."""
    numbers = re.findall(r"\d+", told or "")[:2]
    return tuple(map(int, numbers)) or VERSION[:2]


def forgets_retries(app: Celery, task: str) -> bool:
    """Tell whether a stock worker like the app here keeps no end of a job that was retried."""
    own = app.tasks.get(task)
    return VERSION < KEEPS_RETRIES and own is not None and bool(own.ignore_result)


def _in_vain(worker: Worker, theirs: str, read: str) -> str:
    """Word that this run would find no results of a worker, and what helps."""
    if _parse(worker.store or "").scheme == NONE:
        return (
            f"worker {worker.name} keeps no results, so how jobs end is not known: start it with "
            f"'celery --result-backend={read}', where this run looks, or set result_backend in the "
            "app's settings"
        )
    return (
        f"worker {worker.name} keeps its results in {theirs}, and this run would look for them in "
        f"{read}: name the workers' store with --manifest-backend=URL, or start them with "
        "'celery --result-backend=URL'"
    )


def compare(address: addresses.StackAddress, worker: Worker) -> Comparison:
    """Compare this worker's store with the one that the address names."""
    if worker.store is None:
        return "same"  # not reported
    if "://" not in worker.store and worker.store.lower() in (*addresses.REDIS_SCHEMES, *DATABASES):
        return "same"  # the rest of it is in settings of theirs that are not told
    theirs, ours = _parse(worker.store), _parse(address.backend_url)
    if theirs == ours:
        return "same"
    if (theirs.scheme, theirs.database) != (ours.scheme, ours.database):
        return "other"
    if theirs.host != ours.host and worker.broker is not None:
        # Called otherwise over there; but whether it is the broker itself is known on both sides.
        broker = _parse(address.broker_url)
        with_them = (theirs.host, theirs.port) == worker.broker
        with_us = (ours.host, ours.port) == (broker.host, broker.port)
        if with_them or with_us:
            return "same" if with_them and with_us else "other"
    return "other" if theirs.host == ours.host else "perhaps"


def is_proven_same(address: addresses.StackAddress, worker: Worker, servers: Servers) -> bool:
    """Tell whether two names lead to one Redis database, as the servers' ids show.

    What a worker calls ``localhost`` may be another host. But it has answered by our broker; so
    where it keeps its results on its broker's server, that server is our broker's, and where its
    broker's name leads to ours from here, its names mean the same here.
    """
    theirs, ours = _parse(worker.store or ""), _parse(address.backend_url)
    if (theirs.scheme, theirs.database) != (ours.scheme, ours.database):
        return False
    if ours.scheme != "redis" or None in (theirs.port, ours.port):
        return False
    own_store = servers.id_of_store(address.backend_url)
    if (theirs.host, theirs.port) == worker.broker:
        return is_same(servers.id_of_broker(address.broker_url), own_store)
    named = with_host(address.backend_url, theirs.host, theirs.port)
    if not is_same(own_store, servers.id_of_store(named)):
        return False
    if theirs.host != "localhost":
        return True
    if worker.broker is None:
        return False
    there = with_host(address.broker_url, *worker.broker)
    return is_same(servers.id_of_broker(address.broker_url), servers.id_of_broker(there))


def _parse(url: str) -> _Store:
    try:
        return _parse_url(url)
    except ValueError:  # no URL: whoever connects says so
        return _Store(addresses.kind_of(url))


def _parse_url(url: str) -> _Store:
    scheme, separator, _ = url.partition("://")
    scheme = scheme.lower().replace(":", ".")  # a class may be named with either
    if scheme in addresses.REDIS_SCHEMES:
        return _parse_redis(scheme, url) if separator else _Store("redis")
    first, plus, inner = scheme.partition("+")
    if first not in DATABASES:
        return _Store(first or NONE)
    return _parse_database(inner, url.partition("+")[2]) if plus and separator else _Store("db")


def _parse_redis(scheme: str, url: str) -> _Store:
    if scheme in addresses.SOCKETS:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query))
        database = options.get("virtual_host") or options.get("db") or "0"
        return _Store("redis", parts.path, None, database.strip("/"))
    if scheme == addresses.SENTINEL:  # the server is unknown before asking
        path = urlsplit(url.partition(";")[0]).path
        return _Store("redis", addresses.SENTINEL, None, path.strip("/") or "0")
    parts = urlsplit(url)
    port = parts.port or REDIS_PORT
    return _Store("redis", _host(parts), port, parts.path.strip("/") or "0")


def _parse_database(scheme: str, url: str) -> _Store:
    parts = urlsplit(url)
    kind = f"db+{scheme.partition('+')[0]}"
    if kind == "db+sqlite":
        return _Store(kind, "localhost", None, parts.path)
    return _Store(kind, _host(parts), parts.port, parts.path.strip("/"))


def _hosts(urls: str) -> set[str]:
    return {one.partition("://")[2].rpartition("@")[2].partition("/")[0] for one in urls.split(";")}


def _host(parts: SplitResult) -> str:
    host = (parts.hostname or "").lower()
    return "localhost" if host in LOOPBACK else host


def _configured_store(app: Celery) -> str:
    """Give the result store that the app's settings name; "" where they name none."""
    named = getattr(app, "backend_cls", None) or app.conf.get("result_backend")
    if named is None or isinstance(named, str):
        return _full_url(app, named or "")
    return f"{named.__module__}:{named.__qualname__}"


def _full_url(app: Celery, named: str) -> str:
    """Complete a URL from the settings beside ``result_backend``."""
    conf = app.conf
    if named == "redis":
        secret = f":{conf.redis_password}@" if conf.redis_password else ""
        host, port = conf.redis_host or "localhost", conf.redis_port or REDIS_PORT
        return f"redis://{secret}{host}:{port}/{conf.redis_db or 0}"
    if named in DATABASES and conf.database_url:
        return f"db+{conf.database_url}"
    return "rpc://" if named == "rpc" else named


def _with_own_store(tasks: Iterable[Task]) -> Iterator[tuple[Task, str]]:
    for task in tasks:
        backend = _made(task)
        if not isinstance(backend, DisabledBackend) and backend not in (None, _made(task.app)):
            yield task, _name_of(backend)


def _made(owner: Celery | Task) -> Backend | None:
    """Make the result store of an app or a task; None where it cannot be made."""
    try:
        return owner.backend
    except Exception:  # of any store, also of one that this run has no need of
        return None


def _name_of(backend: Backend) -> str:
    url = str(getattr(backend, "url", None) or "")
    if hasattr(backend, "ResultSession") and url and not url.startswith("db+"):
        return f"db+{url}"
    kind = type(backend)
    return url if "://" in url else f"{kind.__module__}:{kind.__qualname__}"
