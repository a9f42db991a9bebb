"""The judge for real: rows in SQLite are graded by workers, held to thresholds, and shown."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

import pytest

from tasks.movie_bible.bible import BibleSettings, MovieBible, NewAnnotation
from tests.workflows.filling_support import PROMPT, bible_at
from tests.workflows.gemini_server import KEY, gemini_server
from tests.workflows.live.test_gap_fill import Project
from workflows.gap_fill.corpus import corpus_path, read_corpus
from workflows.gap_fill.spoiling import NOTICEABLE, rank, spoil_some_way

pytestmark = pytest.mark.live

ROWS = 100
"""Scenes and notes of the sample corpus; a tenth of their rows is spoiled."""


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A database whose rows a run of the offline model has filled, by a worker."""
    folder = tmp_path_factory.mktemp("judge")
    texts = [one for one in read_corpus(corpus_path("sample")) if one.kind != "plot"]
    bible_at(folder, texts[:ROWS]).close()
    project = Project(folder)
    project.pytest(
        "--manifest-plan=gap_fill:repair",
        f"--manifest={project.folder}/fill.jsonl",
        "--manifest-plan-opt=only=summary",
        "--manifest-plan-run",
    )
    return project


@pytest.fixture
def spoiled(filled: Project) -> Iterator[Mapping[str, str]]:
    """Spoil a tenth of the rows behind everybody's back; yield how, by passage. Undone after."""
    kept = filled.keep()
    with MovieBible.open(_settings(filled)) as bible:
        rows = [one for one in bible.scan(PROMPT.version) if one.current and one.current.summary]
        drawn = sorted(rows, key=lambda one: rank(4711, "spoil", one.id))
        found: dict[str, str] = {}
        for turn, one in enumerate(drawn[: len(rows) // 10]):
            assert one.current is not None
            other = drawn[-1 - turn].current
            assert other is not None
            made = spoil_some_way(one.current.values, other.values, NOTICEABLE, turn=turn)
            assert made is not None
            found[one.id] = made.kind
            bible.write([NewAnnotation(one.id, PROMPT.version, made.values)])
    yield found
    filled.change(kept, "")


def _settings(project: Project) -> BibleSettings:
    return BibleSettings(url=f"sqlite:///{project.database}")


def judged(
    project: Project, *arguments: str, code: int, env: Mapping[str, str] | None = None
) -> str:
    """Plan and run a judge; what pytest printed."""
    done = project.pytest(
        "--manifest-plan=gap_fill:judge",
        f"--manifest={project.manifest}",
        "--manifest-plan-run",
        f"--manifest-report={project.folder}/run.html",
        *arguments,
        code=code,
        env=env,
    )
    return done.stdout


def sections(project: Project) -> list[dict[str, object]]:
    """The sections that are added to the run page."""
    text = (project.folder / "run.html").read_text("utf-8")
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', text)
    assert match is not None
    found: list[dict[str, object]] = json.loads(match[1])["sections"]
    return found


def newest_receipts(project: Project) -> list[dict[str, object]]:
    path = max((project.folder / "runs").rglob("*.receipts.jsonl"))
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def grades_of(project: Project, kind: str) -> dict[str, int]:
    """By passage, the grades that the entries of this kind report."""
    found: dict[str, int] = {}
    for receipt in newest_receipts(project):
        result = receipt["result"]
        if str(receipt["entry"]).startswith(kind) and isinstance(result, dict):
            found |= {passage: one["grade"] for passage, one in result["grades"].items()}
    return found


def test_a_spoiled_tenth_is_told_from_the_rest(filled: Project, spoiled: Mapping[str, str]) -> None:
    """By a worker, over rows in the database; the page shows them beside their passages."""
    of = f"--manifest-plan-opt=of={filled.folder}/fill.jsonl"
    printed = judged(filled, of, "--manifest-plan-opt=at_least=0.95", code=1)
    assert "FAILED workflows/gap_fill/verify.py::test_quality" in printed
    assert printed.count("FAILED") == 1, printed
    grades = grades_of(filled, "judge-")
    low = {passage for passage, grade in grades.items() if grade < 4}
    right = low & set(spoiled)
    assert len(spoiled) >= 9
    assert len(right) / len(spoiled) == 1, set(spoiled) - low  # recall
    assert len(right) / len(low) == 1, low - set(spoiled)  # precision
    good, rows = len(grades) - len(low), len(grades)
    assert f"checks-1 graded {rows} rows: {good} (" in printed
    quality, worst = sections(filled)
    assert quality["title"] == "Grades"
    assert "Krippendorff's alpha" in str(quality["text"])
    shown = worst["rows"]
    assert isinstance(shown, list)
    assert set(spoiled) <= {row[1] for row in shown}
    assert len(shown) <= 20
    with MovieBible.open(_settings(filled)) as bible:
        passages = bible.scan_ids([row[1] for row in shown], PROMPT.version)
    assert all(row[3] == passages[row[1]].text for row in shown)
    assert all("summary: " in row[2] for row in shown)


def test_an_audit_holds_grades_against_rows_as_they_are_now(filled: Project) -> None:
    """Good rows pass; a row that is changed after it was graded turns its batch red."""
    filled.manifest.unlink(missing_ok=True)
    kept = filled.keep()
    printed = judged(filled, "--manifest-plan-opt=sample=20", code=0)
    assert "rows: 20 rows of" in printed
    [passage, *_] = grades_of(filled, "judge-00001")
    filled.change(
        kept, f"UPDATE annotation SET summary = 'Changed.' WHERE passage_id = '{passage}'"
    )
    audit = filled.pytest(f"--manifest={filled.manifest}", "--manifest-audit", code=1)
    filled.change(kept, "")
    red = set(re.findall(r"^FAILED \S*?::(\S+?)\[(\w+)-", audit.stdout, re.MULTILINE))
    assert red == {("test_grades_of_batch", "judge"), ("test_grades_of_batch", "second")}
    assert "its row was changed since it was graded" in audit.stdout


def test_a_judge_that_notices_nothing_is_asked_for_nothing_else(filled: Project) -> None:
    """A model behind a real SDK that praises everything: its control fails, the rest waits."""
    filled.manifest.unlink(missing_ok=True)
    with gemini_server() as server:
        env = {
            "GEMINI_API_KEY": KEY,
            "TEXT_MODEL_BASE_URL": server.url,
            "GAP_FILL_JUDGE": "google-genai",
            "GAP_FILL_JUDGE_NAME": "gemini-3.5-flash",
            "GAP_FILL_SECOND_JUDGE": "none",
        }
        options = ("--manifest-plan-opt=sample=20", "--manifest-plan-opt=controls=20")
        printed = judged(filled, *options, code=1, env=env)
    assert "JudgeUnfitError" in printed
    assert "of 20 rows that were spoiled on purpose gemini-3.5-flash graded 20 4 or" in printed
    [control] = newest_receipts(filled)
    assert control["entry"] == "control-1:gemini-3.5-flash"
    evidence = control["evidence"]
    assert isinstance(evidence, dict)
    assert evidence["cost"] > 0
    assert evidence["judge"]["calls"] == len(server.calls) >= 4
    assert KEY not in printed
