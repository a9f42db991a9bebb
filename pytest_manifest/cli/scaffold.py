"""Hold the files that ``manifest init`` makes: a plan, a verification, and a failure to read."""

from __future__ import annotations

from typing import Final

OWN_APP: Final = "jobs:app"
"""The app of a folder that has none."""

JOBS: Final = '''"""A Celery app with one task."""

from celery import Celery

app = Celery("jobs")


@app.task
def greet(name: str) -> dict[str, object]:
    return {"text": f"Hello, {name}!", "letters": len(name)}
'''

CONFTEST: Final = 'pytest_plugins = ["workflows.first.plan"]\n'

PLAN: Final = '''"""The first batch: three jobs, each of which becomes a test."""

from pytest_manifest import PlanBuilder, planning_fixture


@planning_fixture("first:all")
def first_all(plan: PlanBuilder) -> None:
    """Greet three people."""
    for name in ("Ada", "Grace"):
        plan.add(
            "jobs.greet",
            id=f"greet-{name.lower()}",
            kwargs={"name": name},
            timeout=30,
            expect={"result": {"letters": len(name)}},
        )
    plan.add(
        "jobs.greet",
        id="greet-hedy",
        kwargs={"name": "Hedy"},
        timeout=30,
        # Wrong on purpose, so that you see a failure. Hedy has 4 letters: correct it, run it again.
        expect={"result": {"letters": 5}},
    )
'''

VERIFY: Final = '''"""Tests of what an expectation cannot say, run once for each entry."""

from pytest_manifest.schema import Entry, Receipt


def test_the_name_is_in_the_greeting(entry: Entry, receipt: Receipt) -> None:
    assert entry.kwargs["name"] in receipt.result["text"]
'''

PLAN_FOR_APP: Final = '''"""The first batch: two jobs, each of which becomes a test.

They use a task that every Celery app has and that does no harm: it returns its arguments. Put your
own here: `manifest new --from-task NAME` writes entries of a task's arguments.
"""

from pytest_manifest import PlanBuilder, planning_fixture


@planning_fixture("first:all")
def first_all(plan: PlanBuilder) -> None:
    """Have two lists of numbers returned."""
    plan.add("celery.accumulate", id="right", args=[1, 2], timeout=30, expect={"result": [1, 2]})
    plan.add(
        "celery.accumulate",
        id="wrong",
        args=[3, 4],
        timeout=30,
        # Wrong on purpose, so that you see a failure. It returns [3, 4]: correct it, run it again.
        expect={"result": [3, 5]},
    )
'''

VERIFY_FOR_APP: Final = '''"""Tests of what an expectation cannot say, run once for each entry."""

from pytest_manifest.schema import Entry, Receipt


def test_nothing_is_lost(entry: Entry, receipt: Receipt) -> None:
    assert len(receipt.result) == len(entry.args)
'''


PRIVATE: Final = """\
# Jobs stay on a private stack of this machine. Take the next line out, and they go where
# the app sends its own.
manifest_broker = private
"""


def pytest_ini(app: str) -> str:
    """Return a pytest.ini that names the app, and keeps its jobs on the private stack."""
    return f"[pytest]\nmanifest_app = {app}\n{PRIVATE}"


def batch_ini(app: str, plugin: str, paths: str) -> str:
    """Return the settings of batches alone, in a project whose tests have settings of their own.

    ``plugin``: the module of the plan; ``paths``: the folders that modules are imported from.
    """
    return f"""\
# Settings of batches, apart from those of the tests here: pytest -c batch.ini --manifest=FILE
[pytest]
manifest_app = {app}
{PRIVATE}pythonpath = {paths}
# The conftest.py of tests, the variables of pytest-env and the block of pytest-django are
# for tests. A plan, or a fixture for verify.py, is named by -p MODULE.
addopts = --noconftest -p no:env -p no:django -p {plugin}
"""
