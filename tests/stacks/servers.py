"""Brokers and result stores of the cells, by name: each private, on loopback, in its own folder."""

from __future__ import annotations

import os
import secrets
import shutil
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import redis
import trustme
from sqlalchemy import create_engine
from sqlalchemy.exc import SQLAlchemyError

from tests import processes
from tests.processes import LOOPBACK, child, free_port, started, temporary_directory, wait_until
from tests.services import (
    ServiceUnavailableError,
    postgres_server,
    rabbitmq_server,
    valkey_server,
)

ROOT: Final = Path(__file__).parents[2]
Settings = Mapping[str, object]
MASTER: Final = "mymaster"
SLOW: Final = 150.0
"""Seconds for a run where a worker waits for one after each message: the SQLAlchemy transport."""
USER: Final = "manifest"


@dataclass(frozen=True)
class Server:
    """A server's URL as broker and as result store, and the settings that each of both needs.

    ``variables``: of the environment of whoever uses it. ``seconds``: after which what nobody tells
    of is judged, where it is the broker.
    """

    broker: str = ""
    store: str = ""
    broker_settings: Settings = field(default_factory=dict)
    store_settings: Settings = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    has_remote_control: bool = True
    seconds: float = 90.0


@dataclass(frozen=True)
class RedisServer:
    """How a Redis was started: its folder, port (0: none) and password."""

    directory: Path
    port: int
    password: str

    def url(self, number: int = 0, *, scheme: str = "redis", user: str = "") -> str:
        """Its URL, with a database's number."""
        return f"{scheme}://{user}:{self.password}@{LOOPBACK}:{self.port}/{number}"


def redis_binary() -> str:
    """The server's command, or ``ServiceUnavailableError``."""
    found = shutil.which("redis-server")
    if found is None:
        raise ServiceUnavailableError("Redis is not installed: install the package redis-server")
    return found


@contextmanager
def valkey() -> Iterator[Server]:
    """Valkey, as the embedded stack has it."""
    with valkey_server() as url:
        yield Server(url, url.removesuffix("/0") + "/1")


@contextmanager
def plain_redis() -> Iterator[Server]:
    """Redis with a password."""
    with _running_redis() as server:
        yield Server(server.url(), server.url(1))


@contextmanager
def redis_acl() -> Iterator[Server]:
    """Redis with a user of its own, who may do nothing dangerous."""
    with _running_redis(acl=f"user {USER} on >{{}} ~* &* +@all -@dangerous -@admin") as server:
        yield Server(server.url(user=USER), server.url(1, user=USER))


@contextmanager
def redis_socket() -> Iterator[Server]:
    """Redis that listens on a file alone."""
    with _running_redis() as server:
        url = f"redis+socket://:{server.password}@{server.directory}/redis.sock"
        yield Server(f"{url}?virtual_host=0", f"{url}?virtual_host=1")


@contextmanager
def redis_tls(*, by_settings: bool = False) -> Iterator[Server]:
    """Redis by TLS, with a certificate of an authority that nobody else knows.

    ``by_settings``: the app names the authority in its settings, not in the URLs.
    """
    with _running_redis(tls=True) as server:
        authority = str(server.directory / "ca.pem")
        broker, store = (server.url(number, scheme="rediss") for number in (0, 1))
        if by_settings:
            options = {"ssl_cert_reqs": ssl.CERT_REQUIRED.value, "ssl_ca_certs": authority}
            yield Server(
                broker, store, {"broker_use_ssl": options}, {"redis_backend_use_ssl": options}
            )
        else:
            query = urlencode({"ssl_cert_reqs": "required", "ssl_ca_certs": authority})
            yield Server(f"{broker}?{query}", f"{store}?{query}")


@contextmanager
def sentinel() -> Iterator[Server]:
    """Redis that a Sentinel watches, which alone is asked where it is."""
    with ExitStack() as stack:
        master = stack.enter_context(_running_redis(password=False))
        port = int(started(stack, partial(_start_sentinel, master)))
        options = {"master_name": MASTER}
        yield Server(
            f"sentinel://{LOOPBACK}:{port}/0",
            f"sentinel://{LOOPBACK}:{port}/1",
            {"broker_transport_options": options},
            {"result_backend_transport_options": options},
        )


@contextmanager
def cluster() -> Iterator[Server]:
    """Redis Cluster of one node that has all slots, as Celery has no client for more.

    Its keys are hashed by a tag, so that commands with several keys find them in one slot.
    """
    with _running_redis(cluster=True) as server:
        with redis.Redis.from_url(server.url()) as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        prefix = {"global_keyprefix": "{celery}"}
        yield Server(
            server.url(),
            server.url(),
            {"broker_transport_options": prefix},
            {"result_backend_transport_options": prefix},
        )


@contextmanager
def rabbitmq(kind: str = "classic") -> Iterator[Server]:
    """RabbitMQ, whose queues are all of one kind."""
    settings: dict[str, object] = {}
    if kind == "quorum":
        settings = {
            "task_default_queue_type": "quorum",
            "broker_transport_options": {"confirm_publish": True},
        }
    with rabbitmq_server() as url:
        yield Server(url, "rpc://", settings)


@contextmanager
def rpc() -> Iterator[Server]:
    """Results that come back by the broker."""
    yield Server(store="rpc://")


@contextmanager
def postgresql() -> Iterator[Server]:
    """PostgreSQL, by psycopg 3."""
    with postgres_server() as url:
        there = url.replace("postgresql://", "postgresql+psycopg://")
        yield Server(f"sqla+{there}", f"db+{there}", has_remote_control=False, seconds=SLOW)


@contextmanager
def mariadb() -> Iterator[Server]:
    """MariaDB, as whatever else speaks MySQL."""
    with ExitStack() as stack:
        yield Server(store=started(stack, _start_mariadb))


@contextmanager
def sqlite() -> Iterator[Server]:
    """A database in a file."""
    with temporary_directory() as directory:
        yield Server(
            f"sqla+sqlite:///{directory}/broker.sqlite3",
            f"db+sqlite:///{directory}/results.sqlite3",
            has_remote_control=False,
            seconds=SLOW,
        )


@contextmanager
def filesystem() -> Iterator[Server]:
    """Messages and results in files."""
    with temporary_directory() as directory:
        for name in ("messages", "control", "results"):
            (directory / name).mkdir()
        options = {
            "data_folder_in": str(directory / "messages"),
            "data_folder_out": str(directory / "messages"),
            "control_folder": str(directory / "control"),
        }
        yield Server(
            "filesystem://",
            f"file://{directory}/results",
            {"broker_transport_options": options},
        )


@contextmanager
def sqs() -> Iterator[Server]:
    """Amazon's queues, as moto plays them."""
    with ExitStack() as stack:
        port = int(started(stack, _start_moto))
        options = {
            "region": "eu-central-1",
            "visibility_timeout": 3600,
            "polling_interval": 0.2,
            "wait_time_seconds": 1,
        }
        yield Server(
            f"sqs://key:secret@{LOOPBACK}:{port}/",
            broker_settings={"broker_transport_options": options},
            has_remote_control=False,
        )


@contextmanager
def django(store: str) -> Iterator[Server]:
    """A Django project's database, or its cache, by django-celery-results."""
    from tests.stacks.django_settings import DATABASE

    with temporary_directory() as directory:
        variables = {
            "PYTHONPATH": str(ROOT / ".venv" / "neighbours"),
            "DJANGO_SETTINGS_MODULE": "tests.stacks.django_settings",
            DATABASE: str(directory),
        }
        _run(
            [sys.executable, "-m", "django", "migrate", "--verbosity=0"],
            directory,
            os.environ | variables,
        )
        yield Server(store=store, variables=variables)


SERVERS: Final[Mapping[str, Callable[[], AbstractContextManager[Server]]]] = {
    "valkey": valkey,
    "redis": plain_redis,
    "redis-acl": redis_acl,
    "redis-socket": redis_socket,
    "redis-tls": redis_tls,
    "redis-tls-settings": lambda: redis_tls(by_settings=True),
    "sentinel": sentinel,
    "cluster": cluster,
    "rabbitmq": rabbitmq,
    "rabbitmq-quorum": lambda: rabbitmq("quorum"),
    "rpc": rpc,
    "postgresql": postgresql,
    "mariadb": mariadb,
    "sqlite": sqlite,
    "filesystem": filesystem,
    "sqs": sqs,
    "django-db": lambda: django("django-db"),
    "django-cache": lambda: django("django-cache"),
}
"""How each server is started."""


@contextmanager
def _running_redis(
    *, password: bool = True, acl: str = "", tls: bool = False, cluster: bool = False
) -> Iterator[RedisServer]:
    """Run Debian's Redis until its end; ``acl``: a line of its users, with ``{}`` as password."""
    secret = secrets.token_hex(16) if password else ""
    with ExitStack() as stack:
        directory = stack.enter_context(temporary_directory())
        lines = [f"bind {LOOPBACK}", 'save ""', f'dir "{directory}"', "unixsocketperm 700"]
        lines += [f'unixsocket "{directory}/redis.sock"']
        lines += [f"requirepass {secret}"] if password else []
        lines += [acl.format(secret)] if acl else []
        lines += _certificates(directory) if tls else []
        lines += ["cluster-enabled yes", f"cluster-port {free_port()}"] if cluster else []
        start = partial(_start_redis, directory, lines, tls)
        port = int(started(stack, start))
        yield RedisServer(directory, port, secret)


def _start_redis(directory: Path, lines: list[str], tls: bool, stack: ExitStack) -> str:
    port, log = free_port(), directory / "redis.log"
    config = directory / "redis.conf"
    ports = [f"tls-port {port}", "port 0"] if tls else [f"port {port}"]
    config.write_text("\n".join([*lines, *ports]) + "\n")
    command = [redis_binary(), str(config)]
    process = stack.enter_context(child(command, log=log, cwd=directory))
    socket = directory / "redis.sock"

    def answers() -> bool:
        with redis.Redis(unix_socket_path=str(socket)) as client:
            try:
                client.ping()
            except redis.AuthenticationError:
                return True  # it is up, and wants a password
            except redis.RedisError:
                return False
            return True

    wait_until(answers, process, log=log, name="Redis")
    return str(port)


def _certificates(directory: Path) -> list[str]:
    authority = trustme.CA()
    certificate = authority.issue_cert(LOOPBACK, "localhost")
    authority.cert_pem.write_to_path(directory / "ca.pem")
    certificate.private_key_and_cert_chain_pem.write_to_path(directory / "server.pem")
    return [
        f'tls-cert-file "{directory}/server.pem"',
        f'tls-key-file "{directory}/server.pem"',
        f'tls-ca-cert-file "{directory}/ca.pem"',
        "tls-auth-clients no",
    ]


def _start_sentinel(master: RedisServer, stack: ExitStack) -> str:
    directory = stack.enter_context(temporary_directory())
    port, log = free_port(), directory / "sentinel.log"
    config = directory / "sentinel.conf"
    config.write_text(
        f'bind {LOOPBACK}\nport {port}\ndir "{directory}"\n'
        f"sentinel monitor {MASTER} {LOOPBACK} {master.port} 1\n"
    )
    command = [redis_binary(), str(config), "--sentinel"]
    process = stack.enter_context(child(command, log=log, cwd=directory))

    def answers() -> bool:
        with redis.Redis(host=LOOPBACK, port=port) as client, suppress(redis.RedisError):
            return bool(client.sentinel_master(MASTER))
        return False

    wait_until(answers, process, log=log, name="Sentinel")
    return str(port)


def _start_mariadb(stack: ExitStack) -> str:
    binaries = [shutil.which(name) for name in ("mariadbd", "mariadb-install-db")]
    if None in binaries:
        raise ServiceUnavailableError(
            "MariaDB is not installed: install the package mariadb-server"
        )
    server, installer = (str(one) for one in binaries)
    user = "mysql" if os.geteuid() == 0 else None  # it refuses to run as root
    directory = stack.enter_context(temporary_directory(owner=user))
    data, log, port = directory / "data", directory / "mariadb.log", free_port()
    common = ["--no-defaults", f"--datadir={data}", *([f"--user={user}"] if user else [])]
    # Made anew for each test: its logs need not have room for a day.
    common += ["--innodb-log-file-size=4M", "--innodb-flush-log-at-trx-commit=0"]
    install = [installer, *common, "--auth-root-authentication-method=normal", "--skip-test-db"]
    _run(install, directory, os.environ)
    password, initial = secrets.token_hex(16), directory / "initial.sql"
    initial.write_text(
        "CREATE DATABASE results CHARACTER SET utf8mb4;\n"
        f"CREATE USER {USER}@'{LOOPBACK}' IDENTIFIED BY '{password}';\n"
        f"GRANT ALL ON results.* TO {USER}@'{LOOPBACK}';\n"
    )
    initial.chmod(0o644)
    options = [
        *common,
        f"--port={port}",
        f"--bind-address={LOOPBACK}",
        f"--socket={directory}/mariadb.sock",
        f"--pid-file={directory}/mariadb.pid",
        f"--init-file={initial}",
        "--skip-name-resolve",
    ]
    process = stack.enter_context(child([server, *options], log=log, cwd=directory))
    url = f"mysql+pymysql://{USER}:{password}@{LOOPBACK}:{port}/results"
    engine = create_engine(url)

    def answers() -> bool:
        with suppress(SQLAlchemyError), engine.connect():
            return True
        return False

    wait_until(answers, process, log=log, name="MariaDB")
    engine.dispose()
    return f"db+{url}"


def _start_moto(stack: ExitStack) -> str:
    directory = stack.enter_context(temporary_directory())
    port, log = free_port(), directory / "moto.log"
    command = [sys.executable, "-m", "moto.server", "-H", LOOPBACK, "-p", str(port)]
    process = stack.enter_context(child(command, log=log, cwd=directory))

    def answers() -> bool:
        with suppress(OSError), urllib.request.urlopen(f"http://{LOOPBACK}:{port}/moto-api/"):
            return True
        return False

    wait_until(answers, process, log=log, name="moto")
    return str(port)


def _run(command: list[str], directory: Path, environment: Mapping[str, str]) -> None:
    """Run a command that prepares a server, in this project's folder, to its end."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=dict(environment),
        capture_output=True,
        text=True,
        timeout=processes.START_SECONDS,
        check=False,
    )
    if done.returncode:
        raise processes.StartFailedError(
            f"{command[0]} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        )
