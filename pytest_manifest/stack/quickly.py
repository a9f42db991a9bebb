"""The program ``celery``, without what only its other commands need, for workers that we start.

``python -m pytest_manifest.stack.quickly celery ...`` does what ``celery ...`` does, with its
options, words and exit codes. But that imports a shell (``celery amqp`` has one) and the commands
that other packages add (Flower's), before it looks at the one it was asked for: a quarter of the
time that a worker takes to start.
"""

from __future__ import annotations

import gc
import importlib.metadata
import runpy
import sys
from types import ModuleType
from typing import Any, Final

from pytest_manifest.stack.private import prepare

COMMANDS: Final = "celery.commands"
SHELL: Final = "click_repl"


def import_program() -> None:
    """Import Celery's program without them; everybody else gets the real ones afterwards."""
    find: Any = importlib.metadata.entry_points

    def find_others(**wanted: str) -> Any:
        return () if wanted.get("group") == COMMANDS else find(**wanted)

    importlib.metadata.entry_points = find_others  # type: ignore[assignment]  # it is overloaded
    # Where it was imported already there is nothing to save.
    imported = SHELL in sys.modules
    if not imported:
        sys.modules[SHELL] = _no_shell()
    try:
        import celery.bin.celery  # noqa: F401 - it is what celery.__main__ will find
    finally:
        importlib.metadata.entry_points = find
        if not imported:
            del sys.modules[SHELL]


def _no_shell() -> ModuleType:
    module = ModuleType(SHELL)
    module.register_repl = lambda _group: None  # type: ignore[attr-defined]  # all Celery asks of it
    return module


def main() -> None:
    """Be ``celery``."""
    if sys.argv[1:2] != ["celery"]:
        sys.exit("usage: python -m pytest_manifest.stack.quickly celery ...")
    del sys.argv[1]
    # Nothing that is imported here is garbage, now or later: looking for it takes a fifth of the
    # time.
    gc.disable()
    import_program()
    prepare()
    from pytest_manifest.stack.spawned import have_pools_begin_here  # which is prepared by itself

    have_pools_begin_here()
    gc.freeze()
    gc.enable()
    runpy.run_module("celery", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
