"""A run of a manifest that is written in YAML."""

from __future__ import annotations

import re

import pytest

from tests.plugin.conftest import Project

MANIFEST = """\
# each night
- id: one
  task: jobs.double
  kwargs: {n: 1, key: one}
  expect: {result: {n: 2}}

- id: two
  task: jobs.double
  kwargs: {n: 2, key: two}
  expect:
    result: {n: 5}
"""


@pytest.mark.usefixtures("in_memory")
def test_a_manifest_in_yaml_is_run_and_audited(project: Project) -> None:
    """Reports name its lines, and another comment makes no other manifest of it."""
    path = project.write("m.yaml", MANIFEST)
    done = project.run("--manifest=m.yaml")
    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines(["*m.yaml:7*"])
    path.write_text(f"# or day\n{MANIFEST}", "utf-8")
    audited = project.run("--manifest=m.yaml", "--manifest-audit")
    audited.assert_outcomes(passed=1, failed=1)
    one = project.run("m.yaml::entry[one]", "--manifest=m.yaml", "--manifest-rerun")
    one.assert_outcomes(passed=1)
    assert project.ran() == {"one": 2, "two": 1}
    # Alone it may be a file of another plugin's.
    assert project.run("m.yaml").ret == pytest.ExitCode.USAGE_ERROR


@pytest.mark.usefixtures("in_memory")
def test_a_node_id_of_yaml_is_found_alone(project: Project) -> None:
    """As one of JSON lines is, and said to be sent; the file alone is not ours, nor another id."""
    project.write("more/m.yaml", MANIFEST)
    one = project.run("more/m.yaml::entry[one]", "--manifest-rerun")
    one.assert_outcomes(passed=1)
    one.stdout.fnmatch_lines(["manifest: more/m.yaml is a manifest: its jobs are sent, as with *"])
    assert project.ran() == {"one": 1}
    for other in ("more/m.yaml", "more/m.yaml::one"):
        assert project.run(other).ret == pytest.ExitCode.USAGE_ERROR
    assert project.ran() == {"one": 1}


@pytest.mark.usefixtures("in_memory")
def test_a_changed_manifest_in_yaml_goes_on_as_it_was(project: Project) -> None:
    """By the advice of the refusal, also where it has a header, and not all of it was sent."""
    indented = MANIFEST.replace("# each night\n", "").replace("\n", "\n  ")
    was = f"manifest: 1\nentries:\n  {indented}"
    path = project.write("m.yaml", was)
    project.run("--manifest=m.yaml", "-k", "one").assert_outcomes(passed=1, deselected=1)
    path.write_text(was.replace("n: 5", "n: 4"), "utf-8")
    refused = project.run("--manifest=m.yaml", "--manifest-resume")
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    said = re.search(
        r"was changed since run .*; give it as it was, by (\S+), or", str(refused.stderr)
    )
    assert said is not None
    resumed = project.run(said[1], "--manifest-resume")
    resumed.assert_outcomes(passed=1, failed=1)  # two makes no 5
    assert project.ran() == {"one": 1, "two": 1}
    assert len(project.ledgers()) == 1
