"""``manifest triage``: the table of what is open."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_manifest.ledger.files import RunFiles
from pytest_manifest.processes import locked
from pytest_manifest.schema import VerdictStatus
from pytest_manifest.schema.triage import Triage
from tests.unit.cli_support import as_json, called, make_run, manifest, write_manifest

ACCEPT = ("--reason=known", "--until=14d")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def a_run_of(name: str, verdict: VerdictStatus, number: int = 1) -> None:
    """The ``number``-th run, of a manifest of its own, whose one entry has this verdict."""
    make_run(write_manifest(Path(f"{name}.jsonl"), {"id": name, "task": "t"}), number, [verdict])


def test_what_is_never_accepted_is_said_so() -> None:
    """Nor is there a command that would."""
    a_run_of("twice", "duplicated")
    manifest("history", "--rebuild")
    shown = manifest("triage").splitlines()
    assert "never" in shown[1].split()
    assert "manifest" not in shown[0].split()
    assert [one.split(":")[0] for one in shown[2:]] == ["1 entry open", "send again"]
    (cause,) = Triage.model_validate(as_json("triage")).causes
    assert (cause.may_be_accepted, cause.accepted) == (0, 0)


def test_of_several_manifests_each_is_named() -> None:
    for number, name in enumerate("ab", 1):
        a_run_of(name, "failed", number)
    manifest("history", "--rebuild")
    head, *rows = manifest("triage").splitlines()
    assert head.split()[:2] == ["cause", "manifest"]
    assert sorted(one for row in rows for one in row.split() if one.endswith(".jsonl")) == [
        "a.jsonl",
        "b.jsonl",
    ]
    assert rows[-2].startswith("accept: ")


def test_the_same_is_accepted_once() -> None:
    """A second time would be a second table of the same in the file."""
    a_run_of("a", "failed")
    manifest("history", "--rebuild")
    manifest("triage", "accept", "a", *ACCEPT)
    before = Path("dispositions.toml").read_text("utf-8")
    status, _, said = called("triage", "accept", "a", *ACCEPT)
    assert (status, "dispositions.toml accepts this already" in said) == (2, True)
    assert Path("dispositions.toml").read_text("utf-8") == before


def test_a_run_whose_pytest_was_killed_counts() -> None:
    """It has left no digest; what it has not judged is as it was before, and that is said."""
    made = write_manifest(Path("m.jsonl"), *({"id": one, "task": "t"} for one in "abc"))
    make_run(made, 1, ["passed", "passed", "failed"])
    manifest("history", "--rebuild")
    killed = make_run(made, 2, ["passed", "failed", None])
    found = Triage.model_validate(as_json("triage"))
    assert sorted(one for cause in found.causes for one in cause.entries) == ["b", "c"]
    assert (found.unjudged, found.going_on) == ({killed.stem: 1}, [])
    assert f"1 entry of run {killed.stem} without a verdict" in manifest("triage")


def test_a_run_that_goes_on_is_named() -> None:
    """Nothing is said to be well before it is over."""
    made = write_manifest(Path("m.jsonl"), {"id": "a", "task": "t"})
    make_run(made, 1, ["passed"])
    manifest("history", "--rebuild")
    assert manifest("triage").startswith("nothing is open: ")
    follows = make_run(made, 2, ["failed"])
    with locked(RunFiles(follows).lock):
        said = manifest("triage").splitlines()
    assert said[0].startswith(f"run {follows.stem} goes on, and is not counted")
    assert said[1:] == ["nothing has failed"]
