"""A container engine for the tests: the one that is there, or Debian's, started for them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from scripts.pin_images import images
from tests.compose.base_image import make_base_image
from tests.processes import child, temporary_directory, wait_until
from tests.services import ServiceUnavailableError
from tests.support import eventually

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("docker.io", "docker-cli", "docker-compose", "iptables", "debootstrap")
"""What Debian calls the engine, its commands, and what makes base images without a registry."""
TABLES = {
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
}
"""The tables of the kernel's firewall in which an engine writes, and their own chains."""
QUIET = Path("/usr/sbin/policy-rc.d")
"""Where Debian's packages ask whether they may start their services."""


@contextmanager
def engine() -> Iterator[Mapping[str, str]]:
    """Yield the environment in which ``docker`` reaches an engine that has the base images.

    Raises ServiceUnavailableError where there is none, and none can be started.
    """
    environment = dict(os.environ)
    with ExitStack() as stack:
        if not _answers(environment):
            environment["DOCKER_HOST"] = stack.enter_context(_own_engine())
        for image in base_images():
            _have(image, environment)
        yield environment


def base_images() -> list[str]:
    """Return the images that Dockerfile and compose.yaml take from a registry."""
    return sorted(images((ROOT / "compose.yaml").read_text("utf-8")).values())


def docker(
    environment: Mapping[str, str], *arguments: str, seconds: float = 180
) -> subprocess.CompletedProcess[str]:
    """Run ``docker`` to its end; it may fail. A prompt finds nobody."""
    return subprocess.run(
        ["docker", *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def _answers(environment: Mapping[str, str]) -> bool:
    return bool(shutil.which("docker")) and docker(environment, "info").returncode == 0


def _have(image: str, environment: Mapping[str, str]) -> None:
    """Have the engine know the image: it has it, a registry gives it, or it is made here."""
    if docker(environment, "image", "inspect", image).returncode == 0:
        return
    pulled = docker(environment, "pull", "--quiet", image, seconds=600)
    if pulled.returncode == 0:
        return
    if not _can_make():
        raise ServiceUnavailableError(f"no registry gives {image}: {pulled.stderr.strip()}")
    make_base_image(image, ROOT / "build" / "compose", environment)


def _can_make() -> bool:
    return os.geteuid() == 0 and bool(shutil.which("apt-get"))


@contextmanager
def _own_engine() -> Iterator[str]:
    """Run an engine that shares nothing with another one; yield its address.

    Nothing of it is left at the end, else AssertionError says what.
    """
    if not _can_make():
        raise ServiceUnavailableError(
            "no container engine answers `docker info`; root on Debian gets one started here"
        )
    _install()
    links = _links()
    with temporary_directory() as folder, _network_as_before(), _without_mounts_at_end(folder):
        socket = f"unix://{folder}/docker.sock"
        command = ["dockerd", "--host", socket, "--data-root", f"{folder}/data"]
        command += ["--exec-root", f"{folder}/run", "--pidfile", f"{folder}/pid"]
        log = folder / "dockerd.log"
        environment = os.environ | {"DOCKER_HOST": socket}
        with child(command, log=log, cwd=folder) as process:
            wait_until(lambda: _answers(environment), process, log=log, name="dockerd")
            try:
                yield socket
            finally:  # an engine that is waited for in vain would leave them running
                docker(environment, "rm", "--force", *_containers(environment))
    left: list[str] = []

    def nothing_is_left() -> bool:
        left[:] = [*left_behind(folder), *sorted(_links() - links)]
        return not left

    with suppress(AssertionError):  # a process that ends takes its time
        eventually(nothing_is_left)
    assert left == []


def _containers(environment: Mapping[str, str]) -> list[str]:
    return docker(environment, "ps", "--all", "--quiet").stdout.split()


def _links() -> set[str]:
    """The interfaces that engines have made: bridges, and containers' ends."""
    names = {path.name for path in Path("/sys/class/net").iterdir()}
    return {name for name in names if name.startswith(("docker", "br-", "veth"))}


def left_behind(folder: Path) -> list[str]:
    """What there is of an engine that had this folder: itself, mounts in it, processes.

    A process is one of its, by its command, or of a container, by what is mounted as its root.
    """
    found = [str(folder)] if folder.exists() else []
    found += _mounted(folder)
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (process / "cmdline").read_text(errors="replace").replace("\0", " ")
            mounts = (process / "mountinfo").read_text(errors="replace").splitlines()
            roots = [mount for mount in mounts if mount.split()[4] == "/"]
            if any(f"{folder}/" in text for text in (command, *roots)):
                found.append(f"{process.name}: {command}")
    return found


@contextmanager
def _network_as_before() -> Iterator[None]:
    """Take back the bridges, rules and forwarding that an engine makes and leaves behind."""
    forwards = Path("/proc/sys/net/ipv4/ip_forward")
    forwarded, links = forwards.read_text("ascii"), _links()
    rules = subprocess.run(["iptables-save"], capture_output=True, text=True, check=True).stdout
    for table, chains in TABLES.items():
        if f"*{table}\n" not in rules:  # what has no rules is not in there
            rules += f"*{table}\n" + "".join(f":{one} ACCEPT\n" for one in chains) + "COMMIT\n"
    try:
        yield
    finally:
        subprocess.run(["iptables-restore"], input=rules, text=True, check=True)
        forwards.write_text(forwarded, "ascii")
        for link in _links() - links:
            subprocess.run(["ip", "link", "delete", link], check=True)


@contextmanager
def _without_mounts_at_end(folder: Path) -> Iterator[None]:
    """Unmount what an engine that has ended leaves mounted in its folder."""
    try:
        yield
    finally:
        for path in reversed(_mounted(folder)):
            subprocess.run(["umount", "--lazy", path], check=True)


def _mounted(folder: Path) -> list[str]:
    mounted = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [name for name in mounted if name.startswith(f"{folder}/")]


def _install() -> None:
    """Install what is missing, without starting the services that come with it."""
    needed = ("dockerd", "docker", "iptables", "debootstrap")
    if all(shutil.which(name) for name in needed):
        return
    made = not QUIET.exists()
    if made:
        QUIET.write_text("#!/bin/sh\nexit 101\n")
        QUIET.chmod(0o755)
    try:
        install = ["apt-get", "-q", "-y", "install", "--no-install-recommends", *PACKAGES]
        for command in (["apt-get", "-q", "update"], install):
            subprocess.run(
                command,
                env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=True,
                timeout=600,
            )
    finally:
        if made:
            QUIET.unlink()
