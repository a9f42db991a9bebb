"""Run jobs of a GitHub Actions workflow here: its steps in order, its actions by what they do."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from tests.pipelines.machine import Machine, copied

Yaml: TypeAlias = Any
"""What YAML holds: only who reads a file knows what is where."""
EXPRESSION = re.compile(r"\$\{\{(.*?)\}\}", re.DOTALL)
FUNCTIONS = {
    "always()": "True",
    "!cancelled()": "True",
    "cancelled()": "False",
}


@dataclass
class Kept:
    """What outlives a job: artifacts by name, and caches by key (newest last)."""

    folder: Path
    artifacts: dict[str, Path] = field(default_factory=dict)
    caches: dict[str, Path] = field(default_factory=dict)

    def new(self, kind: str) -> Path:
        """Make an empty folder."""
        place = self.folder / f"{kind}-{len(list(self.folder.glob(f'{kind}-*')))}"
        place.mkdir(parents=True)
        return place


@dataclass(frozen=True)
class Step:
    """What became of a step; ``output``: what a command printed."""

    name: str
    failed: bool
    output: str = ""


def workflow(path: Path) -> dict[str, Yaml]:
    """Read a workflow; YAML 1.1 takes its key ``on`` for true."""
    found: Yaml = yaml.safe_load(path.read_text("utf-8"))
    return {("on" if key is True else key): value for key, value in found.items()}


class Job:
    """One job on one machine; ``context`` has values like ``github.run_id``, by their names."""

    def __init__(
        self,
        flow: Mapping[str, Yaml],
        name: str,
        machine: Machine,
        kept: Kept,
        context: Mapping[str, str],
        *,
        environment: Mapping[str, str],
    ) -> None:
        self.machine, self.kept = machine, kept
        self.context = dict(context)
        job = flow["jobs"][name]
        self.steps = job["steps"]
        self.environment = (
            self._mapping(flow.get("env")) | self._mapping(job.get("env")) | dict(environment)
        )
        self.summary = machine.folder.parent / "summary.md"
        self.done: list[Step] = []

    @property
    def failed(self) -> bool:
        """Whether a step has failed that may not."""
        return any(step.failed for step in self.done)

    def run(self) -> list[Step]:
        """Run the steps in order; after a failure only those whose condition says so."""
        for step in self.steps:
            condition = step.get("if")
            due = not self.failed if condition is None else self.holds(str(condition))
            if due:
                self.done.append(self._step(step))
        return self.done

    def _step(self, step: dict[str, Yaml]) -> Step:
        given = self._mapping(step.get("with"))
        if "uses" in step:
            action = str(step["uses"]).partition("@")[0]
            worked = ACTIONS[action](self, given)
            return Step(action, failed=not worked and step.get("continue-on-error") is not True)
        done = self._command(step)
        return Step(str(step["name"]), failed=done.returncode != 0, output=done.stdout)

    def _command(self, step: dict[str, Yaml]) -> subprocess.CompletedProcess[str]:
        script = str(step["run"])
        assert "${{" not in script, f"an expression within a script: {script}"
        outputs = self.machine.folder.parent / "outputs"
        outputs.write_text("")
        own = self._mapping(step.get("env")) | {
            "GITHUB_ACTIONS": "true",
            "GITHUB_OUTPUT": str(outputs),
            "GITHUB_REPOSITORY": "me/shop",
            "GITHUB_STEP_SUMMARY": str(self.summary),
            "GITHUB_WORKSPACE": str(self.machine.folder),
            "GITHUB_REF_NAME": self.context.get("github.ref_name", "main"),
        }
        done = self.machine.run(script, self.environment | own)
        for line in outputs.read_text("utf-8").splitlines():
            key, _, value = line.partition("=")
            self.context[f"steps.{step.get('id')}.outputs.{key}"] = value
        return done

    def _mapping(self, found: Yaml) -> dict[str, str]:
        return {name: self._text(value) for name, value in (found or {}).items()}

    def _text(self, value: Yaml) -> str:
        text = str(value).lower() if isinstance(value, bool) else str(value)
        return EXPRESSION.sub(lambda match: self.context.get(match[1].strip(), ""), text)

    def holds(self, condition: str) -> bool:
        """Evaluate a condition; a status function in it replaces the default ``success()``."""
        text = condition.strip().removeprefix("${{").removesuffix("}}")
        asks_status = any(name in text for name in FUNCTIONS)
        for function, value in FUNCTIONS.items():
            text = text.replace(function, value)
        text = text.replace("&&", " and ").replace("||", " or ")

        def known(match: re.Match[str]) -> str:
            value = self.context.get(match[0], "")
            return value if value.isdigit() else repr(value)

        text = re.sub(r"\b(github|inputs|needs|matrix|steps)(\.[\w-]+)+", known, text)
        verdict = bool(eval(text, {"__builtins__": {}}))  # a condition of our own files
        return verdict and (asks_status or not self.failed)


def _check_out(job: Job, given: Mapping[str, str]) -> bool:
    assert given["persist-credentials"] == "false"
    job.machine.check_out()
    return True


def _nothing(_job: Job, _given: Mapping[str, str]) -> bool:
    return True


def _upload(job: Job, given: Mapping[str, str]) -> bool:
    """Keep files under a name: of one folder its contents, of several paths as they lie."""
    work, name = job.machine.folder, given["name"]
    assert name not in job.kept.artifacts or given.get("overwrite") == "true", name
    paths = given["path"].split()
    place = job.kept.new("artifact")
    for path in paths:
        hidden = any(part.startswith(".") for part in Path(path).parts)
        assert not hidden or given.get("include-hidden-files") == "true", path
        if (work / path).exists():
            copied(work / path, place if len(paths) == 1 else place / path)
    if not any(place.iterdir()):
        return given.get("if-no-files-found") != "error"
    job.kept.artifacts[name] = place
    return True


def _download(job: Job, given: Mapping[str, str]) -> bool:
    target = job.machine.folder / given.get("path", ".")
    if "pattern" in given:
        for name, place in job.kept.artifacts.items():
            if fnmatch(name, given["pattern"]):
                copied(place, target / name)
        return True
    place_of_one = job.kept.artifacts.get(given["name"])
    if place_of_one is not None:
        copied(place_of_one, target)
    return place_of_one is not None


def _restore(job: Job, given: Mapping[str, str]) -> bool:
    wanted = (given["key"], *given.get("restore-keys", "").split())
    for prefix in wanted:
        for key in reversed(job.kept.caches):
            if key.startswith(prefix):
                copied(job.kept.caches[key], job.machine.folder / given["path"])
                return True
    return True


def _save(job: Job, given: Mapping[str, str]) -> bool:
    place = job.kept.new("cache") / "content"
    copied(job.machine.folder / given["path"], place)
    assert given["key"] not in job.kept.caches
    job.kept.caches[given["key"]] = place
    return True


ACTIONS = {
    "actions/checkout": _check_out,
    "actions/setup-python": _nothing,
    "actions/upload-artifact": _upload,
    "actions/download-artifact": _download,
    "actions/cache/restore": _restore,
    "actions/cache/save": _save,
}
