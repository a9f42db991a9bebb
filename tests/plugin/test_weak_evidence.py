"""Entries that expect no more than that the job ends, while no test looks at their receipts."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from tests.plugin.conftest import Project

MEMORY = "--manifest-broker=memory://"
ENOUGH = 10
"""Entries from which on weak evidence is said unasked."""
XDIST = pytest.mark.parametrize("xdist", [(), ("-n", "2")], ids=["plain", "xdist"])


def batch(project: Project, *, bare: int, full: int = 0, name: str = "m.jsonl") -> None:
    """Entries b-0, b-1, ... that expect nothing, and f-0, f-1, ... that expect a result."""
    rows: list[dict[str, object]] = [
        {"id": f"b-{n}", "task": "jobs.double", "args": [n, f"b-{n}"]} for n in range(bare)
    ]
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


def verification(project: Project, *lines: str) -> None:
    """A workflow whose verify.py has these tests; its manifests are those of :func:`planned`."""
    project.write("workflows/w/verify.py", "\n".join(lines) + "\n")


def planned(project: Project, *, bare: int, full: int = 0) -> None:
    """The batch as one of the workflow ``w``."""
    batch(project, bare=bare, full=full)
    path = project.path / "m.jsonl"
    path.write_text('{"manifest": 1, "workflow": "w"}\n' + path.read_text("utf-8"), "utf-8")


def said(lines: Sequence[str]) -> list[str]:
    """The lines that tell of weak evidence."""
    return [line.strip() for line in lines if "no more than that the job ends" in line]


def findings(project: Project) -> list[str]:
    """The findings of the newest run's summary."""
    path = project.ledgers()[-1].with_suffix(".summary.json")
    found: list[str] = json.loads(path.read_text("utf-8"))["run"]["findings"]
    return found


@XDIST
def test_a_run_says_it_once(project: Project, xdist: tuple[str, ...]) -> None:
    """In the run's block and in its summary; under xdist the controller alone says it."""
    batch(project, bare=9, full=3)
    result = project.run("--manifest=m.jsonl", MEMORY, *xdist)
    result.assert_outcomes(passed=12)
    finding = (
        "9 of 12 entries expect no more than that the job ends, and no test looks at their "
        "receipts ('b-0', 'b-1', 'b-2', ...): give them 'expect', or a test that verifies them"
    )
    assert said(result.outlines) == [finding]
    assert findings(project) == [finding]


def test_one_entry_is_told_as_one(project: Project) -> None:
    batch(project, bare=1, full=ENOUGH)
    result = project.run("--manifest=m.jsonl", MEMORY, "-q")
    finding = (
        "1 of 11 entries expects no more than that the job ends, and no test looks at its "
        "receipt ('b-0'): give it 'expect', or a test that verifies it"
    )
    assert said(result.outlines) == [finding]


def test_a_few_entries_are_seen_one_by_one(project: Project) -> None:
    batch(project, bare=ENOUGH - 1)
    assert said(project.run("--manifest=m.jsonl", MEMORY).outlines) == []
    assert findings(project) == []


def test_entries_that_all_expect_something_are_not_spoken_of(project: Project) -> None:
    batch(project, bare=0, full=ENOUGH)
    assert said(project.run("--manifest=m.jsonl", MEMORY).outlines) == []


@XDIST
def test_a_test_that_is_given_the_receipt_looks(project: Project, xdist: tuple[str, ...]) -> None:
    """Whatever it asserts; entries that its marks leave out stay weak."""
    verification(
        project,
        "import pytest",
        "@pytest.mark.entries(tag='seen')",
        "def test_receipt(receipt):",
        "    pass",
    )
    rows = [
        {"id": f"e-{n}", "task": "jobs.double", "args": [n], "tags": ["seen"] if n % 2 else []}
        for n in range(ENOUGH)
    ]
    project.manifest("m.jsonl", [{"manifest": 1, "workflow": "w"}, *rows])
    result = project.run("--manifest=m.jsonl", MEMORY, *xdist)
    result.assert_outcomes(passed=10)
    (finding,) = said(result.outlines)
    assert finding.startswith("5 of 10 entries expect")
    assert "'e-0', 'e-2', 'e-4', ..." in finding


@pytest.mark.parametrize("wants", ["entry", "receipt", "manifest_run"])
def test_each_of_these_fixtures_lets_a_test_look(project: Project, wants: str) -> None:
    verification(project, f"def test_it({wants}):", "    pass")
    planned(project, bare=ENOUGH)
    result = project.run("--manifest=m.jsonl", MEMORY, "--manifest-strict")
    assert result.ret == pytest.ExitCode.OK
    assert said(result.outlines) == []
    assert len(project.ran()) == ENOUGH


def test_a_test_of_the_file_alone_sees_no_receipt(project: Project) -> None:
    verification(project, "def test_file(manifest):", "    pass")
    planned(project, bare=ENOUGH)
    (finding,) = said(project.run("--manifest=m.jsonl", MEMORY).outlines)
    assert finding.startswith("10 of 10 entries")


def test_a_deselected_test_does_not_look(project: Project) -> None:
    """Of the whole run, that is; a deselected test of an entry leaves the entry unsent, too."""
    verification(project, "def test_whole(manifest_run):", "    pass")
    planned(project, bare=ENOUGH)
    (finding,) = said(project.run("--manifest=m.jsonl", MEMORY, "-k", "entry").outlines)
    assert finding.startswith("10 of 10 entries")


def test_only_selected_entries_count(project: Project) -> None:
    batch(project, bare=2, full=ENOUGH)
    result = project.run("--manifest=m.jsonl", MEMORY, "-k", "f- or b-1")
    (finding,) = said(result.outlines)
    assert finding.startswith("1 of 11 entries expects no more than that the job ends")
    assert "('b-1')" in finding
    result = project.run("--manifest=m.jsonl", MEMORY, "-k", "f-")
    assert said(result.outlines) == []


def test_groups_of_entries_count_by_entry(project: Project) -> None:
    """Tests of groups look at verdicts alone; a group that is left out is not counted."""
    batch(project, bare=12, full=8)
    aggregated = ("--manifest=m.jsonl", MEMORY, "--manifest-aggregate=chunk:5")
    (finding,) = said(project.run(*aggregated).outlines)
    assert finding.startswith("12 of 20 entries")
    (finding,) = said(project.run(*aggregated, "-k", "not 00001").outlines)
    assert finding.startswith("7 of 15 entries expect")
    assert "'b-5', 'b-6', 'b-7'" in finding
    (finding,) = said(project.run(*aggregated, "-k", "not 00001", "--manifest-audit").outlines)
    assert finding.startswith("7 of 15 entries")


def test_a_shard_counts_its_own_entries(project: Project) -> None:
    batch(project, bare=20)
    result = project.run("--manifest=m.jsonl", MEMORY, "--manifest-shard=1/2")
    (finding,) = said(result.outlines)
    assert finding.startswith("10 of 10 entries")


def test_each_run_has_its_own_finding(project: Project) -> None:
    batch(project, bare=ENOUGH, name="a.jsonl")
    batch(project, bare=1, full=ENOUGH, name="b.jsonl")
    result = project.run("--manifest=a.jsonl", "--manifest=b.jsonl", MEMORY)
    assert [line.split(" entr")[0] for line in said(result.outlines)] == ["10 of 10", "1 of 11"]


def test_an_audit_says_it_and_is_not_refused(project: Project) -> None:
    """It sends nothing, and what it judges is as weak as before."""
    batch(project, bare=ENOUGH)
    project.run("--manifest=m.jsonl", MEMORY)
    result = project.run("--manifest=m.jsonl", "--manifest-audit", "--manifest-strict")
    assert result.ret == pytest.ExitCode.OK
    assert len(said(result.outlines)) == 1


@pytest.mark.parametrize("xdist", [(), ("-n", "1")], ids=["plain", "xdist"])
def test_a_collection_tells_what_a_run_would(project: Project, xdist: tuple[str, ...]) -> None:
    """Unless it is quiet: that is read by programs."""
    batch(project, bare=ENOUGH)
    result = project.run("--manifest=m.jsonl", "--collect-only", "--manifest-strict", *xdist)
    assert result.ret == pytest.ExitCode.OK
    (line,) = said(result.outlines)
    assert line.startswith("note: m.jsonl: 10 of 10 entries expect no more than that the job ends")
    result = project.run("--manifest=m.jsonl", "--collect-only", "-q", *xdist)
    assert said(result.outlines) == []


@XDIST
def test_a_strict_run_is_refused(project: Project, xdist: tuple[str, ...]) -> None:
    """Nothing is sent, no ledger is left, and one weak entry among few is enough."""
    batch(project, bare=4, full=2)
    result = project.run("--manifest=m.jsonl", MEMORY, "--manifest-strict", *xdist)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = said([*result.outlines, *result.errlines])
    assert line == (
        "ERROR: nothing was sent: m.jsonl: 4 of 6 entries expect no more than that the job "
        "ends, and no test looks at their receipts ('b-0', 'b-1', 'b-2', ...): give them 'expect', "
        "or a test that verifies them; without --manifest-strict (manifest_strict) they are sent "
        "as they are"
    )
    assert not project.ran()
    assert project.ledgers() == []
    result = project.run("--manifest=m.jsonl", MEMORY, "--manifest-strict", "-k", "f-", *xdist)
    result.assert_outcomes(passed=2)


def test_every_weak_manifest_is_named_in_a_refusal(project: Project) -> None:
    batch(project, bare=1, name="a.jsonl")
    batch(project, bare=0, full=1, name="b.jsonl")
    batch(project, bare=2, name="c.jsonl")
    manifests = [f"--manifest={name}.jsonl" for name in "abc"]
    result = project.run(*manifests, MEMORY, "--manifest-strict")
    (line,) = said(result.errlines)
    assert "a.jsonl: 1 of 1 entry expects" in line
    assert "c.jsonl: 2 of 2 entries expect" in line
    assert "b.jsonl" not in line
    assert not project.ran()


def test_a_project_may_always_be_strict(project: Project) -> None:
    """By its configuration file, which the command line overrides for once."""
    ini = (project.path / "pytest.ini").read_text("utf-8")
    project.write("pytest.ini", f"{ini}manifest_strict = true\n")
    batch(project, bare=1)
    result = project.run("--manifest=m.jsonl", MEMORY)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert not project.ran()
    project.run("--manifest=m.jsonl", MEMORY, "-o", "manifest_strict=false").assert_outcomes(
        passed=1
    )


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
    project.run(*resume).assert_outcomes(passed=1)
