"""500 passages by the real SDKs, from a service that fails in every way: nothing is lost by it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import Final

import psycopg
import pytest
from pydantic import JsonValue

from tasks.filling.report import NANO, usd
from tasks.movie_bible.bible import BibleSettings, MovieBible
from tasks.movie_bible.fields import FIELDS, MOODS
from tasks.text_model.prices import PriceTable
from tasks.text_model.settings import DEFAULT_GEMINI
from tests.workflows.filling_support import PROMPT, bible_at, documents
from tests.workflows.gemini_server import KEY, GeminiServer, filled, gemini_server
from tests.workflows.gemini_support import cost_nanos
from tests.workflows.live.test_gap_fill import Project

pytestmark = pytest.mark.live

PASSAGES: Final = 500
SHARE: Final = 0.05
AT_MOST: Final = 2
"""How often one kind befalls a passage in a row."""
FAILURE_OF: Final[Mapping[str, str]] = {
    "rate_limited": "rate_limited",
    "unavailable": "unavailable",
    "server_error": "server_failed",
    "timeout": "timeout",
    "reset": "connection_failed",
    "malformed_json": "malformed_answer",
    "cut_off": "answer_cut_off",
    "empty": "empty_answer",
    "blocked_prompt": "prompt_blocked",
    "blocked_answer": "answer_blocked",
}
"""The failure that the receipts must count for each fault of a call that may be made again."""
OF_ITEMS: Final = ("missing", "doubled", "foreign", "invalid")
SHAPES: Final[Mapping[str, Mapping[str, JsonValue]]] = {
    "summary": {"type": "string"},
    "themes": {"type": "array"},
    "characters": {"type": "array"},
    "mood": {"enum": list(MOODS)},
}


@pytest.fixture
def server() -> Iterator[GeminiServer]:
    """Fails in each way that may pass with 5 % of the calls."""
    rates: dict[str, JsonValue] = dict.fromkeys([*FAILURE_OF, *OF_ITEMS], SHARE)
    script: dict[str, JsonValue] = {"rates": rates, "at_most": AT_MOST, "seed": 1979, "cached": 0.3}
    with gemini_server(script) as serving:
        yield serving


@pytest.fixture
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database of the kind that the test's parameter names."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/bible.sqlite3"
        return
    url: str = request.getfixturevalue("postgres_url")
    name = f"bible_{tmp_path.name}_{id(tmp_path)}".lower().replace("-", "_")[-60:]
    with ExitStack() as stack:
        admin = stack.enter_context(psycopg.connect(url, autocommit=True))
        admin.execute(f'CREATE DATABASE "{name}"'.encode())
        stack.callback(admin.execute, f'DROP DATABASE "{name}" WITH (FORCE)'.encode())
        yield f"{url.rpartition('/')[0]}/{name}"


# Each SDK and each database once: neither knows of the other.
@pytest.mark.parametrize(
    ("database", "sdk"),
    [
        pytest.param("postgres", "google-genai", marks=pytest.mark.postgres),
        ("sqlite", "google-generativeai"),
    ],
    indirect=["database"],
)
def test_five_per_cent_of_each_fault(
    tmp_path: Path, server: GeminiServer, database: str, sdk: str
) -> None:
    bible = MovieBible.open(BibleSettings(url=database))
    try:
        bible.load(documents(PASSAGES))
        receipts = _run(Project(tmp_path), server, database, sdk)
        results = [receipt["result"] for receipt in receipts]
        _check_rows(bible, sdk)
        _check_retries(server, results)
        _check_cost(server, bible, results)
    finally:
        bible.close()


def _run(
    project: Project, server: GeminiServer, database: str, sdk: str
) -> list[dict[str, dict[str, JsonValue]]]:
    environment = {
        "GAP_FILL_DATABASE_URL": database,
        "GAP_FILL_ASKS_ALONE": str(AT_MOST * len([*FAILURE_OF, *OF_ITEMS]) + 1),
        "GEMINI_API_KEY": KEY,
        "TEXT_MODEL": sdk,
        "TEXT_MODEL_BASE_URL": server.url,
        "TEXT_MODEL_TIMEOUT": "2",
        "TEXT_MODEL_ATTEMPTS": "20",
        "TEXT_MODEL_FIRST_WAIT": "0.01",
        "TEXT_MODEL_LONGEST_WAIT": "0.2",
    }
    project.plan("batch=25", env=environment)
    done = project.pytest(f"--manifest={project.manifest}", "--manifest-budget=5", env=environment)
    assert "26 passed" in done.stdout  # 20 batches, 6 tests of the run
    untold = server.faults["timeout"] + server.faults["reset"]
    assert f"{untold} calls may have been billed beyond the cost that is told" in done.stdout
    assert KEY not in done.stdout + done.stderr
    (exported,) = (project.folder / "runs" / "runs").glob("*.receipts.jsonl")
    text = exported.read_text("utf-8")
    assert KEY not in text
    return [json.loads(line) for line in text.splitlines()]


def _check_rows(bible: MovieBible, sdk: str) -> None:
    """Each row is what the service says of its very passage, and was written once."""
    ids = [one.id for one in documents(PASSAGES)]
    rows = bible.annotations(ids, PROMPT.version)
    assert sorted(rows) == ids
    for one in documents(PASSAGES):
        row = rows[one.id]
        expected = {name: filled(name, one.text, SHAPES[name]) for name in FIELDS}
        assert row.values == expected
        assert (row.revision, row.provider, row.model) == (1, sdk, DEFAULT_GEMINI)
        assert row.answered_by == DEFAULT_GEMINI
    assert bible.count_duplicates(PROMPT.version) == []


def _check_retries(server: GeminiServer, results: list[dict[str, JsonValue]]) -> None:
    """What the service has done, and what the receipts say that it has, are the same."""
    told: Counter[str] = Counter()
    for result in results:
        failures = result["failures"]
        assert isinstance(failures, dict)
        told.update({kind: int(str(number)) for kind, number in failures.items()})
    scripted = {FAILURE_OF[k]: n for k, n in server.faults.items() if k in FAILURE_OF}
    assert dict(told) == scripted
    assert set(scripted) == set(FAILURE_OF.values()), "a fault has not happened"
    assert set(server.faults) >= set(OF_ITEMS)
    assert sum(int(str(r["calls"])) for r in results) == len(server.calls)


def _check_cost(
    server: GeminiServer, bible: MovieBible, results: list[dict[str, JsonValue]]
) -> None:
    """To the token, and to the nano dollar: in the receipts, and as rows and waste."""
    tokens_in, tokens_out = server.billed
    told = [result["tokens"] for result in results if isinstance(result["tokens"], dict)]
    assert sum(int(str(one["in"])) for one in told) == tokens_in
    assert sum(int(str(one["out"])) for one in told) == tokens_out
    assert sum(int(str(one["cached"])) for one in told) == sum(c.cached for c in server.calls) > 0
    cost = sum(Decimal(str(result["cost"])) for result in results)
    asked = sum(map(cost_nanos, server.calls))
    assert int(cost * NANO) == asked
    wasted = [result["wasted"] for result in results if isinstance(result["wasted"], dict)]
    rows = bible.annotations([one.id for one in documents(PASSAGES)], PROMPT.version).values()
    in_rows = sum(row.tokens_in for row in rows)
    assert in_rows + sum(int(str(one["in"])) for one in wasted) == tokens_in
    nanos_in_rows = sum(row.cost_nanos for row in rows)
    waste = sum(Decimal(str(one["cost"])) for one in wasted)
    assert nanos_in_rows + int(waste * NANO) == asked


def test_a_budget_ends_a_run_in_its_middle(tmp_path: Path) -> None:
    """Thoughts make each answer dearer than was estimated: what is not begun is not sent."""
    bible_at(tmp_path, documents(100)).close()
    project = Project(tmp_path)
    with gemini_server({"thoughts": 1500, "latency": 0.05}) as server:
        environment = {"GEMINI_API_KEY": KEY, "TEXT_MODEL_BASE_URL": server.url}
        project.plan("batch=5", env=environment)
        budget = ("--manifest-budget=0.06",)
        done = project.pytest(f"--manifest={project.manifest}", *budget, code=1, env=environment)
        spent = PriceTable.load().price(DEFAULT_GEMINI)
        assert spent is not None
        cost = usd(spent.cost_nanos(*server.billed))
        assert cost < 0.06 + 4 * 0.01  # what four batches in flight may cost beyond their estimates
        assert "of a budget of 0.06" in done.stdout
        rows = len(project.revisions())
        assert 0 < rows < 100
        more = ("--manifest-resume", "--manifest-budget=1")
        project.pytest(f"--manifest={project.manifest}", *more, env=environment)
        assert project.revisions() == [1] * 100
