"""Folders and files are made in ``pytest_manifest/files.py``; other modules say why not there."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house.conftest import ROOT

PACKAGE = ROOT / "pytest_manifest"
ALLOWED = {
    "cli/init.py": "sources of the user's project, as shared as its others",
    "cli/main.py": "/dev/null",
    "cli/new.py": "the folder of a manifest, which is a source",
    "cli/triage.py": "files of the project's repository, as shared as its others",
    "files.py": "where all others are made",
    "ledger/ledger.py": "touch() with mode 0600 in a private folder; SQLite opens it",
    "run/merge.py": "a ledger that SQLite has made in a private temporary folder",
    "planning.py": "the folder of a manifest, which is a source",
    "plugin/coordination.py": "in a folder of mkdtemp()",
    "plugin/session_runs.py": "/dev/null",
    "plugin/run_options.py": "the folder of pytest's own report; a file that exists",
    "processes.py": "locks, mode 0600",
    "reporting/allure/hooks.py": "the folder of allure-pytest, which has made it",
    "reporting/summary.py": "GitHub's file of a step, which it has made",
    "stack/services.py": "logs, mode 0600, in a folder of mkdtemp()",
    "stack/supervisor.py": "its log, mode 0600, in a folder of mkdtemp()",
    "stack/valkey.py": "files in the private folder of its data",
    "log.py": "the run's log, mode 0600",
}
"""Modules that make folders or files themselves, and why that is right."""


def making(source: str) -> Iterator[str]:
    """Yield each call that may make a folder or file, or change who may read it."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute | ast.Name):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
        if name in ("mkdir", "makedirs", "write_text", "write_bytes", "touch", "chmod", "copyfile"):
            yield name
        elif name == "open":
            constants = [one.value for one in node.args[:2] if isinstance(one, ast.Constant)]
            modes = [one for one in constants if isinstance(one, str) and len(one) <= 3]
            is_of_os = isinstance(node.func, ast.Attribute) and ast.unparse(node.func) == "os.open"
            if is_of_os and "O_CREAT" in ast.unparse(node):
                yield "os.open"
            elif any(set(mode) & set("wax") for mode in modes):
                yield "open"


def test_only_these_modules_make_folders_and_files() -> None:
    """A new one takes what ``files.py`` has, or says here why it need not."""
    found = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if set(making(path.read_text("utf-8")))
    }
    assert found <= ALLOWED.keys()
    nulls = {name for name, why in ALLOWED.items() if why == "/dev/null"}
    assert ALLOWED.keys() - found <= nulls, "no longer needed"


def test_no_parent_is_left_to_the_umask() -> None:
    """``mkdir(mode=0o700, parents=True)`` makes a private folder in a public one."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".mkdir"):
                keywords = {one.arg for one in node.keywords}
                assert not {"mode", "parents"} <= keywords, f"{path}:{node.lineno}"


@pytest.mark.parametrize(
    ("source", "calls"),
    [
        ("path.mkdir(parents=True)", ["mkdir"]),
        ("path.open('ab')", ["open"]),
        ("open(path, 'x')", ["open"]),
        ("path.open('rb')", []),
        ("path.open()", []),
        ("os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)", ["os.open"]),
        ("os.open(path, os.O_RDONLY)", []),
        ("Ledger.open(path)", []),
        ("Path(path).write_text(text)", ["write_text"]),
    ],
)
def test_calls_that_make_files_are_found(source: str, calls: list[str]) -> None:
    """The rule itself works."""
    assert list(making(source)) == calls


def test_the_table_names_modules() -> None:
    """Each is there."""
    assert [name for name in ALLOWED if not Path(PACKAGE, name).is_file()] == []
