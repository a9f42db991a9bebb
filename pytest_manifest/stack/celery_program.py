"""Run the program ``celery`` for a private stack, whose processes are kept to it.

``python -m pytest_manifest.stack.celery_program celery ...`` does what ``celery ...`` does, by its
options, words and exit codes, once the process is prepared.

A pool may start each of its processes as a fresh interpreter (``worker_pool_start_method =
"spawn"``), with its worker's environment, but none of what was exchanged in its worker. It imports
its worker's main module, which is this one, before the app: so it is kept to the stack then.
"""

from __future__ import annotations

import gc
import os
import sys
import warnings

from pytest_manifest.stack import private


def main() -> None:
    """Prepare this process, then run ``celery`` in it."""
    if sys.argv[1:2] != ["celery"]:
        sys.exit("usage: python -m pytest_manifest.stack.celery_program celery ...")
    # What is imported here is never garbage: looking for some takes a tenth of a worker's start.
    gc.disable()
    private.prepare()
    # Of a worker that root runs, as in many containers: who looks for an error reads it as one.
    warnings.filterwarnings("ignore", "You're running the worker with superuser")
    if "flower" in sys.argv:
        from pytest_manifest.compat.flower import guard_open_pages

        guard_open_pages()
    from celery import __main__ as program

    gc.freeze()
    gc.enable()
    sys.argv[:2] = [str(program.__file__)]
    program.main()


if __name__ == "__main__":
    __package__ = "celery"  # by which, and argv[0], its usage names the program
    main()
elif (_url := os.environ.get(private.URL_VARIABLE)) and not private.kept_to.now:
    private.keep_to(_url)
