"""What keeps a tag from becoming a release."""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
import sys
import zipfile
from contextlib import nullcontext
from pathlib import Path

import pytest

from pytest_manifest.reporting.run_page.page import VENDOR
from tests.pipelines.github import workflow
from tests.pipelines.machine import ROOT

SCRIPT = ROOT / ".ci" / "check_version.py"


@pytest.mark.parametrize(
    ("tag", "heading", "complaint"),
    [
        ("v1.2.3", "## 1.2.3 (2026-11-28)", None),
        ("v1.2.3", "## 1.2.30", "CHANGELOG.md has no heading '## 1.2.3'"),
        ("v1.2.4", "## 1.2.3", "the tag is v1.2.4, and pyproject.toml says 1.2.3; tag v1.2.3"),
    ],
)
def test_a_tag_names_a_version_that_is_described(
    tmp_path: Path, tag: str, heading: str, complaint: str | None
) -> None:
    """pyproject.toml and CHANGELOG.md agree with it, or the release ends there."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(SCRIPT, tmp_path / ".ci")
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.3"\n', "utf-8")
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n{heading}\n", "utf-8")
    command = [sys.executable, str(tmp_path / ".ci" / SCRIPT.name), tag]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == ((1, complaint) if complaint else (0, ""))


def test_a_distribution_with_a_stranger_is_refused(tmp_path: Path) -> None:
    """A second top level in the wheel is told by name."""
    wheel = tmp_path / "pytest_celery_manifest-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("pytest_celery_manifest-1.dist-info/entry_points.txt", "")
        archive.writestr("pytest_manifest/__init__.py", "")
        archive.writestr("tests/__init__.py", "")
    check = runpy.run_path(str(ROOT / ".ci" / "check_wheel.py"))["check_wheel"]
    with pytest.raises(SystemExit, match="also holds tests"):
        check(wheel)


def test_the_bill_of_materials_has_what_is_vendored() -> None:
    """By its package, version and licence, beside what was there."""
    with_vendored = runpy.run_path(str(ROOT / ".ci" / "check_wheel.py"))["with_vendored"]
    components = with_vendored({"components": [{"name": "celery"}]})["components"]
    listed = json.loads((VENDOR / "vendor.json").read_text("utf-8"))["packages"]
    assert components[0] == {"name": "celery"}
    assert [(one["purl"], one["licenses"]) for one in components[1:]] == [
        (f"pkg:npm/{one['package']}@{one['version']}", [{"license": {"id": one["licence"]}}])
        for one in listed
    ]


def test_nothing_is_released_that_was_not_tested() -> None:
    """Whatever writes, or has an environment, waits for all that tests a change, and all rings."""
    folder = ROOT / ".github" / "workflows"
    testing = {f"./.github/workflows/{name}.yml" for name in ("ci", "nightly")}
    assert all("workflow_call" in workflow(ROOT / path)["on"] for path in testing)
    jobs = workflow(folder / "release.yml")["jobs"]

    def before(name: str) -> set[str]:
        needed = jobs[name].get("needs", [])
        direct = {needed} if isinstance(needed, str) else set(needed)
        return direct.union(*(before(one) for one in direct))

    tested = {name for name, job in jobs.items() if job.get("uses") in testing}
    assert len(tested) == len(testing)
    for name, job in jobs.items():
        if "environment" in job or "write" in job["permissions"].values():
            assert before(name) >= tested, name
    assert before("publish") > tested
    assert not any("if" in job for job in jobs.values())  # it would go on after a failed one


README = (
    "[how](docs/how.md#so), [what](https://a.example)\n\n"
    '<p align="center">\n  <img src="docs/one.png" width="840"\n       alt="So">\n</p>\n\nEnd\n'
)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("", "how, [what](https://a.example)\n\nEnd\n"),
        (
            "https://forge.example/us",
            README.replace("docs/how.md", "https://forge.example/us/blob/v1.2/docs/how.md").replace(
                "docs/one.png", "https://forge.example/us/raw/v1.2/docs/one.png"
            ),
        ),
    ],
)
def test_links_of_the_description_lead_somewhere(address: str, expected: str) -> None:
    """To the version's files where the release says where those are; else they are plain text."""
    described = runpy.run_path(str(ROOT / "hatch_build.py"))["description"]
    assert described(README, address, "1.2") == expected


@pytest.mark.parametrize(
    ("link", "complaint"),
    [
        ("[a](docs/README.md)", "leads to docs/README.md, which is in the clone only"),
        ('<img src="docs/a.png">', "leads to docs/a.png, which is in the clone only"),
        ("[a](https://forge.example/blob/v1/gone.md)", "there is no gone.md"),
        ("[a](https://forge.example/blob/v1/docs/README.md#so)", None),
    ],
)
def test_a_description_with_a_dead_link_is_refused(
    tmp_path: Path, link: str, complaint: str | None
) -> None:
    """An index page has nothing beside it, and no release's page can be mended."""
    wheel = tmp_path / "pytest_celery_manifest-1-py3-none-any.whl"
    head = "Metadata-Version: 2.4\nName: pytest-celery-manifest\nVersion: 1\n"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(
            "pytest_celery_manifest-1.dist-info/METADATA",
            f"{head}Description-Content-Type: text/markdown\n\nÜ {link}\n",
        )
    check = runpy.run_path(str(ROOT / ".ci" / "check_wheel.py"))["check_description"]
    with nullcontext() if complaint is None else pytest.raises(SystemExit, match=complaint):
        check(wheel)
