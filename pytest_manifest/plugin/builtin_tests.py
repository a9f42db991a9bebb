"""Define the functions of the plugin's own tests: the built-in ones, and those of synthetic items.

They stand in a module of their own because pytest cuts a traceback at the module of the test's
function: beside the code that evaluates synthetic items, everything in between would be shown.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence


def entry(manifest_builtin_entry: None) -> None:
    """Verify that the entry's receipt meets its expectations (evaluated before this body runs)."""


def entries(manifest_builtin_group: str) -> None:
    """Verify that all entries of the group have passed (looked up before this body runs)."""


def placeholder(
    name: str, body: Callable[..., None], fixtures: Sequence[str]
) -> Callable[..., None]:
    """Make a function that asks for ``fixtures`` by name and calls ``body`` with them."""

    def call(**values: object) -> None:
        body(**values)

    parameters = [inspect.Parameter(f, inspect.Parameter.KEYWORD_ONLY) for f in fixtures]
    # pytest reads a test's fixtures from its signature.
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # any function takes attributes
    call.__name__ = name
    return call
