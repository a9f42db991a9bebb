"""Turn tests of entries into results: one for each attempt, the last one judged by the test."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pytest

from pytest_manifest.analysis.records import EntryRecord
from pytest_manifest.bindings import Binding
from pytest_manifest.manifest import Manifest
from pytest_manifest.reporting.allure import attachments, identity, own
from pytest_manifest.reporting.allure import result as made
from pytest_manifest.reporting.allure.ledgers import Ledgers
from pytest_manifest.reporting.allure.marks import issue_addresses
from pytest_manifest.reporting.allure.steps import Json
from pytest_manifest.reporting.allure.told import Raw, Told
from pytest_manifest.reporting.run_report import RunReport
from pytest_manifest.text import short_path


@dataclass(frozen=True, slots=True)
class _Known:
    """A manifest, and what all its entries have in common."""

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
        self._ledgers = Ledgers(report)
        self._scopes: dict[Path, str] = {}
        self._manifests: dict[Path, _Known] = {}
        self._tests: Mapping[tuple[Path, str | None], int] = {}
        self._issue = issue_addresses(config)

    def close(self) -> None:
        self._ledgers.close()

    def note_collected(
        self, manifests: Iterable[Path], tests: Mapping[tuple[Path, str | None], int]
    ) -> None:
        """Load the manifests of the collected tests; ``tests`` counts the tests of each entry."""
        loaded = [self._report.load(path) for path in sorted(manifests)]
        self._scopes = identity.scopes(loaded, self._report.options.root)
        self._tests = tests

    def results(self, several: Sequence[Told]) -> Iterator[tuple[str, Json]]:
        """Yield ``(file's stem, result)`` of all attempts at these entries, the last one last.

        Raises ManifestToolError if manifest or ledger cannot be read.
        """
        by_manifest: dict[Path, list[Told]] = {}
        for told in several:
            by_manifest.setdefault(told.binding.manifest, []).append(told)
        for path, tests in by_manifest.items():
            known = self._known(path)
            ids = dict.fromkeys(told.entry for told in tests)
            records = self._ledgers.records(known.manifest, list(ids))
            for told in tests:
                yield from self._results(told, known, records[told.entry])

    def _results(
        self, told: Told, known: _Known, record: EntryRecord
    ) -> Iterator[tuple[str, Json]]:
        subject = self._subject(told, known, record)
        said = own.of(told)
        last = made.last_sent(record)
        papers = attachments.small_papers(record)
        final = made.final(record, subject, said, last, self._issue, papers)
        for one, result in made.earlier(record, subject, said, final):
            receipt = self._ledgers.receipt(told.binding.manifest, one.task_id)
            stem = identity.result_id(subject.history, one.task_id, 0)
            written = attachments.write(self._folder, stem, attachments.of_receipt(receipt))
            yield stem, {"uuid": stem} | result | {"attachments": written}
        task_id = last.task_id if last is not None else f"{subject.run}"
        stem = identity.result_id(subject.history, task_id, told.turn)
        files = attachments.of_last(record) if papers is None else iter(())
        written = attachments.write(self._folder, stem, files)
        # allure-pytest's containers name the tests of a fixture by this id of its own.
        final |= {"uuid": told.raw.uuid, "attachments": [*written, *said.attachments]}
        yield stem, final

    def tell_group(self, raw: Raw, item: pytest.Item, binding: Binding) -> None:
        """Complete allure-pytest's result of the test of a group of entries."""
        from pytest_manifest.reporting.allure.groups import tell_group

        assert binding.group is not None
        known = self._known(binding.manifest)
        others = own.others(item)
        history = identity.history_id(known.scope, identity.GROUP, binding.group, others)
        tell_group(raw, item, history, _plan_of(known.manifest))

    def _known(self, path: Path) -> _Known:
        if path not in self._manifests:
            manifest = self._report.load(path)
            info = self._ledgers.info(path)
            self._manifests[path] = _Known(
                manifest,
                self._scopes.get(path, path.name),
                short_path(manifest.path, self._report.options.root),
                None if info is None else info.created_at,
                None if info is None else info.run,
            )
        return self._manifests[path]

    def _subject(self, told: Told, known: _Known, record: EntryRecord) -> made.Subject:
        name = own.full_name(told)
        builtin = told.is_builtin
        test = identity.BUILTIN if builtin else name
        others = own.others(told.item)
        return made.Subject(
            history=identity.history_id(known.scope, test, record.id, others),
            full_name=name,
            title=self._title(told, record),
            hierarchy=_hierarchy(known, record.entry.task),
            place=f"{known.name}:{record.line}",
            builtin=builtin,
            planned_at=known.planned_at,
            live=not self._report.options.audit,
            others=others,
            run=known.run,
        )

    def _title(self, told: Told, record: EntryRecord) -> str:
        """Return the name that the test has given itself, else the entry's id and title.

        The test function's name is added where several tests verify the entry.
        """
        item = told.item
        if told.raw.name != item.name:
            return told.raw.name
        title = record.meta.get("title")
        name = f"{record.id}: {title}" if isinstance(title, str) and title else record.id
        if self._tests.get((told.binding.manifest, record.id), 1) > 1:
            name = f"{name} ({getattr(item, 'originalname', None) or item.name})"
        return name


def _hierarchy(known: _Known, task: str) -> Sequence[str]:
    """Return workflow, mode and task, without those that are missing."""
    if task not in known.hierarchies:
        known.hierarchies[task] = [*_plan_of(known.manifest), task]
    return known.hierarchies[task]


def _plan_of(manifest: Manifest) -> list[str]:
    """Return the workflow (else the stem of the manifest's file) and the mode, if there is one."""
    parts = [manifest.header.workflow or manifest.path.stem, manifest.header.mode]
    return [part for part in parts if part]
