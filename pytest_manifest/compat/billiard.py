"""Private parts of billiard, from which Celery's pool of processes is made.

billiard has no types, so what is taken from it is ``Any``.
"""

from __future__ import annotations

from typing import Any


def exception_info() -> Any:
    """Return the exception that is being handled as a process of a pool reports it.

    Relies on ``billiard.einfo.ExceptionInfo`` (billiard 4.3).
    Test: ``test_testing_stack.py::test_a_job_that_raises_system_exit_ends_alone``.
    """
    from billiard.einfo import ExceptionInfo

    return ExceptionInfo()
