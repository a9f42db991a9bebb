"""``pytest FILE.jsonl`` sends, and says so first; git ignores what is kept of it."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import Project


@pytest.mark.usefixtures("in_memory")
def test_a_manifest_among_the_paths_is_said_to_be_sent(project: Project) -> None:
    """Just what is named of it; in the first line of the header; with --collect-only nothing is."""
    project.doubles(count=3)
    result = project.run("m.jsonl", "--collect-only")
    result.stdout.fnmatch_lines(["manifest: m.jsonl is a manifest: its jobs would be sent, *"])
    assert not project.ran()
    result = project.run("m.jsonl::entry[d-1]")
    result.assert_outcomes(passed=1)
    assert project.ran() == {"d-1": 1}
    header = [line for line in result.stdout.lines if line.startswith(("platform", "manifest: "))]
    assert header[1] == (
        "manifest: m.jsonl is a manifest: its jobs are sent, as with --manifest=m.jsonl"
    )
    assert (project.path / ".manifest" / ".gitignore").read_text("utf-8") == "*\n"


@pytest.mark.usefixtures("in_memory")
def test_a_folder_of_the_projects_own_is_not_ignored(project: Project) -> None:
    """Where manifest_dir names one that is there, its files are the project's."""
    project.doubles(count=1)
    project.write("kept/README", "ours")
    project.run("--manifest=m.jsonl", "-o", "manifest_dir=kept").assert_outcomes(passed=1)
    assert not (project.path / "kept" / ".gitignore").exists()
