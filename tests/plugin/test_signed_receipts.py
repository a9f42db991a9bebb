"""``manifest_require_signed_receipts``: in sessions, from the worker to the audit."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

# Before the first session of a test, which forgets what it has imported: its classes are once.
from cryptography.hazmat.primitives import serialization as _once  # noqa: F401
from cryptography.hazmat.primitives.asymmetric import ed25519 as _once_too  # noqa: F401

from pytest_manifest import signing
from pytest_manifest.ledger import RECEIPT_KEYS, Ledger
from pytest_manifest.verdict.judging import signatures_of
from tests.plugin.conftest import INI, Project
from tests.plugin.outside import INSTRUMENTED, worker
from tests.plugin.test_descendants import STARTING, starting
from tests.reports import all_receipts

REQUIRED = ("--manifest=m.jsonl", "--override-ini=manifest_require_signed_receipts=true")


def public_key(project: Project) -> Path:
    """A file of the public key that the newest run's ledger has."""
    with Ledger.open(project.ledgers()[-1]) as ledger:
        pem = ledger.info.get_meta(RECEIPT_KEYS)
    assert pem is not None
    return project.write("k.pub", pem)


def edit_receipt(text: str, change: Callable[[dict[str, Any]], None]) -> str:
    """The same receipt, changed."""
    document: dict[str, Any] = json.loads(text)
    change(document)
    return json.dumps(document)


@pytest.mark.usefixtures("in_memory")
def test_what_a_session_has_signed_holds_in_ledger_audit_and_export(project: Project) -> None:
    """By a key of its own, whose public half the ledger keeps; the private one is nowhere."""
    project.doubles()
    result = project.run(*REQUIRED)
    result.assert_outcomes(passed=6)
    with Ledger.open(project.ledgers()[-1]) as ledger:
        signatures = signatures_of(ledger)
        assert signatures is not None
        kept = [receipt for _, _, receipt in all_receipts(ledger)]
        counted = [one.receipt for one in ledger.queries.all_verdicts()]
    assert len(kept) == len(counted) == 6
    assert {signatures.fault_of(one) for one in (*kept, *counted) if one is not None} == {""}
    project.run(*REQUIRED, "--manifest-audit").assert_outcomes(passed=6)
    project.run("--manifest=m.jsonl", "--manifest-audit").assert_outcomes(passed=6)
    (file,) = (project.path / ".manifest" / "runs").glob("*.receipts.jsonl")
    alone = (*REQUIRED, "--manifest-audit", f"--manifest-receipts={file}")
    refused = project.run(*alone)
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines(
        ["*signed receipts are required, and this run has no keys to check them by*"]
    )
    key = f"--override-ini=manifest_receipt_key={public_key(project)}"
    project.run(*alone, key).assert_outcomes(passed=6)
    lines = file.read_text("utf-8").splitlines()
    lines[1] = edit_receipt(lines[1], lambda one: one.update(runtime=0.001))
    lines[2] = edit_receipt(lines[2], lambda one: one.pop("signature"))
    file.write_text("\n".join(lines) + "\n", "utf-8")
    told = project.run(*alone, key)
    told.assert_outcomes(passed=4, failed=2)
    told.stdout.fnmatch_lines(["*its signature does not hold*", "*it is not signed*"])
    signing.write_key(project.path / "other.pub", signing.generate()[1].encode(), 0o644)
    project.run(*alone, "--override-ini=manifest_receipt_key=other.pub").assert_outcomes(failed=6)


@pytest.mark.usefixtures("in_memory")
def test_a_receipt_that_was_changed_in_the_ledger_is_told_by_an_audit(project: Project) -> None:
    """Whoever can write the ledger can take out the keys as well; but not change what they sign."""
    project.doubles(count=2)
    project.run(*REQUIRED).assert_outcomes(passed=2)
    with closing(sqlite3.connect(project.ledgers()[-1])) as db, db:
        query = "SELECT seq, receipt FROM facts WHERE receipt IS NOT NULL ORDER BY seq LIMIT 1"
        seq, text = db.execute(query).fetchone()
        changed = edit_receipt(text, lambda one: one.update(log=["all is well"]))
        db.execute("UPDATE facts SET receipt = ? WHERE seq = ?", (changed, seq))
    project.run(*REQUIRED, "--manifest-audit").assert_outcomes(passed=1, failed=1)


@pytest.mark.ring(2)
@pytest.mark.usefixtures("in_memory")
def test_under_xdist_the_controller_alone_checks(project: Project) -> None:
    """The workers of xdist read its verdicts."""
    project.doubles()
    project.run(*REQUIRED, "-n2").assert_outcomes(passed=6)


@pytest.mark.usefixtures("in_memory")
def test_a_run_that_takes_unsigned_receipts_does_not_become_signed(project: Project) -> None:
    """An audit says so; one with a key calls its receipts forged."""
    project.doubles(count=2)
    project.run("--manifest=m.jsonl").assert_outcomes(passed=2)
    refused = project.run(*REQUIRED, "--manifest-audit")
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines(["*this run has no keys*"])
    signing.write_key(project.path / "k.pub", signing.generate()[1].encode(), 0o644)
    told = project.run(*REQUIRED, "--manifest-audit", "--override-ini=manifest_receipt_key=k.pub")
    told.assert_outcomes(failed=2)
    told.stdout.fnmatch_lines(["*it is not signed, and only what a trusted worker*"])


@contextlib.contextmanager
def private_key(project: Project, name: str = "w") -> Iterator[Path]:
    """The file of a private key; the public one beside it ends with .pub."""
    private, public = signing.generate()
    path = project.path / f"{name}.key"
    signing.write_key(path, private, 0o600)
    signing.write_key(path.with_suffix(".pub"), public.encode(), 0o644)
    yield path


@pytest.mark.live
def test_the_private_stack_signs_whole_trees_and_keeps_its_key_to_itself(project: Project) -> None:
    """With a chord; and a job finds the key in no process's arguments or environment."""
    project.write("jobs.py", (project.path / "jobs.py").read_text("utf-8") + STARTING + SPYING)
    project.manifest(
        "m.jsonl",
        [
            starting("a", ["double", 1, "a/1"], ["start", "a/2", ["double", 2, "a/3"]]),
            {
                "id": "s",
                "task": "jobs.spread",
                "args": ["s", 3],
                "expect": {"descendants": {"count": 4}},
            },
            {"id": "f", "task": "jobs.fail", "args": ["no", "f"], "expect": {"state": "failed"}},
            {"id": "spy", "task": "jobs.spy", "expect": {"result": []}},
        ],
    )
    project.run(*REQUIRED).assert_outcomes(passed=4)
    with Ledger.open(project.ledgers()[-1]) as ledger:
        signatures = signatures_of(ledger)
        assert signatures is not None
        kept = [receipt for _, _, receipt in all_receipts(ledger)]
    assert len(kept) >= 11
    assert {signatures.fault_of(one) for one in kept} == {""}


SPYING = """
@app.task(name="jobs.spy")
def spy():
    import psutil
    me, found = psutil.Process(), []
    for one in [me, *me.parents()]:
        try:
            seen = " ".join([*one.cmdline(), *one.environ().values()])
        except psutil.Error:
            continue
        if "PRIVATE KEY" in seen:
            found.append(one.name())
    path = Path(os.environ["MANIFEST_SIGNING_KEY"])
    if path.stat().st_mode & 0o077:
        found.append(str(path))
    return found
"""


@pytest.mark.ring(2)
@pytest.mark.live
def test_workers_that_do_not_sign_are_told_before_anything_is_sent(
    project: Project, broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stock one, one without a key, one with another key; with the right one all passes."""
    project.doubles(count=3)
    with private_key(project) as right, private_key(project, "x") as wrong:
        given = (
            *REQUIRED,
            f"--manifest-broker={broker}",
            "--override-ini=manifest_receipt_key=w.pub",
        )
        for options, key, words in (
            ((), right, "outside@localhost sign nothing*a stock worker cannot sign"),
            (INSTRUMENTED, None, "outside@localhost sign nothing"),
            (INSTRUMENTED, wrong, "outside@localhost sign with a key that is not among"),
        ):
            with monkeypatch.context() as patched:
                if key is not None:
                    patched.setenv(signing.SIGNING_KEY_VARIABLE, str(key))
                with worker(project, broker, *options):
                    checked = project.run(*given, "--manifest-check=json")
                    result = project.run(*given)
            assert checked.ret == result.ret == pytest.ExitCode.USAGE_ERROR
            checked.stdout.fnmatch_lines([f"*{words}*"])
            result.stderr.fnmatch_lines([f"*nothing was sent: *{words}*"])
            assert not project.ran()
        monkeypatch.setenv(signing.SIGNING_KEY_VARIABLE, str(right))
        with worker(project, broker, *INSTRUMENTED):
            project.run(*given).assert_outcomes(passed=3)
            project.run(*given, "--manifest-audit").assert_outcomes(passed=3)


@pytest.mark.ring(2)
@pytest.mark.live
def test_an_app_may_name_the_key_and_a_database_may_keep_the_receipts(
    project: Project, broker: str
) -> None:
    """Where no stream is, receipts lie with their results: successes, failures, long logs."""
    with private_key(project) as path:
        text = (project.path / "jobs.py").read_text("utf-8")
        setting = f'\napp.conf.manifest_signing_key = "{path}"\n'
        noisy = (
            '\n@app.task(name="jobs.noisy")\ndef noisy():\n    import logging\n'
            '    for n in range(400):\n        logging.getLogger("x").warning("line " * 60)\n'
            '    raise ValueError("loud")\n'
        )
        project.write("jobs.py", text + setting + noisy)
        project.manifest(
            "m.jsonl",
            [
                {"id": "a", "task": "jobs.double", "args": [1], "expect": {"result": {"n": 2}}},
                {"id": "f", "task": "jobs.fail", "args": ["x"], "expect": {"state": "failed"}},
                {"id": "n", "task": "jobs.noisy", "expect": {"state": "failed"}},
            ],
        )
        store = f"db+sqlite:///{project.path / 'results.db'}"
        with worker(project, broker, *INSTRUMENTED, backend=store):
            result = project.run(
                *REQUIRED,
                f"--manifest-broker={broker}",
                f"--manifest-backend={store}",
                "--override-ini=manifest_receipt_key=w.pub",
            )
    result.assert_outcomes(passed=3)


@pytest.mark.usefixtures("in_memory")
def test_a_resumed_run_trusts_the_keys_of_all_its_sessions(project: Project) -> None:
    """Each stack of a session's own has a key of its own; one without a key is sent nothing."""
    gate = project.break_("b")
    project.manifest(
        "m.jsonl",
        [
            {"id": key, "task": "jobs.flaky", "kwargs": {"key": key}, "idempotent": True}
            for key in ("a", "b")
        ],
    )
    project.run(*REQUIRED).assert_outcomes(passed=1, failed=1)
    gate.unlink()
    ran = project.ran()
    unsigned = project.run("--manifest=m.jsonl", "--manifest-resume")
    assert unsigned.ret == pytest.ExitCode.USAGE_ERROR
    unsigned.stderr.fnmatch_lines(["*nothing was sent: *begun with manifest_require_signed_rec*"])
    assert project.ran() == ran
    project.run(*REQUIRED, "--manifest-resume").assert_outcomes(passed=2)
    project.run(*REQUIRED, "--manifest-audit").assert_outcomes(passed=2)
    assert public_key(project).read_text().count("BEGIN PUBLIC KEY") == 2


@pytest.mark.usefixtures("in_memory")
def test_merged_shards_are_judged_by_the_keys_of_both(project: Project) -> None:
    """A signed and an unsigned run are not merged."""
    from typer.testing import CliRunner

    from pytest_manifest.cli.main import app

    project.doubles(count=4)
    for shard in ("1/2", "2/2"):
        project.run(*REQUIRED, f"--manifest-shard={shard}").assert_outcomes(passed=2)
    ledgers = [str(path) for path in project.ledgers()]
    folder = str(project.path / ".manifest" / "runs")
    merged = CliRunner().invoke(app, ["merge", *ledgers, "-o", folder])
    assert merged.exit_code == 0, merged.output
    project.run(*REQUIRED, "--manifest-audit").assert_outcomes(passed=4)
    project.write("pytest.ini", INI + "addopts = --manifest-broker=memory://\n")
    project.run("--manifest=m.jsonl", "--manifest-shard=2/2", "--manifest-rerun")
    unsigned = str(project.ledgers()[-1])
    refused = CliRunner().invoke(app, ["merge", ledgers[0], unsigned])
    assert refused.exit_code != 0
    assert "take signed receipts alone and others do not" in str(refused.exception)
