"""What the schema that pytest's ``xunit2`` follows allows, as far as reports can offend it.

Stated after Jenkins' xunit plugin, whose readers refuse a whole file over one element too many.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import Final

_TIME: Final = re.compile(r"(([0-9]{0,3},)*[0-9]{3}|[0-9]{0,3})*(\.[0-9]*)?")
_CASE_PARTS: Final = {"skipped", "error", "failure", "system-out", "system-err"} | {
    f"{how}{what}" for how in ("rerun", "flaky") for what in ("Failure", "Error")
}
_SUITE_ATTRIBUTES: Final = {
    *("name", "tests", "failures", "errors", "group", "time", "skipped", "timestamp", "hostname"),
    *("id", "package", "file", "log", "url"),
}
_CHILDREN: Final[dict[str, set[str]]] = {
    "testsuites": {"testsuite"},
    "testsuite": {"testsuite", "properties", "testcase", "system-out", "system-err"},
    "testcase": _CASE_PARTS,
    "properties": {"property"},
}
_ATTRIBUTES: Final[dict[str, set[str]]] = {
    "testsuites": {"name", "time", "tests", "failures", "errors"},
    "testsuite": _SUITE_ATTRIBUTES,
    "testcase": {"name", "time", "classname", "group"},
    "property": {"name", "value"},
} | {part: {"type", "message"} for part in _CASE_PARTS - {"system-out", "system-err"}}
_REQUIRED: Final[dict[str, set[str]]] = {
    "testsuite": {"name", "tests", "failures", "errors"},
    "testcase": {"name"},
    "property": {"name", "value"},
}
_WITH_TEXT: Final = _CASE_PARTS


def offences(root: ET.Element) -> Iterator[str]:
    """Everything that the schema does not allow; none for a report that is valid."""
    if root.tag not in ("testsuites", "testsuite"):
        yield f"the root is {root.tag}"
    for element in root.iter():
        tag = element.tag
        for child in element:
            if child.tag not in _CHILDREN.get(tag, set()):
                yield f"{child.tag} in {tag}"
        names = set(element.attrib)
        yield from (f"{tag}@{name}" for name in names - _ATTRIBUTES.get(tag, set()))
        yield from (f"{tag} without @{name}" for name in _REQUIRED.get(tag, set()) - names)
        if tag in ("testsuites", "testsuite") and not _TIME.fullmatch(element.get("time", "")):
            yield f"{tag}@time={element.get('time')!r}"
        if tag not in _WITH_TEXT and (element.text or "").strip():
            yield f"text in {tag}"
