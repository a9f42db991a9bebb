"""Complete allure-pytest's results of the tests of entries by allure-commons' hooks.

Write Allure's files about a run as a whole: environment, executor, categories.
"""

from __future__ import annotations

import json
import os
import platform
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from pluggy import HookimplMarker
from pydantic_core import to_json

from pytest_manifest.bindings import BUILTIN_ENTRY, BUILTIN_GROUP, binding_of
from pytest_manifest.errors import ManifestToolError
from pytest_manifest.files import write_whole
from pytest_manifest.reporting.allure.entries import Entries
from pytest_manifest.reporting.allure.steps import CATEGORIES, Json
from pytest_manifest.reporting.run_report import RunReport
from pytest_manifest.schema.shown import shown_params
from pytest_manifest.text import short, short_path

if TYPE_CHECKING:
    from allure_commons.logger import AllureFileLogger
    from allure_commons.model2 import TestResult, TestResultContainer, TestStepResult

    from pytest_manifest.run.run import Run


hookimpl = HookimplMarker("allure")
_LEDGER_FIXTURES: Final = frozenset({BUILTIN_ENTRY, BUILTIN_GROUP, "entry", "receipt", "manifest"})
"""Fixtures that only read the ledger, so that Allure need not show their times."""


class EntryLogger:
    """Forward everything to ``files`` but the results that ``take`` accepts.

    ``not_written`` takes the message about a file that cannot be written: raised on, that would be
    an error of the test that is running.
    """

    def __init__(
        self,
        files: AllureFileLogger,
        take: Callable[[TestResult], bool],
        not_written: Callable[[str], None],
    ) -> None:
        self.files = files
        self._take = take
        self._not_written = not_written

    @hookimpl
    def report_result(self, result: TestResult) -> None:
        with self._unwritten_noted():
            if not self._take(result):
                self.files.report_result(result)

    @hookimpl
    def report_container(self, container: TestResultContainer) -> None:
        fixtures = [*container.befores, *container.afters]
        if not all(map(_is_uninformative, fixtures)):
            # The item that dispatches is no test and has no result.
            container.children = [uuid for uuid in container.children if uuid is not None]
            with self._unwritten_noted():
                self.files.report_container(container)

    @hookimpl
    def report_attached_file(self, source: str, file_name: str) -> None:
        with self._unwritten_noted():
            self.files.report_attached_file(source, file_name)

    @hookimpl
    def report_attached_data(self, body: object, file_name: str) -> None:
        if isinstance(body, str):  # a log line may hold a lone surrogate
            body = body.encode("utf-8", errors="backslashreplace")
        with self._unwritten_noted():
            self.files.report_attached_data(body, file_name)

    @hookimpl
    def report_globals(self, globals_item: object) -> None:
        with self._unwritten_noted():
            self.files.report_globals(globals_item)

    @contextmanager
    def _unwritten_noted(self) -> Iterator[None]:
        """Note an OSError of writing one of Allure's files, and go on."""
        try:
            yield
        except OSError as error:
            # The same sentence for all files of a folder: it is shown once.
            folder = f" to {Path(error.filename).parent}" if isinstance(error.filename, str) else ""
            why = error.strerror or error
            self._not_written(f"Allure's results were not all written{folder}: {why}")


def _is_uninformative(fixture: TestStepResult) -> bool:
    name = fixture.name.partition("::")[0]  # a finalizer is called "fixture::finalizer"
    passed = fixture.status == "passed"
    return passed and name in _LEDGER_FIXTURES and not (fixture.steps or fixture.attachments)


def write_result(folder: Path, stem: str, result: Json, mode: int) -> None:
    """Replace a result's file at once: another program may be watching the folder."""
    try:
        text = to_json(result)
    except UnicodeEncodeError:  # a test of the project's may attach a lone surrogate
        text = json.dumps(result).encode()
    _replace(f"{folder}/{stem}-result.json", text, mode)


def _replace(path: str, text: bytes, mode: int) -> None:
    write_whole(f"{path}.tmp", text, mode)
    os.replace(f"{path}.tmp", path)  # noqa: PTH105 - a Path costs as much as the replacing


_PACKAGES = ("pytest-celery-manifest", "pytest", "celery", "allure-pytest")
_MADE_BY = "pytest-celery-manifest"


def write_run_files(folder: Path, report: RunReport, runs: Sequence[Run]) -> None:
    """Write the three files, and keep what other programs have put there."""
    folder.mkdir(parents=True, exist_ok=True)
    mode = report.options.report_mode
    files = {
        "environment.properties": _properties(folder, environment(report, runs)),
        "categories.json": _json(_categories(folder)),
    }
    job = executor(os.environ)
    if job is not None and _is_ours(folder / "executor.json"):
        files["executor.json"] = _json(job | {"madeBy": _MADE_BY})
    for name, text in files.items():
        _replace(f"{folder}/{name}", text.encode("utf-8", "replace"), mode)


def environment(report: RunReport, runs: Sequence[Run]) -> dict[str, str]:
    """Return names and values; of several runs, the values that differ, after each other."""
    rows: list[tuple[str, object]] = []
    for run in runs:
        info = run.info
        rows += [
            *(("workflow", info.workflow), ("mode", info.mode)),
            ("manifest", short_path(run.manifest.path, report.options.root)),
            *(("run", info.run), ("entries", info.entries), ("broker", info.broker)),
            ("stack", "private" if info.is_private else "existing"),
            ("workers", run.state.workers),
        ]
        for name, value in shown_params(run.manifest.header).items():
            rows.append((f"option {name}", value if isinstance(value, str) else short(value)))
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            rows.append((package, version(package)))
    rows += [("python", platform.python_version()), ("system", platform.platform(terse=True))]
    values: dict[str, dict[str, None]] = {}
    for name, one in rows:
        if one is not None:
            values.setdefault(name, {})[str(one)] = None
    return {name: ", ".join(known) for name, known in values.items()}


def _properties(folder: Path, ours: Mapping[str, str]) -> str:
    lines = {_escaped(name, key=True): _escaped(value) for name, value in ours.items()}
    path = folder / "environment.properties"
    kept = path.read_text("utf-8").splitlines() if path.exists() else []
    kept = [line for line in kept if line.partition("=")[0].strip() not in lines]
    return "\n".join([*kept, *(f"{name}={value}" for name, value in lines.items())]) + "\n"


def _escaped(text: str, *, key: bool = False) -> str:
    """Escape text for a ``.properties`` file, in ASCII."""
    shown = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    if key:
        shown = shown.replace(" ", "_").replace("=", "\\=").replace(":", "\\:")
    units = (ord(char) for char in shown)
    return "".join(
        chr(unit) if 31 < unit < 127 else json.dumps(chr(unit)).strip('"') for unit in units
    )


def _categories(folder: Path) -> list[dict[str, object]]:
    """Return the file's own categories, and ours after them."""
    ours: list[dict[str, object]] = [
        {"name": name, "messageRegex": f"^{kind}: [\\s\\S]*", "matchedStatuses": list(statuses)}
        for name, kind, statuses in CATEGORIES
    ]
    names = {one["name"] for one in ours}
    path = folder / "categories.json"
    kept: list[dict[str, object]] = []
    with suppress(OSError, ValueError):
        kept = [one for one in json.loads(path.read_text("utf-8")) if one.get("name") not in names]
    return kept + ours


def _is_ours(path: Path) -> bool:
    try:
        return bool(json.loads(path.read_text("utf-8")).get("madeBy") == _MADE_BY)
    except FileNotFoundError:
        return True
    except (OSError, ValueError, AttributeError):
        return False


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


# The job of a CI server


_ANY: Final = (
    *("CI", "ci", "", "BUILD_NUMBER CI_BUILD_NUMBER"),
    *("JOB_NAME CI_JOB_NAME", "BUILD_URL CI_BUILD_URL"),
)
_SERVERS: Final = {
    "GITHUB_ACTIONS": (
        *("GitHub Actions", "github", "_ACTIONS", "GITHUB_RUN_NUMBER"),
        *("GITHUB_WORKFLOW", "_RUN"),
    ),
    "GITLAB_CI": (
        *("GitLab CI", "gitlab", "CI_PROJECT_URL", "CI_PIPELINE_IID"),
        *("CI_JOB_NAME", "CI_JOB_URL"),
    ),
    "JENKINS_URL": (
        *("Jenkins", "jenkins", "JENKINS_URL", "BUILD_NUMBER", "JOB_NAME", "BUILD_URL"),
    ),
    "CI": _ANY,
    "BUILD_URL": _ANY,
}
"""CI servers by a variable that each sets: name and type for Allure, then the variables with its
address, a build's number, its job and its page; of several the first that is set counts."""


def executor(variables: Mapping[str, str]) -> dict[str, object] | None:
    """Return Allure's executor without what the server does not set; None outside CI."""
    server = next((one for name, one in _SERVERS.items() if variables.get(name)), None)
    if server is None:
        return None
    known = dict(variables)
    if address := variables.get("GITHUB_SERVER_URL"):
        actions = f"{address}/{variables.get('GITHUB_REPOSITORY')}/actions"
        attempt, run = variables.get("GITHUB_RUN_ATTEMPT", "1"), variables.get("GITHUB_RUN_ID")
        again = "" if attempt == "1" else f"/attempts/{attempt}"
        known |= {"_ACTIONS": actions, "_RUN": f"{actions}/runs/{run}{again}" if run else ""}
    name, kind, *places = server
    home, number, job, build = (
        next((known[one] for one in names.split() if known.get(one)), "") for names in places
    )
    fields = {
        "name": known.get("CI_NAME") or name if server is _ANY else name,
        "type": kind,
        "url": home,
        "buildOrder": int(number) if number.isdecimal() else "",
        "buildName": f"{job or 'build'} #{number}" if number else "",
        "buildUrl": build,
    }
    return {name: value for name, value in fields.items() if value != ""}


class AllureReport:
    """Report the tests of entries; registered if ``--alluredir`` is given."""

    def __init__(self, config: pytest.Config, report: RunReport) -> None:
        self._config = config
        self._report = report
        self._folder = Path(config.option.allure_report_dir).absolute()
        self._entries: Entries | None = None
        self._logger: EntryLogger | None = None
        self._item: pytest.Item | None = None
        self._repetition = 0
        self._runs: list[Run] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Stand before allure-commons' file logger if tests of entries were collected."""
        bindings = [found for item in session.items if (found := binding_of(item)) is not None]
        if not bindings or self._entries is not None:
            return
        from allure_commons import plugin_manager
        from allure_commons.logger import AllureFileLogger

        self._entries = Entries(self._config, self._report, self._folder, bindings)
        for plugin in plugin_manager.get_plugins():
            if type(plugin) is AllureFileLogger:
                self._logger = EntryLogger(plugin, self._take, self._report.note_unwritten)
                plugin_manager.unregister(plugin)
                plugin_manager.register(self._logger)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> None:
        self._item, self._repetition = item, 0

    def pytest_manifest_finished(self, run: Run) -> None:
        self._runs.append(run)
        with self._report.writing("Allure's files about the run were not written", run):
            write_run_files(self._folder, self._report, self._runs)
        if run.corrections:
            run.warnings.append(
                "Allure has the results of what was corrected as they were at first; "
                "--manifest-audit --alluredir=... writes them again"
            )

    def pytest_unconfigure(self) -> None:
        if self._entries is not None:
            self._entries.close()
        if self._logger is not None:
            from allure_commons import plugin_manager

            plugin_manager.unregister(self._logger)
            plugin_manager.register(self._logger.files)  # allure-pytest unregisters it itself
            self._logger = None

    def _take(self, result: TestResult) -> bool:
        """Write the result that allure-pytest has made of an entry's test, completed.

        Returns False where allure-commons has to write it: it is of another test, or what completes
        it cannot be read.
        """
        binding = None if self._item is None else binding_of(self._item)
        if self._item is None or self._entries is None or binding is None:
            return False
        if binding.group is not None:
            self._entries.complete_group(self._item, binding, result)
        if binding.entry is None:
            return False
        repetition = self._repetition
        self._repetition += 1
        try:
            for stem, whole in self._entries.results(self._item, binding, result, repetition):
                write_result(self._folder, stem, whole, self._report.options.report_mode)
        except (ManifestToolError, pytest.UsageError, sqlite3.Error) as error:
            text = f"Allure shows tests as pytest saw them, not their jobs: {error}"
            if text not in self._report.notices:
                self._report.notices.append(text)
            return False
        return True
