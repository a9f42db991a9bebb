"""Failures read well: which entry, what was expected, what happened, what to do."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import Project

MEMORY = "--manifest-broker=memory://"
LATER = [pytest.mark.live, pytest.mark.ring(2)]

SEVEN: dict[str, dict[str, object]] = {
    "exception": {"task": "jobs.fail", "kwargs": {"message": "no such film"}},
    "wrong-result": {"task": "jobs.double", "kwargs": {"n": 2}, "expect": {"result": {"n": 5}}},
    "too-slow": {"task": "jobs.nap", "kwargs": {"sec": 0.6}, "expect": {"max_runtime": 0.1}},
    "wrong-type": {
        "task": "jobs.double",
        "kwargs": {"n": 1},
        "expect": {"schema": {"properties": {"n": {"type": "string"}}}},
    },
    "unknown-task": {"task": "jobs.duoble", "kwargs": {"n": 1}},
    "should-have-failed": {
        "task": "jobs.double",
        "kwargs": {"n": 1},
        "expect": {"state": "failed"},
    },
    "killed": {"task": "jobs.die"},
}


STACKS = [
    pytest.param((MEMORY,), id="memory"),
    pytest.param((), id="private", marks=LATER),
    pytest.param(("-n", "2"), id="xdist", marks=LATER),
]


def entries(*left_out: str) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = [
        {
            "id": f"good-{n}",
            "task": "jobs.double",
            "kwargs": {"n": n},
            "expect": {"result": {"n": 2 * n}},
        }
        for n in range(93)
    ]
    for n, (name, fields) in enumerate(SEVEN.items()):
        if name not in left_out:
            rows.insert(n * 12, {"id": name, **fields})
    return rows


@pytest.mark.parametrize("stack", STACKS)
def test_seven_kinds_of_failure_turn_exactly_their_tests_red(
    project: Project, stack: tuple[str, ...]
) -> None:
    """Of 100 entries the seven that go wrong fail, each with a sentence of its own.

    In memory the worker is pytest's process, and none is killed.
    """
    left_out = {"killed"} if MEMORY in stack else set()
    project.manifest("m.jsonl", entries(*left_out))
    result = project.run("--manifest=m.jsonl", *stack)
    red = SEVEN.keys() - left_out
    result.assert_outcomes(passed=93, failed=len(red))
    text = result.stdout.str()
    for name in red:
        assert f"FAILED m.jsonl::entry[{name}]" in text
    parts = ("no such film", "result.n", "jobs.duoble", "did you mean 'jobs.double'")
    for part in (*parts, *(["SIGKILL"] if "killed" in red else [])):
        assert part in text
    assert "pytest_manifest/" not in text.replace("rootdir", "")


@pytest.mark.parametrize("stack", STACKS)
def test_a_workflow_verifies_with_its_own_tests(project: Project, stack: tuple[str, ...]) -> None:
    """The workflow's verify.py is used; entries that it leaves alone are verified too."""
    project.workers(2)
    workers, owned = (1, False) if MEMORY in stack else (2, True)
    project.write(
        "workflows/demo/verify.py",
        f"""
import pytest

@pytest.mark.entries(task="jobs.d*")
def test_double(entry, receipt):
    assert receipt.result["n"] == 2 * entry.kwargs["n"]

@pytest.mark.entries(mode="other")
def test_of_another_mode(manifest_run):
    raise AssertionError("must not be collected")

def test_whole(manifest_run):
    assert len(manifest_run.receipts()) == 3
    assert manifest_run.workers == {workers}
    assert manifest_run.owned is {owned}
""",
    )
    project.write(
        "m.jsonl",
        '{"manifest": 1, "workflow": "demo", "mode": "one"}\n'
        '{"id": "a", "task": "jobs.double", "kwargs": {"n": 1}}\n'
        '{"id": "b", "task": "jobs.double", "kwargs": {"n": 2}}\n'
        '{"id": "nap", "task": "jobs.nap", "kwargs": {"sec": 0}}\n',
    )
    result = project.run("--manifest=m.jsonl", "-v", *stack)
    result.assert_outcomes(passed=4)
    text = result.stdout.str()
    for node in ("verify.py::test_double[a]", "m.jsonl::entry[nap]", "verify.py::test_whole[m]"):
        assert node in text


def test_a_strict_run_is_refused_for_an_unknown_task(project: Project) -> None:
    """--manifest-strict sends nothing when a task is unknown."""
    sound = {"expect": {"result": {"n": 2}}}
    project.manifest(
        "m.jsonl",
        [
            {"id": "a", "task": "jobs.double", "kwargs": {"n": 1, "key": "a"}, **sound},
            {"id": "b", "task": "jobs.duoble", "kwargs": {"n": 1}, **sound},
        ],
    )
    result = project.run("--manifest=m.jsonl", MEMORY, "--manifest-strict")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*nothing was sent: no worker knows the task 'jobs.duoble'*"])
    assert not project.ran()


def test_a_broken_manifest_lists_its_faults(project: Project) -> None:
    """Every fault is shown with file and line, and nothing is started."""
    project.write(
        "m.jsonl",
        '{"id": "a", "task": "t"}\n{"id": "a", "task": "t"}\n{"id": "b"}\n{"id": "c", "tsk": "t"\n',
    )
    result = project.run("--manifest=m.jsonl")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*m.jsonl:2: *'a'*line 1*", "*m.jsonl:3: *task*", "*m.jsonl:4: *"])


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("pytest.ini", "[pytest]\n", "*needs your Celery application*--manifest-app*"),
        ("jobs.py", "raise RuntimeError('no settings')\n", "*no settings*"),
    ],
    ids=["none is named", "it cannot be imported"],
)
def test_the_stack_needs_an_application(project: Project, file: str, text: str, said: str) -> None:
    """Without an app and without a broker there is one clear sentence; so for what it raises."""
    project.write(file, text)
    project.doubles(count=1)
    result = project.run("--manifest=m.jsonl")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([said])


def test_a_broker_out_of_reach_is_one_error(project: Project) -> None:
    """A broker that does not answer is named, without its password."""
    project.doubles(count=1)
    result = project.run("--manifest=m.jsonl", "--manifest-broker=redis://:secret@127.0.0.1:1/0")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*redis://:[*][*][*]@127.0.0.1:1*"])
    assert "secret" not in result.stderr.str() + result.stdout.str()
