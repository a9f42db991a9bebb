"""``manifest_require_signature``: nothing is sent of what no trusted key has signed."""

from __future__ import annotations

import pytest

# Before the first session of a test, which forgets what it has imported: its classes are once.
from cryptography.hazmat.primitives import serialization as _once  # noqa: F401
from cryptography.hazmat.primitives.asymmetric import ed25519 as _once_too  # noqa: F401

from pytest_manifest import signing
from pytest_manifest.manifest import check_manifest
from tests.plugin.conftest import INI, Project

ENTRIES = ({"id": "a", "task": "jobs.double", "kwargs": {"n": 1, "key": "a"}},)
REQUIRED = ("--manifest=m.jsonl", "--override-ini=manifest_require_signature=true")

pytestmark = pytest.mark.usefixtures("in_memory")


@pytest.fixture
def signer(project: Project) -> signing.Signer:
    """A key whose public half is in ``k.pub``."""
    private, public = signing.generate()
    signing.write_key(project.path / "k.pub", public.encode(), 0o644)
    return signing.read_signer(private.decode(), "key")


def sign(project: Project, signer: signing.Signer) -> None:
    path = project.path / "m.jsonl"
    summary = check_manifest(path)
    signing.sign_order(path, summary.entries, summary.sha256, signer)


def refused(project: Project, words: str, *arguments: str) -> None:
    result = project.run(*REQUIRED, *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{words}*"])
    assert not project.ran()


def test_an_order_that_is_unsigned_or_changed_sends_nothing(
    project: Project, signer: signing.Signer
) -> None:
    """Only the bytes that were signed do; an audit asks for them, too."""
    key = "--override-ini=manifest_public_key=k.pub"
    project.manifest("m.jsonl", ENTRIES)
    refused(project, "m.jsonl: is not signed (there is no m.jsonl.sig)", key)
    sign(project, signer)
    project.manifest("m.jsonl", [{**ENTRIES[0], "kwargs": {"n": 2, "key": "a"}}])
    refused(project, "m.jsonl: was changed since it was signed", key)
    refused(project, "m.jsonl: was changed since it was signed", key, "--manifest-audit")
    project.manifest("m.jsonl", ENTRIES)
    signing.write_key(project.path / "other.pub", signing.generate()[1].encode(), 0o644)
    other = "--override-ini=manifest_public_key=other.pub"
    refused(project, "none of its signatures is of a key that is trusted", other)
    assert project.run(*REQUIRED, key).ret == 0
    assert project.ran() == {"a": 1}
    assert project.run(*REQUIRED, key, "--manifest-audit").ret == 0


@pytest.mark.ring(2)
def test_a_signed_order_is_sent_under_xdist_as_well(
    project: Project, signer: signing.Signer
) -> None:
    project.manifest("m.jsonl", ENTRIES)
    sign(project, signer)
    assert project.run(*REQUIRED, "--override-ini=manifest_public_key=k.pub", "-n2").ret == 0
    assert project.ran() == {"a": 1}


def test_the_configuration_file_and_the_environment_name_it_all(
    project: Project, signer: signing.Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing names a key, that is told."""
    project.write(
        "pytest.ini",
        INI + "addopts = --manifest-broker=memory://\nmanifest_require_signature = true\n",
    )
    project.manifest("m.jsonl", ENTRIES)
    monkeypatch.delenv(signing.PUBLIC_KEY_VARIABLE, raising=False)
    refused(project, "no public key is named to check them by; set manifest_public_key or")
    monkeypatch.setenv(signing.PUBLIC_KEY_VARIABLE, (project.path / "k.pub").read_text())
    refused(project, "is not signed")
    sign(project, signer)
    assert project.run("--manifest=m.jsonl").ret == 0
    assert project.ran() == {"a": 1}


def test_a_plan_that_nobody_has_signed_is_not_run_at_once(project: Project) -> None:
    """It is to be looked at and signed first."""
    result = project.run(
        "--manifest-plan=work:jobs",
        "--manifest-plan-run",
        "--override-ini=manifest_require_signature=true",
    )
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--manifest-plan-run sends an unsigned plan*"])
