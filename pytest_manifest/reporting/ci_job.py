"""Know the job of a CI server that a session runs in, by its variables."""

from __future__ import annotations

from collections.abc import Mapping


def executor(variables: Mapping[str, str]) -> dict[str, object] | None:
    """Return Allure's executor without what the CI server does not set; None outside CI."""

    def known(*names: str) -> str:
        return next((found for name in names if (found := variables.get(name))), "")

    if known("GITHUB_ACTIONS"):
        name, kind = "GitHub Actions", "github"
        server, run, attempt = map(
            known, ("GITHUB_SERVER_URL", "GITHUB_RUN_ID", "GITHUB_RUN_ATTEMPT")
        )
        home = f"{server}/{known('GITHUB_REPOSITORY')}/actions" if server else ""
        again = "" if attempt in ("", "1") else f"/attempts/{attempt}"
        number, job = known("GITHUB_RUN_NUMBER"), known("GITHUB_WORKFLOW")
        build = f"{home}/runs/{run}{again}" if home and run else ""
    elif known("GITLAB_CI"):
        name, kind, home = "GitLab CI", "gitlab", known("CI_PROJECT_URL")
        number, job, build = map(known, ("CI_PIPELINE_IID", "CI_JOB_NAME", "CI_JOB_URL"))
    elif home := known("JENKINS_URL"):
        name, kind = "Jenkins", "jenkins"
        number, job, build = map(known, ("BUILD_NUMBER", "JOB_NAME", "BUILD_URL"))
    elif known("CI", "BUILD_URL"):
        name, kind = known("CI_NAME") or "CI", "ci"
        number, job = known("BUILD_NUMBER", "CI_BUILD_NUMBER"), known("JOB_NAME", "CI_JOB_NAME")
        build = known("BUILD_URL", "CI_BUILD_URL")
    else:
        return None
    fields = {
        "name": name,
        "type": kind,
        "url": home,
        "buildOrder": int(number) if number.isdecimal() else "",
        "buildName": f"{job or 'build'} #{number}" if number else "",
        "buildUrl": build,
    }
    return {name: value for name, value in fields.items() if value != ""}
