"""Flower as compose.yaml starts it: no page without the password, and a memory that outlives it."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tests.processes import LOOPBACK, child, free_port
from tests.support import eventually

pytestmark = [pytest.mark.live, pytest.mark.timeout(120), pytest.mark.ring(1)]

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = 'sec,ret"#$ \\'
"""With a comma, which ends one of several passwords where Flower itself reads the variable."""
PAGES = ("/", "/metrics", "/healthcheck", "/api/workers")


def settings(folder: Path, broker: str) -> dict[str, str]:
    """What compose.yaml has Flower know, with a folder of this test and its password."""
    service = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))["services"]["flower"]
    own = {name: value for name, value in service["environment"].items() if name.isupper()}
    flower = {name: value for name, value in own.items() if name.startswith("FLOWER_")}
    assert flower["FLOWER_DB"].startswith("/data/")
    return flower | {
        "FLOWER_BASIC_AUTH": f"admin:{PASSWORD}",
        "FLOWER_DB": str(folder / "memory"),
        "CELERY_BROKER_URL": broker,
        "CELERY_RESULT_BACKEND": broker,
    }


@contextmanager
def flower(environment: Mapping[str, str], folder: Path) -> Iterator[str]:
    """Run it until the health check of compose.yaml is content; yield its address."""
    port = free_port()
    command = [sys.executable, "-m", "celery", "--app=tasks", "flower", f"--address={LOOPBACK}"]
    url = f"http://{LOOPBACK}:{port}"
    log = folder / "flower.log"
    with child([*command, f"--port={port}"], log=log, cwd=ROOT, env=os.environ | environment):
        eventually(lambda: is_healthy(url, environment), within=60, what="Flower answers")
        yield url


def is_healthy(url: str, environment: Mapping[str, str]) -> bool:
    """Run the command of compose.yaml's health check."""
    service = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))["services"]["flower"]
    kind, _, script, address = service["healthcheck"]["test"]
    assert kind == "CMD"
    page = address.removeprefix("http://127.0.0.1:5555")
    done = subprocess.run(
        [sys.executable, script, f"{url}{page}"],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        check=False,
        timeout=30,
    )
    return done.returncode == 0


def status(url: str, password: str | None = None) -> int:
    """What a page answers."""
    headers = {}
    if password is not None:
        headers["Authorization"] = f"Basic {base64.b64encode(password.encode()).decode()}"
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=10
        ) as got:
            return int(got.status)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code


def test_no_page_answers_without_the_password(tmp_path: Path, valkey: str) -> None:
    """Metrics name tasks and workers; Flower itself leaves them and its health open to all."""
    environment = settings(tmp_path, valkey)
    with flower(environment, tmp_path) as url:
        refused = dict.fromkeys(PAGES, 401)
        assert {page: status(f"{url}{page}") for page in PAGES} == refused
        known = {page: status(f"{url}{page}", f"admin:{PASSWORD}") for page in PAGES}
        assert known == dict.fromkeys(PAGES, 200)
        for guess in ("admin:guess", "admin:sec", PASSWORD.partition(",")[2]):
            assert {page: status(f"{url}{page}", guess) for page in PAGES} == refused
        assert not is_healthy(url, environment | {"FLOWER_BASIC_AUTH": "admin:guess"})
    assert list(tmp_path.glob("memory*"))  # what it has seen is there for the next one
