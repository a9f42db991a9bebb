"""Turn tests of entries into results: one for each attempt, the last one judged by the test.

Allure matches results across runs, processes and attempts by the ids that are computed here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Final

import pytest

from pytest_manifest.analysis.reading import read_some
from pytest_manifest.analysis.records import AttemptRecord, EntryRecord
from pytest_manifest.analysis.tree_reading import TreeRecord, read_trees
from pytest_manifest.bindings import BUILTIN_GROUP, Binding
from pytest_manifest.ledger import Ledger, RunInfo
from pytest_manifest.manifest import Manifest
from pytest_manifest.redaction.texts import without_cut
from pytest_manifest.reporting.allure import content, finished_test
from pytest_manifest.reporting.allure import result as attempt_results
from pytest_manifest.reporting.allure.steps import MOST, Json, issue_addresses, step_of_tree
from pytest_manifest.reporting.run_report import RunReport
from pytest_manifest.schema import Receipt
from pytest_manifest.schema.shown import pieces_of, secrets_of, shown_receipt, shown_text
from pytest_manifest.text import short_path, visible


@dataclass(frozen=True, slots=True)
class _ManifestContext:
    """A manifest, with the values that its entries share."""

    manifest: Manifest
    scope: str
    name: str
    planned_at: datetime | None
    run: str | None
    hierarchies: dict[str, Sequence[str]] = field(default_factory=dict)


class Entries:
    """Make the results of entries' tests, and write their attachments into ``folder``."""

    def __init__(self, config: pytest.Config, report: RunReport, folder: Path) -> None:
        self._report = report
        self._folder = folder
        self._mode = report.options.report_mode
        self._ledgers = Ledgers(report)
        self._scopes: dict[Path, str] = {}
        self._manifests: dict[Path, _ManifestContext] = {}
        self._tests: Mapping[tuple[Path, str | None], int] = {}
        self._issue = issue_addresses(config)

    def close(self) -> None:
        self._ledgers.close()

    def _write(self, stem: str, attachments: Iterator[content.Attachment]) -> list[dict[str, str]]:
        return content.write_attachments(self._folder, stem, attachments, self._mode)

    def note_collected(
        self, manifests: Iterable[Path], tests: Mapping[tuple[Path, str | None], int]
    ) -> None:
        """Load the manifests of the collected tests; ``tests`` counts the tests of each entry."""
        loaded = [self._report.load(path) for path in sorted(manifests)]
        self._scopes = scopes(loaded, self._report.options.root)
        self._tests = tests

    def results(self, test: finished_test.FinishedTest) -> Iterator[tuple[str, Json]]:
        """Yield ``(file's stem, result)`` of all attempts at the test's entry, the last one last.

        Raises ManifestToolError if manifest or ledger cannot be read.
        """
        context = self._context(test.binding.manifest)
        record = self._ledgers.record(context.manifest, test.entry)
        roots = self._ledgers.roots(test.binding.manifest, record)
        started = [one for one in record.attempts if one.task_id in roots]
        subject = self._subject(test, context, record)
        if started:
            trees = self._ledgers.trees(test.binding.manifest, started)
            steps = {root: step_of_tree(tree) for root, tree in trees.items()}
            subject = replace(subject, trees=steps)
        report, last = finished_test.own_report(test), attempt_results.last_sent(record)
        if report.message or report.trace:
            task_id = None if last is None else last.task_id
            report = self._without_secrets(report, context.manifest, test, task_id)
        documents = content.small_documents(record)
        final = attempt_results.final_result(record, subject, report, last, self._issue, documents)
        for one, result in attempt_results.earlier_results(record, subject, report, final):
            receipt = self._ledgers.receipt(test.binding.manifest, one.task_id)
            if receipt is not None:
                entry = context.manifest[test.entry]
                receipt = shown_receipt(receipt, secrets_of(entry, receipt))
            stem = result_id(subject.history, one.task_id, 0)
            written = self._write(stem, content.attachments_of_receipt(receipt))
            yield stem, {"uuid": stem} | result | {"attachments": written}
        task_id = last.task_id if last is not None else f"{subject.run}"
        stem = result_id(subject.history, task_id, test.repetition)
        files = content.attachments_of_last(record) if documents is None else iter(())
        written = self._write(stem, files)
        # allure-pytest's containers name the tests of a fixture by this id of its own.
        final |= {"uuid": test.result.uuid, "attachments": [*written, *report.attachments]}
        yield stem, final

    def _without_secrets(
        self,
        report: finished_test.OwnReport,
        manifest: Manifest,
        test: finished_test.FinishedTest,
        task_id: str | None,
    ) -> finished_test.OwnReport:
        """Hide secrets in a failure of the test's own: allure-pytest takes it from the error."""
        path = test.binding.manifest
        receipt = None if task_id is None else self._ledgers.receipt(path, task_id)
        words = pieces_of(manifest[test.entry], receipt)
        message, trace = (
            None if text is None else without_cut(shown_text(text, words), words)
            for text in (report.message, report.trace)
        )
        return replace(report, message=message, trace=trace)

    def complete_group(
        self, result: finished_test.AllureResult, item: pytest.Item, binding: Binding
    ) -> None:
        """Complete allure-pytest's result of the test of a group of entries."""
        assert binding.group is not None
        context = self._context(binding.manifest)
        others = finished_test.other_parameters(item)
        history = history_id(context.scope, GROUP, binding.group, others)
        _complete_group(result, item, history, _plan_of(context.manifest))

    def _context(self, path: Path) -> _ManifestContext:
        if path not in self._manifests:
            manifest = self._report.load(path)
            info = self._ledgers.info(path)
            self._manifests[path] = _ManifestContext(
                manifest,
                self._scopes.get(path, path.name),
                short_path(manifest.path, self._report.options.root),
                None if info is None else info.created_at,
                None if info is None else info.run,
            )
        return self._manifests[path]

    def _subject(
        self, test: finished_test.FinishedTest, context: _ManifestContext, record: EntryRecord
    ) -> attempt_results.Subject:
        name = str(test.result.fullName)
        builtin = test.is_builtin
        others = finished_test.other_parameters(test.item)
        return attempt_results.Subject(
            history=history_id(context.scope, BUILTIN if builtin else name, record.id, others),
            full_name=name,
            title=self._title(test, record),
            hierarchy=_hierarchy(context, record.entry.task),
            location=f"{context.name}:{record.line}",
            builtin=builtin,
            planned_at=context.planned_at,
            live=not self._report.options.audit,
            others=others,
            run=context.run,
        )

    def _title(self, test: finished_test.FinishedTest, record: EntryRecord) -> str:
        """Return the name that the test has given itself, else the entry's id and title.

        The test function's name is added where several tests verify the entry.
        """
        item = test.item
        if test.result.name != item.name:
            return test.result.name
        title = record.meta.get("title")
        name = f"{record.id}: {title}" if isinstance(title, str) and title else record.id
        if self._tests.get((test.binding.manifest, record.id), 1) > 1:
            name = f"{name} ({getattr(item, 'originalname', None) or item.name})"
        return name


def _hierarchy(context: _ManifestContext, task: str) -> Sequence[str]:
    """Return workflow, mode and task, without those that are missing."""
    if task not in context.hierarchies:
        context.hierarchies[task] = [*_plan_of(context.manifest), task]
    return context.hierarchies[task]


def _plan_of(manifest: Manifest) -> list[str]:
    """Return the workflow (else the stem of the manifest's file) and the mode, if there is one."""
    parts = [manifest.header.workflow or manifest.path.stem, manifest.header.mode]
    return [part for part in parts if part]


# The test of a group

_COUNTS: Final = (
    *("entries", "passed", "failed", "errors", "pending", "skipped"),
    *("descendants", "descendants_failed"),
)
_SUITES: Final = ("parentSuite", "suite", "subSuite")


def _complete_group(
    result: finished_test.AllureResult, item: pytest.Item, history: str, hierarchy: Sequence[str]
) -> None:
    """Change the result of a group's test before it is written.

    A failed test is ``broken`` unless the group's outcome is ``failed``: the outcome of its entries
    is not known. The counts are parameters without part in the test's identity; ``history`` and
    ``hierarchy`` (workflow and mode) are those of the plan, whatever the manifest's file is called.
    """
    from allure_commons.model2 import Label, Parameter

    properties = {
        name.removeprefix("manifest_"): value
        for name, value in item.user_properties
        if name.startswith("manifest_")
    }
    if result.status == "failed" and properties.get("outcome") != "failed":
        result.status = "broken"
    result.historyId = result.testCaseId = history
    result.parameters = [one for one in result.parameters if one.name != BUILTIN_GROUP]
    result.parameters.insert(
        0, Parameter(name="group", value=visible(str(properties.get("group", ""))))
    )
    result.parameters += [
        Parameter(name=name.replace("_", " "), value=str(properties[name]), excluded=True)
        for name in ("run", *_COUNTS)
        if name in properties
    ]
    result.labels = [one for one in result.labels if one.name not in _SUITES]
    result.labels += [
        Label(name=name, value=visible(part))
        for name, part in zip(_SUITES, hierarchy, strict=False)
    ]


# Ledgers


@dataclass(frozen=True, slots=True)
class _OpenLedger:
    ledger: Ledger
    info: RunInfo


class Ledgers:
    """Read the runs' ledgers by their manifests' files; open each read-only when first needed."""

    def __init__(self, report: RunReport) -> None:
        self._report = report
        self._ledgers: dict[Path, _OpenLedger] = {}

    def close(self) -> None:
        for opened in self._ledgers.values():
            opened.ledger.close()
        self._ledgers.clear()

    def info(self, manifest: Path) -> RunInfo | None:
        """Return what the ledger says of this manifest's run; None if the manifest has no run."""
        opened = self._opened(manifest)
        return None if opened is None else opened.info

    def record(self, manifest: Manifest, entry: str) -> EntryRecord:
        """Return this entry's record. Raises ManifestToolError if it cannot be read."""
        opened = self._opened(manifest.path)
        (found,) = read_some(None if opened is None else opened.ledger, manifest, [entry])
        return found

    def receipt(self, manifest: Path, task_id: str) -> Receipt | None:
        """Return the last receipt of an attempt, None if it has none."""
        opened = self._opened(manifest)
        found = [] if opened is None else opened.ledger.events.receipts(task_id)
        return found[-1][1] if found else None

    def roots(self, manifest: Path, record: EntryRecord) -> Container[str]:
        """Return the task ids of those of an entry's attempts that have descendants."""
        opened = self._opened(manifest)
        if opened is None:
            return ()
        return opened.ledger.descendants.roots([one.task_id for one in record.attempts])

    def trees(self, manifest: Path, attempts: Sequence[AttemptRecord]) -> dict[str, TreeRecord]:
        """Return each attempt's descendants, by the attempt's task id."""
        opened = self._opened(manifest)
        return {} if opened is None else read_trees(opened.ledger, attempts, MOST)

    def _opened(self, manifest: Path) -> _OpenLedger | None:
        if manifest not in self._ledgers:
            path = self._report.ledgers().get(manifest)
            if path is None:
                return None
            ledger = Ledger.open(path)
            self._ledgers[manifest] = _OpenLedger(ledger, ledger.info.read())
        return self._ledgers[manifest]


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
    found: dict[Path, str] = {}
    by_plan: dict[str, list[Path]] = {}
    for manifest in manifests:
        path = manifest.path.resolve()
        header = manifest.header
        found[path] = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
        if header.workflow:
            plan = _ENCODED([header.workflow, header.mode])
            by_plan.setdefault(plan, []).append(path)
    found |= {paths[0]: plan for plan, paths in by_plan.items() if len(paths) == 1}
    return found


def history_id(scope: str, test: str, entry: str, others: Iterable[tuple[str, str]] = ()) -> str:
    """Return an id that is equal for the same entry, plan and test, and differs for any other.

    ``others``: further parameters of the test. The id is hexadecimal: it stays unique in tools that
    fold case or drop punctuation.
    """
    return _digest(_ENCODED([scope, test, entry, sorted(others)]))


def result_id(history: str, task_id: str, repetition: int) -> str:
    """Return the UUID of one attempt's result; a repeated report replaces the earlier file.

    ``turn``: how often this attempt was judged before, as pytest-rerunfailures does.
    """
    found = _digest(json.dumps([history, task_id, repetition]))
    return f"{found[:8]}-{found[8:12]}-{found[12:16]}-{found[16:20]}-{found[20:]}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:32]
