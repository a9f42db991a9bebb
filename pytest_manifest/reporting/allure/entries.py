"""Turn tests of entries into results: one for each attempt, the last one judged by the test.

Allure matches results across runs, processes and attempts by the ids that are computed here.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from pytest_manifest.analysis.reading import read_some
from pytest_manifest.analysis.records import EntryRecord
from pytest_manifest.analysis.tree_reading import read_trees
from pytest_manifest.bindings import BUILTIN_GROUP, Binding, binding_of, is_builtin
from pytest_manifest.ledger import Ledger, RunInfo
from pytest_manifest.manifest import Manifest
from pytest_manifest.redaction.texts import without_cut
from pytest_manifest.reporting.allure import content
from pytest_manifest.reporting.allure import result as attempt_results
from pytest_manifest.reporting.allure.steps import MOST, Json, issue_addresses, step_of_tree
from pytest_manifest.reporting.run_report import RunReport
from pytest_manifest.schema import Receipt
from pytest_manifest.schema.shown import pieces_of, secrets_of, shown_receipt, shown_text
from pytest_manifest.text import short_path, visible

if TYPE_CHECKING:
    from allure_commons.model2 import TestResult


@dataclass(frozen=True, slots=True)
class _Context:
    """A manifest and its run's ledger, None where it has no run, with what its entries share."""

    manifest: Manifest
    scope: str
    name: str
    ledger: Ledger | None
    info: RunInfo | None

    def receipt(self, task_id: str) -> Receipt | None:
        """Return the last receipt of an attempt, None if it has none."""
        found = [] if self.ledger is None else self.ledger.events.receipts(task_id)
        return found[-1][1] if found else None


class Entries:
    """Make the results of entries' tests, and write their attachments into ``folder``."""

    def __init__(
        self, config: pytest.Config, report: RunReport, folder: Path, bindings: Sequence[Binding]
    ) -> None:
        self._report = report
        self._folder = folder
        loaded = [report.load(path) for path in sorted({one.manifest for one in bindings})]
        self._scopes = scopes(loaded, report.options.root)
        self._tests = Counter((one.manifest, one.entry) for one in bindings)
        self._contexts: dict[Path, _Context] = {}
        self._issue = issue_addresses(config)

    def close(self) -> None:
        """Close the ledgers."""
        for context in self._contexts.values():
            if context.ledger is not None:
                context.ledger.close()
        self._contexts.clear()

    def results(
        self, item: pytest.Item, binding: Binding, result: TestResult, repetition: int
    ) -> Iterator[tuple[str, Json]]:
        """Yield ``(file's stem, result)`` of all attempts at the test's entry, the last one last.

        ``result``: what allure-pytest has made of the test; ``repetition``: how often it was judged
        before, as pytest-rerunfailures does. Raises ManifestToolError if manifest or ledger cannot
        be read.
        """
        assert binding.entry is not None
        context = self._context(binding.manifest)
        (record,) = read_some(context.ledger, context.manifest, [binding.entry])
        subject = self._subject(item, result, context, record)
        last = attempt_results.last_sent(record)
        if details := subject.own.get("statusDetails"):
            # Hide secrets in a failure of the test's own: allure-pytest takes it from the error.
            words = pieces_of(record.entry, None if last is None else context.receipt(last.task_id))
            for name in details.keys() & {"message", "trace"}:
                details[name] = without_cut(shown_text(details[name], words), words)
        history, mode = subject.own["historyId"], self._report.options.report_mode
        task_id = last.task_id if last is not None else f"{subject.run}"
        stem = result_id(history, task_id, repetition)
        write = partial(content.write_attachments, self._folder, stem, mode)
        final = attempt_results.final_result(record, subject, self._issue, write)
        for one, earlier in attempt_results.earlier_results(record, subject, final):
            receipt = context.receipt(one.task_id)
            if receipt is not None:
                receipt = shown_receipt(receipt, secrets_of(record.entry, receipt))
            name = result_id(history, one.task_id, 0)
            files = content.attachments_of_receipt(receipt)
            written = content.write_attachments(self._folder, name, mode, files)
            yield name, {"uuid": name} | earlier | {"attachments": written}
        yield stem, final

    def complete_group(self, item: pytest.Item, binding: Binding, result: TestResult) -> None:
        """Change allure-pytest's result of the test of a group of entries before it is written.

        A failed test is ``broken`` unless the group's outcome is ``failed``: the outcome of its
        entries is not known. The counts are parameters without part in the test's identity.
        """
        from allure_commons.model2 import Label, Parameter

        assert binding.group is not None
        context = self._context(binding.manifest)
        properties = {
            name.removeprefix("manifest_"): value
            for name, value in item.user_properties
            if name.startswith("manifest_")
        }
        if result.status == "failed" and properties.get("outcome") != "failed":
            result.status = "broken"
        others = attempt_results.other_parameters(item)
        result.historyId = history_id(context.scope, GROUP, binding.group, others)
        result.testCaseId = result.historyId
        result.parameters = [
            Parameter(name="group", value=visible(str(properties.get("group", "")))),
            *(one for one in result.parameters if one.name != BUILTIN_GROUP),
            *(
                Parameter(name=name.replace("_", " "), value=str(properties[name]), excluded=True)
                for name in ("run", *_COUNTS)
                if name in properties
            ),
        ]
        suites = attempt_results.SUITES
        result.labels = [one for one in result.labels if one.name not in suites]
        result.labels += [
            Label(name=name, value=visible(part))
            for name, part in zip(suites, _plan_of(context.manifest), strict=False)
        ]

    def _context(self, path: Path) -> _Context:
        known = self._contexts.get(path)
        if known is None or known.ledger is None:
            manifest, stored = self._report.load(path), self._report.ledgers().get(path)
            ledger = None if stored is None else Ledger.open(stored)
            name = short_path(manifest.path, self._report.options.root)
            info = None if ledger is None else ledger.info.read()
            known = _Context(manifest, self._scopes.get(path, path.name), name, ledger, info)
            self._contexts[path] = known
        return known

    def _subject(
        self, item: pytest.Item, result: TestResult, context: _Context, record: EntryRecord
    ) -> attempt_results.Subject:
        others = attempt_results.other_parameters(item)
        test = BUILTIN if is_builtin(item) else str(result.fullName)
        found = {} if context.ledger is None else read_trees(context.ledger, record.attempts, MOST)
        return attempt_results.Subject(
            own=attempt_results.own_result(
                item,
                result,
                self._title(item, result, record),
                history_id(context.scope, test, record.id, others),
                [*_plan_of(context.manifest), record.entry.task],
            ),
            location=f"{context.name}:{record.line}",
            planned_at=None if context.info is None else context.info.created_at,
            live=not self._report.options.audit,
            run=None if context.info is None else context.info.run,
            trees={root: step_of_tree(tree) for root, tree in found.items()},
        )

    def _title(self, item: pytest.Item, result: TestResult, record: EntryRecord) -> str:
        """Return the name that the test has given itself, else the entry's id and title.

        The test function's name is added where several tests verify the entry.
        """
        if result.name != item.name:
            return str(result.name)
        title = record.meta.get("title")
        name = f"{record.id}: {title}" if isinstance(title, str) and title else record.id
        binding = binding_of(item)
        if binding is not None and self._tests[binding.manifest, record.id] > 1:
            name = f"{name} ({getattr(item, 'originalname', None) or item.name})"
        return name


def _plan_of(manifest: Manifest) -> list[str]:
    """Return the workflow (else the stem of the manifest's file) and the mode, if there is one."""
    parts = [manifest.header.workflow or manifest.path.stem, manifest.header.mode]
    return [part for part in parts if part]


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

    ``repetition``: how often this attempt was judged before, as pytest-rerunfailures does.
    """
    found = _digest(json.dumps([history, task_id, repetition]))
    return f"{found[:8]}-{found[8:12]}-{found[12:16]}-{found[16:20]}-{found[20:]}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:32]
