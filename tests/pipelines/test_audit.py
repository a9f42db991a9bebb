"""``make audit``: what it calls a fault, and what it does not claim to have seen."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from scripts import audit
from tests.pipelines.machine import ROOT

FINDING = {
    "filename": "a.py",
    "line_number": 2,
    "line_range": [1, 2],
    "test_id": "B314",
    "issue_text": "parses XML",
}


@pytest.mark.parametrize(
    ("line", "accepted"),
    [
        ("x = ET.parse(y)", False),
        ("x = ET.parse(y)  # noqa: S314", False),
        ("x = ET.parse(y)  # noqa: S314 -", False),
        ("x = ET.parse(y)  # noqa: S310 - our own", False),
        ("x = ET.parse(y)  # noqa", False),
        ("x = ET.parse(y)  # noqa: S314 - our own", True),
        ("x = ET.parse(y)  # noqa: S314  (our own)", True),
        ("x = ET.parse(y)  # noqa: E501, S314 - our own", True),
    ],
)
def test_a_finding_needs_its_reason_in_the_line(line: str, accepted: bool) -> None:
    """For its own rule, in ruff's mark; another rule's, or a mark alone, is none."""
    found: dict[str, object] = {"results": [FINDING], "errors": []}
    outcome = audit.judged_code(found, lambda _: f"{line}\ny\n")
    assert (not outcome.faults) == accepted
    assert accepted or outcome.faults == ["a.py:2: B314 parses XML"]


def test_a_file_that_cannot_be_read_is_a_fault() -> None:
    """Nothing is called good that bandit has not looked at."""
    found: dict[str, object] = {"results": [], "errors": [{"filename": "a.py", "reason": "syntax"}]}
    assert audit.judged_code(found, lambda _: "").faults == ["a.py: syntax"]


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of its own that is audited instead of this one."""
    monkeypatch.setattr(audit, "ROOT", tmp_path)
    for folder in ("pytest_manifest", "tasks", "workflows"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").touch()
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "small"\nversion = "1"\n'
        'dependencies = ["celery", "rich"]\n[tool.bandit]\n'
    )
    return tmp_path


def test_imports_and_declarations_that_differ(small: Path) -> None:
    """What is imported and not declared, and what is declared and not imported, by name."""
    code = small / "pytest_manifest" / "__init__.py"
    code.write_text("import celery\nimport rich\n")
    assert audit.dependencies().faults == []
    code.write_text("import celery\nimport numpy_\n")
    faults = audit.dependencies().faults
    assert len(faults) == 2
    assert "'rich' defined as a dependency but not used" in faults[0]
    assert "'numpy_' imported but missing" in faults[1]


def test_code_that_bandit_does_not_like(small: Path) -> None:
    """A finding without a reason, in the place where it is."""
    (small / "tasks" / "bad.py").write_text("import pickle\n\npickle.loads(b'')\n")
    assert any("tasks/bad.py:3: B301" in fault for fault in audit.code().faults)


def test_a_vendored_package_with_another_licence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that may not be in the wheel, one without its text, one that was edited."""
    monkeypatch.setattr(audit, "VENDOR", tmp_path)
    (tmp_path / "a.js").write_text("a()")
    (tmp_path / "LICENSE.a.txt").write_text("MIT License")
    files = [{"file": name, "sha256": "0" * 64} for name in ("a.js", "LICENSE.a.txt")]
    package = {"package": "a", "version": "1", "licence": "GPL-3.0-only", "files": files}
    (tmp_path / "vendor.json").write_text(json.dumps({"packages": [package]}))
    assert audit.licences().faults == [
        "a: GPL-3.0-only may not be in the wheel",
        "a: the text of GPL-3.0-only is not beside it",
        "a.js: is not what vendor.json says",
        "LICENSE.a.txt: is not what vendor.json says",
    ]


VULNERABLE = {
    "name": "celery",
    "version": "5.0",
    "vulns": [{"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["5.2"]}],
}
SAFE: Mapping[str, object] = {"name": "rich", "version": "14", "vulns": []}
UNKNOWN: Mapping[str, object] = {"name": "kombu", "skip_reason": "not found"}


def test_a_known_vulnerability_is_a_fault() -> None:
    """Unless it is accepted by one of its ids; what is accepted and gone is one, too."""
    found = [VULNERABLE, SAFE]
    faults = audit.judged_vulnerabilities(found, {}).faults
    assert faults == ["celery 5.0: PYSEC-1, fixed in 5.2"]
    assert audit.judged_vulnerabilities(found, {"CVE-1": "not reached"}).faults == []
    faults = audit.judged_vulnerabilities([SAFE], {"CVE-1": "not reached"}).faults
    assert faults == ["CVE-1 is accepted, and no longer found"]


def test_what_was_not_looked_up_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """A service that knows none of the packages finds no vulnerability: a release needs more."""
    outcome = audit.judged_vulnerabilities([SAFE, UNKNOWN], {})
    assert audit.report("vulnerabilities", outcome, complete=False)
    assert capsys.readouterr().out.splitlines() == [
        "NOT SEEN pip-audit: 1 packages looked up, 0 vulnerabilities accepted",
        "         vulnerabilities: of 2 packages 1 were not looked up: kombu",
    ]
    assert not audit.report("vulnerabilities", outcome, complete=True)
    assert capsys.readouterr().out.startswith("FAULT")


def test_checks_run_where_they_are_promised() -> None:
    """CI asks nobody; a release asks for everything, before it builds."""
    ci = (ROOT / ".ci" / "run").read_text("utf-8")
    assert re.search(r"^make .*audit ARGS=--offline$", ci, re.MULTILINE)
    release = (ROOT / ".github" / "workflows" / "release.yml").read_text("utf-8")
    assert release.index("make audit ARGS=--complete") < release.index("make dist")
    assert set(audit.ONLINE) < set(audit.CHECKS)
