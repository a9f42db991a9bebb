"""Name what a project's settings for its tests do to a batch, which is no test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

import pytest

from pytest_manifest.ini import BATCH_INI
from pytest_manifest.text import listed

_SHOWN: Final = 5
"""Variables that are named."""
_COUNTED: Final = {"--cov": "pytest-cov", "-n": "pytest-xdist", "--numprocesses": "pytest-xdist"}
"""Options that start a plugin, where pytest's settings have them in ``addopts``."""


def settings_notice(config: pytest.Config) -> str | None:
    """Return a notice of the plugins that are active in this session by settings for tests.

    What the command line itself asks for is meant; so is a file that it names with ``-c``, but for
    the variables that pytest-env finds in pyproject.toml nevertheless. None where there is none.
    """
    found = [*_variables(config)]
    if not config.option.inifilename:
        found += [*_database(config), *_by_addopts(config)]
    if not found:
        return None
    return (
        f"settings for tests act on this batch, too: {', '.join(found)}; 'manifest init' writes a "
        f"{BATCH_INI} without them, for pytest -c {BATCH_INI}"
    )


def _variables(config: pytest.Config) -> Iterator[str]:
    """Yield pytest-env, with the variables that it sets by settings that pytest has read."""
    if not config.pluginmanager.hasplugin("env"):
        return
    names: list[str] = []
    with suppress(ValueError, KeyError):  # it has no such setting
        for line in config.getini("env"):
            name, equals, _ = str(line).partition("=")
            names += [name.rpartition(":")[2].strip()] if equals else []
    toml = config.rootpath / "pyproject.toml"
    with suppress(OSError):
        if not names and b"[tool.pytest_env" in toml.read_bytes():
            names.append("those of [tool.pytest_env]")
    if names:
        yield f"pytest-env (sets {listed(names, _SHOWN)})"


def _database(config: pytest.Config) -> Iterator[str]:
    if config.pluginmanager.hasplugin("django") and os.environ.get("DJANGO_SETTINGS_MODULE"):
        yield "pytest-django (blocks the database to plans)"


def _by_addopts(config: pytest.Config) -> Iterator[str]:
    """Yield the plugins that ``addopts`` starts."""
    given = [str(one) for one in config.getini("addopts")]
    for option, plugin in _COUNTED.items():
        if any(one.startswith(option) for one in given):
            yield f"{plugin} ({option} in addopts)"
