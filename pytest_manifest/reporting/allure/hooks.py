"""Complete allure-pytest's results of the tests of entries by allure-commons' hooks.

Each attempt has a result, the last one is judged by the test. Allure matches results across runs,
processes and attempts by the ids that are computed here.

Write Allure's files about a run as a whole: environment, executor, categories.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import UUID

import pytest
from pluggy import HookimplMarker
from pydantic_core import to_json

from pytest_manifest.analysis.reading import read_some
from pytest_manifest.analysis.records import EntryRecord
from pytest_manifest.analysis.tree_reading import read_trees
from pytest_manifest.bindings import BUILTIN_ENTRY, BUILTIN_GROUP, Binding, binding_of, is_builtin
from pytest_manifest.errors import ManifestToolError
from pytest_manifest.files import write_whole
from pytest_manifest.ledger import Ledger, RunInfo
from pytest_manifest.manifest import Manifest
from pytest_manifest.redaction.texts import HIDDEN, without_cut
from pytest_manifest.reporting.allure import result as results
from pytest_manifest.reporting.allure import steps
from pytest_manifest.reporting.allure.steps import Json
from pytest_manifest.reporting.ci_job import executor
from pytest_manifest.reporting.run_report import RunReport
from pytest_manifest.schema import Receipt, shown
from pytest_manifest.text import short, short_path, visible

if TYPE_CHECKING:
    from allure_commons.logger import AllureFileLogger
    from allure_commons.model2 import (
        ExecutableItem,
        TestResult,
        TestResultContainer,
        TestStepResult,
    )

    from pytest_manifest.run.run import Run


hookimpl = HookimplMarker("allure")
_UNREADABLE: Final = ManifestToolError, pytest.UsageError, sqlite3.Error
"""What is raised where a manifest or ledger cannot be read."""
_LEDGER_FIXTURES: Final = frozenset(
    {BUILTIN_ENTRY, BUILTIN_GROUP, "entry", "receipt", "manifest", "manifest_health"}
)
"""Fixtures that only read the ledger, so that Allure need not show their times."""


class EntryLogger:
    """Forward everything to ``files`` but the results that ``take`` accepts.

    ``hide`` takes secrets out of the errors of what is reported. ``not_written`` takes the message
    about a file that cannot be written: raised on, that would be an error of the test that is
    running.
    """

    def __init__(
        self,
        files: AllureFileLogger,
        take: Callable[[TestResult], bool],
        hide: Callable[[Iterable[ExecutableItem]], None],
        not_written: Callable[[str], None],
    ) -> None:
        self.files = files
        self._take, self._hide = take, hide
        self._not_written = not_written

    @hookimpl
    def report_result(self, result: TestResult) -> None:
        self._hide([result])
        with self._unwritten_noted():
            if not self._take(result):
                self.files.report_result(result)

    @hookimpl
    def report_container(self, container: TestResultContainer) -> None:
        fixtures = [*container.befores, *container.afters]
        if not all(map(_is_uninformative, fixtures)):
            # The item that dispatches is no test and has no result.
            container.children = [uuid for uuid in container.children if uuid is not None]
            self._hide(fixtures)
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


def _with_steps(items: Iterable[ExecutableItem]) -> Iterator[ExecutableItem]:
    for item in items:
        yield item
        yield from _with_steps(item.steps)


def _is_uninformative(fixture: TestStepResult) -> bool:
    name = fixture.name.partition("::")[0]  # a finalizer is called "fixture::finalizer"
    passed = fixture.status in ("passed", None)  # None: of a finalizer that is not seen to end
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


def write_run_files(folder: Path, report: RunReport) -> None:
    """Write the three files, and keep what other programs have put there."""
    folder.mkdir(parents=True, exist_ok=True)
    mode = report.options.report_mode
    files = {
        "environment.properties": _properties(folder, environment(report)),
        "categories.json": _json(_categories(folder)),
    }
    job = executor(os.environ)
    if job is not None and _is_ours(folder / "executor.json"):
        files["executor.json"] = _json(job | {"madeBy": _MADE_BY})
    for name, text in files.items():
        _replace(f"{folder}/{name}", text.encode("utf-8", "replace"), mode)


def environment(report: RunReport) -> dict[str, str]:
    """Return names and values; of several runs, the values that differ, after each other."""
    rows: list[tuple[str, object]] = []
    for run in report.runs:
        info = run.info
        rows += [
            *(("workflow", info.workflow), ("mode", info.mode)),
            ("manifest", report.name_of(run)),
            *(("run", info.run), ("entries", info.entries), ("broker", info.broker)),
            ("stack", "private" if info.is_private else "existing"),
            ("workers", run.state.workers),
        ]
        for name, value in shown.shown_params(run.manifest.header).items():
            rows.append((f"option {name}", value if isinstance(value, str) else short(value)))
    rows += [(package, version(package)) for package in _PACKAGES]
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
    shown = json.dumps(text)[1:-1].replace('\\"', '"')
    return shown.replace(" ", "_").replace("=", "\\=").replace(":", "\\:") if key else shown


def _categories(folder: Path) -> list[dict[str, object]]:
    """Return the file's own categories, and ours after them."""
    ours: list[dict[str, object]] = [
        {"name": name, "messageRegex": f"^{kind}: [\\s\\S]*", "matchedStatuses": list(statuses)}
        for name, kind, statuses in steps.CATEGORIES
    ]
    names = {one["name"] for one in ours}
    path = folder / "categories.json"
    kept: list[dict[str, object]] = []
    with suppress(OSError, ValueError):
        kept = [one for one in json.loads(path.read_text("utf-8")) if one.get("name") not in names]
    return kept + ours


def _is_ours(path: Path) -> bool:
    with suppress(OSError, ValueError, AttributeError):
        return bool(json.loads(path.read_text("utf-8")).get("madeBy") == _MADE_BY)
    return not path.exists()


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


# Tests of entries


@dataclass(frozen=True, slots=True)
class _Context:
    """A manifest and its run's ledger, None where it has no run, with what its entries share."""

    manifest: Manifest
    scope: str
    ledger: Ledger | None
    info: RunInfo | None

    def receipt(self, task_id: str) -> Receipt | None:
        """Return the last receipt of an attempt, None if it has none."""
        found = [] if self.ledger is None else self.ledger.events.receipts(task_id)
        return found[-1][1] if found else None


def _plan_of(manifest: Manifest) -> list[str]:
    """Return the workflow (else the stem of the manifest's file) and the mode, if there is one."""
    return [*filter(None, (manifest.header.workflow or manifest.path.stem, manifest.header.mode))]


_COUNTS: Final = (
    *("entries", "passed", "failed", "errors", "pending", "skipped"),
    *("descendants", "descendants_failed"),
)
# Ids

_ENCODED = json.JSONEncoder(ensure_ascii=False).encode
GROUP = "entries"
"""Names the test of a group of entries."""
BUILTIN = "entry"
"""Names the test of an entry that no test of the project verifies."""


def scopes(manifests: Iterable[Manifest], root: Path) -> dict[Path, str]:
    """Return the scope of each manifest's history ids, by the manifest's file.

    The scope is the workflow and its mode, so that a plan in a file of another name continues the
    same history. It is the file's path if the manifest has no workflow, or if another manifest of
    the session has the same workflow and mode.
    """
    found, plans = {}, Counter[str]()
    for manifest in manifests:
        header, path = manifest.header, manifest.path.resolve()
        found[path] = plan = _ENCODED([header.workflow, header.mode]) if header.workflow else ""
        plans[plan] += 1
    return {
        path: plan
        if plan and plans[plan] == 1
        else (path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name)
        for path, plan in found.items()
    }


def history_id(scope: str, test: str, entry: str, others: Iterable[tuple[str, str]] = ()) -> str:
    """Return an id that is equal for the same entry, plan and test, and differs for any other.

    ``others``: further parameters of the test. The id is hexadecimal: it stays unique in tools that
    fold case or drop punctuation.
    """
    return _digest(_ENCODED([scope, test, entry, sorted(others)]))


def result_id(history: str, task_id: str, repetition: int) -> str:
    """Return the UUID of one attempt's result; a repeated report replaces the earlier file.

    ``repetition``: how often this attempt was judged before, as pytest-rerunfailures does.
    """
    return str(UUID(_digest(json.dumps([history, task_id, repetition]))))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:32]


class AllureReport:
    """Report the tests of entries; registered if ``--alluredir`` is given."""

    def __init__(self, config: pytest.Config, report: RunReport) -> None:
        self._report = report
        self._folder = Path(config.option.allure_report_dir).absolute()
        self._issue = steps.issue_addresses(config)
        self._tests: Counter[tuple[Path, str | None]] = Counter()
        """How many tests verify an entry of a manifest."""
        self._scopes: dict[Path, str] = {}
        self._contexts: dict[Path, _Context] = {}
        self._logger: EntryLogger | None = None
        self._item: pytest.Item | None = None
        self._repetition = -1
        """How often the test was judged before, as pytest-rerunfailures does."""

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Stand before allure-commons' file logger if tests of entries were collected."""
        bindings = [found for item in session.items if (found := binding_of(item)) is not None]
        if not bindings or self._tests:
            return
        from allure_commons import plugin_manager
        from allure_commons.logger import AllureFileLogger

        self._tests.update((one.manifest, one.entry) for one in bindings)
        loaded = [self._report.load(path) for path in sorted({one.manifest for one in bindings})]
        self._scopes = scopes(loaded, self._report.options.root)
        for plugin in plugin_manager.get_plugins():
            if type(plugin) is AllureFileLogger:
                self._logger = EntryLogger(
                    plugin, self._take, self._hide, self._report.note_unwritten
                )
                plugin_manager.unregister(plugin)
                plugin_manager.register(self._logger)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> None:
        self._item, self._repetition = item, -1

    def pytest_manifest_finished(self, run: Run) -> None:
        with self._report.writing("Allure's files about the run were not written", run):
            write_run_files(self._folder, self._report)
        if run.corrections:
            with self._report.writing("Allure's results have no corrected verdicts", run):
                for stem, result in results.corrected_results(self._folder, run):
                    write_result(self._folder, stem, result, self._report.options.report_mode)
            run.warnings.append(
                "Allure has of what was corrected the status alone; "
                "--manifest-audit --alluredir=... writes its results again"
            )

    def pytest_unconfigure(self) -> None:
        for context in self._contexts.values():
            if context.ledger is not None:
                context.ledger.close()
        if self._logger is not None:
            from allure_commons import plugin_manager

            plugin_manager.unregister(self._logger)
            plugin_manager.register(self._logger.files)  # allure-pytest unregisters it itself

    def _hide(self, items: Iterable[ExecutableItem]) -> None:
        """Hide secrets in errors of an entry's test, of its steps and fixtures.

        allure-pytest takes them from the exceptions. What is secret in them stands in the entry and
        in the last receipt; where these cannot be read, no error is shown.
        """
        item = self._item
        if item is None or (binding := binding_of(item)) is None:
            return
        details = [one.statusDetails for one in _with_steps(items) if one.statusDetails]
        words: shown.Secrets | None = ()
        if details and binding.entry is not None:
            try:
                words = self._secrets(binding.manifest, binding.entry)
            except _UNREADABLE:
                words = None
        for one in details:
            for name in ("message", "trace"):
                if words is None:
                    setattr(one, name, HIDDEN)
                elif text := getattr(one, name):
                    setattr(one, name, without_cut(shown.shown_text(text, words), words))

    def _secrets(self, manifest: Path, name: str) -> shown.Secrets:
        context = self._context(manifest)
        (record,) = read_some(context.ledger, context.manifest, [name])
        last = results.last_sent(record)
        receipt = None if last is None else context.receipt(last.task_id)
        return shown.pieces_of(context.manifest[name], receipt)

    def _take(self, result: TestResult) -> bool:
        """Write the result that allure-pytest has made of an entry's test, completed.

        Returns False where allure-commons has to write it: it is of another test, or what completes
        it cannot be read.
        """
        item = self._item
        if item is None or (binding := binding_of(item)) is None:
            return False
        if binding.group is not None:
            self._complete_group(item, binding, result)
        if binding.entry is None:
            return False
        self._repetition += 1
        try:
            for stem, whole in self._results(item, binding, result):
                write_result(self._folder, stem, whole, self._report.options.report_mode)
        except _UNREADABLE as error:
            text = f"Allure shows tests as pytest saw them, not their jobs: {error}"
            if text not in self._report.notices:
                self._report.notices.append(text)
            return False
        return True

    def _results(
        self, item: pytest.Item, binding: Binding, result: TestResult
    ) -> Iterator[tuple[str, Json]]:
        """Yield ``(file's stem, result)`` of all attempts at the test's entry, the last one last.

        ``result``: what allure-pytest has made of the test. Raises ManifestToolError if manifest or
        ledger cannot be read.
        """
        assert binding.entry is not None
        context = self._context(binding.manifest)
        (record,) = read_some(context.ledger, context.manifest, [binding.entry])
        subject = self._subject(item, binding, result, record)
        last = results.last_sent(record)
        history, mode = subject.own["historyId"], self._report.options.report_mode
        task_id = last.task_id if last is not None else f"{subject.run}"
        stem = result_id(history, task_id, self._repetition)
        write = partial(results.write_attachments, self._folder, stem, mode)
        final = results.final_result(record, subject, self._issue, write)
        for one, earlier in results.earlier_results(record, subject, final):
            receipt = context.receipt(one.task_id)
            if receipt is not None:
                entry = context.manifest[binding.entry]  # the record's has no secrets any more
                receipt = shown.shown_receipt(receipt, shown.secrets_of(entry, receipt))
            name = result_id(history, one.task_id, 0)
            files = results.attachments_of_receipt(receipt)
            written = results.write_attachments(self._folder, name, mode, files)
            yield name, earlier | {"uuid": name, "attachments": written}
        yield stem, final

    def _complete_group(self, item: pytest.Item, binding: Binding, result: TestResult) -> None:
        """Change allure-pytest's result of the test of a group of entries before it is written.

        A failed test is ``broken`` unless the group's outcome is ``failed``: the outcome of its
        entries is not known. The counts are parameters without part in the test's identity.
        """
        from allure_commons.model2 import Label, Parameter

        assert binding.group is not None
        context = self._context(binding.manifest)
        told = dict(item.user_properties)
        if result.status == "failed" and told.get("manifest_outcome") != "failed":
            result.status = "broken"
        others = results.other_parameters(item)
        result.historyId = history_id(context.scope, GROUP, binding.group, others)
        result.testCaseId = result.historyId
        result.parameters = [
            Parameter(name="group", value=visible(str(told.get("manifest_group", "")))),
            *(one for one in result.parameters if one.name != BUILTIN_GROUP),
            *(
                Parameter(name=name.replace("_", " "), value=str(told[key]), excluded=True)
                for name in ("run", *_COUNTS)
                if (key := f"manifest_{name}") in told
            ),
        ]
        result.labels = [one for one in result.labels if one.name not in results.SUITES]
        result.labels += [
            Label(name=name, value=visible(part))
            for name, part in zip(results.SUITES, _plan_of(context.manifest), strict=False)
        ]

    def _context(self, path: Path) -> _Context:
        known = self._contexts.get(path)
        if known is None or known.ledger is None:
            manifest, stored = self._report.load(path), self._report.ledgers().get(path)
            ledger = None if stored is None else Ledger.open(stored)
            info = None if ledger is None else ledger.info.read()
            known = _Context(manifest, self._scopes.get(path, path.name), ledger, info)
            self._contexts[path] = known
        return known

    def _subject(
        self, item: pytest.Item, binding: Binding, result: TestResult, record: EntryRecord
    ) -> results.Subject:
        context, others = self._context(binding.manifest), results.other_parameters(item)
        test = BUILTIN if is_builtin(item) else str(result.fullName)
        ledger, info = context.ledger, context.info
        trees = {} if ledger is None else read_trees(ledger, record.attempts, steps.MOST)
        name = short_path(context.manifest.path, self._report.options.root)
        return results.Subject(
            own=results.own_result(
                item,
                result,
                self._title(item, binding, result, record),
                history_id(context.scope, test, record.id, others),
                [*_plan_of(context.manifest), record.entry.task],
            ),
            location=f"{name}:{record.line}",
            planned_at=None if info is None else info.created_at,
            live=not self._report.options.audit,
            run=None if info is None else info.run,
            trees={root: steps.step_of_tree(tree) for root, tree in trees.items()},
        )

    def _title(
        self, item: pytest.Item, binding: Binding, result: TestResult, record: EntryRecord
    ) -> str:
        """Return the name that the test has given itself, else the entry's id and title.

        The test function's name is added where several tests verify the entry.
        """
        if result.name != item.name:
            return str(result.name)
        title = record.meta.get("title")
        name = f"{record.id}: {title}" if isinstance(title, str) and title else record.id
        if self._tests[binding.manifest, record.id] > 1:
            name = f"{name} ({getattr(item, 'originalname', None) or item.name})"
        return name
