"""Base images where no registry is reachable: Debian's own packages under the images' names.

One tree serves them all. It has Python as ``python`` with a pip that can be uninstalled, Valkey
with its user and its folder ``/data``, and this machine's certificates and settings of pip, without
which the machine may not reach its package index.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

SUITE = "trixie"
PACKAGES = ("python3", "python3-venv", "ca-certificates", "valkey-server", "valkey-tools")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
SETTINGS_OF_PIP = Path("/etc/pip.conf")
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
FINISH = """
set -e
python3 "$(echo /usr/share/python-wheels/pip-*.whl)/pip" install --quiet --no-index \
    --break-system-packages --root-user-action=ignore /usr/share/python-wheels/pip-*.whl
rm -f /usr/lib/python3.*/EXTERNALLY-MANAGED
ln -s /usr/bin/python3 /usr/local/bin/python
install -d -o valkey -g valkey /data
rm -rf /var/cache/apt/archives/*.deb /var/lib/apt/lists/*
"""


def make_base_image(name: str, cache: Path, environment: Mapping[str, str]) -> None:
    """Import the tree under this name, from ``cache`` where it was made before. Needs root."""
    archive = cache / f"{SUITE}.tar"
    if not archive.exists():
        _make_tree(archive)
    command = ["docker", "import", "--change", f"ENV {PATH}", str(archive), name]
    _run(command, environment)


def _make_tree(archive: Path) -> None:
    tree = archive.with_suffix("")
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True)
    try:
        bootstrap = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}"]
        _run([*bootstrap, SUITE, str(tree)])
        _run(["chroot", str(tree), "sh", "-c", FINISH])
        shutil.copyfile(CERTIFICATES, tree / CERTIFICATES.relative_to("/"))
        if SETTINGS_OF_PIP.exists():
            shutil.copyfile(SETTINGS_OF_PIP, tree / SETTINGS_OF_PIP.relative_to("/"))
        unfinished = archive.with_suffix(".part")
        _run(["tar", "-C", str(tree), "-cf", str(unfinished), "."])
        unfinished.replace(archive)
    finally:
        shutil.rmtree(tree, ignore_errors=True)


def _run(command: list[str], environment: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command[:2])}: {done.stdout[-2000:]}{done.stderr}"
