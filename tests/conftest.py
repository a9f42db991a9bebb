"""The servers that live tests ask for by name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from itertools import islice
from pathlib import Path
from typing import NoReturn

import pytest

# A session that is run in this process forgets what it has imported, and this bears no second time.
from cryptography.hazmat.primitives import serialization as _  # noqa: F401

from pytest_manifest.redaction import texts
from tests import flaky, processes, rings, services, shared
from tests.browser import browser, page  # fixtures are found by their names here
from tests.records import broken_promises
from tests.support import lean

__all__ = ["browser", "given_or_started", "missing", "page", "started_or_missing"]

# A test that runs pytest must get one that knows nothing of the xdist worker around it.
for _name in [name for name in os.environ if name.startswith("PYTEST_XDIST")]:
    del os.environ[_name]

# With setproctitle, which may be installed, Celery gives its processes other command lines.
os.environ["NOSETPS"] = "1"

# A shell that starts the suite behind others (``&``, ``nohup``) has it ignore Ctrl-C and more.
processes.give_children_default_signals()


def pytest_addoption(parser: pytest.Parser) -> None:
    rings.add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    rings.configure(config)


@pytest.hookimpl(trylast=True)  # all that uses them has ended
def pytest_sessionfinish(session: pytest.Session) -> None:
    shared.close(session.config)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return rings.ignore(collection_path, config)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    rings.select(config, items)
    flaky.mark(items, flaky.read(), flaky.today())


@pytest.fixture(scope="session", autouse=True)
def _lean_sessions() -> Iterator[None]:
    """Sessions that are run by tests do without plugins that are here for other reasons."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTEST_ADDOPTS", lean())
        yield


@pytest.fixture(autouse=True)
def _no_secrets_left() -> Iterator[None]:
    """What a test hides in this process is not hidden in the next one."""
    before = texts.registered_secrets()
    yield
    assert texts.registered_secrets() == before, "the test leaves secrets registered"


@pytest.fixture(autouse=True)
def _consistent_records(request: pytest.FixtureRequest) -> Iterator[None]:
    """The record of each run that a test makes keeps what is promised of it.

    Unless the test has the mark ``broken_record``, with the reason.
    """
    yield
    if not rings.checks_records(request.config, request.node.nodeid):
        return
    folder = getattr(request.node, "funcargs", {}).get("tmp_path")
    if isinstance(folder, Path) and request.node.get_closest_marker("broken_record") is None:
        broken = list(islice(broken_promises(folder), 20))
        assert not broken, "\n".join(broken)


def missing(reason: str) -> NoReturn:
    """Skip with the reason; in continuous integration nothing may be skipped, so fail there."""
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def given_or_started(variable: str, server: AbstractContextManager[str]) -> Iterator[str]:
    """Yield the URL that ``variable`` holds, else that of a private server for this session."""
    given = os.environ.get(variable)
    if given:
        yield given
    else:
        yield from started_or_missing(server)


def started_or_missing(server: AbstractContextManager[str]) -> Iterator[str]:
    """Yield the URL of a server that runs as long as whoever asks for it."""
    with ExitStack() as stack:
        try:
            url = stack.enter_context(server)
        except services.ServiceUnavailableError as unavailable:
            missing(str(unavailable))
        yield url


@pytest.fixture(scope="session")
def valkey() -> Iterator[str]:
    """URL of a private Valkey: ``redis://:PASSWORD@127.0.0.1:PORT/0``."""
    with services.valkey_server() as url:
        yield url


@pytest.fixture(scope="session")
def rabbitmq_url(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """AMQP URL of ``MANIFEST_TEST_RABBITMQ_URL``, or of a virtual host of the shared RabbitMQ."""
    ours = shared.of(pytestconfig, tmp_path_factory)
    yield from given_or_started("MANIFEST_TEST_RABBITMQ_URL", shared.rabbitmq(ours))


@pytest.fixture(scope="session")
def postgres_url(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """``postgresql://`` URL of ``MANIFEST_TEST_POSTGRES_URL``, or of a database of one shared."""
    ours = shared.of(pytestconfig, tmp_path_factory)
    yield from given_or_started("MANIFEST_TEST_POSTGRES_URL", shared.postgres(ours))


# Other people's projects, with tests of their own; and what needs an engine: make test-compose.
collect_ignore = ["projects", "compose"]
