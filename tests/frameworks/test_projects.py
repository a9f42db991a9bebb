"""A stranger's project gets its verdicts without a changed line, and the same ones on any stack."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from tests.frameworks.projects import ALL, INSTRUMENTED, Stranger

PRIVATE = ("--manifest-workers=1", "--manifest-broker=private")


@pytest.mark.live
@pytest.mark.parametrize("name", ALL)
def test_on_a_private_stack(name: str, tmp_path: Path) -> None:
    """Nothing runs, and whatever the app calls its broker and store is left alone."""
    project = Stranger(name, tmp_path)
    done = project.dispatch(*PRIVATE)
    assert project.verdicts() == project.expected()
    assert project.project.notice in done.text
    assert done.status == (set(project.expected().values()) != {"passed"}), done.text


@pytest.mark.live
@pytest.mark.parametrize("options", [(), INSTRUMENTED], ids=["stock", "instrumented"])
@pytest.mark.parametrize("name", ALL)
def test_on_their_own_worker(
    name: str, options: tuple[str, ...], tmp_path: Path, valkey: str
) -> None:
    """The app's own broker and store are found by what the project itself says of them."""
    with redis.Redis.from_url(valkey) as client:
        client.flushall()
    project = Stranger(name, tmp_path)
    project.use(valkey)
    with project.worker(*options):
        done = project.dispatch(*(["--manifest-broker=app"] if project.project.settings else []))
    assert project.verdicts() == project.expected()
    assert done.status == (set(project.expected().values()) != {"passed"}), done.text


@pytest.mark.live
def test_settings_of_tests_act_on_a_batch_without_its_own_ini(tmp_path: Path, valkey: str) -> None:
    """The same project, its tests' conftest and all: no message is one that its worker takes."""
    with redis.Redis.from_url(valkey) as client:
        client.flushall()
    project = Stranger("signed_messages", tmp_path, prepared=False)
    project.use(valkey)
    with project.worker(*INSTRUMENTED):
        command = ("pytest", "--manifest=batch.jsonl", "--manifest-app=shop")
        done = project.run(*command, "--manifest-deadline=5")
    assert done.status == pytest.ExitCode.TESTS_FAILED
    assert "passed" not in project.verdicts().values()
