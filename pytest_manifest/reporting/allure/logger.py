"""Writes what allure-pytest reports; a result that is of an entry is made anew before."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

from pluggy import HookimplMarker
from pydantic_core import to_json

from pytest_manifest.reporting.allure.attachments import write_file
from pytest_manifest.reporting.allure.result import Raw
from pytest_manifest.reporting.allure.steps import Json

hookimpl = HookimplMarker("allure")
_OURS: Final = frozenset({"manifest_builtin_entry", "entry", "receipt", "manifest"})
"""Fixtures that read the ledger: how long that took, and when, is nobody's question."""


class Fixture(Protocol):
    """A fixture of a container of allure-pytest's."""

    name: str
    status: str | None
    steps: list[object]
    attachments: list[object]


class Container(Protocol):
    """Fixtures of some tests, as allure-pytest reports them."""

    befores: list[Fixture]


class FileLogger(Protocol):
    """allure-commons' own writer of files."""

    def report_result(self, result: Raw) -> None: ...
    def report_container(self, container: Container) -> None: ...
    def report_attached_file(self, source: str, file_name: str) -> None: ...
    def report_attached_data(self, body: object, file_name: str) -> None: ...
    def report_globals(self, globals_item: object) -> None: ...


class EntryLogger:
    """Stands where allure-commons' writer stood, and hands on to it what is no entry's.

    ``results_of`` gives ``(file's stem, result)`` for each result to be written in place of one,
    None where it is to be written as it is.
    """

    def __init__(
        self,
        files: FileLogger,
        folder: Path,
        results_of: Callable[[Raw], Sequence[tuple[str, Json]] | None],
    ) -> None:
        self._files = files
        self._folder = folder
        self._results_of = results_of

    @hookimpl
    def report_result(self, result: Raw) -> None:
        results = self._results_of(result)
        if results is None:
            self._files.report_result(result)
            return
        for stem, told in results:
            path = f"{self._folder}/{stem}-result.json"
            write_file(f"{path}.tmp", _dumps(told))
            os.replace(f"{path}.tmp", path)  # noqa: PTH105 - whoever watches sees whole files

    @hookimpl
    def report_container(self, container: Container) -> None:
        if not container.befores or not all(map(_says_nothing, container.befores)):
            self._files.report_container(container)

    @hookimpl
    def report_attached_file(self, source: str, file_name: str) -> None:
        self._files.report_attached_file(source, file_name)

    @hookimpl
    def report_attached_data(self, body: object, file_name: str) -> None:
        if isinstance(body, str):  # a log line may hold half a character, which UTF-8 cannot
            body = body.encode("utf-8", errors="backslashreplace")
        self._files.report_attached_data(body, file_name)

    @hookimpl
    def report_globals(self, globals_item: object) -> None:
        self._files.report_globals(globals_item)


def _dumps(told: Json) -> str:
    try:
        return to_json(told).decode()
    except UnicodeEncodeError:  # a test of the project's own may attach half a character
        return json.dumps(told)


def _says_nothing(fixture: Fixture) -> bool:
    passed = fixture.status == "passed"
    return passed and fixture.name in _OURS and not (fixture.steps or fixture.attachments)
