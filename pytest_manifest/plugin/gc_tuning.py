"""Keep Python's garbage collector from scanning objects that live until the session ends.

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
    """Disable collection within the block, then freeze all objects that are alive at its end.

    Frozen objects are never collected. Use it for imports, and for what a session makes once. It
    does nothing in a process that the session does not own: there, objects alive now may become
    garbage.
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
    """Check whether the process ends with this session: no script or test has called pytest."""
    if "PYTEST_CURRENT_TEST" in os.environ:
        return False
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    name = os.path.basename(getattr(main, "__file__", "")) if spec is None else spec.name  # noqa: PTH119
    return name in PROGRAMS
