"""Make the body of synthetic items.

It stands in a module of its own because pytest cuts a traceback at the module of the test's
function: beside the code that evaluates such items, everything in between would be shown.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence


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
