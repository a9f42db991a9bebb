"""Beside pytest-socket, which closes the sockets of the process while a test runs."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import Project

SOCKET = """
def pytest_addoption(parser):
    parser.addoption("--disable-socket", action="store_true")
    parser.addoption("--force-enable-socket", action="store_true")
    parser.addoption("--allow-hosts")
"""
"""The options of pytest-socket."""
NOBODY = "--manifest-broker=redis://127.0.0.1:1/0"


@pytest.fixture
def closed(project: Project) -> Project:
    project.write("conftest.py", SOCKET)
    project.doubles(count=1)
    return project


def test_closed_sockets_are_refused(closed: Project) -> None:
    """With what opens them, before anything is sent."""
    result = closed.run("--manifest=m.jsonl", NOBODY, "--disable-socket")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines("ERROR: pytest-socket closes all sockets *--force-enable-socket*")


@pytest.mark.parametrize("option", ["--force-enable-socket", "--allow-hosts=127.0.0.1"])
def test_sockets_that_are_opened_again_are_none_of_ours(option: str, closed: Project) -> None:
    result = closed.run("--manifest=m.jsonl", NOBODY, "--disable-socket", option)
    result.stderr.fnmatch_lines("*broker redis://127.0.0.1:1/0 cannot be used*")


def test_a_stack_in_memory_needs_no_socket(closed: Project) -> None:
    result = closed.run("--manifest=m.jsonl", "--manifest-broker=memory://", "--disable-socket")
    result.assert_outcomes(passed=1)
