"""Run the program ``celery`` for a private stack, whose processes are kept to it.

``python -m pytest_manifest.stack.celery_program celery ...`` does what ``celery ...`` does, by its
options, words and exit codes, once the process is prepared.
"""

from __future__ import annotations

import gc
import runpy
import sys

from pytest_manifest.stack.private import prepare


def main() -> None:
    """Prepare this process, then run ``celery`` in it."""
    if sys.argv[1:2] != ["celery"]:
        sys.exit("usage: python -m pytest_manifest.stack.celery_program celery ...")
    del sys.argv[1]
    # What is imported here is never garbage: looking for some takes a tenth of a worker's start.
    gc.disable()
    prepare()
    from pytest_manifest.stack.spawned_pool import (
        have_pools_begin_here,  # which is prepared by itself
    )

    have_pools_begin_here()
    if "flower" in sys.argv:
        from pytest_manifest.compat.flower import guard_open_pages

        guard_open_pages()
    gc.freeze()
    gc.enable()
    runpy.run_module("celery", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
