"""From a test of an entry to its results: one for each attempt, the last one judged by the test."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from pytest_manifest.analysis.records import AttemptRecord, EntryRecord
from pytest_manifest.face.bindings import BUILTIN_ENTRY, Binding
from pytest_manifest.face.session import ManifestSession, short_path
from pytest_manifest.manifest import Manifest
from pytest_manifest.reporting.allure import attachments, identity
from pytest_manifest.reporting.allure import result as made
from pytest_manifest.reporting.allure.ledgers import Ledgers
from pytest_manifest.reporting.allure.marks import issue_address
from pytest_manifest.reporting.allure.status import Status, status_of
from pytest_manifest.reporting.allure.steps import Json
from pytest_manifest.verdict import plain

_OURS = frozenset({BUILTIN_ENTRY, "entry", "manifest"})
_UNWANTED = frozenset({"host", "thread", "tag"})


@dataclass(frozen=True, slots=True)
class _Known:
    """A manifest, and what all its entries have in common."""

    manifest: Manifest
    scope: str
    name: str
    planned_at: datetime | None
    run: str | None


class Entries:
    """Makes results of entries, and writes what is attached to them into ``folder``."""

    def __init__(self, config: pytest.Config, state: ManifestSession, folder: Path) -> None:
        self._config = config
        self._state = state
        self._folder = folder
        self._ledgers = Ledgers(state)
        self._scopes: dict[Path, str] = {}
        self._manifests: dict[Path, _Known] = {}
        self._tests: Mapping[tuple[Path, str | None], int] = {}
        self._pattern = state.options.issue_link or ""

    def close(self) -> None:
        self._ledgers.close()

    def note_collected(
        self, manifests: Iterable[Path], tests: Mapping[tuple[Path, str | None], int]
    ) -> None:
        """``tests``: how many tests verify each entry."""
        loaded = [self._state.load(path) for path in sorted(manifests)]
        self._scopes = identity.scopes(loaded, self._state.options.root)
        self._tests = tests

    def results(
        self, item: pytest.Item, binding: Binding, raw: made.Raw, turn: int
    ) -> list[tuple[str, Json]]:
        """``(file's stem, result)`` of all attempts, the last one last."""
        assert binding.entry is not None
        known = self._known(binding.manifest)
        record = self._ledgers.record(known.manifest, binding.entry)
        subject = self._subject(item, binding, known, record, raw)
        sent = made.sent_attempts(record)
        last = sent[-1] if sent else None
        labels = made.labels(record, subject, last, _own_labels(item, raw))
        final = self._final(record, subject, raw, last) | {"labels": labels}
        found: list[tuple[str, Json]] = []
        for one, told in made.earlier(record, subject, raw, final, labels):
            receipt = self._ledgers.receipt(binding.manifest, one.task_id)
            stem = identity.result_id(subject.history, one.task_id, 0)
            told["attachments"] = attachments.write(
                self._folder, str(stem), attachments.of_receipt(receipt)
            )
            found.append((str(stem), {"uuid": str(stem)} | told))
        task_id = last.task_id if last is not None else f"{subject.run}"
        stem = identity.result_id(subject.history, task_id, turn)
        own = [_dict(one) for one in getattr(raw, "attachments", ())]
        written = attachments.write(self._folder, str(stem), _attached(record))
        final["attachments"] = [*written, *own]
        found.append((str(stem), {"uuid": str(stem)} | final))
        return found

    def _final(
        self,
        record: EntryRecord,
        subject: made.Subject,
        raw: made.Raw,
        last: AttemptRecord | None,
    ) -> Json:
        status = _status(record, raw)
        details = getattr(raw, "statusDetails", None)
        message, trace = getattr(details, "message", None), getattr(details, "trace", None)
        told = made.base(record, subject, raw, last) | made.times(last, raw, subject)
        told["status"] = status
        if said := made.verdict_details(record, status, message, trace):
            told["statusDetails"] = said
        told["parameters"] = made.parameters(record, subject, last)
        told["links"] = made.links(record, self._issue, _own_links(raw))
        own_steps = [_dict(step) for step in getattr(raw, "steps", ())]
        told["steps"] = made.all_steps(record, subject, raw, own_steps)
        return told

    def _known(self, path: Path) -> _Known:
        if path not in self._manifests:
            manifest = self._state.load(path)
            info = self._ledgers.info(path)
            self._manifests[path] = _Known(
                manifest,
                self._scopes.get(path, path.name),
                short_path(manifest.path, self._state.options.root),
                None if info is None else info.created_at,
                None if info is None else info.run,
            )
        return self._manifests[path]

    def _subject(
        self,
        item: pytest.Item,
        binding: Binding,
        known: _Known,
        record: EntryRecord,
        raw: made.Raw,
    ) -> made.Subject:
        builtin = BUILTIN_ENTRY in getattr(item, "fixturenames", ())
        test = identity.BUILTIN if builtin else str(raw.fullName)
        others = _others(item)
        return made.Subject(
            history=identity.history_id(known.scope, test, record.id, others),
            title=self._title(item, binding, record, raw),
            hierarchy=_hierarchy(known.manifest, record),
            place=f"{known.name}:{record.line}",
            doc=None if builtin else getattr(raw, "description", None),
            planned_at=known.planned_at,
            live=not self._state.options.audit,
            others=others,
            run=known.run,
        )

    def _title(
        self, item: pytest.Item, binding: Binding, record: EntryRecord, raw: made.Raw
    ) -> str:
        """The entry's id, and what else is needed to tell it from others; a test may say better."""
        if raw.name != item.name:
            return raw.name
        title = record.meta.get("title")
        name = f"{record.id}: {title}" if isinstance(title, str) and title else record.id
        if self._tests.get((binding.manifest, binding.entry), 1) > 1:
            name = f"{name} ({getattr(item, 'originalname', None) or item.name})"
        return name

    def _issue(self, name: str) -> str | None:
        if self._pattern:
            return issue_address(self._pattern, name)
        given = dict(getattr(self._config.option, "allure_link_pattern", ()))
        pattern = given.get("issue")
        return None if pattern is None else issue_address(pattern, name)


def _status(record: EntryRecord, raw: made.Raw) -> Status:
    """The verdict's status; where that is good, or there is none, the test's own."""
    if record.verdict is None:
        return "broken" if raw.status in ("failed", "broken") else raw.status or "skipped"
    if record.kind == "passed":
        return raw.status or "skipped"
    if raw.status == "passed" or (raw.status == "skipped" and record.kind != "skipped"):
        return raw.status  # expected to fail, or not run: the test's own word
    return status_of(record.kind)


def _hierarchy(manifest: Manifest, record: EntryRecord) -> list[str]:
    header = manifest.header
    parts = [header.workflow or manifest.path.stem, header.mode, record.entry.task]
    return [part for part in parts if part]


def _attached(record: EntryRecord) -> Iterator[attachments.Attachment]:
    if record.kind == "passed" and record.receipt is not None:
        yield from attachments.of_passed(record.entry, record.receipt)
        return
    yield from attachments.of_verdict(record.verdict)
    yield from attachments.of_receipt(record.receipt)
    yield attachments.of_entry(record.entry)


def _others(item: pytest.Item) -> list[tuple[str, str]]:
    callspec = getattr(item, "callspec", None)
    params: dict[str, Any] = {} if callspec is None else callspec.params  # a test's can be anything
    return [(name, plain(repr(value))) for name, value in params.items() if name not in _OURS]


def _own_labels(item: pytest.Item, raw: made.Raw) -> list[tuple[str, str]]:
    """What the test says of itself; not where pytest ran it, nor the folders that it lies in."""
    from allure_pytest.utils import allure_suite_labels  # type: ignore[import-untyped]  # no types

    folders = {(str(name), str(value)) for name, value in allure_suite_labels(item)}
    own = [(str(x.name), str(x.value)) for x in getattr(raw, "labels", ())]
    tags = set(_tags_of_entry(item))
    return [
        pair
        for pair in own
        if pair not in folders
        and (pair[0] not in _UNWANTED or (pair[0] == "tag" and pair[1] not in tags))
    ]


def _tags_of_entry(item: pytest.Item) -> Iterator[str]:
    callspec = getattr(item, "callspec", None)
    for mark in getattr(callspec, "marks", ()):
        yield mark.name


def _own_links(raw: made.Raw) -> list[tuple[str, str, str]]:
    return [(str(x.type), str(x.url), str(x.name)) for x in getattr(raw, "links", ())]


def _dict(thing: object) -> object:
    """A step or an attachment as allure-commons writes it."""
    from attr import asdict

    told: object = asdict(thing, filter=lambda _, value: bool(value) or value is False)  # type: ignore[arg-type]  # allure ships no types
    return told
