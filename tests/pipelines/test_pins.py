"""Beside an app with old pins, an installation chooses versions that work with one another."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_manifest.compat.older import way_to_redis
from tests.conftest import missing

ROOT = Path(__file__).resolve().parents[2]
INSTALL_SECONDS = 300
PINS = {
    "Celery too old": ("celery==5.3.6", "kombu==5.3.7", "redis==5.0.1"),
    "redis-py too old": ("celery==5.4.0", "kombu==5.4.2", "redis==3.5.3"),
    "old enough": ("celery==5.4.0", "kombu==5.4.2", "redis==5.0.8", "pydantic==2.5.0"),
}
"""What apps have pinned, by what has to be changed of it."""
REFUSED = ("Celery too old",)
"""Where kombu refuses the redis-py that stays: what a run advises then leads out."""
UNCHANGED = {"redis-py too old": ("celery", "kombu"), "old enough": ("celery", "kombu", "redis")}
"""What suits, and so stays as it is."""
FIRM = {
    "redis-py newer than kombu's extra": ("celery==5.6.3", "kombu==5.6.2", "redis==7.4.1"),
    "packaging older than kombu's extra": ("celery==5.7.0", "redis==8.1.0", "packaging==25.0"),
}
"""What a project that locks all it has together keeps whole: nothing of it is changed."""

# What an app does with a Redis: in an installation that does not hold together it fails.
PROGRAM = """
import json, sys
from importlib.metadata import version
from celery import Celery
app = Celery(broker=sys.argv[1], backend=sys.argv[1])
with app.connection_for_write() as connection:
    connection.default_channel.queue_declare("pins-queue")
app.backend.set("pins-result", b"1")
assert app.backend.get("pins-result") == b"1"
import pytest_manifest.plugin, pytest_manifest.worker, pytest_manifest.run, pytest_manifest.stack
names = ("celery", "kombu", "redis", "pydantic", "packaging")
print(json.dumps({name: version(name) for name in names}))
"""


def uv(*arguments: str) -> None:
    """Run uv's pip; where no index answers, the test is missing what it needs."""
    done = subprocess.run(
        [sys.executable, "-m", "uv", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=INSTALL_SECONDS,
        check=False,
    )
    if done.returncode and ("error sending request" in done.stdout or "dns error" in done.stdout):
        missing("no package index answers")
    assert done.returncode == 0, done.stdout


@pytest.mark.live
@pytest.mark.parametrize("name", PINS)
def test_old_pins(name: str, tmp_path: Path, valkey: str) -> None:
    """What cannot stay is raised as far as needed together; all else stays as it was pinned."""
    python = tmp_path / "venv" / "bin" / "python"
    install = ("pip", "install", "--quiet", "--python", str(python))
    uv("venv", "--quiet", "--python", sys.executable, str(tmp_path / "venv"))
    uv(*install, *PINS[name])
    uv(*install, "packaging", "--requirement", "pyproject.toml")
    if name in REFUSED:
        said = run(python, PROGRAM, valkey, status=1)
        uv(*install, *shlex.split(way_to_redis(said))[2:])
    told = json.loads(run(python, PROGRAM, valkey))
    pinned = dict(pin.split("==") for pin in PINS[name])
    stays = UNCHANGED.get(name, ())
    assert {one: told[one] for one in stays} == {one: pinned[one] for one in stays}


@pytest.mark.live
@pytest.mark.parametrize("name", FIRM)
def test_firm_pins(name: str, tmp_path: Path, valkey: str) -> None:
    """A lock of the project's pins and of what is needed here exists, keeps them, and works."""
    python = tmp_path / "venv" / "bin" / "python"
    uv("venv", "--quiet", "--python", sys.executable, str(tmp_path / "venv"))
    install = ("pip", "install", "--quiet", "--python", str(python))
    uv(*install, *FIRM[name], "packaging", "--requirement", "pyproject.toml")
    told = json.loads(run(python, PROGRAM, valkey))
    pinned = dict(pin.split("==") for pin in FIRM[name])
    assert {one: told[one] for one in pinned} == pinned


def run(python: Path, program: str, *arguments: str, status: int = 0) -> str:
    """Run a program by another Python, with this project's package; what it has printed last."""
    done = subprocess.run(
        [str(python), "-c", program, *arguments],
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=INSTALL_SECONDS,
        check=False,
    )
    assert done.returncode == status, done.stdout
    return done.stdout.splitlines()[-1]
