"""``--manifest-key-limit``: so many jobs in flight of each value of a key, and no more."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime

import pytest

from pytest_manifest.ledger import Ledger
from tests.plugin.conftest import INI, Project

MEMORY = "--manifest-broker=memory://"
M = "--manifest=m.jsonl"
PLAN = '''
from pytest_manifest import planning_fixture


@planning_fixture("shop:all")
def shop_all(plan):
    """Jobs of two tenants, and one of nobody."""
    for n, tenant in enumerate("aaab"):
        plan.add("jobs.flaky", id=f"e{n}", args=[f"e{n}"], key={"tenant": tenant, "host": "h"})
    plan.add("jobs.flaky", id="e4", args=["e4"])
'''


def of_tenants(project: Project, letters: str, seconds: float | None = None) -> None:
    """A manifest m.jsonl of entries e0, e1, ... of these tenants; a dot: of nobody."""
    rows: list[Mapping[str, object]] = []
    for n, letter in enumerate(letters):
        key = {} if letter == "." else {"key": {"tenant": letter}}
        nap = {"task": "jobs.nap", "args": [seconds, f"e{n}"]}
        rows.append(
            {
                "id": f"e{n}",
                **(nap if seconds else {"task": "jobs.flaky", "args": [f"e{n}"]}),
                **key,
            }
        )
    project.manifest("m.jsonl", rows)


def spans(project: Project) -> Mapping[str, tuple[datetime, datetime]]:
    """When each entry's job was sent, and when it ended."""
    found = {}
    with Ledger.open(project.ledgers()[-1]) as ledger:
        for row in ledger.attempts.all():
            ((_, receipt),) = ledger.events.receipts(row.task_id)
            assert row.sent_at is not None
            assert receipt.finished_at is not None
            found[row.entry] = row.sent_at, receipt.finished_at
    return found


def most_at_once(times: Sequence[tuple[datetime, datetime]]) -> int:
    """The most of these that were in flight at one moment: that at which the last was sent."""
    return max(sum(began <= moment < ended for began, ended in times) for moment, _ in times)


def recorded_limits(project: Project) -> Mapping[str, int]:
    with Ledger.open(project.ledgers()[-1]) as ledger:
        return ledger.info.key_limits()


@pytest.mark.live
@pytest.mark.ring(2)
@pytest.mark.parametrize("xdist", [(), ("-n", "2")], ids=["plain", "xdist"])
def test_no_more_are_in_flight_of_a_tenant(project: Project, xdist: tuple[str, ...]) -> None:
    """Real workers that could take all: of each tenant two at a time, the others unlimited."""
    project.workers(4)
    of_tenants(project, "aaaaab...", seconds=0.2)
    result = project.run(M, "--manifest-key-limit", "tenant=2", *xdist)
    result.assert_outcomes(passed=9)
    result.stdout.fnmatch_lines(["  at most 2 in flight of each tenant"])
    times = spans(project)
    assert most_at_once([times[f"e{n}"] for n in range(5)]) == 2
    assert times["e8"][0] < times["e4"][0], "what is behind a tenant that is full goes before it"


def test_an_unknown_key_is_refused_before_anything_is_sent(project: Project) -> None:
    """The sentence names the keys that there are; no ledger is made."""
    of_tenants(project, "ab")
    result = project.run(M, MEMORY, "--manifest-key-limit=tenat=2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            (
                "ERROR: nothing was sent: --manifest-key-limit tenat=2: no entry of m.jsonl has a "
                "key 'tenat'; their keys are 'tenant'"
            )
        ]
    )
    of_tenants(project, "..")
    project.write("pytest.ini", f"{INI}addopts = --manifest-key-limit=tenant=2\n")
    result = project.run(M, MEMORY)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    said = 'has a key \'tenant\'; they have none, like "key": {"tenant": *'
    result.stderr.fnmatch_lines(
        [f"*no entry of m.jsonl {said}; --manifest-key-limit is in addopts of pytest.ini"]
    )
    assert project.ledgers() == []


def test_the_configuration_file_may_limit_keys_of_other_manifests(project: Project) -> None:
    """It is noticed, and what there is holds."""
    ini = (project.path / "pytest.ini").read_text("utf-8")
    project.write("pytest.ini", f"{ini}manifest_key_limit = tenant=1 host=3\n")
    of_tenants(project, "aab")
    result = project.run(M, MEMORY)
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(
        [
            "note: manifest_key_limit = host=3 limits nothing: no entry of m.jsonl has a key *",
            "  at most 3 in flight of each host, 1 of each tenant",
        ]
    )


def test_a_run_is_resumed_with_the_limits_of_the_session(project: Project) -> None:
    """They may be others than before; a key must be known then, too."""
    of_tenants(project, "aaaa")
    broken = project.break_("e0")
    first = project.run(M, MEMORY, "--manifest-key-limit=tenant=1", "--manifest-max-failed=0")
    first.assert_outcomes(failed=1, skipped=3)
    broken.unlink()
    refused = project.run(
        M, MEMORY, "--manifest-resume=unsafe", "--manifest-resume", "--manifest-key-limit=x=1"
    )
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    second = project.run(M, MEMORY, "--manifest-resume=unsafe", "--manifest-key-limit=tenant=2")
    second.assert_outcomes(passed=4)
    assert recorded_limits(project) == {"tenant": 2}


def test_shards_share_a_limit(project: Project) -> None:
    """Together they keep to it: the first ones get what cannot be divided."""
    of_tenants(project, "aaaabbbb")
    for shard, most in (("1/2", 2), ("2/2", 1)):
        result = project.run(
            M, MEMORY, f"--manifest-shard={shard}", "--manifest-key-limit=tenant=3"
        )
        result.assert_outcomes(passed=4)
        assert recorded_limits(project) == {"tenant": most}
    result = project.run(M, MEMORY, "--manifest-shard=1/3", "--manifest-key-limit=tenant=2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            (
                "ERROR: nothing was sent: --manifest-key-limit tenant=2 is for all 3 shards "
                "together; make 2 shards or fewer, or allow more"
            )
        ]
    )


def test_the_limits_go_with_window_order_and_canary(project: Project) -> None:
    """All gates at once: everything is sent once, and in the order that they leave."""
    project.manifest(
        "m.jsonl",
        [
            {"id": "a", "task": "jobs.flaky", "args": ["a"], "key": {"tenant": "x"}},
            {"id": "b", "task": "jobs.flaky", "args": ["b"], "key": {"tenant": "x"}},
            {"id": "c", "task": "jobs.flaky", "args": ["c"], "after": ["b"]},
            {
                "id": "d",
                "task": "jobs.flaky",
                "args": ["d"],
                "key": {"tenant": "x"},
                "after": ["a"],
            },
        ],
    )
    gates = ("--manifest-window=2", "--manifest-canary=1", "--manifest-key-limit=tenant=1")
    project.run(M, MEMORY, *gates).assert_outcomes(passed=4)
    assert sorted(project.ran()) == ["a", "b", "c", "d"]
    assert project.order()[0] == "a"


def test_the_preview_tells_of_keys_and_limits(project: Project) -> None:
    """How many values each key has, and what a limit would do."""
    project.write("conftest.py", PLAN)
    result = project.run(
        "--manifest-plan=shop:all", "--manifest-key-limit=tenant=2", "--manifest-key-limit=api=1"
    )
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            "  key host: 1 value in 4 entries",
            "  key tenant: 2 values in 4 entries, at most 2 in flight of each",
            "  key api: no entry has one, so a limit of 1 holds nothing back",
        ],
        consecutive=True,
    )


def test_the_summary_tells_of_the_limits(project: Project) -> None:
    """In JSON and in Markdown."""
    of_tenants(project, "ab")
    files = ("--manifest-report=s.json", "--manifest-report=s.md")
    project.run(M, MEMORY, "--manifest-key-limit=tenant=2", *files).assert_outcomes(passed=2)
    summary = json.loads((project.path / "s.json").read_text("utf-8"))
    assert summary["run"]["key_limits"] == {"tenant": 2}
    assert "at most 2 in flight of each tenant." in (project.path / "s.md").read_text("utf-8")


def test_a_key_that_is_named_like_a_secret_is_hidden(project: Project) -> None:
    """An API key is a key, too; what counts is that its jobs are counted together."""
    project.manifest(
        "m.jsonl",
        [{"id": "a", "task": "jobs.fail", "args": ["x"], "key": {"api_key": "sesame-4711"}}],
    )
    result = project.run(
        M, MEMORY, "--manifest-key-limit=api_key=1", "--manifest-report=r.html", "-vv"
    )
    result.assert_outcomes(failed=1)
    page = (project.path / "r.html").read_text("utf-8")
    assert "sesame" not in result.stdout.str() + result.stderr.str() + page
