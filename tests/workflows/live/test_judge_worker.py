"""The judge's task in a worker of its own: what is planned is graded, a spoiled tenth is found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from celery import Celery
from pydantic import JsonValue

from pytest_manifest.manifest import write_manifest
from pytest_manifest.schema import Entry, Header
from pytest_manifest.testing import make_receipt, plan
from tasks.movie_bible.bible import MovieBible, NewAnnotation
from tests.workflows.filling_support import PROMPT, bible_at
from tests.workflows.live.test_rag_worker import worker
from workflows.gap_fill.corpus import corpus_path, read_corpus
from workflows.gap_fill.grades import grades_of
from workflows.gap_fill.plan import gap_fill_judge, gap_fill_repair
from workflows.gap_fill.spoiling import NOTICEABLE, rank, spoil_some_way
from workflows.gap_fill.worst_rows import worst_rows

pytestmark = pytest.mark.live

PASSAGES = 100


def carried_out(url: str, entries: list[Entry]) -> Iterator[tuple[Entry, JsonValue]]:
    """What a worker makes of each entry, one after the other."""
    with closing(Celery("client", broker=url, backend=url)) as app:
        for entry in entries:
            result = app.send_task(entry.task, kwargs=entry.kwargs)
            yield entry, result.get(timeout=120)


def spoil_a_tenth(bible: MovieBible) -> dict[str, str]:
    """Spoil rows behind everybody's back; return how each was."""
    rows = [one for one in bible.scan(PROMPT.version) if one.current and one.current.summary]
    drawn = sorted(rows, key=lambda one: rank(4711, "spoil", one.id))
    found: dict[str, str] = {}
    for turn, one in enumerate(drawn[: len(rows) // 10]):
        other = drawn[-1 - turn].current
        assert one.current is not None
        assert other is not None
        made = spoil_some_way(one.current.values, other.values, NOTICEABLE, turn=turn)
        assert made is not None
        found[one.id] = made.kind
        bible.write([NewAnnotation(one.id, PROMPT.version, made.values)])
    return found


def test_a_spoiled_tenth_is_told_from_the_rest(tmp_path: Path, valkey: str) -> None:
    """Rows in SQLite that a worker has filled and another job of it grades."""
    texts = [one for one in read_corpus(corpus_path("sample")) if one.kind != "plot"]
    with bible_at(tmp_path, texts[:PASSAGES]) as bible, worker(tmp_path, valkey):
        filling = plan(gap_fill_repair, bible, only="summary", batch=50)
        for _, result in carried_out(valkey, filling):
            assert isinstance(result, dict)
            assert result["unfilled"] == []
        spoiled = spoil_a_tenth(bible)
        assert len(spoiled) >= 9
        entries = plan(gap_fill_judge, bible, batch=50)
        receipts = [
            make_receipt(entry, result=result) for entry, result in carried_out(valkey, entries)
        ]
        manifest = write_manifest(tmp_path / "judge.jsonl", Header(), entries)
        grades = grades_of(manifest, receipts)
        low = {row.passage for row in grades.rows.values() if row.grades[0].grade < 4}
        assert low == set(spoiled), "precision and recall are 1"
        shown = worst_rows(grades, bible).rows
        assert {row[1] for row in shown} >= set(spoiled)
        assert len(shown) <= 20
        stored = bible.scan_ids([str(row[1]) for row in shown], PROMPT.version)
        assert [row[3] for row in shown] == [stored[str(row[1])].text for row in shown]


def test_a_judge_that_is_set_up_otherwise_refuses(tmp_path: Path, valkey: str) -> None:
    """Nothing is graded, and the error says what to set alike."""
    texts = list(read_corpus(corpus_path("sample")))[:10]
    with bible_at(tmp_path, texts) as bible, worker(tmp_path, valkey, GAP_FILL_JUDGE_NAME="x"):
        for _ in carried_out(valkey, plan(gap_fill_repair, bible)):
            pass
        entries = plan(gap_fill_judge, bible)
        with pytest.raises(Exception, match="there is no offline judge 'x'"):
            next(carried_out(valkey, entries))
