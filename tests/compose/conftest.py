"""The engine, one stack that most tests share, and the seconds that are printed at the end."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack

import pytest

from tests.compose.engine import engine
from tests.compose.stack import UP, ComposeStack, compose_stack
from tests.conftest import missing
from tests.services import ServiceUnavailableError

SECONDS = pytest.StashKey[dict[str, float]]()


@pytest.fixture(scope="session")
def engine_environment() -> Iterator[Mapping[str, str]]:
    """The environment in which ``docker`` reaches an engine."""
    with ExitStack() as stack:
        try:
            environment = stack.enter_context(engine())
        except ServiceUnavailableError as unavailable:
            missing(str(unavailable))
        yield environment


@pytest.fixture(scope="session")
def user() -> int:
    """Who containers run as: whoever tests, or of root somebody else."""
    return os.geteuid() or 1000


@pytest.fixture(scope="session")
def built(
    engine_environment: Mapping[str, str], user: int, request: pytest.FixtureRequest
) -> Iterator[tuple[ComposeStack, str]]:
    """A stack whose image is built, and what the build printed."""
    with compose_stack(engine_environment, user) as stack:
        begin = time.monotonic()
        said = stack.did("build", "--progress=plain")
        noted(request.config, "build", begin)
        yield stack, said


@pytest.fixture(scope="session")
def first_up(
    built: tuple[ComposeStack, str], request: pytest.FixtureRequest
) -> tuple[ComposeStack, str]:
    """The stack, up for the first time, and what that printed."""
    stack, _ = built
    begin = time.monotonic()
    said = stack.did(*UP)
    noted(request.config, "up --detach --wait", begin)
    return stack, said


@pytest.fixture
def stack(first_up: tuple[ComposeStack, str]) -> ComposeStack:
    """The stack, up and healthy, whatever the test before has done to it."""
    found, _ = first_up
    found.did(*UP, "--scale=worker=1")
    return found


def noted(config: pytest.Config, what: str, begin: float) -> None:
    """Keep the seconds since ``begin`` for the end of the session."""
    config.stash.setdefault(SECONDS, {})[what] = time.monotonic() - begin


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the seconds."""
    for what, seconds in config.stash.get(SECONDS, {}).items():
        terminalreporter.write_line(f"docker compose {what}: {seconds:.1f} s")
