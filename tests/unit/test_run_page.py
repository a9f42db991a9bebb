"""The run page as a file: its data, that nothing in them is markup, how large it becomes."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import tracemalloc
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from pytest_manifest.analysis.causes import Causes
from pytest_manifest.analysis.comparison import compare
from pytest_manifest.analysis.records import EntryRecord
from pytest_manifest.errors import LedgerError
from pytest_manifest.reporting.run_page import page as page_module
from pytest_manifest.reporting.run_page.columns import Columns, pauses
from pytest_manifest.reporting.run_page.page import BLOCK, write_page
from pytest_manifest.schema import ErrorInfo, Mismatch, Receipt
from pytest_manifest.text import pictured
from tests.run_page_sample import BEGAN, FIRST_AGAIN, HOSTILE, about, run_info, sample_records


class Page(HTMLParser):
    """A page taken apart as a browser does: elements by name, scripts and styles with texts."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text = path.read_text("utf-8")
        self.names: list[str] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.styles: list[str] = []
        self.policy = ""
        self.title = ""
        self._open: tuple[str, dict[str, str | None]] | None = None
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        found = dict(attrs)
        if found.get("http-equiv") == "Content-Security-Policy":
            self.policy = found["content"] or ""
        self._open = (tag, found)

    def handle_data(self, data: str) -> None:
        tag, attributes = self._open or ("", {})
        if tag == "script":
            self.scripts.append((attributes, data))
        elif tag == "style":
            self.styles.append(data)
        elif tag == "title":
            self.title += data

    def handle_endtag(self, tag: str) -> None:
        self._open = None

    def script(self, name: str) -> str:
        """The text of the script element with this id."""
        return next(text for attributes, text in self.scripts if attributes.get("id") == name)

    @property
    def data(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.script("data"))
        return document

    def details(self) -> list[dict[str, Any]]:
        """Every entry's details, in order."""
        found: list[dict[str, Any]] = []
        for block in range(self.data["details"]["blocks"]):
            packed = base64.b64decode(self.script(f"details-{block}"))
            found += json.loads(gzip.decompress(packed))
        return found


def written(path: Path, records: Sequence[EntryRecord], **facts: Any) -> Page:
    """A page about these records."""
    file = path / "run.html"
    write_page(file, about(records, **facts), iter(records))
    return Page(file)


@pytest.fixture(scope="module")
def records() -> list[EntryRecord]:
    return list(sample_records(450, bad=0.1))


def test_every_entry_is_a_row_and_has_details(tmp_path: Path, records: list[EntryRecord]) -> None:
    """In the manifest's order; the details in blocks of which the last is shorter."""
    page = written(tmp_path, records)
    data = page.data
    assert data["rows"]["id"] == [record.id for record in records]
    assert data["details"] == {"size": BLOCK, "blocks": 3}
    kinds = [data["names"]["kinds"][kind] for kind in data["rows"]["kind"]]
    assert kinds == [record.kind for record in records]
    details = page.details()
    assert len(details) == len(records)
    first = records[0]
    assert json.loads(details[0]["kwargs"]) == first.entry.kwargs
    assert json.loads(details[0]["expected"]) == {"result": first.entry.expect.result}
    assert first.receipt is not None
    assert json.loads(details[0]["actual"])["result"] == first.receipt.result
    assert details[0]["log"].splitlines() == first.receipt.log


def test_times_are_seconds_since_the_run_was_made(
    tmp_path: Path, records: list[EntryRecord]
) -> None:
    """Rows tell the judged attempt, bars every attempt that began."""
    data = written(tmp_path, records).data
    last = records[7].last
    assert last is not None
    assert last.sent_at is not None
    assert data["run"]["created"] == BEGAN.isoformat()
    assert data["rows"]["sent"][7] == pytest.approx(0.0028)
    assert data["rows"]["runtime"][7] == pytest.approx(last.runtime, rel=1e-3)
    bars = data["bars"]
    began = [a for record in records for a in record.attempts if a.started_at is not None]
    assert len(bars["row"]) == len(began)
    twice = [bar for bar, row in enumerate(bars["row"]) if row == FIRST_AGAIN]
    assert [bars["number"][bar] for bar in twice] == [1, 1]
    assert bars["end"][twice[0]] is None
    assert bars["end"][twice[1]] > bars["start"][twice[1]]


def test_what_a_worker_s_death_has_ended_has_no_end(tmp_path: Path) -> None:
    """Of its attempt only the moment is known in which that was noticed; its cause says it once."""
    [record] = sample_records(1, bad=1.0, seed=5)
    assert record.verdict is not None
    assert record.receipt is not None
    verdict = record.verdict.model_copy(update={"verdict": "crashed", "mismatches": []})
    error = ErrorInfo(type="WorkerLostError", message="exitcode 9")
    receipt = record.receipt.model_copy(update={"state": "crashed", "error": error})
    noticed = replace(record.attempts[0], runtime=None)
    died = replace(record, verdict=verdict, receipt=receipt, attempts=(noticed,), error_place=None)
    data = written(tmp_path, [died]).data
    assert data["bars"]["end"] == [None]
    [cause] = data["figures"]["causes"]
    assert (cause["kind"], cause["title"]) == ("crashed", "crashed: WorkerLostError")


def test_the_figures_are_the_statistics(tmp_path: Path, records: list[EntryRecord]) -> None:
    """Counts, tasks, causes, workers and advice are told as they were found."""
    found = written(tmp_path, records, findings=["One worker ended."]).data
    figures = found["figures"]
    passed = sum(record.outcome == "passed" for record in records)
    assert figures["outcomes"]["passed"] == passed
    assert sum(task["count"] for task in figures["tasks"]) == len(records)
    assert sum(cause["count"] for cause in figures["causes"]) == sum(
        record.outcome in ("failed", "error") for record in records
    )
    assert len(figures["workers"]) == 8
    assert len(figures["slowest"]) == 5
    assert found["run"]["remarks"] == ["One worker ended."]
    assert figures["advice"]


def test_every_failure_has_its_cause_and_its_reason(
    tmp_path: Path, records: list[EntryRecord]
) -> None:
    """A row names the cause that it was counted for, and says in a line what went wrong."""
    data = written(tmp_path, records).data
    rows, causes = data["rows"], data["figures"]["causes"]
    assert len(causes) > 3
    for place, cause in enumerate(causes):
        assert rows["cause"].count(place) == cause["count"]
    reasons = data["names"]["reasons"]
    for record, cause, told in zip(records, rows["cause"], rows["reason"], strict=True):
        assert (cause < 0) == (record.outcome not in ("failed", "error"))
        assert (told < 0) == (record.outcome == "passed")
    raised = next(at for at, record in enumerate(records) if record.error_place)
    expected = f"UnsupportedImageError: catalogue/{raised:06}.png: 16 bits a channel"
    assert reasons[rows["reason"][raised]] == expected


@pytest.mark.parametrize(
    ("values", "causes"),
    [
        ("1111222", [0, 0, 0, 0, 1, 1, 1]),  # the same few again and again: a cause each
        ("1222222", [1, 0, 0, 0, 0, 0, 0]),
        ("123456789", [0] * 9),  # always another one: one cause
        ("x1x11", [1, 0, 1, 0, 0]),
    ],
)
def test_a_row_has_the_cause_of_its_own_difference(values: str, causes: list[int]) -> None:
    """Where the same values come again they are causes of their own, else the place is."""
    [record] = sample_records(1, bad=1.0, seed=5)
    assert record.verdict is not None
    groups, columns = Causes(), Columns(BEGAN)
    for value in values:
        differs = Mismatch(path="result.a", expected="0", actual=value)
        verdict = record.verdict.model_copy(update={"verdict": "failed", "mismatches": [differs]})
        failed = replace(record, verdict=verdict, receipt=None)
        groups.add(failed.id, failed.verdict, failed.receipt)
        columns.add(failed)
    columns.number_causes(groups.largest_first())
    assert columns.rows["cause"] == causes


@pytest.mark.parametrize(
    ("spans", "found"),
    [
        ([], []),
        ([(0, 1)], []),
        ([(0, 1), (5, 6)], []),  # too short, whatever the rest
        ([(0, 10), (20, 30)], []),  # not as long as what ran
        ([(0, 10), (31, 41)], [(10, 31)]),
        ([(0, 1), (100, 101), (250, 251)], [(1, 100), (101, 250)]),
        ([(0, 300), (1, 2), (100, 101), (900, 901)], [(300, 900)]),  # another worked meanwhile
        ([(n * 30, n * 30 + 1) for n in range(100)], []),  # a job now and then is no pause
        ([(0, None), (60, None)], [(0, 60)]),
        ([(0, -5), (None, 3)], []),  # clocks differ, and what never began is not looked at
    ],
)
def test_a_pause_is_longer_than_all_that_ran(
    spans: list[tuple[float | None, float | None]], found: list[tuple[float, float]]
) -> None:
    """Where the run was gone on with; what is slow, or waits a little, has none."""
    starts, ends = [start for start, _ in reversed(spans)], [end for _, end in reversed(spans)]
    assert pauses(starts, ends) == found


def test_a_comparison_is_in_the_page(tmp_path: Path, records: list[EntryRecord]) -> None:
    """Entries that changed, with their number where not all are listed."""
    before = sample_records(450, bad=0.0)
    comparison = compare(before, records, before_run="earlier", after_run="later")
    found = written(tmp_path, records, comparison=comparison).data["comparison"]
    assert found["before"]["run"] == "earlier"
    assert found["newly_failing"]["count"] == len(comparison.newly_failing) > 0
    first = comparison.newly_failing[0]
    assert found["newly_failing"]["items"][0]["id"] == first.id
    assert written(tmp_path, records).data["comparison"] is None


def test_hostile_text_is_no_markup(tmp_path: Path) -> None:
    """The page has the same elements, whatever stands in ids, arguments, logs and errors."""
    nasty = list(sample_records(300, hostile=True, bad=0.3))
    page = written(tmp_path, nasty, findings=HOSTILE)
    plain = written(tmp_path, list(sample_records(300, bad=0.3)))
    assert page.names == plain.names
    assert page.data["rows"]["id"][0] == nasty[0].id
    shown = json.dumps(page.details(), ensure_ascii=False)
    for text in HOSTILE[:3]:
        assert json.dumps(pictured(text), ensure_ascii=False)[1:-1] in shown
    assert "␛[31mred␛[0m ␀ \\\\u202egnp.exe" in shown
    assert "\\u202egnp.exe \\u2028 ?" in page.data["run"]["remarks"][3]
    assert "\x1b" not in shown
    assert "\u202e" not in shown


def test_a_title_is_text(tmp_path: Path) -> None:
    """The workflow's name may hold anything printable."""
    info = replace(run_info(0), workflow="</title><script>", mode="a&b{{data}}")
    path = tmp_path / "run.html"
    write_page(path, about((), info=info), iter(()))
    assert Page(path).title == f"</title><script>:a&b{{{{data}}}} - run {info.run}"


def test_the_policy_allows_the_page_s_own_parts_alone(
    tmp_path: Path, records: list[EntryRecord]
) -> None:
    """Everything is forbidden but styles and scripts whose digests it names, and they are these."""
    page = written(tmp_path, records)
    rules = dict(rule.strip().partition(" ")[::2] for rule in page.policy.split(";"))
    assert rules["default-src"] == "'none'"
    scripts = [text for attributes, text in page.scripts if "type" not in attributes]
    assert rules["script-src"].split() == [digest_of(text) for text in scripts]
    assert rules["style-src"].split() == [digest_of(text) for text in page.styles]
    types = {attributes.get("type") for attributes, _ in page.scripts}
    assert types == {None, "text/plain", "application/json"}


def digest_of(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_the_page_asks_for_nothing_from_elsewhere(
    tmp_path: Path, records: list[EntryRecord]
) -> None:
    """No address is loaded: no element, style or source map names one."""
    page = written(tmp_path, records)
    assert not {"link", "img", "iframe", "object", "embed", "base"} & set(page.names)
    assert not re.search(r'<script[^>]+src=|sourceMappingURL|@import|url\(\s*["\']?http', page.text)
    assert "Permission is hereby granted" in page.text


def long_records(count: int, size: int) -> Iterator[EntryRecord]:
    """Passed entries, and one that failed, with results and logs that cannot be compressed."""
    import random

    rng = random.Random(3)
    for number, record in enumerate(sample_records(count, bad=0.0)):
        receipt = record.receipt
        assert receipt is not None
        noise = base64.b64encode(rng.randbytes(size)).decode()
        longer: Receipt = receipt.model_copy(update={"result": noise, "log": [noise, "the end"]})
        failed = number == 1
        yield replace(record, receipt=longer, outcome="failed" if failed else "passed")


def test_long_texts_are_shortened_and_it_is_said(tmp_path: Path) -> None:
    """A result by its beginning, a log by its end; what failed shows more."""
    page = written(tmp_path, list(long_records(3, 200_000)))
    one, failed, _ = page.details()
    assert len(one["result"]) < 25_000 < len(failed["result"])
    assert one["left_out"]["result"] > 200_000
    assert one["log"].endswith("\nthe end")
    assert one["left_out"]["log"] > 200_000


def test_ten_thousand_entries_stay_small_whatever_they_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where texts cannot be compressed, they are cut shorter, the longer it goes on."""
    monkeypatch.setattr(page_module, "DETAILS_BUDGET", 450_000)
    path = tmp_path / "run.html"
    write_page(path, about(long_records(1000, 3000)), long_records(1000, 3000))
    packed = sum(
        len(text) for found, text in Page(path).scripts if found.get("type") == "text/plain"
    )
    assert 150_000 < packed < 1_300_000


def test_memory_does_not_grow_with_what_entries_hold(tmp_path: Path) -> None:
    """Details go into the file block by block; what stays is a row an entry."""
    few = peak_of(tmp_path, 250)
    many = peak_of(tmp_path, 850)
    assert many < few + 2_000_000  # 600 entries more, of 10 kB each


def peak_of(folder: Path, count: int) -> int:
    facts = about(sample_records(count))
    tracemalloc.start()
    write_page(folder / "run.html", facts, long_records(count, 4000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_an_empty_run_and_one_that_nobody_judged_have_pages(tmp_path: Path) -> None:
    """Nothing to show is shown, and what was not judged is pending."""
    assert written(tmp_path, []).data["rows"]["id"] == []
    [record] = sample_records(1, bad=0.0)
    open_ = replace(record, verdict=None, receipt=None, outcome="pending", attempts=())
    page = written(tmp_path, [open_])
    assert page.data["names"]["kinds"] == ["pending"]
    assert page.details()[0]["attempts"] == []
    assert page.data["bars"]["row"] == []


def test_clocks_that_differ_do_no_harm(tmp_path: Path) -> None:
    """A worker's clock may be an hour behind: the bar then stands before the run."""
    [record] = sample_records(1, bad=0.0)
    [attempt] = record.attempts
    assert attempt.started_at is not None
    early = replace(attempt, started_at=attempt.started_at - timedelta(hours=1), wait=-3599.0)
    data = written(tmp_path, [replace(record, attempts=(early,))]).data
    assert data["bars"]["start"][0] < -3599


def test_a_page_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    """Whole or not at all; a folder that cannot be made is named."""
    path = tmp_path / "run.html"
    path.write_text("old", "utf-8")

    def broken() -> Iterator[EntryRecord]:
        yield from sample_records(BLOCK + 1)
        raise LedgerError("the ledger is gone")

    with pytest.raises(LedgerError, match="gone"):
        write_page(path, about(sample_records(1)), broken())
    assert path.read_text("utf-8") == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["run.html"]
