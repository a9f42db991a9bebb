"""Translate verdicts, tags and meta into Allure's statuses, categories, labels and links."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

import pytest
from pydantic import JsonValue

from pytest_manifest.schema import Entry
from pytest_manifest.schema.statuses import STATUSES, AllureStatus, VerdictStatus
from pytest_manifest.text import visible

CATEGORIES: Final[Sequence[tuple[str, str, tuple[AllureStatus, ...]]]] = tuple(
    (one.title, name, (one.allure,)) for name, one in STATUSES.items() if one.title
)
"""A category for each verdict that is not ``passed``: its name, the verdict, Allure's statuses."""


def status_of(verdict: VerdictStatus | None) -> AllureStatus:
    """Return ``failed`` for an expectation not met, ``broken`` for a fault of stack or harness."""
    return STATUSES[verdict or "pending"].allure


def message_of(verdict: VerdictStatus | None, sentence: str | None) -> str:
    """Return the message that Allure shows; categories match the verdict at its beginning."""
    return f"{verdict or 'pending'}: {sentence or 'it has no verdict'}"


SEVERITIES: Final = ("blocker", "critical", "normal", "minor", "trivial")
_LABELS: Final = ("severity", "owner", "epic", "feature", "story", "layer")
_ISSUES: Final = ("issue", "issues", "known_issue")


@dataclass(frozen=True, slots=True)
class Link:
    type: str
    url: str
    name: str


def labels_of(entry: Entry) -> Iterator[tuple[str, str]]:
    """Yield labels from ``meta`` (``{"severity": "critical"}``) or tags (``owner:ann``)."""
    for name in _LABELS if entry.meta or entry.tags else ():
        for value in _values(entry, name):
            if name != "severity" or value.lower() in SEVERITIES:
                yield name, value.lower() if name == "severity" else visible(value)


def links_of(entry: Entry, pattern: Callable[[str], str | None]) -> Iterator[Link]:
    """Yield issues and links from ``meta`` or tags (``issue:ABC-1``).

    ``pattern`` returns an issue's address by its name, None if it knows none.
    """
    if not (entry.meta or entry.tags):
        return
    seen: set[str] = set()
    for key in _ISSUES:
        for name in _values(entry, key):
            url = name if _is_address(name) else pattern(name)
            if url is not None and _is_address(url) and url not in seen:
                seen.add(url)
                yield Link("issue", url, visible(name))
    for key in ("link", "links"):
        for name in _values(entry, key):
            if _is_address(name) and name not in seen:
                seen.add(name)
                yield Link("link", name, visible(name))


def issue_addresses(config: pytest.Config) -> Callable[[str], str | None]:
    """Return a function from an issue's name to its address, or to None without a pattern."""
    pattern: str | None = config.getini("manifest_issue_link")
    if not pattern:
        pattern = dict(getattr(config.option, "allure_link_pattern", ())).get("issue")
    return lambda name: issue_address(pattern, name) if pattern else None


def issue_address(pattern: str, name: str) -> str:
    """Return the pattern with the issue's name, quoted, in place of ``{}``."""
    return pattern.replace("{}", quote(name, safe="/"))


def is_known(entry: Entry) -> bool:
    """Return whether a failure is known: ``"known_issue": true``, or with the issue's name."""
    return bool(entry.meta.get("known_issue")) or any(_tagged(entry, "known_issue"))


def _values(entry: Entry, name: str) -> Iterator[str]:
    value = entry.meta.get(name)
    for one in value if isinstance(value, list) else [value]:
        if (text := _text(one)) is not None:
            yield text
    yield from _tagged(entry, name)


def _text(value: JsonValue) -> str | None:
    if isinstance(value, dict):
        value = value.get("url") or value.get("name")
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return str(value).strip() or None


def _tagged(entry: Entry, name: str) -> Iterator[str]:
    for tag in entry.tags:
        key, colon, value = tag.partition(":")
        if colon and key == name and value.strip():
            yield value.strip()


def _is_address(text: str) -> bool:
    """Return whether the text is a web page's address, which cannot make a browser run code."""
    return text.startswith(("https://", "http://"))
