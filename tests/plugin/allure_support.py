"""Reads Allure results as Allure does."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pytest_manifest.ledger import Ledger
from pytest_manifest.schema import Receipt
from tests.plugin.conftest import Project

Result = dict[str, Any]  # Allure's own format
MEMORY = "--manifest-broker=memory://"
THOUSAND_IDS = [
    f"{word}{a}{b}{c}x"
    for word in ("key", "Key", "kEy", "keY", "KEY")
    for a in ".-_:/ ,;~@"
    for b in ".-_:/#,;~@"
    for c in "!?"
]
"""Ids of entries that differ in case and punctuation only."""


@dataclass(frozen=True)
class Results:
    """All results of a folder."""

    folder: Path
    all: list[Result]

    @property
    def history_ids(self) -> set[str]:
        return {str(one["historyId"]) for one in self.all}

    def by_entry(self) -> dict[str, list[Result]]:
        """The results of each entry, the last attempt last."""
        found: dict[str, list[Result]] = defaultdict(list)
        for one in self.all:
            if (entry := parameter(one, "entry")) is not None:
                found[entry].append(one)
        for several in found.values():
            several.sort(key=lambda one: (int(one["stop"]), int(one["start"])))
        return dict(found)

    def of(self, entry: str) -> Result:
        """The one that Allure shows: the last of its entry's."""
        return self.by_entry()[entry][-1]

    def identities(self) -> dict[str, str]:
        return {entry: str(found[-1]["historyId"]) for entry, found in self.by_entry().items()}

    def attached(self, result: Result, name: str) -> str:
        """The text of an attachment; fails where it is not there once."""
        (source,) = [str(a["source"]) for a in result.get("attachments", ()) if a["name"] == name]
        return (self.folder / source).read_text("utf-8")


def results(folder: Path) -> Results:
    files = sorted(folder.glob("*-result.json"))
    return Results(folder, [json.loads(path.read_text("utf-8")) for path in files])


def run(
    project: Project, *arguments: str, clean: bool = True, manifest: str = "m.jsonl"
) -> Results:
    """Run the manifest and read what it leaves in ``allure-results``."""
    fresh = ("--clean-alluredir",) if clean else ()
    project.run(f"--manifest={manifest}", "--alluredir=allure-results", *fresh, *arguments)
    return results(project.path / "allure-results")


def parameter(result: Result, name: str) -> str | None:
    """A parameter's value."""
    for one in result.get("parameters", ()):
        if one["name"] == name:
            return str(one["value"])
    return None


def labels(result: Result, name: str) -> list[str]:
    return [one["value"] for one in result["labels"] if one["name"] == name]


def label(result: Result, name: str) -> str:
    """The value of a label that is there once."""
    (value,) = labels(result, name)
    return value


def steps(result: Result) -> list[Result]:
    """All steps, with those within others."""
    return [one for step in result.get("steps", ()) for one in (step, *steps(step))]


def step_names(result: Result) -> list[str]:
    return [step["name"] for step in result["steps"]]


def papers(result: Result) -> list[Result]:
    """The JSON in a result's description: receipt and entry."""
    blocks = str(result["description"]).split("```json\n")[1:]
    return [json.loads(block.partition("\n```")[0]) for block in blocks]


def milliseconds(moment: datetime | None) -> int:
    assert moment is not None
    return int(moment.timestamp() * 1000)


def receipts(project: Project) -> dict[str, Receipt]:
    """The receipts in the newest ledger, by entry."""
    with Ledger.open(project.ledgers()[-1]) as ledger:
        return {
            s.verdict.entry: s.receipt
            for s in ledger.queries.all_verdicts()
            if s.receipt is not None
        }
