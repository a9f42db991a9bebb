"""What Allure is told of the run as a whole, and the small parts that results are made of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_manifest.manifest import Manifest, read_manifest
from pytest_manifest.reporting.allure.hooks import history_id, result_id, scopes
from pytest_manifest.reporting.allure.steps import (
    CATEGORIES,
    is_known,
    issue_address,
    labels_of,
    links_of,
    status_of,
)
from pytest_manifest.reporting.ci_job import executor
from pytest_manifest.reporting.markdown import escaped, verbatim
from pytest_manifest.schema import Entry
from pytest_manifest.schema.statuses import VerdictStatus
from pytest_manifest.text import visible
from tests.plugin import allure_support as allure
from tests.plugin.allure_support import MEMORY
from tests.plugin.conftest import Project


def properties(folder: Path) -> dict[str, str]:
    lines = (folder / "environment.properties").read_text("ascii").splitlines()
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


@pytest.mark.parametrize(
    ("stack", "broker"),
    [
        pytest.param((MEMORY,), "memory://", id="memory"),
        pytest.param(
            (), "redis://:***@", id="private", marks=[pytest.mark.live, pytest.mark.ring(2)]
        ),
    ],
)
def test_the_environment(project: Project, stack: tuple[str, ...], broker: str) -> None:
    """Run, plan, stack and versions; a password is not among them."""
    header = {"manifest": 1, "workflow": "films", "params": {"language": "日本", "n": "3"}}
    entry = {"id": "d", "task": "jobs.double", "args": [1]}
    project.write("m.jsonl", f"{json.dumps(header)}\n{json.dumps(entry)}\n")
    told = properties(allure.run(project, *stack).folder)
    assert told["workflow"] == "films"
    assert told["manifest"] == "m.jsonl"
    assert told["entries"] == "1"
    assert told["option_language"] == "\\u65e5\\u672c"
    assert told["broker"].startswith(broker)
    assert told["stack"] == "private"
    assert told["run"] in project.ledgers()[-1].name
    assert {"python", "celery", "pytest", "workers", "system"} <= set(told)


def test_files_of_others_stay(project: Project) -> None:
    """What the user has put beside the results is kept, and ours is there once, run after run."""
    folder = project.path / "allure-results"
    project.write("allure-results/environment.properties", "browser=none\nrun=mine\n")
    project.write("allure-results/executor.json", '{"name": "own"}')
    project.write("allure-results/categories.json", '[{"name": "Mine", "messageRegex": "x"}]')
    project.doubles(count=1)
    for _ in range(2):
        allure.run(project, MEMORY, clean=False)
    told = properties(folder)
    assert told["browser"] == "none"
    assert told["run"] != "mine"
    assert json.loads((folder / "executor.json").read_text()) == {"name": "own"}
    names = [one["name"] for one in json.loads((folder / "categories.json").read_text())]
    assert names == ["Mine", *(name for name, _, _ in CATEGORIES)]
    assert (folder / "environment.properties").read_text().count("run=") == 1


def test_the_executor_is_written_in_ci(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """And replaced by that of a later build."""
    for name in ("GITHUB_ACTIONS", "GITLAB_CI"):
        monkeypatch.delenv(name, raising=False)
    project.doubles(count=1)
    for number in (7, 8):
        monkeypatch.setenv("JENKINS_URL", "https://ci.example.com/")
        monkeypatch.setenv("BUILD_NUMBER", str(number))
        folder = allure.run(project, MEMORY, clean=False).folder
        assert json.loads((folder / "executor.json").read_text())["buildOrder"] == number


def test_categories_name_every_verdict() -> None:
    """Each verdict but a good one is in one category, under the status that it is shown with."""
    kinds = {kind: statuses for _, kind, statuses in CATEGORIES}
    every: tuple[VerdictStatus, ...] = VerdictStatus.__args__  # type: ignore[attr-defined]  # a Literal has its values there
    assert set(kinds) == set(every) - {"passed"}
    assert all(kinds[kind] == (status_of(kind),) for kind in every if kind != "passed")


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        (
            {
                "GITHUB_ACTIONS": "true",
                "CI": "true",
                "GITHUB_SERVER_URL": "https://git.example.com",
                "GITHUB_REPOSITORY": "films/batch",
                "GITHUB_RUN_ID": "55",
                "GITHUB_RUN_NUMBER": "12",
                "GITHUB_RUN_ATTEMPT": "2",
                "GITHUB_WORKFLOW": "nightly",
            },
            {
                "name": "GitHub Actions",
                "type": "github",
                "url": "https://git.example.com/films/batch/actions",
                "buildOrder": 12,
                "buildName": "nightly #12",
                "buildUrl": "https://git.example.com/films/batch/actions/runs/55/attempts/2",
            },
        ),
        (
            {
                "GITLAB_CI": "true",
                "CI": "true",
                "CI_PROJECT_URL": "https://lab.example.com/films",
                "CI_PIPELINE_IID": "4",
                "CI_JOB_NAME": "batch",
                "CI_JOB_URL": "https://lab.example.com/films/-/jobs/9",
            },
            {
                "name": "GitLab CI",
                "type": "gitlab",
                "url": "https://lab.example.com/films",
                "buildOrder": 4,
                "buildName": "batch #4",
                "buildUrl": "https://lab.example.com/films/-/jobs/9",
            },
        ),
        (
            {
                "JENKINS_URL": "https://ci.example.com/",
                "BUILD_NUMBER": "31",
                "JOB_NAME": "films",
                "BUILD_URL": "https://ci.example.com/job/films/31/",
            },
            {
                "name": "Jenkins",
                "type": "jenkins",
                "url": "https://ci.example.com/",
                "buildOrder": 31,
                "buildName": "films #31",
                "buildUrl": "https://ci.example.com/job/films/31/",
            },
        ),
        (
            {"CI": "1", "BUILD_NUMBER": "v2", "BUILD_URL": "https://b.example.com/2"},
            {
                "name": "CI",
                "type": "ci",
                "buildName": "build #v2",
                "buildUrl": "https://b.example.com/2",
            },
        ),
        ({"GITHUB_ACTIONS": "true"}, {"name": "GitHub Actions", "type": "github"}),
    ],
    ids=["none", "github", "gitlab", "jenkins", "other", "bare"],
)
def test_executors(variables: dict[str, str], expected: dict[str, object] | None) -> None:
    """Each server's variables say which build it is; what is not said is left out."""
    made = executor(variables)
    assert made == expected


def entry(**given: object) -> Entry:
    return Entry.model_validate({"id": "e", "task": "t"} | given)


def test_labels_and_links() -> None:
    """From meta or tags; an address must be one of a page, and an issue's name is quoted."""
    one = entry(
        meta={
            "severity": "loud",
            "owner": 7,
            "issue": ["A-1", "https://a.example/2", 3, None, True, {"name": "A-4"}],
            "link": ["javascript:alert(1)", "https://docs.example/x"],
            "known_issue": "B 9/../?x",
        },
        tags=["severity:minor", "feature:sums", "issue:A-1", "plain"],
    )
    assert list(labels_of(one)) == [("severity", "minor"), ("owner", "7"), ("feature", "sums")]
    found = links_of(one, lambda name: issue_address("https://t.example/{}", name))
    assert [url for _, url, _ in found] == [
        "https://t.example/A-1",
        "https://a.example/2",
        "https://t.example/3",
        "https://t.example/A-4",
        "https://t.example/B%209/../%3Fx",
        "https://docs.example/x",
    ]
    without_pattern = [url for _, url, _ in links_of(one, lambda _: None)]
    assert without_pattern == ["https://a.example/2", "https://docs.example/x"]


@pytest.mark.parametrize(
    ("given", "known"),
    [
        ({}, False),
        ({"meta": {"known_issue": False}}, False),
        ({"meta": {"known_issue": True}}, True),
        ({"meta": {"known_issue": "A-1"}}, True),
        ({"tags": ["known_issue:A-1"]}, True),
        ({"tags": ["known_issue"]}, False),
    ],
)
def test_known_issues(given: dict[str, object], known: bool) -> None:
    """True, or the issue's name."""
    assert is_known(entry(**given)) is known


def manifest(folder: Path, name: str, **header: object) -> Manifest:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    first = [json.dumps({"manifest": 1} | header)] if header else []
    path.write_text("\n".join([*first, '{"id": "e", "task": "t"}']) + "\n", "utf-8")
    return read_manifest(path)


def test_scopes(tmp_path: Path) -> None:
    """A plan is known by workflow and mode, also under another name; two of the same by file."""
    one = manifest(tmp_path, "a/one.jsonl", workflow="w", mode="m")
    renamed = manifest(tmp_path, "b/two.jsonl", workflow="w", mode="m")
    other = manifest(tmp_path, "c.jsonl", workflow="w", mode="n")
    bare = manifest(tmp_path, "d.jsonl")
    assert scopes([one], tmp_path)[one.path] == scopes([renamed], tmp_path)[renamed.path]
    every = scopes([one, renamed, other, bare], tmp_path)
    assert len(set(every.values())) == 4
    assert every[one.path] == "a/one.jsonl"
    assert every[bare.path] == "d.jsonl"


def test_identities_are_stable() -> None:
    """History that was kept must be found again: these ids may never change."""
    assert history_id("s", "entry", "d-1") == "aac381bd34be18f1e0bc21174513cf2b"
    words = ("key", "Key", "KEY", "key ", "key.", '"key"', "ké", "ke\u0301", *allure.THOUSAND_IDS)
    assert len({history_id("s", "t", word) for word in words}) == len(words)
    first = result_id("h", "task", 0)
    assert first != result_id("h", "task", 1)
    assert first == result_id("h", "task", 0)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("日本", "日本"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("a\u202eb\u2066", "a\\u202eb\\u2066"),
        ("\x00\ud800", "\\x00\\ud800"),
    ],
)
def test_visible(text: str, shown: str) -> None:
    """What acts on a reader, or hides from him, becomes an escape."""
    assert visible(text) == shown


def test_markdown() -> None:
    """Nothing in foreign text is markup."""
    assert verbatim("a") == "`a`"
    assert verbatim("`a` ``b``\nc") == "``` `a` ``b``\\nc ```"
    assert verbatim("") == "`  `"
    assert escaped("*a* [b](c) <i>\n# d") == "&#42;a&#42; &#91;b&#93;(c) &#60;i&#62; &#35; d"
    assert escaped("- a") == "&#45; a"
    assert escaped("1. a") == "1&#46; a"
