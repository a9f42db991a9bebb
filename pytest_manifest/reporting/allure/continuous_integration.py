"""Name the CI job that makes a report, by the variables that CI servers set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

Executor = dict[str, object]


def executor(variables: Mapping[str, str]) -> Executor | None:
    """Return Allure's executor without what the server does not set; None outside CI."""
    for asked, make in _SERVERS:
        if variables.get(asked):
            made = make(variables.get)
            if str(made.get("buildOrder") or "").isdecimal():
                made["buildOrder"] = int(str(made["buildOrder"]))
            else:
                made.pop("buildOrder", None)
            return {name: value for name, value in made.items() if value not in (None, "")}
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
