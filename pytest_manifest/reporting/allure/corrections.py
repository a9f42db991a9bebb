"""Rewrite results that were written before a late receipt changed their verdict."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_manifest.analysis.reading import read_some
from pytest_manifest.analysis.records import EntryRecord
from pytest_manifest.reporting.allure import attachments, identity
from pytest_manifest.reporting.allure import result as made
from pytest_manifest.reporting.allure.description import doc_of
from pytest_manifest.reporting.allure.own import Own
from pytest_manifest.reporting.allure.steps import Json
from pytest_manifest.reporting.allure.writing import write_result

if TYPE_CHECKING:
    from pytest_manifest.run import Run

Result = dict[str, Any]
"""A result as it is in its file: Allure's own format."""

_TASK: Final = re.compile(rb'"task id",\s*"value":\s*"([^"]*)"')
_END: Final = "-result.json"


def rewrite_corrected(
    folder: Path, run: Run, name: str, issue: Callable[[str], str | None]
) -> None:
    """Rewrite the results in ``folder`` of entries whose verdict was corrected in this run.

    The process that ends the run calls this: the xdist workers, which wrote the results, have
    exited by then. ``name``: the manifest's name; ``issue`` returns an issue's address. Raises
    OSError or ManifestToolError.
    """
    entries = list(dict.fromkeys(one.verdict.entry for one in run.corrections))
    if not entries:
        return
    with run.read() as ledger:
        records = read_some(ledger, run.manifest, entries)
    attempts = {one.task_id: record for record in records if (one := made.last_sent(record))}
    for path, record in _of_attempts(folder, attempts):
        old: Result = json.loads(path.read_text("utf-8"))
        if _verdict(old) == record.kind:
            continue
        stem = path.name.removesuffix(_END)
        theirs = [one for one in old["attachments"] if not one["source"].startswith(stem)]
        papers = attachments.small_papers(record)
        place = f"{name}:{record.line}"
        subject, own = _subject(old, run, place), _own(old, record, theirs)
        new = made.final(record, subject, own, made.last_sent(record), issue, papers)
        for stale in folder.glob(f"{stem}-*-attachment.*"):
            stale.unlink()
        files = attachments.of_last(record) if papers is None else iter(())
        written = attachments.write(folder, stem, files)
        write_result(folder, stem, new | {"uuid": old["uuid"], "attachments": [*written, *theirs]})


def _of_attempts(
    folder: Path, attempts: Mapping[str, EntryRecord]
) -> Iterator[tuple[Path, EntryRecord]]:
    for path in sorted(folder.glob(f"*{_END}")):
        found = _TASK.search(path.read_bytes())
        record = None if found is None else attempts.get(found[1].decode())
        if record is not None:
            yield path, record


def _verdict(old: Result) -> Any:
    return dict(_pairs(old)).get("verdict")


def _pairs(old: Result) -> list[tuple[str, str]]:
    return [(one["name"], one["value"]) for one in old["labels"]]


def _subject(old: Result, run: Run, place: str) -> made.Subject:
    return made.Subject(
        history=old["historyId"],
        full_name=old["fullName"],
        title=old["name"],
        hierarchy=old["titlePath"],
        place=place,
        builtin=str(old["fullName"]).endswith(f"#{identity.BUILTIN}"),
        planned_at=run.info.created_at,
        live=True,
        others=[
            (one["name"], one["value"])
            for one in old["parameters"]
            if not one.get("excluded") and one["name"] != made.ENTRY
        ],
        run=run.info.run,
    )


def _own(old: Result, record: EntryRecord, files: list[Json]) -> Own:
    """Recover what the test itself had reported from the result that was made of it."""
    details = old.get("statusDetails", {})
    verified = [step for step in old["steps"] if step["name"] == made.VERIFIED]
    itself = verified[0] if verified else old
    return Own(
        status=old["status"],
        message=details.get("message"),
        trace=details.get("trace"),
        start=itself["start"],
        stop=itself["stop"],
        seen=_verdict(old),
        doc=doc_of(old["description"], record.entry),
        html=old.get("descriptionHtml"),
        labels=[pair for pair in _pairs(old) if pair[0] not in made.OF_AN_ATTEMPT],
        links=[(one["type"], one["url"], one["name"]) for one in old["links"]],
        parameters=[
            one
            for one in old["parameters"]
            if one.get("excluded") and one["name"] not in made.FACTS
        ],
        steps=[step for one in verified for step in one.get("steps", ())],
        attachments=files,
    )
