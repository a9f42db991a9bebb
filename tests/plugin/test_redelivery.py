"""A broker that may hand a message out again: what is refused, and what a setting accepts."""

from __future__ import annotations

import json

import pytest

from pytest_manifest.ledger import Ledger
from pytest_manifest.ledger.run_info import ACCEPTED
from tests.plugin.conftest import INI, Project
from tests.plugin.outside import worker

pytestmark = pytest.mark.live

LIMIT = "\napp.conf.task_time_limit = 30 * 60\n"


@pytest.mark.ring(2)
def test_a_risk_is_refused_in_a_table_that_names_the_way_out(project: Project, broker: str) -> None:
    """Five jobs that may take half an hour each, for one worker that prefetches four of them: they
    are sent with a timeout of their own, or where the setting accepts what may happen."""
    project.write("jobs.py", (project.path / "jobs.py").read_text("utf-8") + LIMIT)
    jobs = [{"id": f"d-{n}", "task": "jobs.double", "args": [n, f"d-{n}"]} for n in range(5)]
    project.manifest("m.jsonl", jobs)
    at = ("--manifest=m.jsonl", f"--manifest-broker={broker}")
    with worker(project, broker, slots=1):
        refused = project.run(*at)
        assert refused.ret == pytest.ExitCode.USAGE_ERROR
        said = refused.stderr.str()
        rows = said[said.index("nothing was sent") :].splitlines()
        assert rows[1].startswith("error      limits  entry 'd-0' (jobs.double) may be held by a")
        assert 'Give the entries a "timeout" of 899 s or less' in " ".join(said.split())
        assert all(len(row) <= 120 for row in rows)
        assert not project.ran()

        checked = project.run("--manifest-check", *at)
        checked.stdout.fnmatch_lines(["error * limits * entry 'd-0' (jobs.double) may be held by*"])

        project.write("pytest.ini", f"{INI}manifest_accept = redelivery\n")
        accepted = project.run(*at)
        accepted.assert_outcomes(passed=5)
        checked = project.run("--manifest-check", *at)
        assert checked.ret == pytest.ExitCode.OK
        checked.stdout.fnmatch_lines(
            ["warning * limits * entry 'd-0' (jobs.double) may be held by*"]
        )
    accepted.stdout.fnmatch_lines(["note: entry 'd-0' *accepted by manifest_accept = redelivery"])
    with Ledger.open(project.ledgers()[-1]) as ledger:
        [fact] = ledger.info.texts(ACCEPTED)
    summary = json.loads(project.ledgers()[-1].with_suffix(".summary.json").read_text("utf-8"))
    assert summary["run"]["accepted"] == [fact]
    assert fact in summary["run"]["findings"]

    project.manifest("m.jsonl", [{**job, "timeout": 30} for job in jobs])
    project.write("pytest.ini", INI)
    with worker(project, broker, slots=1):
        project.run(*at).assert_outcomes(passed=5)


def test_a_risk_that_nobody_knows_is_refused(project: Project) -> None:
    """It may be the misspelling of one that matters."""
    project.doubles()
    result = project.run("--manifest=m.jsonl", "-o", "manifest_accept=redelivrey")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "'redelivrey' is no risk that can be accepted; write redelivery" in result.stderr.str()
