"""Have pytest-cov find what it measured in the workers of a private stack."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from pytest_manifest.plugin.session import ManifestSession

NAME = "manifest-coverage"


class EndOfStack:
    """End the session's runs and stack within the loop of tests, at whose end pytest-cov reports.

    A worker's processes write what was measured in them when they end.
    """

    def __init__(self, state: ManifestSession) -> None:
        self._state = state

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        result = yield
        self._state.session_runs.stop_everything()
        return result


def end_before_coverage(state: ManifestSession) -> None:
    """Register :class:`EndOfStack`, once, where pytest-cov measures this session."""
    config = state.context.config
    manager = config.pluginmanager
    if config.getoption("cov_source", None) and not manager.hasplugin(NAME):  # --cov
        manager.register(EndOfStack(state), NAME)
