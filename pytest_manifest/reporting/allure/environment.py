"""Write Allure's files about a run as a whole: environment, executor, categories."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_manifest.files import write_whole
from pytest_manifest.reporting.allure.terms import CATEGORIES
from pytest_manifest.reporting.run_report import RunReport
from pytest_manifest.schema.shown import shown_params
from pytest_manifest.text import short, short_path

if TYPE_CHECKING:
    from pytest_manifest.run import Run


_PACKAGES = ("pytest-celery-manifest", "pytest", "celery", "allure-pytest")
_MADE_BY = "pytest-celery-manifest"


def write_run_files(folder: Path, report: RunReport, runs: Sequence[Run]) -> None:
    """Write the three files, and keep what other programs have put there."""
    folder.mkdir(parents=True, exist_ok=True)
    mode = report.options.report_mode
    texts = _properties(folder, environment(report, runs))
    _write(folder / "environment.properties", texts, mode)
    _write(folder / "categories.json", _json(_categories(folder)), mode)
    job = executor(os.environ)
    if job is not None and _is_ours(folder / "executor.json"):
        _write(folder / "executor.json", _json(job | {"madeBy": _MADE_BY}), mode)


def environment(report: RunReport, runs: Sequence[Run]) -> dict[str, str]:
    """Return names and values; of several runs, the values that differ, after each other."""
    values: dict[str, list[str]] = {}

    def add(name: str, value: object) -> None:
        known = values.setdefault(name, [])
        if value is not None and str(value) not in known:
            known.append(str(value))

    for run in runs:
        add("workflow", run.info.workflow)
        add("mode", run.info.mode)
        add("manifest", short_path(run.manifest.path, report.options.root))
        add("run", run.info.run)
        add("entries", run.info.entries)
        add("broker", run.info.broker)
        add("stack", "private" if run.info.is_private else "existing")
        add("workers", run.workers)
        for name, value in shown_params(run.manifest.header).items():
            add(f"option {name}", value if isinstance(value, str) else short(value))
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            add(package, version(package))
    add("python", platform.python_version())
    add("system", platform.platform(terse=True))
    return {name: ", ".join(known) for name, known in values.items() if known}


def _properties(folder: Path, ours: Mapping[str, str]) -> str:
    lines = {_escaped(name, key=True): _escaped(value) for name, value in ours.items()}
    path = folder / "environment.properties"
    kept = path.read_text("utf-8").splitlines() if path.exists() else []
    kept = [line for line in kept if line.partition("=")[0].strip() not in lines]
    return "\n".join([*kept, *(f"{name}={value}" for name, value in lines.items())]) + "\n"


def _escaped(text: str, *, key: bool = False) -> str:
    """Escape text for a ``.properties`` file, in ASCII."""
    shown = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    if key:
        shown = shown.replace(" ", "_").replace("=", "\\=").replace(":", "\\:")
    units = (ord(char) for char in shown)
    return "".join(
        chr(unit) if 31 < unit < 127 else json.dumps(chr(unit)).strip('"') for unit in units
    )


def _categories(folder: Path) -> list[dict[str, object]]:
    """Return the file's own categories, and ours after them."""
    ours: list[dict[str, object]] = [
        {"name": name, "messageRegex": f"^{kind}: [\\s\\S]*", "matchedStatuses": list(statuses)}
        for name, kind, statuses in CATEGORIES
    ]
    names = {one["name"] for one in ours}
    path = folder / "categories.json"
    kept: list[dict[str, object]] = []
    with suppress(OSError, ValueError):
        kept = [one for one in json.loads(path.read_text("utf-8")) if one.get("name") not in names]
    return kept + ours


def _is_ours(path: Path) -> bool:
    try:
        return bool(json.loads(path.read_text("utf-8")).get("madeBy") == _MADE_BY)
    except FileNotFoundError:
        return True
    except (OSError, ValueError, AttributeError):
        return False


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _write(path: Path, text: str, mode: int) -> None:
    """Replace the file at once, so that a watcher of the folder never reads half of it."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    write_whole(scratch, text.encode("utf-8", "replace"), mode)
    scratch.replace(path)


# The job of a CI server

Executor = dict[str, object]


def executor(variables: Mapping[str, str]) -> Executor | None:
    """Return Allure's executor without what the server does not set; None outside CI."""
    for variable, make in _SERVERS:
        if variables.get(variable):
            fields = make(variables.get)
            if str(fields.get("buildOrder") or "").isdecimal():
                fields["buildOrder"] = int(str(fields["buildOrder"]))
            else:
                fields.pop("buildOrder", None)
            return {name: value for name, value in fields.items() if value not in (None, "")}
    return None


Get = Callable[[str], str | None]


def _github(get: Get) -> Executor:
    home = f"{get('GITHUB_SERVER_URL')}/{get('GITHUB_REPOSITORY')}"
    run, attempt = get("GITHUB_RUN_ID"), get("GITHUB_RUN_ATTEMPT")
    again = f"/attempts/{attempt}" if attempt and attempt != "1" else ""
    return {
        "name": "GitHub Actions",
        "type": "github",
        "url": f"{home}/actions" if get("GITHUB_SERVER_URL") else None,
        "buildOrder": get("GITHUB_RUN_NUMBER"),
        "buildName": _build(get("GITHUB_WORKFLOW") or "workflow", get("GITHUB_RUN_NUMBER") or run),
        "buildUrl": f"{home}/actions/runs/{run}{again}" if run else None,
    }


def _gitlab(get: Get) -> Executor:
    return {
        "name": "GitLab CI",
        "type": "gitlab",
        "url": get("CI_PROJECT_URL"),
        "buildOrder": get("CI_PIPELINE_IID") or get("CI_PIPELINE_ID"),
        "buildName": _build(
            get("CI_JOB_NAME") or "job", get("CI_PIPELINE_IID") or get("CI_JOB_ID")
        ),
        "buildUrl": get("CI_JOB_URL") or get("CI_PIPELINE_URL"),
    }


def _jenkins(get: Get) -> Executor:
    return {
        "name": "Jenkins",
        "type": "jenkins",
        "url": get("JENKINS_URL"),
        "buildOrder": get("BUILD_NUMBER"),
        "buildName": _build(get("JOB_NAME") or "job", get("BUILD_NUMBER")),
        "buildUrl": get("BUILD_URL"),
    }


def _any(get: Get) -> Executor:
    number = get("BUILD_NUMBER") or get("CI_BUILD_NUMBER")
    return {
        "name": get("CI_NAME") or "CI",
        "type": "ci",
        "buildOrder": number,
        "buildName": _build(get("JOB_NAME") or get("CI_JOB_NAME") or "build", number),
        "buildUrl": get("BUILD_URL") or get("CI_BUILD_URL"),
    }


def _build(name: str, number: str | None) -> str | None:
    return f"{name} #{number}" if number else None


_SERVERS: Sequence[tuple[str, Callable[[Get], Executor]]] = (
    ("GITHUB_ACTIONS", _github),
    ("GITLAB_CI", _gitlab),
    ("JENKINS_URL", _jenkins),
    ("CI", _any),
    ("BUILD_URL", _any),
)
