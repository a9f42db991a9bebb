"""The reference pages list what there is, all of it and nothing else."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from pytest_manifest.schema import Entry, Expectations, Header, Receipt
from pytest_manifest.schema.base import State, VerdictKind

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"
OUTCOMES = {"passed": "PASSED", "failed": "FAILED", "error": "ERROR", "skipped": "SKIPPED"}


def rows(page: str, heading: str) -> dict[str, list[str]]:
    """The table under a heading: first cell (without its backticks) -> the other cells."""
    text = (REFERENCE / page).read_text("utf-8")
    section = re.split(r"^#+ ", text, flags=re.MULTILINE)
    body = next(part for part in section if part.partition("\n")[0].strip() == heading)
    lines = [line for line in body.splitlines() if line.startswith("| ")][1:]
    cells = [re.split(r"(?<!\\)\|", line.strip("| ")) for line in lines]
    return {row[0].strip().strip("`"): [cell.strip() for cell in row[1:]] for row in cells}


@pytest.fixture(scope="session")
def help_text() -> str:
    """What `pytest --help` says of our options and settings."""
    command = [sys.executable, "-m", "pytest", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def test_every_option_is_listed(help_text: str) -> None:
    """commands.md has the options of `pytest --help`'s own section, each with its value's name."""
    section = help_text.split("batches of Celery jobs as tests")[1].split("\n\n")[0]
    offered = set(re.findall(r"^  (--[a-z-]+)", section, re.MULTILINE))
    assert {name.split("=")[0].split()[0] for name in rows("commands.md", "pytest")} == offered


def test_every_command_of_the_stack_is_listed() -> None:
    """commands.md has the subcommands of `manifest-stack --help`."""
    program = Path(sys.executable).with_name("manifest-stack")
    done = subprocess.run([program, "--help"], capture_output=True, text=True, check=True)
    offered = set(re.findall(r"^    (\w+) +\S", done.stdout, re.MULTILINE))
    assert {name.split()[1] for name in rows("commands.md", "manifest-stack")} == offered


def test_every_setting_is_listed(help_text: str) -> None:
    """configuration.md has the ini settings that `pytest --help` lists."""
    offered = set(re.findall(r"^  (manifest_\w+) \(", help_text, re.MULTILINE))
    assert set(rows("configuration.md", "pytest's configuration file")) == offered


@pytest.mark.parametrize(
    ("heading", "model"),
    [("Header", Header), ("Entry", Entry), ("Expectations", Expectations)],
)
def test_every_field_of_a_manifest_is_listed(heading: str, model: type[BaseModel]) -> None:
    """manifest-format.md has every field, in the models' order, with its default."""
    table = rows("manifest-format.md", heading)
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    assert list(table) == list(fields)
    for name, field in fields.items():
        shown = table[name][0].strip("`")
        if field.is_required():
            assert shown == "required", name
        elif name == "expect":
            assert shown == "{}"
        else:
            default = field.get_default(call_default_factory=True, validated_data={})
            expected = "" if default is None else json.dumps(default).removesuffix(".0")
            assert shown == expected, name


def test_every_field_of_a_receipt_is_listed() -> None:
    """receipt-format.md has every field, in the model's order."""
    assert list(rows("receipt-format.md", "Receipt format")) == list(Receipt.model_fields)


def test_every_state_is_named() -> None:
    """manifest-format.md names each way in which a task can end."""
    named = re.findall(r"`(\w+)`", rows("manifest-format.md", "Expectations")["state"][1])
    assert named == list(get_args(State))


def test_every_verdict_is_listed_with_what_pytest_shows() -> None:
    """verdicts.md has each verdict, and how it comes out."""
    from pytest_manifest.verdict import outcome

    table = rows("verdicts.md", "Verdicts")
    assert set(table) == set(get_args(VerdictKind))
    shown = {kind: cells[0] for kind, cells in table.items()}
    assert shown == {kind: OUTCOMES[outcome(kind)] for kind in get_args(VerdictKind)}


@pytest.mark.parametrize(
    ("option", "heading", "pattern"),
    [
        ("--markers", "Markers", r"^@pytest\.mark\.((?:manifest|entries)\(.*?\)):"),
        ("--fixtures", "Fixtures", r"^([a-z]\w*)(?: \[\w+ scope\])? -- [^\n]*pytest_manifest/"),
    ],
)
def test_every_fixture_and_marker_is_listed(
    option: str, heading: str, pattern: str, tmp_path: Path
) -> None:
    """fixtures-and-markers.md has those that the plugin brings."""
    command = [sys.executable, "-m", "pytest", option, "-c", "/dev/null", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    offered = set(re.findall(pattern, done.stdout, re.MULTILINE))
    offered.discard("manifest_builtin_entry")
    assert set(rows("fixtures-and-markers.md", heading)) == offered, done.stdout
