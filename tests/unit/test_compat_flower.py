"""What is relied on of Flower's private parts: each test fails where Flower has changed."""

from __future__ import annotations

import base64
import json
import subprocess
import sys

import pytest

SCRIPT = """
import asyncio, json, sys
from celery import Celery
from flower import command
from flower.app import Flower
from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.options import options
from tornado.testing import bind_unused_port
from pytest_manifest.compat.flower import OPEN_PAGES, guard_open_pages

guard, credentials = json.loads(sys.argv[1])
if guard:
    guard_open_pages()
if credentials == "accounts":
    options.auth = ".*@example.com"
else:
    options.basic_auth = ["admin:secret"]


async def main():
    flower = Flower(capp=Celery(broker="memory://"), options=options, **command.settings)
    socket, port = bind_unused_port()
    server = HTTPServer(flower)
    server.add_sockets([socket])
    headers = {"Authorization": f"Basic {credentials}"} if credentials else {}
    for page in OPEN_PAGES:
        url = f"http://127.0.0.1:{port}{page}"
        answer = await AsyncHTTPClient().fetch(url, headers=headers, raise_error=False)
        print(page, answer.code)


asyncio.run(main())
"""


def codes(*, guarded: bool, password: str | None) -> dict[str, int]:
    """What Flower's open pages answer, in a process of its own."""
    credentials = password
    if password not in (None, "accounts"):
        credentials = base64.b64encode(f"admin:{password}".encode()).decode()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps([guarded, credentials])],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = (line.split() for line in done.stdout.splitlines())
    return {page: int(code) for page, code in lines}


@pytest.mark.parametrize(
    ("guarded", "password", "code"),
    [
        (False, None, 200),
        (True, None, 401),
        (True, "guess", 401),
        (True, "secret", 200),
        (False, "accounts", 200),
        (True, "accounts", 401),
    ],
)
def test_open_pages_ask_for_the_password(guarded: bool, password: str | None, code: int) -> None:
    """Flower itself leaves both open; also where accounts elsewhere say who may look."""
    assert codes(guarded=guarded, password=password) == dict.fromkeys(
        ("/metrics", "/healthcheck"), code
    )
