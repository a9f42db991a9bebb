"""Planning fixtures: ``--manifest-plan``, its options and files, and plans named by a marker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.plugin.conftest import Project

PLANS = '''
import pytest
from pytest_manifest import planning_fixture

@pytest.fixture(scope="session")
def corpus():
    with open("corpus-opened.txt", "a") as file:
        file.write("x")
    yield ["a", "b"]

@planning_fixture("demo:one")
def one(plan, corpus, *, count: int = 3, factor: float = 1.0, fail: bool = False):
    """Doubles numbers."""
    if fail:
        raise RuntimeError("no corpus today")
    for n in range(count):
        plan.add("jobs.double", id=f"{corpus[0]}-{n}", kwargs={"n": n, "key": f"{corpus[0]}-{n}"},
                 cost=0.5, expect={"result": {"n": 2 * n}})

@planning_fixture("demo:empty")
def empty(plan):
    """Nothing at all."""

@planning_fixture("twin:first")
def first(plan):
    plan.add("jobs.double", id="first", kwargs={"n": 1})

@planning_fixture("twin:second", default=True)
def second(plan):
    plan.add("jobs.double", id="second", kwargs={"n": 2})

@planning_fixture("lone:only", rerun=False)
def only(plan):
    plan.add("jobs.double", id="x", kwargs={"n": 1, "key": "x"})
'''


@pytest.fixture
def planned(project: Project) -> Project:
    project.write("conftest.py", PLANS)
    return project


def body(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_a_workflow_s_name_alone_means_its_default_mode(planned: Project) -> None:
    """Where it has one; of other workflows with several modes one has to be named."""
    result = planned.run("--manifest-plan=twin")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["plan twin:second: 1 entries in manifests/twin_second_01.jsonl"])


def test_a_plan_is_written_and_previewed_and_not_sent(planned: Project) -> None:
    """--manifest-plan writes the next free file, shows a preview, and dispatches nothing."""
    result = planned.run("--manifest-plan=demo:one")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        [
            "plan demo:one: 3 entries in manifests/demo_one_01.jsonl",
            "*3  jobs.double  queue celery",
            "*longest timeout 300 s",
            "*estimated cost 1.5",
            "nothing was sent; to dispatch it: pytest --manifest=manifests/demo_one_01.jsonl",
        ]
    )
    header = body(planned.path / "manifests/demo_one_01.jsonl")[0]
    assert header["workflow"] == "demo"
    assert header["mode"] == "one"
    assert header["params"] == {"count": 3, "factor": 1.0, "fail": False}
    assert header["entries"] == 3
    assert not planned.ran()
    assert not planned.ledgers()


def test_an_unchanged_plan_keeps_its_file(planned: Project) -> None:
    """The same plan finds its own file again; a changed one gets the next number."""
    planned.run("--manifest-plan=demo:one")
    first = (planned.path / "manifests/demo_one_01.jsonl").read_bytes()
    planned.run("--manifest-plan=demo:one")
    planned.run("--manifest-plan=demo:one", "--manifest-plan-opt", "count=4")
    names = sorted(path.name for path in (planned.path / "manifests").iterdir())
    assert names == ["demo_one_01.jsonl", "demo_one_02.jsonl"]
    assert (planned.path / "manifests/demo_one_01.jsonl").read_bytes() == first


def test_a_different_manifest_is_not_overwritten(planned: Project) -> None:
    """--manifest-plan --manifest=FILE replaces another manifest only where that is said."""
    planned.run("--manifest-plan=demo:one", "--manifest=m.jsonl")
    before = (planned.path / "m.jsonl").read_bytes()
    refused = planned.run(
        "--manifest-plan=demo:one", "--manifest-plan-opt", "count=1", "--manifest=m.jsonl"
    )
    assert refused.ret != 0
    refused.stdout.fnmatch_lines(
        ["*m.jsonl: holds a different manifest;*--manifest-plan-run=force*"]
    )
    assert (planned.path / "m.jsonl").read_bytes() == before
    forced = planned.run(
        "--manifest-plan=demo:one",
        "--manifest-plan-opt",
        "count=1",
        "--manifest=m.jsonl",
        "--manifest-plan-run=force",
    )
    assert forced.ret == 0
    assert len(body(planned.path / "m.jsonl")) == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--manifest-plan=demo",), "*workflow 'demo' has several modes; choose one:*"),
        (("--manifest-plan=zzz",), "*there is no plan 'zzz'; known plans: demo:*"),
        (("--manifest-plan=demo:oen",), "*there is no plan 'demo:oen'; did you mean 'demo:one'*"),
        (
            ("--manifest-plan=demo:one", "--manifest-plan-opt", "cuont=1"),
            "*did you mean 'count'*known options: count*",
        ),
        (
            ("--manifest-plan=demo:one", "--manifest-plan-opt", "count=many"),
            "*option count='many' is not valid*",
        ),
        (("--manifest-plan=demo:one", "--manifest-plan-opt", "count"), "*write it as NAME=VALUE*"),
        (("--manifest-plan-run",), "*--manifest-plan-run needs --manifest-plan*"),
        (("--manifest-audit",), "*--manifest-audit needs --manifest=FILE*"),
        (("--manifest=nowhere.jsonl",), "*nowhere.jsonl: there is no such manifest*"),
    ],
)
def test_what_cannot_be_planned_is_a_clear_error(
    planned: Project, arguments: tuple[str, ...], sentence: str
) -> None:
    """Bad names and options end in one sentence and pytest's usage error."""
    result = planned.run(*arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([sentence])
    assert "Traceback" not in result.stderr.str() + result.stdout.str()


def test_a_workflow_with_one_mode_needs_no_mode(planned: Project) -> None:
    """--manifest-plan=WORKFLOW is enough where there is one mode."""
    assert planned.run("--manifest-plan=lone").ret == 0
    assert body(planned.path / "manifests/lone_only_01.jsonl")[0]["rerun"] is False


@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize("xdist", [(), ("-n", "2")], ids=["plain", "xdist"])
def test_plan_run_plans_and_runs_in_one_call(planned: Project, xdist: tuple[str, ...]) -> None:
    """--manifest-plan-run dispatches its plan once, and the planner's fixtures are set up once."""
    result = planned.run(
        "--manifest-plan=demo:one", "--manifest-plan-opt", "count=5", "--manifest-plan-run", *xdist
    )
    result.assert_outcomes(passed=5)
    assert planned.ran() == {f"a-{n}": 1 for n in range(5)}
    assert (planned.path / "corpus-opened.txt").read_text() == "x"


def test_an_object_that_answers_no_question_is_no_plan(planned: Project) -> None:
    """Like an app's settings outside of its context, in a module of fixtures."""
    conftest = planned.path / "conftest.py"
    conftest.write_text(
        conftest.read_text("utf-8")
        + """
class Settings:
    __slots__ = ()

    def __getattr__(self, name):
        raise RuntimeError(f"{name}: working outside of application context")


settings = Settings()
""",
        "utf-8",
    )
    assert planned.run("--manifest-plan=demo:one", "--manifest=m.jsonl").ret == 0


def test_an_empty_plan_dispatches_nothing(planned: Project) -> None:
    """No entries: no file, nothing sent, and a good exit code."""
    result = planned.run("--manifest-plan=demo:empty", "--manifest-plan-run")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*nothing to do; no manifest was written*"])
    assert not (planned.path / "manifests").exists()


@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize(
    "xdist", [(), pytest.param(("-n", "1"), marks=pytest.mark.ring(2))], ids=["plain", "xdist"]
)
def test_a_planner_that_raises_is_an_ordinary_error(
    planned: Project, xdist: tuple[str, ...]
) -> None:
    """The planner's own traceback is shown, nothing is dispatched, and nothing hangs."""
    result = planned.run(
        "--manifest-plan=demo:one", "--manifest-plan-opt", "fail=yes", "--manifest-plan-run", *xdist
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        ["*ERROR at setup of plan*demo:one*", "*RuntimeError: no corpus today*"]
    )
    assert not planned.ran()
    assert "INTERNALERROR" not in result.stdout.str()


SECRETIVE = """
from pytest_manifest import manifest_secret, planning_fixture

@planning_fixture("demo:one")
def one(plan):
    value = manifest_secret("hunter2 " * 2)
    raise RuntimeError(f"no access as {value}, password=swordfish")
"""


def test_a_planner_that_raises_shows_no_secrets(project: Project) -> None:
    """Neither those that it has registered, nor others; in no report of it."""
    project.write("conftest.py", SECRETIVE)
    options = ("--manifest-plan=demo:one", "--showlocals", "-rA", "--junitxml=j.xml")
    result = project.run(*options)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*RuntimeError: no access as ***, password=***"])
    shown = result.stdout.str() + result.stderr.str() + (project.path / "j.xml").read_text("utf-8")
    assert "swordfish" not in shown.replace('password=swordfish")', "")  # but for the source
    assert "hunter2 hunter2" not in shown


MARKED = """
import pytest
pytestmark = pytest.mark.manifest("demo:one", count=4)

def test_doubled(entry, receipt):
    assert receipt.result["n"] == 2 * entry.kwargs["n"]
"""


@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize(
    "xdist", [(), pytest.param(("-n", "3"), marks=pytest.mark.ring(2))], ids=["plain", "xdist"]
)
def test_a_module_can_ask_for_a_plan(planned: Project, xdist: tuple[str, ...]) -> None:
    """A marker plans, dispatches and verifies in one call, once, under xdist too."""
    planned.write("test_marked.py", MARKED)
    result = planned.run(*xdist)
    result.assert_outcomes(passed=4)
    assert planned.ran() == {f"a-{n}": 1 for n in range(4)}
    assert (planned.path / "corpus-opened.txt").read_text() == "x"


@pytest.mark.parametrize("option", ["--collect-only", "--setup-plan", "--fixtures"])
def test_looking_does_not_plan(planned: Project, option: str) -> None:
    """Options that only look run no planner."""
    planned.write("test_marked.py", MARKED)
    planned.run(option)
    assert not (planned.path / "corpus-opened.txt").exists()
    assert not (planned.path / "manifests").exists()


@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize(
    "xdist", [(), pytest.param(("-n", "1"), marks=pytest.mark.ring(2))], ids=["plain", "xdist"]
)
def test_a_marked_plan_that_raises_stops_the_session(
    planned: Project, xdist: tuple[str, ...]
) -> None:
    """The planner's traceback is shown once, and nothing is sent."""
    planned.write("test_marked.py", MARKED.replace("count=4", "fail=True"))
    result = planned.run(*xdist)
    assert result.ret != 0
    result.stdout.fnmatch_lines(["*RuntimeError: no corpus today*"])
    assert not planned.ran()


def test_a_planner_that_skips_says_why(project: Project) -> None:
    """pytest.skip in a planner is no internal error, and nothing is sent."""
    project.write(
        "conftest.py",
        """
import pytest
from pytest_manifest import planning_fixture

@planning_fixture("demo:skip")
def skip(plan):
    pytest.skip("no corpus on this machine")
""",
    )
    for arguments in (
        ("--manifest-plan=demo:skip", "-rs"),
        ("--manifest-plan=demo:skip", "--manifest-plan-run"),
    ):
        result = project.run(*arguments)
        text = result.stdout.str() + result.stderr.str()
        assert "no corpus on this machine" in text
        assert "INTERNALERROR" not in text


def test_plans_are_deterministic(planned: Project) -> None:
    """The same options give the same bytes but for the moment of planning."""
    planned.run("--manifest-plan=demo:one", "--manifest=a.jsonl")
    planned.run("--manifest-plan=demo:one", "--manifest=b.jsonl")
    first, second = (body(planned.path / name) for name in ("a.jsonl", "b.jsonl"))
    for rows in (first, second):
        del rows[0]["planned_at"]
    assert first == second


@pytest.mark.usefixtures("in_memory")
def test_work_that_must_not_repeat_is_sent_once(planned: Project) -> None:
    """A plan with rerun=False is refused a second time, and --manifest-rerun insists."""
    planned.run(
        "--manifest-plan=lone", "--manifest=m.jsonl", "--manifest-plan-run"
    ).assert_outcomes(passed=1)
    again = planned.run("--manifest=m.jsonl")
    assert again.ret == pytest.ExitCode.USAGE_ERROR
    again.stderr.fnmatch_lines(["*sent 1 of its entries already*--manifest-rerun*"])
    assert planned.ran() == {"x": 1}
    planned.run("--manifest=m.jsonl", "--manifest-rerun").assert_outcomes(passed=1)
    assert planned.ran() == {"x": 2}
