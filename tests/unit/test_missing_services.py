"""What becomes of a live test whose server this machine does not have."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import services
from tests.conftest import given_or_started, missing


@contextmanager
def not_installed() -> Iterator[str]:
    """A server that cannot be started here."""
    raise services.ServiceUnavailableError("install the package valhalla")
    yield ""


def test_skipped_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a person's machine the test is skipped, and says what to install."""
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="install the package valhalla"):
        next(given_or_started("MANIFEST_TEST_VALHALLA_URL", not_installed()))


def test_failed_in_continuous_integration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where everything must be tested, a skip would hide that it was not."""
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="install the package valhalla"):
        missing("install the package valhalla")


def test_a_given_url_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """No server is started where the environment names one."""
    monkeypatch.setenv("MANIFEST_TEST_VALHALLA_URL", "valhalla://odin")
    assert list(given_or_started("MANIFEST_TEST_VALHALLA_URL", not_installed())) == [
        "valhalla://odin"
    ]


def test_what_to_install_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the two services names its package and the variable to give a URL with."""
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr(Path, "glob", lambda *_: iter(()))
    with pytest.raises(services.ServiceUnavailableError, match=r"rabbitmq-server.*_RABBITMQ_URL"):
        services.rabbitmq_binaries()
    with pytest.raises(services.ServiceUnavailableError, match=r"postgresql.*_POSTGRES_URL"):
        services.postgres_binaries()
