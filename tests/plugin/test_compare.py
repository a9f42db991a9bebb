"""``--manifest-compare``: what changed since an earlier run."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import Project
from tests.plugin.test_summary import MEMORY, block

LAST = "--manifest-compare=last"


def flaky(project: Project, *names: str, more: int = 0) -> None:
    """A manifest of jobs that fail where ``project.break_`` says so, and of some that double."""
    rows: list[dict[str, object]] = [
        {"id": name, "task": "jobs.flaky", "args": [name], "idempotent": True} for name in names
    ]
    rows += [{"id": f"d-{n}", "task": "jobs.double", "args": [n]} for n in range(more)]
    project.manifest("m.jsonl", rows)


def told(result: pytest.RunResult) -> list[str]:
    """The lines of the comparison."""
    lines = block(result)
    start = next(n for n, line in enumerate(lines) if line.startswith("  since run "))
    return lines[start : lines.index("", start)]


@pytest.mark.ring(2)
def test_what_changed_since_the_last_run_is_told(project: Project) -> None:
    """Verdicts, entries, results and costs, as the runs' records have them."""
    jobs = (project.path / "jobs.py").read_text("utf-8")
    project.write("jobs.py", jobs.replace('"type": "number"', '"cost": 2'))
    flaky(project, "a", "b", "c", "gone", more=1)
    mended, held = project.break_("a"), project.break_("b")
    project.run("--manifest=m.jsonl", MEMORY)
    first = project.ledgers()[-1].stem
    mended.unlink()
    project.break_("c")
    project.break_("new")
    project.write("jobs.py", jobs.replace('"type": "number"', '"cost": 3'))
    flaky(project, "a", "b", "c", "new", "new-good", more=1)
    result = project.run("--manifest=m.jsonl", MEMORY, LAST)
    result.assert_outcomes(passed=3, failed=3)
    assert held.exists()
    assert told(result) == [
        f"  since run {first}",
        "    3 of 6 passed, 3 of 5 before",
        "    2 newly failing",
        "      c  passed -> failed",
        "      new  not there -> failed",
        "    1 fixed",
        "      a  failed -> passed",
        "    1 still failing: b",
        "    2 added: new, new-good",
        "    1 removed: gone",
        "    1 other results: d-0",
        "    cost 2 -> 3 (+50%)",
    ]


def test_a_first_run_has_nothing_to_be_compared_with(project: Project) -> None:
    """That is said, and is no failure: one command serves the first run and all later ones."""
    project.doubles(count=2)
    result = project.run("--manifest=m.jsonl", MEMORY, LAST)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["  there is no earlier run of m.jsonl to compare with"])


@pytest.mark.ring(2)
def test_the_run_to_compare_with_is_named_or_the_one_before(project: Project) -> None:
    """By its id or its ledger; an audit of an earlier run is compared with the one before that."""
    flaky(project, "a")
    project.break_("a")
    for _ in range(3):
        project.run("--manifest=m.jsonl", MEMORY)
    first, second, third = project.ledgers()
    audit = ("--manifest=m.jsonl", "--manifest-audit")
    for name in (first.stem, str(first.relative_to(project.path)), str(first)):
        lines = told(project.run(*audit, f"--manifest-compare={name}"))
        assert lines[0] == f"  since run {first.stem}"
        assert lines[2] == "    1 still failing: a"
    lines = told(project.run(*audit, f"--manifest-run={second.stem}", LAST))
    assert lines[0] == f"  since run {first.stem}"
    itself = project.run(*audit, f"--manifest-compare={third.stem}")
    itself.stdout.fnmatch_lines([f"  run {third.stem} was not compared with itself"])


@pytest.mark.ring(2)
def test_a_resumed_run_is_compared_with_the_one_before_it(project: Project) -> None:
    flaky(project, "a", "b")
    project.run("--manifest=m.jsonl", MEMORY)
    first = project.ledgers()[-1].stem
    broken = project.break_("a")
    project.run("--manifest=m.jsonl", MEMORY)
    broken.unlink()
    project.break_("b")
    lines = told(project.run("--manifest=m.jsonl", MEMORY, "--manifest-resume", LAST))
    assert lines[0] == f"  since run {first}"
    assert lines[2:] == ["    no difference that counts"]  # b has passed, and was not run again


@pytest.mark.ring(2)
def test_an_earlier_run_that_cannot_be_read_is_told_and_stops_nothing(project: Project) -> None:
    project.doubles(count=1)
    project.run("--manifest=m.jsonl", MEMORY)
    (copy,) = project.ledgers()[0].parent.glob("*.manifest.jsonl")
    copy.write_text("no manifest", encoding="utf-8")
    result = project.run("--manifest=m.jsonl", MEMORY, LAST)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["  it was not compared with an earlier run: *manifest.jsonl:1: *"])


@pytest.mark.ring(2)
def test_quietly_it_is_a_phrase(project: Project) -> None:
    flaky(project, "a", "b")
    project.run("--manifest=m.jsonl", MEMORY)
    first = project.ledgers()[-1].stem
    project.break_("a")
    result = project.run("--manifest=m.jsonl", MEMORY, LAST, "-q", "--tb=no")
    result.stdout.fnmatch_lines(
        [f"m.jsonl: run *, 2 entries: *; 1 newly failing since run {first}"]
    )


@pytest.mark.ring(2)
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--manifest-compare=nowhere"], "*nowhere: there is no such run, and no such file*"),
        (["--manifest-compare=jobs.py"], "*jobs.py: this is not a ledger that can be read*"),
        (["--manifest-compare=2"], "*'2' begins several runs (2b, 2a); write more of the id*"),
        ([LAST, "--manifest-dispatch-only"], "*leave out --manifest-compare*"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_sent(
    project: Project, arguments: list[str], sentence: str
) -> None:
    project.doubles(count=1)
    for name in ("2a", "2b"):
        project.write(f".manifest/runs/{name}.sqlite", "")
    result = project.run("--manifest=m.jsonl", MEMORY, *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([sentence])
    assert not project.ran()
