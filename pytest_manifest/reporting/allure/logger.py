"""Write in place of allure-commons' file logger, and take the results of entries from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from pluggy import HookimplMarker

from pytest_manifest.bindings import BUILTIN_ENTRY, BUILTIN_GROUP
from pytest_manifest.reporting.allure.told import Raw

hookimpl = HookimplMarker("allure")
_OURS: Final = frozenset({BUILTIN_ENTRY, BUILTIN_GROUP, "entry", "receipt", "manifest"})
"""Fixtures that only read the ledger, so that Allure need not show their times."""


class Fixture(Protocol):
    """A fixture of a container of allure-pytest's."""

    name: str
    status: str | None
    steps: list[object]
    attachments: list[object]


class Container(Protocol):
    """Fixtures of some tests, as allure-pytest reports them."""

    children: list[str | None]
    befores: list[Fixture]
    afters: list[Fixture]


class FileLogger(Protocol):
    """allure-commons' own logger, which writes files."""

    def report_result(self, result: Raw) -> None: ...
    def report_container(self, container: Container) -> None: ...
    def report_attached_file(self, source: str, file_name: str) -> None: ...
    def report_attached_data(self, body: object, file_name: str) -> None: ...
    def report_globals(self, globals_item: object) -> None: ...


class EntryLogger:
    """Forward everything to ``files`` but the results that ``take`` accepts."""

    def __init__(self, files: FileLogger, take: Callable[[Raw], bool]) -> None:
        self._files = files
        self._take = take

    @hookimpl
    def report_result(self, result: Raw) -> None:
        if not self._take(result):
            self._files.report_result(result)

    @hookimpl
    def report_container(self, container: Container) -> None:
        fixtures = [*container.befores, *container.afters]
        if not all(map(_says_nothing, fixtures)):
            # The item that dispatches is no test and has no result.
            container.children = [uuid for uuid in container.children if uuid is not None]
            self._files.report_container(container)

    @hookimpl
    def report_attached_file(self, source: str, file_name: str) -> None:
        self._files.report_attached_file(source, file_name)

    @hookimpl
    def report_attached_data(self, body: object, file_name: str) -> None:
        if isinstance(body, str):  # a log line may hold a lone surrogate
            body = body.encode("utf-8", errors="backslashreplace")
        self._files.report_attached_data(body, file_name)

    @hookimpl
    def report_globals(self, globals_item: object) -> None:
        self._files.report_globals(globals_item)


def _says_nothing(fixture: Fixture) -> bool:
    name = fixture.name.partition("::")[0]  # a finalizer is called "fixture::finalizer"
    passed = fixture.status == "passed"
    return passed and name in _OURS and not (fixture.steps or fixture.attachments)
