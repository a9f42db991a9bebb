"""Apps of the tests: what one of them has is not what another test sees."""

from __future__ import annotations

from celery import Celery

OURS = ("celery.", "tasks.")
"""Celery's own tasks, and those of ``tasks/``, which are made for any app."""


def test_no_module_of_the_tests_shares_tasks_with_every_app() -> None:
    """In a whole suite all modules are imported; ``shared=False`` keeps a task where it is."""
    app = Celery("bare", set_as_current=False)
    app.finalize()
    assert not sorted(name for name in app.tasks if not name.startswith(OURS))
