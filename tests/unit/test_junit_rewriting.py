"""JUnit: pytest's report is taken apart wherever what is read at once ends."""

from __future__ import annotations

import io
import os
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from pytest_manifest.reporting import junit

OWN = '<property name="own" value="&lt;testcase &gt;" />'
CASES = (
    '<testcase classname="c" name="a" time="0.1" />',
    (
        '<testcase classname="c" name="&lt;b&gt;">'
        '<failure message="m">x &lt;/testcase&gt;</failure></testcase>'
    ),
    '<testcase classname="c" name="c"><properties /></testcase>',
)
HEAD = '<?xml version="1.0" encoding="utf-8"?><testsuites name="pytest tests">'


def report(head: str, cases: tuple[str, ...] = CASES) -> str:
    return f"{HEAD}<testsuite name='p'>{head}{''.join(cases)}</testsuite></testsuites>"


@pytest.mark.parametrize("chunk", [1, 7, 50, 1 << 20])
@pytest.mark.parametrize("head", ["", f"<properties>{OWN}</properties>"], ids=["none", "own"])
def test_each_case_is_seen_whole_and_all_else_stays(
    monkeypatch: pytest.MonkeyPatch, chunk: int, head: str
) -> None:
    """And the suite has the properties, behind those that it had."""
    monkeypatch.setattr(junit, "CHUNK", chunk)
    seen: list[str] = []

    def changed(case: str) -> str:
        seen.append(case)
        return case

    ours = '<property name="manifest_run" value="r" />'
    written = "".join(junit.rewritten(io.StringIO(report(head)), ours, changed))
    own = OWN if head else ""
    assert written == report(f"<properties>{own}{ours}</properties>")
    assert tuple(seen) == CASES


def test_a_suite_without_tests_has_the_properties() -> None:
    empty = f'{HEAD}<testsuite name="pytest" /></testsuites>'
    written = "".join(junit.rewritten(io.StringIO(empty), "<property />", str))
    assert (
        ET.fromstring(written.partition("?>")[2]).find("testsuite/properties/property") is not None
    )


def test_what_is_no_plain_file_is_left_alone(tmp_path: Path) -> None:
    """A pipe can be read once, by whoever waits for it; opening it here would wait for ever."""
    pipe, file = tmp_path / "pipe.xml", tmp_path / "j.xml"
    os.mkfifo(pipe)
    file.write_text(report(""), "utf-8")
    assert [junit._is_whole(path, None) for path in (pipe, Path(os.devnull), file)] == [
        False,
        False,
        True,
    ]
