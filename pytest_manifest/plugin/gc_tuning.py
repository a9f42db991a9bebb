"""Sparing Python's garbage collector what is no garbage.

The libraries that a dispatch needs are some 100,000 objects that stay until the end. The collector
goes through all of them while they are imported, several times while tests run, and three times in
pytest's own last steps: without this that is a third of the time of a session with one job.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Iterator
from typing import Final

PROGRAMS: Final = ("pytest", "py.test", "pytest.__main__")


@contextlib.contextmanager
def nothing_thrown_away(*, owns_process: bool) -> Iterator[None]:
    """Within it nothing is collected, and what is alive at its end never will be.

    For imports, and for what a session makes once. In a process that the session does not own it
    does nothing: there what is alive now may be garbage some day.
    """
    if not (owns_process and gc.isenabled()):
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def owns_process() -> bool:
    """Whether the process ends with this session: no script has called pytest, nor a test."""
    if "PYTEST_CURRENT_TEST" in os.environ:
        return False
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    name = os.path.basename(getattr(main, "__file__", "")) if spec is None else spec.name  # noqa: PTH119
    return name in PROGRAMS
