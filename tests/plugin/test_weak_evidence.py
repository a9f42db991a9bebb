"""Entries that expect no more than that the job ends, while no test looks at their receipts.

What is counted and how it is said is held by ``unit/test_weak_evidence.py``; here is where a
session says it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from tests.plugin.conftest import Project

MEMORY = "--manifest-broker=memory://"
XDIST = pytest.mark.parametrize(
    "xdist", [(), pytest.param(("-n", "2"), marks=pytest.mark.ring(2))], ids=["plain", "xdist"]
)


def batch(
    project: Project, *, bare: int, full: int = 0, name: str = "m.jsonl", workflow: str = ""
) -> None:
    """Entries b-0, b-1, ... that expect nothing, and f-0, f-1, ... that expect a result."""
    rows: list[dict[str, object]] = [{"manifest": 1, "workflow": workflow}] if workflow else []
    rows += [{"id": f"b-{n}", "task": "jobs.double", "args": [n, f"b-{n}"]} for n in range(bare)]
    rows += [
        {
            "id": f"f-{n}",
            "task": "jobs.double",
            "args": [n, f"f-{n}"],
            "expect": {"result": {"n": 2 * n}},
        }
        for n in range(full)
    ]
    project.manifest(name, rows)


def said(lines: Sequence[str]) -> list[str]:
    """The lines that tell of weak evidence."""
    return [line.strip() for line in lines if "no more than that the job ends" in line]


def findings(project: Project) -> list[str]:
    """The findings of the newest run's summary."""
    path = project.ledgers()[-1].with_suffix(".summary.json")
    found: list[str] = json.loads(path.read_text("utf-8"))["run"]["findings"]
    return found


@XDIST
def test_a_run_says_it_once_and_so_does_its_audit(project: Project, xdist: tuple[str, ...]) -> None:
    """In the run's block and in its summary; under xdist the controller alone says it. An audit
    sends nothing, so it is not refused where that is wanted."""
    batch(project, bare=9, full=3)
    result = project.run("--manifest=m.jsonl", MEMORY, *xdist)
    result.assert_outcomes(passed=12)
    (finding,) = said(result.outlines)
    assert finding.startswith("9 of 12 entries expect")
    assert findings(project) == [finding]
    audit = project.run("--manifest=m.jsonl", "--manifest-audit", "--manifest-strict", "-q")
    assert audit.ret == pytest.ExitCode.OK
    assert said(audit.outlines) == [finding]


def test_a_test_that_is_given_an_entry_a_receipt_or_the_run_looks(project: Project) -> None:
    """One that is given the file alone does not, nor does a test that was left out."""
    wanted = ("entry", "receipt", "manifest_run", "manifest")
    for wants in wanted:
        batch(project, bare=10, name=f"{wants}.jsonl", workflow=wants)
        project.write(f"workflows/{wants}/__init__.py", "")
        project.write(f"workflows/{wants}/verify.py", f"def test_it({wants}):\n    pass\n")
    project.write(
        "workflows/tagged/verify.py",
        "import pytest\n@pytest.mark.entries(tag='seen')\ndef test_receipt(receipt):\n    pass\n",
    )
    rows = [
        {"id": f"e-{n}", "task": "jobs.double", "tags": ["seen"] if n % 2 else []}
        for n in range(10)
    ]
    project.manifest("tagged.jsonl", [{"manifest": 1, "workflow": "tagged"}, *rows])
    given = [f"--manifest={name}.jsonl" for name in (*wanted, "tagged")]
    lines = said(project.run(*given, "--collect-only").outlines)
    assert [line.partition(" entries")[0] for line in lines] == [
        "note: manifest.jsonl: 10 of 10",
        "note: tagged.jsonl: 5 of 10",
    ]
    assert "'e-0', 'e-2', 'e-4', ..." in lines[1]
    alone = ("--manifest=manifest_run.jsonl", "--collect-only")
    (line,) = said(project.run(*alone, "-k", "entry").outlines)
    assert line.startswith("note: manifest_run.jsonl: 10 of 10 entries")


@pytest.mark.parametrize(
    "xdist", [(), pytest.param(("-n", "1"), marks=pytest.mark.ring(2))], ids=["plain", "xdist"]
)
def test_a_collection_tells_what_a_run_would(project: Project, xdist: tuple[str, ...]) -> None:
    """Unless it is quiet: that is read by programs. Of groups of entries, each entry counts."""
    batch(project, bare=10)
    collect = ("--manifest=m.jsonl", "--collect-only", "--manifest-strict", *xdist)
    for grouped in ((), ("--manifest-aggregate=chunk:5",)):
        result = project.run(*collect, *grouped)
        assert result.ret == pytest.ExitCode.OK
        (line,) = said(result.outlines)
        assert line.startswith("note: m.jsonl: 10 of 10 entries expect no more than that the job")
    assert said(project.run(*collect, "-q").outlines) == []


@XDIST
def test_a_strict_run_is_refused(project: Project, xdist: tuple[str, ...]) -> None:
    """Nothing is sent, and no ledger is left; what is selected counts."""
    batch(project, bare=4, full=2)
    strict = ("--manifest=m.jsonl", MEMORY, "--manifest-strict", *xdist)
    result = project.run(*strict)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = said([*result.outlines, *result.errlines])
    assert line.startswith("ERROR: nothing was sent: m.jsonl: 4 of 6 entries expect")
    assert not project.ran()
    assert project.ledgers() == []
    project.run(*strict, "-k", "f-").assert_outcomes(passed=2)


def test_a_strict_resume_sends_nothing_either(project: Project) -> None:
    project.manifest(
        "m.jsonl", [{"id": "a", "task": "jobs.flaky", "args": ["a"], "idempotent": True}]
    )
    broken = project.break_("a")
    project.run("--manifest=m.jsonl", MEMORY).assert_outcomes(failed=1)
    broken.unlink()
    resume = ("--manifest=m.jsonl", MEMORY, "--manifest-resume")
    result = project.run(*resume, "--manifest-strict")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert project.ran() == {"a": 1}
