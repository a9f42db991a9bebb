"""Run jobs of a GitLab pipeline here: before_script, script and after_script, as a runner does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml

from tests.pipelines.github import Yaml
from tests.pipelines.machine import Machine


def pipeline(path: Path) -> dict[str, dict[str, Yaml]]:
    """Read a pipeline, each job with what it extends."""
    found = yaml.safe_load(path.read_text("utf-8"))
    for job in found.values():
        if isinstance(job, dict) and "extends" in job:
            for key, value in found[job.pop("extends")].items():
                job.setdefault(key, value)
    return dict(found)


def variables(found: Yaml, known: Mapping[str, str]) -> dict[str, str]:
    """Variables, of which some name another one."""
    given = {name: str(value) for name, value in (found or {}).items()}
    return {name: known.get(value.removeprefix("$"), value) for name, value in given.items()}


def run_job(
    flow: Mapping[str, dict[str, Yaml]], name: str, machine: Machine, known: Mapping[str, str]
) -> tuple[int, str]:
    """Run a job's commands as one script, and what comes after it; its status and output."""
    job = flow[name]
    commands: list[str] = flow["default"]["before_script"] + job["script"]
    environment = variables(flow["variables"], known) | variables(job.get("variables"), known)
    done = machine.run("\n".join(commands), environment | dict(known))
    machine.run("\n".join(job.get("after_script", [])), environment | dict(known))
    return done.returncode, done.stdout
