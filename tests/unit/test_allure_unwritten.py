"""Allure's files that cannot be written: the test that is running goes on, and the user is told."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace
from typing import NoReturn

from pytest_manifest.reporting.allure.hooks import EntryLogger


class FullDisk:
    """A file logger whose disk is full."""

    def report_container(self, container: object) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "allure/c.json")

    def report_attached_data(self, body: object, file_name: str) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), f"allure/{file_name}")


def test_what_cannot_be_written_is_no_error_of_a_test() -> None:
    """Else an entry that has passed would be red for the fixtures and lines shown with it."""
    told: list[str] = []
    logger = EntryLogger(FullDisk(), lambda _result: False, lambda _items: None, told.append)
    fixture = SimpleNamespace(name="database", status="passed", steps=[], attachments=[])
    container = SimpleNamespace(children=[], befores=[fixture], afters=[])
    logger.report_container(container)
    logger.report_attached_data("a line", "log.txt")
    assert told == ["Allure's results were not all written to allure: No space left on device"] * 2
