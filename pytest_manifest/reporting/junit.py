"""Change pytest's JUnit report so that the test cases of entries describe their jobs.

pytest writes how long a test took, which for an entry is the milliseconds of reading its verdict.
The file is changed after pytest has written it, test case by test case: the reports themselves keep
their durations, so ``--durations`` and other plugins are unaffected, with xdist too.
"""

from __future__ import annotations

import os
import re
import stat
import xml.etree.ElementTree as ET  # nosec B405  # reads what pytest has written
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

import pytest

from pytest_manifest.errors import ManifestToolError
from pytest_manifest.manifest.writer import atomic_file

if TYPE_CHECKING:
    from pytest_manifest.reporting.run_report import RunReport
    from pytest_manifest.run import Run

PREFIX: Final = "manifest_"
"""Prefix of the names of our properties."""
_BRACKETS: Final = re.compile(r"\[(?=\[)|\](?=\])")
_ILLEGAL: Final = re.compile("[^\t\n\r -~\x80-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML does not allow, and DEL, which pytest escapes with them."""
_SUITE: Final = re.compile(r"(<testsuite\b[^>]*?)(/?)>")
STRICT: Final = "xunit2"
"""The family whose schema has no properties of test cases."""
CHUNK: Final = 1 << 20
"""Characters of the report that are read at once."""
CASE: Final = "<testcase"
LAST: Final = b"</testsuites>"
"""What pytest writes last."""
TAIL: Final = 64
"""Bytes in which that is looked for."""


class JobsInReport:
    """Change pytest's report after pytest has written it."""

    def __init__(self, config: pytest.Config, report: RunReport) -> None:
        self._config = config
        self._report = report
        self._path = report_path(config)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_sessionfinish(self) -> Generator[None, object, object]:
        # Innermost, so that plugins that read the report at the session's end find it changed.
        before = _stamp(self._path)
        try:
            return (yield)
        except OSError as error:
            # Raised on, it would take the place of the summary, which names the verdicts, or of
            # the sentence that says why nothing was sent.
            if self._path is None or _is_whole(self._path, before):
                raise
            self._report.note_unwritten(f"{self._path}: pytest could not write its report: {error}")
        finally:  # also where another plugin's report has failed
            runs = self._report.runs
            if runs and self._path is not None and _is_whole(self._path, before):
                try:
                    describe_jobs(self._config, self._path, runs)
                except (ManifestToolError, OSError, ET.ParseError, UnicodeError) as error:
                    self._report.notices.append(f"{self._path} says nothing of jobs: {error}")
        return None


def report_path(config: pytest.Config) -> Path | None:
    """Return the file that pytest writes its report to; None where it writes none."""
    given = config.getoption("xmlpath", None)
    if not given or hasattr(config, "workerinput"):
        return None
    return Path(config.invocation_params.dir, os.path.expanduser(os.path.expandvars(given)))  # noqa: PTH111 - as pytest reads it


def _is_whole(path: Path, before: tuple[int, int, int] | None) -> bool:
    """Return whether pytest has written the report to its end since it had that stamp."""
    if _stamp(path) in (None, before):
        return False
    with path.open("rb") as file:
        file.seek(-min(TAIL, path.stat().st_size), os.SEEK_END)
        return file.read().rstrip().endswith(LAST)


def _stamp(path: Path | None) -> tuple[int, int, int] | None:
    """Return inode, time and size, which change when the file is written; None if it is no file."""
    if path is None or not path.is_file():
        return None
    found = path.stat()
    return found.st_ino, found.st_mtime_ns, found.st_size


def describe_jobs(config: pytest.Config, path: Path, runs: Sequence[Run]) -> None:
    """Change the report that pytest has written to ``path``.

    Each entry's test case gets the job's own ``time``. Under ``junit_family=xunit1`` it keeps its
    properties and gets a ``timestamp``; the schema of ``xunit2`` knows neither of a test case, so
    there the properties are lines ``[[PROPERTY|name=value]]`` of its ``system-out``.
    Raises ManifestError where the file cannot be written.
    """
    strict = config.getini("junit_family") == STRICT

    def changed(text: str) -> str:
        if f'"{PREFIX}' not in text:
            return text
        case = ET.fromstring(escaped(text))  # noqa: S314 - pytest has written it
        if properties := _own_properties(case):
            _describe_job(case, properties, strict=strict)
        return ET.tostring(case, encoding="unicode")

    mode = stat.S_IMODE(path.stat().st_mode)  # pytest's own file: as shared as pytest has made it
    with path.open(encoding="utf-8", newline="") as written, atomic_file(path, mode) as file:
        for part in rewritten(written, _properties(runs), changed):
            file.write(part.encode())


def rewritten(file: TextIO, properties: str, changed: Callable[[str], str]) -> Iterator[str]:
    """Yield the parts of a report, with these properties of its suite, and each case changed."""
    parts = _parts(file)
    yield _with_properties(next(parts, ""), properties)
    for part in parts:
        yield changed(part) if part.startswith(CASE) else part


def _parts(file: TextIO) -> Iterator[str]:
    """Yield the text before the first test case, then each test case, then the rest.

    pytest escapes whatever it writes, so that only its own tags have angle brackets.
    """
    text, at = "", 0
    more = True
    while more:
        chunk = file.read(CHUNK)
        text, at, more = text[at:] + chunk, 0, bool(chunk)
        if not text.startswith(CASE) and more:
            start = text.find(CASE)
            if start < 0:
                continue
            yield text[:start]
            at = start
        while (end := _end_of_case(text, at)) > 0:
            yield text[at:end]
            at = end
    yield text[at:]


def _end_of_case(text: str, start: int) -> int:
    """Return the end of the test case at ``start``; -1 if none begins there or it is cut off."""
    tag = text.find(">", start) if text.startswith(CASE, start) else -1
    if tag < 0 or text[tag - 1] == "/":
        return tag if tag < 0 else tag + 1
    closing = "</testcase>"
    end = text.find(closing, tag)
    return end if end < 0 else end + len(closing)


def _with_properties(head: str, properties: str) -> str:
    before, closing, after = head.rpartition("</properties>")
    if closing:
        return before + properties + closing + after
    every = f"<properties>{properties}</properties>"
    return _SUITE.sub(lambda tag: f"{tag[1]}>{every}{'</testsuite>' if tag[2] else ''}", head)


def _properties(runs: Sequence[Run]) -> str:
    rows = (
        row
        for run in runs
        for row in ((f"{PREFIX}run", run.info.run), (f"{PREFIX}ledger", str(run.ledger_path)))
    )
    elements = (ET.Element("property", name=name, value=escaped(value)) for name, value in rows)
    return "".join(ET.tostring(one, encoding="unicode") for one in elements)


def escaped(text: str) -> str:
    """Escape the characters that XML does not allow, as pytest does: ``#x1B``."""
    return _ILLEGAL.sub(lambda match: f"#x{ord(match[0]):02X}", text)


def _own_properties(case: ET.Element) -> dict[str, str]:
    """Return our properties of a test case; none if it is not an entry's."""
    found = ((prop.get("name", ""), prop.get("value", "")) for prop in case.iter("property"))
    return {name: value for name, value in found if name.startswith(PREFIX)}


def _describe_job(case: ET.Element, properties: Mapping[str, str], *, strict: bool) -> None:
    runtime = properties.get(f"{PREFIX}runtime")
    case.set("time", f"{max(0.0, float(runtime or 0)):.3f}")
    if strict:
        _move_properties(case, properties)
    elif started := properties.get(f"{PREFIX}started_at"):
        case.set("timestamp", started)


def _move_properties(case: ET.Element, properties: Mapping[str, str]) -> None:
    """Take our properties out of ``case``, where the schema has no place for them.

    Those that a test has recorded itself stay: pytest has warned of them.
    """
    for group in case.findall("properties"):
        for prop in list(group):
            if prop.get("name", "").startswith(PREFIX):
                group.remove(prop)
        if not len(group):
            case.remove(group)
    lines = [f"[[PROPERTY|{name}={_one_line(value)}]]" for name, value in properties.items()]
    # Many readers read the first one alone.
    output = case.find("system-out")
    if output is None:
        output = ET.SubElement(case, "system-out")
    before = f"{output.text.rstrip()}\n" if output.text else ""
    output.text = before + "\n".join(lines) + "\n"


def _one_line(text: str) -> str:
    """Return the value on one line, with the double brackets broken up.

    Readers take ``]]`` for the property's end, and ``[[`` for another instruction (attachments).
    """
    return _BRACKETS.sub(r"\g<0> ", " ".join(text.splitlines()))
