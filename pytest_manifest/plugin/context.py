"""Describe one pytest process to the plugin: its configuration, its role, what the user asked for.

An idle session imports this module: nothing may be slow.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import pytest

from pytest_manifest.errors import ManifestToolError

if TYPE_CHECKING:
    from pytest_manifest.plugin.coordination import Coordination
    from pytest_manifest.plugin.options import Options

Role = Literal["main", "controller", "worker"]
"""main: a pytest without xdist; controller and worker: the processes of one with xdist."""


@dataclass
class PluginContext:
    """One pytest process as the plugin sees it.

    ``owns_process``: the process ends with this session. ``coordination``: the files by which the
    processes of an xdist session agree; None without xdist.
    """

    config: pytest.Config
    role: Role
    options: Options
    owns_process: bool
    coordination: Coordination | None = None

    @property
    def wants_file_order(self) -> bool:
        """Return whether an option asks for an order that running as completed would break."""
        option = self.config.option
        names = ("stepwise", "stepwise_skip", "failedfirst", "newfirst")
        return any(getattr(option, name, False) for name in names)


def role_of(config: pytest.Config) -> Role:
    """Return the role of this process, by the attributes that xdist sets."""
    if hasattr(config, "workerinput"):
        return "worker"
    return "main" if getattr(config.option, "dist", "no") == "no" else "controller"


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Raise errors with a message for the user as pytest.UsageError: one line, exit code 4."""
    try:
        yield
    except ManifestToolError as error:
        from pytest_manifest.redaction.texts import redact

        raise pytest.UsageError(redact(str(error))) from error


@contextlib.contextmanager
def ending_session(session: pytest.Session) -> Iterator[None]:
    """Fail the session, with its message, where an error comes after jobs were sent.

    A full disk, say, on which a ledger cannot be read. Raises session.Failed.
    """
    try:
        yield
    except ManifestToolError as error:
        session.shouldfail = str(error)  # pytest shows it at the end
        raise session.Failed(session.shouldfail) from error
