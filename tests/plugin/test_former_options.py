"""Options by their former names: refused with the new name, unless another plugin has them."""

from __future__ import annotations

import pytest

THEIRS = """
def pytest_addoption(parser):
    parser.addoption("--resume", action="store_true")
    parser.addoption("--wait", type=int, default=1)
    parser.addoption("--plan", default="none")
"""
CHECK = """
def test_values(pytestconfig):
    option = pytestconfig.option
    assert (option.resume, option.wait, option.plan) == (True, 5, "b")
    assert (option.manifest_resume, option.manifest_wait, option.manifest_plan) == (
        False, False, None)
"""
RENAMED = [
    (["--plan=w:m"], "--manifest-plan for --plan"),
    (["--plan-opt", "a=1"], "--manifest-plan-opt for --plan-opt"),
    (["--plan-run"], "--manifest-plan-run for --plan-run"),
    (["--plan-force"], "--manifest-plan-force for --plan-force"),
    (["--dispatch-only"], "--manifest-dispatch-only for --dispatch-only"),
    (["--audit"], "--manifest-audit for --audit"),
    (["--wait"], "--manifest-wait for --wait"),
    (["--resume"], "--manifest-resume for --resume"),
    (["--resume=x"], "--manifest-resume for --resume"),
    (["--resume-unsafe"], "--manifest-resume-unsafe for --resume-unsafe"),
    (["--resume-changed"], "--manifest-resume-changed for --resume-changed"),
    (
        ["--manifest=m.jsonl", "--audit", "--wait", "--audit"],
        "--manifest-audit for --audit, --manifest-wait for --wait",
    ),
]


@pytest.mark.parametrize(("arguments", "change"), RENAMED, ids=lambda value: str(value))
def test_a_former_name_is_answered_by_the_new_one(
    pytester: pytest.Pytester, arguments: list[str], change: str
) -> None:
    """All of them in one message, each once."""
    with pytest.raises(pytest.UsageError) as caught:
        pytester.parseconfig(*arguments)
    assert str(caught.value) == (
        f"write {change}: all options of pytest-celery-manifest begin with --manifest"
    )


@pytest.mark.parametrize("source", ["command line", "addopts", "environment"])
def test_a_former_name_ends_pytest_as_a_usage_error(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    """Where it comes from makes no difference, and nothing is collected."""
    if source == "addopts":
        pytester.makeini("[pytest]\naddopts = --resume")
    if source == "environment":
        monkeypatch.setenv("PYTEST_ADDOPTS", "--resume")
    arguments = ["--resume"] if source == "command line" else []
    result = pytester.runpytest_inprocess(*arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: write --manifest-resume for --resume: *"])
    assert "collected" not in result.stdout.str()


@pytest.mark.parametrize(
    "loaded",
    [
        pytest.param("before", marks=pytest.mark.ring(2)),
        pytest.param("after", marks=pytest.mark.ring(2)),
        "conftest",
    ],
)
def test_an_option_of_another_plugin_is_left_to_it(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, loaded: str
) -> None:
    """Whether it is loaded before ours or after, in xdist workers as well."""
    pytester.makepyfile(**{"conftest" if loaded == "conftest" else "theirs": THEIRS}, test_it=CHECK)
    arguments = ["-p", "theirs"] if loaded == "before" else []
    if loaded == "after":
        monkeypatch.setenv("PYTEST_PLUGINS", "theirs")
    monkeypatch.setenv("PYTHONPATH", str(pytester.path))
    arguments += ["--resume", "--wait=5", "--plan", "b", "-n", "1"]
    pytester.runpytest_subprocess(*arguments).assert_outcomes(passed=1)


def test_beside_another_plugins_option_a_former_name_is_still_refused(
    pytester: pytest.Pytester,
) -> None:
    """The message names the one that nobody registered."""
    pytester.makeconftest(THEIRS)
    with pytest.raises(pytest.UsageError, match=r"^write --manifest-audit for --audit: all"):
        pytester.parseconfig("--resume", "--audit")


@pytest.mark.parametrize("arguments", [["-k=--resume"], ["--", "--resume"], ["--resumed"]])
def test_only_an_option_is_taken_for_one(pytester: pytest.Pytester, arguments: list[str]) -> None:
    """A value, a file after ``--`` and a longer name are none of ours."""
    result = pytester.runpytest_inprocess(*arguments)
    assert "--manifest-resume" not in result.stderr.str()


def test_help_is_printed_beside_a_former_name(pytester: pytest.Pytester) -> None:
    """``--help`` lists the new names."""
    result = pytester.runpytest_inprocess("--help", "--resume")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*--manifest-resume-unsafe*"])
