"""What tests of sessions stand on: sessions are forked from one server, and leave nothing."""

from __future__ import annotations

from tests.plugin.conftest import Project


def test_sessions_of_different_tests_have_one_server(project: Project) -> None:
    """Also when pytester has forgotten what a test had imported, as it does after each."""
    project.write(
        "conftest.py",
        "import os\n\nwith open('servers.txt', 'a') as file:\n    print(os.getppid(), file=file)\n",
    )
    project.run()
    project.pytester._sys_modules_snapshot.restore()
    project.run()
    first, second = (project.path / "servers.txt").read_text("utf-8").split()
    assert first == second
