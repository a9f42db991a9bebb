"""The gap filling for real: planned, dispatched, verified and audited by what a person types."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil
import pytest

from tests.support import eventually
from tests.workflows.crud_load import ROOT
from tests.workflows.filling_support import bible_at, documents

pytestmark = pytest.mark.live

PASSAGES = 30
SESSION_SECONDS = 600
"""Time for one pytest with workers, also where the machine has other work; it takes seconds."""
SLOW = {
    "TEXT_MODEL_LATENCY": "0.5",
    "TEXT_MODEL_CONCURRENCY": "1",
    "GAP_FILL_PASSAGES_PER_CALL": "2",
}
"""Settings under which a batch of 30 passages takes 7.5 s, in 15 steps."""


@dataclass(frozen=True)
class Project:
    """The project with a database, manifest and ledgers of its own, all in ``folder``."""

    folder: Path

    @property
    def manifest(self) -> Path:
        return self.folder / "m.jsonl"

    def pytest(
        self,
        *arguments: str,
        code: int | None = 0,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.command(*arguments),
            cwd=ROOT,
            env=self.environment(env),
            capture_output=True,
            text=True,
            timeout=SESSION_SECONDS,
            check=False,
        )
        assert code is None or done.returncode == code, done.stdout + done.stderr
        return done

    def command(self, *arguments: str) -> list[str]:
        fixed = ["--manifest-workers=2", "-p", "no:cacheprovider"]
        for name in ("manifest_dir", "manifest_plans"):
            fixed += ["-o", f"{name}={self.folder}/runs"]
        return [sys.executable, "-m", "pytest", *arguments, *fixed]

    def environment(self, changes: Mapping[str, str] | None = None) -> dict[str, str]:
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(
                ("CELERY_", "MANIFEST_", "PYTEST_XDIST", "GAP_FILL_", "TEXT_MODEL")
            )
            and name not in {"DATABASE_URL", "GEMINI_API_KEY", "GOOGLE_API_KEY"}
        }
        url = f"sqlite:///{self.database}"
        return {**inherited, "NO_COLOR": "1", "GAP_FILL_DATABASE_URL": url, **(changes or {})}

    @property
    def database(self) -> Path:
        return self.folder / "bible.sqlite3"

    def plan(self, *options: str, env: Mapping[str, str] | None = None) -> str:
        named = [f"--manifest-plan-opt={option}" for option in options]
        arguments = ["--manifest-plan=gap_fill", f"--manifest={self.manifest}", *named]
        return self.pytest(*arguments, env=env).stdout

    def sql(self, statement: str) -> list[tuple[object, ...]]:
        with closing(sqlite3.connect(self.database)) as connection, connection:
            return connection.execute(statement).fetchall()

    def keep(self) -> Path:
        """Copy the database as it is now."""
        kept = self.folder / "kept.sqlite3"
        _copy(self.database, kept)
        return kept

    def change(self, kept: Path, statements: str) -> None:
        """Put the database back as it was kept, and have the statements carried out."""
        _copy(kept, self.database)
        with closing(sqlite3.connect(self.database)) as connection:
            connection.executescript(statements)

    def revisions(self) -> list[int]:
        """How often each row was written; one number a row."""
        return [int(str(row[0])) for row in self.sql("SELECT revision FROM annotation")]


def _copy(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as read, closing(sqlite3.connect(target)) as written:
        read.backup(written)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    bible_at(tmp_path, documents(PASSAGES)).close()
    return Project(tmp_path)


def failed(done: subprocess.CompletedProcess[str]) -> set[str]:
    """The tests that failed, by name and entry number."""
    return {
        re.sub(r"\[(?:fill|orphans)-0*(\d+).*|\[.*", lambda m: f"[{m[1]}]" if m[1] else "", name)
        for name in re.findall(r"^FAILED \S*?::(\S+)", done.stdout, re.MULTILINE)
    }


def test_load_plan_run_and_no_gap_is_left(project: Project) -> None:
    """Nothing is left to plan then, and the same batch is not bought a second time."""
    planned = project.plan("batch=10")
    assert "gaps: 30 passages; 30 without a row" in planned
    assert "estimated cost 0" in planned
    done = project.pytest(f"--manifest={project.manifest}")
    assert re.search(r"9 passed", done.stdout), done.stdout
    again = project.pytest("--manifest-plan=gap_fill", "--manifest-plan-run")
    assert "no gap: 30 passages, and nothing is missing" in again.stdout
    assert "nothing was sent" in again.stdout
    bought = project.pytest(f"--manifest={project.manifest}", code=4)
    assert "--manifest-rerun" in bought.stderr


def test_under_xdist_and_of_what_is_selected_only(project: Project) -> None:
    """The tests of a whole run look at the selected entries, and not at the gaps of the others."""
    project.plan("batch=10")
    chosen = "fill-00002 or counts or twice or orphan or other_model or gap_is or cost"
    done = project.pytest(f"--manifest={project.manifest}", "-n", "2", "-k", chosen)
    assert re.search(r"7 passed", done.stdout), done.stdout
    counted = project.pytest("--manifest-plan=gap_fill", f"--manifest={project.folder}/rest.jsonl")
    assert "gaps: 30 passages; 20 without a row" in counted.stdout


BEHIND_OUR_BACK: Final[Mapping[str, set[str]]] = {
    "UPDATE annotation SET summary = 'changed' WHERE passage_id = 'film-0015/plot'": {
        "test_rows_of_batch[2]"
    },
    "UPDATE annotation SET run = 'another' WHERE passage_id = 'film-0015/plot'": {
        "test_rows_of_batch[2]"
    },
    "UPDATE annotation SET tokens_in = tokens_in + 1 WHERE passage_id = 'film-0025/plot'": {
        "test_rows_of_batch[3]"
    },
    "UPDATE annotation SET revision = revision + 1 WHERE passage_id = 'film-0015/plot'": {
        "test_no_row_is_written_twice"
    },
    "DELETE FROM annotation WHERE passage_id = 'film-0001/plot'": {
        *("test_rows_of_batch[1]", "test_row_counts", "test_no_planned_gap_is_left")
    },
    "DELETE FROM passage WHERE id = 'film-0001/plot'": {
        *("test_rows_of_batch[1]", "test_no_row_is_an_orphan")
    },
    "UPDATE passage SET text = 'new' WHERE id = 'film-0001/plot'": {
        *("test_rows_of_batch[1]", "test_no_planned_gap_is_left")
    },
    "UPDATE annotation_writing SET answered_by = 'x' WHERE passage_id = 'film-0015/plot'": {
        *("test_rows_of_batch[2]", "test_no_other_model_has_answered")
    },
    # A row that is there twice, as where the rule that forbids it was lost with a copied table.
    """
    ALTER TABLE annotation RENAME TO kept;
    CREATE TABLE annotation AS SELECT * FROM kept;
    INSERT INTO annotation SELECT * FROM kept WHERE passage_id = 'film-0011/plot';
    """: {"test_no_row_is_written_twice", "test_row_counts"},
}
"""What somebody does to the database of a run that has passed, and the tests that notice it."""


def test_what_happens_behind_our_back_turns_the_right_tests_red(project: Project) -> None:
    """One run, whose database is put back as it was before each change.

    Another database is an error, and no failure of its rows.
    """
    project.plan("batch=10")
    project.pytest(f"--manifest={project.manifest}")
    kept = project.keep()
    red = {}
    for statements in ("", *BEHIND_OUR_BACK):
        project.change(kept, statements)
        code = 1 if statements else 0
        audited = project.pytest(f"--manifest={project.manifest}", "--manifest-audit", code=code)
        red[statements] = failed(audited)
    assert red == {"": set(), **BEHIND_OUR_BACK}
    (project.folder / "other").mkdir()
    bible_at(project.folder / "other", documents(PASSAGES)).close()
    other = {"GAP_FILL_DATABASE_URL": f"sqlite:///{project.folder}/other/bible.sqlite3"}
    audited = project.pytest(
        f"--manifest={project.manifest}", "--manifest-audit", code=1, env=other
    )
    assert "the worker used another database than this process does" in audited.stdout


def test_orphans_are_removed_where_that_is_asked_for(project: Project) -> None:
    project.plan()
    project.pytest(f"--manifest={project.manifest}")
    project.sql("DELETE FROM passage WHERE id = 'film-0001/plot'")
    second = project.folder / "second.jsonl"
    planned = project.pytest(
        "--manifest-plan=gap_fill",
        f"--manifest={second}",
        "--manifest-plan-opt=orphans=remove",
        "--manifest-plan-run",
    )
    assert "rows without a passage: of 1 passage (film-0001/plot): removed" in planned.stdout
    assert "no gap: 29 passages" in project.pytest("--manifest-plan=gap_fill").stdout


def test_a_worker_with_another_model_refuses_and_writes_nothing(project: Project) -> None:
    project.plan("batch=30", env={"GEMINI_API_KEY": "planned-with-a-key"})
    done = project.pytest(f"--manifest={project.manifest}", code=1)
    assert "was planned for gemini-3.5-flash-lite (google-genai), and this worker is" in done.stdout
    assert (
        "gaps: 30 passages; 30 without a row" in project.pytest("--manifest-plan=gap_fill").stdout
    )


def test_a_batch_whose_time_is_over_keeps_what_it_has_and_goes_on(project: Project) -> None:
    """30 passages that take 7.5 s, by a job that may take 4: each sending gets further."""
    project.plan("batch=30", "timeout=4")
    done = project.pytest(f"--manifest={project.manifest}", code=1, env=SLOW)
    match = re.search(r"its time was over: (\d+) of 30 passages are filled and commi", done.stdout)
    assert match is not None, done.stdout
    filled = int(match[1])
    assert 0 < filled < 30
    assert len(project.revisions()) == filled
    while done.returncode != 0:
        done = project.pytest(
            f"--manifest={project.manifest}", "--manifest-resume", code=None, env=SLOW
        )
        before, filled = filled, len(project.revisions())
        assert filled > before, done.stdout
    assert project.revisions() == [1] * 30
    # What an earlier sending has written is held against the database as well.
    audit = (f"--manifest={project.manifest}", "--manifest-audit")
    project.sql("UPDATE annotation SET summary = 'changed' WHERE passage_id = 'film-0001/plot'")
    assert failed(project.pytest(*audit, code=1)) == {"test_rows_of_batch[1]"}


def test_after_a_crash_only_what_is_left_is_filled(project: Project) -> None:
    """pytest is killed in the middle; rows that are there are neither asked for nor written."""
    project.plan("batch=15")
    running = subprocess.Popen(
        project.command(f"--manifest={project.manifest}"),
        cwd=ROOT,
        env=project.environment(SLOW),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        eventually(lambda: len(project.revisions()) >= 4, within=60, what="the first rows")
    finally:
        running.kill()
        running.wait()
    there = len(project.revisions())
    assert there < PASSAGES
    done = project.pytest(f"--manifest={project.manifest}", "--manifest-resume", env=SLOW)
    assert "failed" not in done.stdout
    assert project.revisions() == [1] * PASSAGES


def test_a_worker_that_is_killed_costs_nothing_twice(project: Project) -> None:
    """The harness sends its batch again, which fills the rest."""
    project.plan("batch=15")
    running = subprocess.Popen(
        project.command(f"--manifest={project.manifest}"),
        cwd=ROOT,
        env=project.environment(SLOW),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        eventually(lambda: len(project.revisions()) >= 4, within=60, what="the first rows")
        busy = [p for p in psutil.Process(running.pid).children(recursive=True) if _works(p)]
        assert busy, "no process of the pool was found"
        busy[0].kill()
        printed, _ = running.communicate(timeout=120)
    finally:
        running.kill()
        running.wait()
    assert running.returncode == 0, printed
    assert "further sendings: 1 crashed" in printed
    assert project.revisions() == [1] * PASSAGES


def _works(process: psutil.Process) -> bool:
    """Whether it is a process of a pool: the child of a worker, and itself without one."""
    parent = process.parent()
    return parent is not None and "worker" in parent.cmdline() and not process.children()
