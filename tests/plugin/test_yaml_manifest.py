"""A run of a manifest that is written in YAML."""

from __future__ import annotations

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
