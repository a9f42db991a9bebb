"""The files of the project whose session has the secrets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from tests.canary import planted

JOBS: Final = """
import json
import logging
import os
from pathlib import Path

from celery import Celery

from pytest_manifest import evidence as tell
from pytest_manifest import manifest_secret

app = Celery("jobs")
PLANTED = json.loads(Path(__file__).with_name("planted.json").read_text("utf-8"))
for value in PLANTED["registered"]:
    manifest_secret(value)


def secret(kind, place):
    return PLANTED["secrets"][place][kind]


@app.task(name="jobs.take")
def take(*args, **kwargs):
    return {"args": list(args), **kwargs}


@app.task(name="jobs.give")
def give(kind, place):
    return secret(kind, place)


@app.task(name="jobs.nest")
def nest(kind, place):
    return {"deep": [{"text": secret(kind, place)}]}


@app.task(name="jobs.fail")
def fail(kind, place):
    raise ValueError(f"refused: {secret(kind, place)}")


@app.task(name="jobs.log")
def log(kind, place):
    logging.getLogger("shop").warning("uses %s", secret(kind, place))
    print("prints", secret(kind, place))


@app.task(name="jobs.evidence")
def evidence(kind, place):
    tell(note=secret(kind, place))


@app.task(name="jobs.environment")
def environment(kind, place):
    raise RuntimeError({name: os.environ[name] for name in PLANTED["variables"]})


@app.task(name="jobs.child")
def child(text):
    raise ValueError(f"child of {text}")


@app.task(name="jobs.parent")
def parent(kind, place):
    child.delay(secret(kind, place))
"""
CONFTEST: Final = """
import pytest

import jobs


@pytest.fixture(autouse=True, scope="session")
def registered(manifest_secret):
    for value in jobs.PLANTED["registered"]:
        manifest_secret(value)
"""
TESTS: Final = """
import allure
import pytest

pytestmark = [pytest.mark.manifest("m.jsonl"), pytest.mark.entries(task="jobs.*")]


def test_of_a_user(entry, receipt):
    arguments = [*entry.args, entry.kwargs, entry.meta]
    print("printed", arguments, receipt)
    assert receipt.result == arguments


@pytest.fixture
def before(entry):
    raise ValueError(f"before: {list(entry.kwargs.values())}")


@pytest.fixture
def after(entry):
    yield
    raise ValueError(f"after: {list(entry.kwargs.values())}")


def test_of_a_user_that_cannot_begin(before):
    pass


def test_of_a_user_with_bare_values(entry, after):
    with allure.step("bare"):
        raise AssertionError(f"bare: {list(entry.kwargs.values())}")
"""
INI: Final = """
[pytest]
manifest_app = jobs:app
manifest_workers = 2
manifest_notify = json://$CANARY_HOST/chat
manifest_webhook = http://$CANARY_HOST/hook
manifest_ping = http://$CANARY_HOST/ping
"""
INPUTS: Final = ("jobs.py", "conftest.py", "test_user.py", "m.jsonl", "planted.json", "pytest.ini")


def write(folder: Path) -> None:
    """Write the project into an empty folder."""
    secrets = {
        place: {kind: planted.secret(kind, place) for kind in planted.KINDS}
        for place in planted.PLACES
    }
    known = {
        "secrets": secrets,
        "registered": planted.registered(),
        "variables": sorted(planted.environment()),
    }
    lines = [planted.header(), *planted.entries()]
    texts = {
        "jobs.py": JOBS,
        "conftest.py": CONFTEST,
        "test_user.py": TESTS,
        "m.jsonl": "".join(json.dumps(line) + "\n" for line in lines),
        "planted.json": json.dumps(known),
        "pytest.ini": INI,
    }
    for name in INPUTS:
        (folder / name).write_text(texts[name], encoding="utf-8")
