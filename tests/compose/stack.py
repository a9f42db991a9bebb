"""The project in containers: a copy of its files, with a name, ports and passwords of its own."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.compose.engine import docker
from tests.house.conftest import ROOT, project_files
from tests.processes import LOOPBACK, temporary_directory

PYTHON_SERVICES = ("shell", "worker", "flower")
UP = ("up", "--detach", "--wait")
ASCII = """ "\\#$HOME${PATH}$(id)`id`%41@/:?,&;<>|*"""
"""Characters that end something in a shell, a URL, a configuration, or a list of passwords."""
UP_SECONDS = 1200
"""For a build from nothing beside other tests, too."""


PORTS = range(20_000, 32_000)
"""None that the system gives to a connection, which could have it while the stack is down."""


def lasting_port() -> int:
    """Return a TCP port of the loopback address that nobody has, nor gets without asking for it."""
    while True:
        with socket.socket() as probe, suppress(OSError):
            probe.bind((LOOPBACK, port := secrets.choice(PORTS)))
            return port


@dataclass
class ComposeStack:
    """What a user has: a folder with compose.yaml and .env, in which commands are typed."""

    folder: Path
    environment: Mapping[str, str]
    user: int
    name: str
    password: str = field(default_factory=lambda: f"{secrets.token_hex(12)}{ASCII}")
    flower_port: int = field(default_factory=lasting_port)

    def configure(self, user: int | None = None) -> None:
        """Fill in .env.example, and have the folder belong to the user."""
        self.user = self.user if user is None else user
        given = {
            "REDIS_PASSWORD": f"'{secrets.token_hex(12)}{ASCII}é漢'",
            "FLOWER_PASSWORD": f"'{self.password}'",
            "USER_ID": str(self.user),
            "FLOWER_PORT": str(self.flower_port),
            "REDIS_PORT": str(lasting_port()),
        }
        example = (self.folder / ".env.example").read_text("utf-8").splitlines()
        lines = [
            f"{name}={given[name]}" if (name := line.partition("=")[0]) in given else line
            for line in example
        ]
        (self.folder / ".env").write_text("\n".join(lines) + "\n", "utf-8")
        if os.geteuid() == 0:
            for path in [self.folder, *self.folder.rglob("*")]:
                os.chown(path, self.user, -1)

    def compose(
        self, *arguments: str, seconds: float = UP_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        """Type ``docker compose ...``; it may fail."""
        return self.command("docker", "compose", *arguments, seconds=seconds)

    def command(self, *command: str, seconds: float) -> subprocess.CompletedProcess[str]:
        """Type a command in the folder."""
        return subprocess.run(
            command,
            cwd=self.folder,
            env={**self.environment, "COMPOSE_PROJECT_NAME": self.name},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )

    def did(self, *arguments: str) -> str:
        """Type ``docker compose ...``; return what it printed. It must succeed."""
        done = self.compose(*arguments)
        assert done.returncode == 0, f"{' '.join(arguments)}\n{done.stdout}\n{self.logs()}"
        return done.stdout

    def in_shell(self, command: str) -> str:
        """Type a command in the container ``shell``; it must succeed."""
        return self.did("exec", "-T", "shell", "bash", "-c", command)

    def logs(self) -> str:
        """What the containers have printed last."""
        return self.compose("logs", "--no-color", "--tail=15").stdout

    def containers(self, *services: str) -> list[str]:
        """The ids of all containers of these services (of none: all), running or not."""
        return self.did("ps", "--all", "--quiet", *services).split()

    def inspected(self, container: str) -> dict[str, object]:
        """What the engine knows of a container."""
        loaded: list[dict[str, object]] = json.loads(
            docker(self.environment, "inspect", container).stdout
        )
        return loaded[0]

    def running(self) -> set[str]:
        """The services that run."""
        return set(self.did("ps", "--services", "--status=running").split())


@contextmanager
def compose_stack(environment: Mapping[str, str], user: int) -> Iterator[ComposeStack]:
    """Make the folder; at the end take away containers, volumes, networks and what was built."""
    with temporary_directory() as folder:
        for path in project_files():
            copy = folder / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, copy)
        folder.chmod(0o755)
        stack = ComposeStack(folder, environment, user, f"manifest-test-{secrets.token_hex(4)}")
        stack.configure()
        built = set(own_images(environment))
        try:
            yield stack
        finally:
            down = stack.compose("down", "--volumes", "--timeout=5", "--remove-orphans")
            _remove_volumes(stack)
            for image in set(own_images(environment)) - built:
                docker(environment, "rmi", image)
            assert down.returncode == 0, down.stdout


def own_images(environment: Mapping[str, str]) -> list[str]:
    """The names of the project's images that the engine has."""
    listed = docker(
        environment, "images", "--format={{.Repository}}:{{.Tag}}", "pytest-celery-manifest"
    )
    return listed.stdout.split()


def _remove_volumes(stack: ComposeStack) -> None:
    """Remove those that belonged to another USER_ID, which ``down`` does not know."""
    listed = docker(
        stack.environment, "volume", "ls", "--quiet", f"--filter=name={stack.name}_"
    ).stdout.split()
    if listed:
        docker(stack.environment, "volume", "rm", *listed)
