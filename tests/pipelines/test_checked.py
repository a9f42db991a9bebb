"""What those who know pipelines say of ours: actionlint, zizmor, a schema, a Groovy parser."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.pipelines import jenkins
from tests.pipelines.github import workflow
from tests.pipelines.machine import ROOT

TEMPLATES = ROOT / "docs" / "how-to" / "ci"
OURS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
WORKFLOWS = [*OURS, *sorted(TEMPLATES.glob("github-*.yml"))]
GITLAB = [ROOT / ".gitlab-ci.yml", TEMPLATES / "gitlab-ci.yml"]
JENKINS = sorted(TEMPLATES.glob("Jenkinsfile*"))
PINNED = re.compile(r"uses: ([\w./-]+)@([0-9a-f]{40}) # v\d+\.\d+\.\d+$")


def checked(program: str, *arguments: str | Path) -> str:
    """Run a checker of our environment; its output, which is a fault's if there is one."""
    tools = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}", "NO_COLOR": "1"}
    command = [tools / program, *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_actionlint_finds_nothing() -> None:
    """Keys, expressions, contexts and, by shellcheck, the steps' scripts."""
    assert checked("actionlint", *WORKFLOWS) == ""


def test_zizmor_finds_nothing() -> None:
    """Least privileges, pinned actions, no expression in a script, no credential left behind."""
    checked("zizmor", "--offline", "--quiet", "--persona=pedantic", ROOT / ".github", *WORKFLOWS)


def test_actions_are_pinned_alike() -> None:
    """Each by its digest and the version that it is of; one action has one digest everywhere."""
    found: dict[str, set[str]] = {}
    for path in WORKFLOWS:
        for line in path.read_text("utf-8").splitlines():
            if "uses:" in line and "uses: ./" not in line:
                match = PINNED.search(line)
                assert match is not None, f"{path.name}: {line.strip()}"
                found.setdefault(match[1], set()).add(match[2])
    assert {name for name, digests in found.items() if len(digests) > 1} == set()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_nothing_is_allowed_that_is_not_named(path: Path) -> None:
    """A workflow allows nothing; each job what it needs, and only the release may write."""
    flow = workflow(path)
    assert flow["permissions"] == {}
    jobs = flow["jobs"]
    for name, job in jobs.items():
        assert "uses" in job or job["timeout-minutes"] > 0, name  # a called workflow has its own
        writing = {right for right, kind in job["permissions"].items() if kind == "write"}
        assert path.name == "release.yml" or not writing, name


def test_gitlab_knows_every_key() -> None:
    """By GitLab's own schema."""
    checked("check-jsonschema", "--builtin-schema=vendor.gitlab-ci", *GITLAB)


def test_dependabot_is_configured_as_it_wants() -> None:
    """By GitHub's own schema."""
    path = ROOT / ".github" / "dependabot.yml"
    checked("check-jsonschema", "--builtin-schema=vendor.dependabot", path)


def test_jenkinsfiles_are_groovy() -> None:
    """Groovy's grammar takes them whole; which steps there are only a Jenkins knows."""
    from groovy_parser.parser import parse_groovy_content

    assert JENKINS
    for path in JENKINS:
        parse_groovy_content(path.read_text("utf-8"))


@pytest.mark.parametrize("path", JENKINS, ids=lambda path: path.name)
def test_shellcheck_reads_the_steps_of_jenkins(path: Path, tmp_path: Path) -> None:
    """As actionlint has it read the steps of GitHub."""
    for stage, script in jenkins.scripts(path).items():
        file = tmp_path / f"{stage}.sh"
        file.write_text(f"#!/bin/bash -e\n{script}", "utf-8")
        checked("shellcheck", file)


def commands(path: Path) -> list[str]:
    """The scripts of a workflow's steps."""
    jobs = workflow(path)["jobs"]
    return [
        step["run"].strip()
        for job in jobs.values()
        for step in job.get("steps", ())
        if "run" in step
    ]


def test_both_pipelines_of_this_project_run_everything() -> None:
    """What must hold is said in one place, .ci/run; nobody's CI has another opinion."""
    assert commands(ROOT / ".github" / "workflows" / "ci.yml") == [".ci/run"]
    flow = yaml.safe_load((ROOT / ".gitlab-ci.yml").read_text("utf-8"))
    assert flow["all"]["script"] == [".ci/run"]
    assert all(os.access(ROOT / ".ci" / name, os.X_OK) for name in ("run", "servers"))


def test_both_rings_are_run_each_night() -> None:
    """By both forges; and each target that the commands of the hours name is the Makefile's."""
    night = ROOT / ".github" / "workflows" / "nightly.yml"
    assert "make test-all" in commands(night)
    flow = yaml.safe_load((ROOT / ".gitlab-ci.yml").read_text("utf-8"))
    assert flow["nightly"]["script"] == [".ci/servers", "make test-all", "make nightly"]
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in ("nightly", "weekly"):
        recipe = makefile.partition(f"\n{target}: ")[2].partition("\n\n")[0]
        made = re.findall(r"\$\(MAKE\) ([\w-]+)", recipe)
        job = workflow(night)["jobs"]["hours" if target == "nightly" else target]
        assert job["strategy"]["matrix"]["what"] == made
        assert all(f"\n{one}: " in makefile for one in made)


def test_no_test_has_a_second_chance() -> None:
    """But those of tests/flaky.toml, which are counted."""
    for path in (ROOT / "Makefile", ROOT / ".ci" / "run", ROOT / "noxfile.py", *GITLAB, *OURS):
        assert not re.search(r"--last-failed|--lf\b|--reruns", path.read_text("utf-8")), path.name


def test_a_release_is_built_by_what_ci_runs_each_time() -> None:
    """Its first job's commands are .ci/run's, but for the tag's check; see test_release.py."""
    everything = (ROOT / ".ci" / "run").read_text("utf-8")
    assert " wheel " in everything
    rules = (ROOT / "Makefile").read_text("utf-8").replace("$(PY)", ".venv/bin/python")
    everything += rules.partition("\nwheel: ")[2].partition("\n\n")[0]
    build = commands(ROOT / ".github" / "workflows" / "release.yml")
    assert build[1].startswith(".venv/bin/python .ci/check_version.py ")
    for command in (build[0], *build[2:5]):
        # A release also asks others about its dependencies.
        words = command.split(" --sbom ")[0].removeprefix("make ").removesuffix("complete")
        assert words in everything, command
