"""JUnit: pytest's own report, where the test cases of entries tell of their jobs.

pytest writes what a test took, which for an entry is the milliseconds of reading its verdict. That
is changed in the finished elements alone, just before pytest writes them: reports keep their own
durations, so ``--durations`` and every other plugin say what they always say, with xdist too.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import pytest
from _pytest.junitxml import bin_xml_escape, xml_key

if TYPE_CHECKING:
    from pytest_manifest.run import Run

PREFIX: Final = "manifest_"
"""What the names of our properties begin with."""
_BRACKETS: Final = re.compile(r"\[(?=\[)|\](?=\])")
STRICT: Final = "xunit2"
"""The family whose schema has no properties of test cases."""


def tell_of_jobs(config: pytest.Config, runs: Sequence[Run]) -> None:
    """Change what pytest is about to write: to be called before its report writer is told to.

    Each entry's test case gets the job's own ``time``. Under ``junit_family=xunit1`` it keeps its
    properties and gets a ``timestamp``; the schema of ``xunit2`` knows neither of a test case, so
    there the properties are lines ``[[PROPERTY|name=value]]`` of its ``system-out``.
    """
    xml = config.stash.get(xml_key, None)
    if xml is None:
        return
    for run in runs:
        xml.add_global_property(f"{PREFIX}run", run.info.run)
        xml.add_global_property(f"{PREFIX}ledger", str(run.ledger_path))
    for reporter in xml.node_reporters_ordered:
        case = reporter.to_xml()
        if facts := _facts(case):
            _tell(case, facts, strict=xml.family == STRICT)


def _facts(case: ET.Element) -> dict[str, str]:
    """Our properties of a test case; none where it is no entry's."""
    found = ((prop.get("name", ""), prop.get("value", "")) for prop in case.iter("property"))
    return {name: value for name, value in found if name.startswith(PREFIX)}


def _tell(case: ET.Element, facts: Mapping[str, str], *, strict: bool) -> None:
    runtime = facts.get(f"{PREFIX}runtime")
    case.set("time", f"{max(0.0, float(runtime or 0)):.3f}")
    # pytest does not look at the name of a file, which may have any character in it.
    for name, value in case.attrib.items():
        case.set(name, bin_xml_escape(value))
    if strict:
        _move_properties(case, facts)
    elif started := facts.get(f"{PREFIX}started_at"):
        case.set("timestamp", started)


def _move_properties(case: ET.Element, facts: Mapping[str, str]) -> None:
    """Take our properties out of ``case``, where the schema has no place for them.

    Those that a test has recorded itself stay: pytest has warned of them.
    """
    for group in case.findall("properties"):
        for prop in list(group):
            if prop.get("name", "").startswith(PREFIX):
                group.remove(prop)
        if not len(group):
            case.remove(group)
    lines = [f"[[PROPERTY|{name}={_one_line(value)}]]" for name, value in facts.items()]
    # Many readers look at the first one alone.
    output = case.find("system-out")
    if output is None:
        output = ET.SubElement(case, "system-out")
    before = f"{output.text.rstrip()}\n" if output.text else ""
    output.text = before + "\n".join(lines) + "\n"


def _one_line(text: str) -> str:
    """A value that no reader takes to be over too soon, or to ask for something (attachments)."""
    return _BRACKETS.sub(r"\g<0> ", " ".join(text.splitlines()))
