"""The reference pages list what there is, all of it and nothing else."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import tomllib
from pydantic import BaseModel

import tasks.text_model.failures
from pytest_manifest.planning import PlanSpec
from pytest_manifest.schema import (
    Entry,
    Expectations,
    Header,
    Receipt,
    run_digest,
    run_status,
    summary,
)
from pytest_manifest.schema.receipts import ExportedDescendant
from pytest_manifest.schema.statuses import State, VerdictStatus, outcome
from tasks.filling.gaps import SAYINGS
from tasks.judging.order import JudgeOrder
from tasks.movie_bible.models import Annotation
from tasks.text_model import openai_compatible
from tasks.text_model.failures import ModelFailure
from tasks.text_model.keyed import ProblemKind
from workflows.gap_fill.gaps import NOT_LOADED
from workflows.gap_fill.misspelled import SETTINGS, names_of
from workflows.gap_fill.plan import gap_fill_judge, gap_fill_repair

pytestmark = pytest.mark.ring(1)

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
    """commands.md has the options of `pytest --help`'s own section, by what they are for."""
    sections = [
        one.split("\n\n")[0] for one in help_text.split("batches of Celery jobs as tests")[1:]
    ]
    assert len(sections) == 5
    offered = set(re.findall(r"^  (--[a-z-]+)", "\n".join(sections), re.MULTILINE))
    assert {re.split(r"[\[= ]", name)[0] for name in rows("commands.md", "pytest")} == offered


@pytest.mark.parametrize("name", ["manifest", "manifest stack"])
def test_every_command_is_listed(name: str) -> None:
    """commands.md has the subcommands of `--help`."""
    program, *groups = name.split()
    command = [str(Path(sys.executable).with_name(program)), *groups, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    offered = set(re.findall(r"^  (\w+) +\S", done.stdout.split("Commands:")[1], re.MULTILINE))
    listed = rows("commands.md", name)
    assert {
        command.split()[len(groups) + 1] for command in listed if "manifest" in command
    } == offered


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


TABLES: dict[str, dict[str, type[BaseModel]]] = {
    "receipt-format.md": {"Receipt format": Receipt, "Descendants": ExportedDescendant},
    "summary-format.md": {
        "Summary format": summary.RunSummary,
        "run": summary.SummaryRun,
        "statistics": summary.SummaryStatistics,
        "tasks": summary.SummaryTask,
        "workers": summary.SummaryWorker,
        "causes": summary.SummaryCause,
        "descendants": summary.SummaryDescendants,
        "failed trees": summary.SummaryFailedTree,
        "slowest tree": summary.SummaryTree,
        "path": summary.SummaryStep,
        "cost": summary.SummaryCost,
        "files": summary.SummaryFile,
        "accepted": summary.SummaryAccepted,
        "Entries": summary.SummaryEntry,
        "Times": summary.SummarySpread,
    },
    "status-format.md": {
        "Status format": run_status.RunStatus,
        "eta": run_status.StatusEta,
        "causes": run_status.StatusCause,
        "workers": run_status.StatusWorker,
        "tasks": run_status.StatusTask,
        "longest": run_status.StatusRunning,
        "cost": run_status.StatusCost,
        "actions": run_status.StatusAction,
        "throttling": run_status.StatusThrottle,
        "notices": run_status.StatusNotice,
        "series": run_status.StatusSeries,
        "flags": run_status.StatusFlag,
    },
    "digest-format.md": {
        "Digest format": run_digest.RunDigest,
        "tasks": run_digest.DigestTask,
        "workers": run_digest.DigestWorker,
        "listed": run_digest.DigestEntry,
        "ids": run_digest.DigestIds,
    },
    "gap-fill.md": {"Judge entries": JudgeOrder},
}


@pytest.mark.parametrize("page", TABLES)
def test_every_field_of_a_document_is_listed(page: str) -> None:
    """Of each part, in the models' order."""
    for heading, model in TABLES[page].items():
        assert list(rows(page, heading)) == list(model.model_fields), heading


def test_every_state_and_notice_of_a_status_is_listed() -> None:
    """status-format.md has each state, and each code of a notice."""
    assert list(rows("status-format.md", "state")) == [*get_args(run_status.RunState)]
    text = (REFERENCE / "status-format.md").read_text("utf-8")
    assert all(f"`{code}` (" in text for code in get_args(run_status.NoticeCode))


def test_every_state_is_named() -> None:
    """manifest-format.md names each way in which a task can end."""
    named = re.findall(r"`(\w+)`", rows("manifest-format.md", "Expectations")["state"][1])
    assert named == list(get_args(State))


def test_every_verdict_is_listed_with_what_pytest_shows() -> None:
    """verdicts.md has each verdict, and how it comes out."""

    table = rows("verdicts.md", "Verdicts")
    assert set(table) == set(get_args(VerdictStatus))
    shown = {kind: cells[0] for kind, cells in table.items()}
    assert shown == {kind: OUTCOMES[outcome(kind)] for kind in get_args(VerdictStatus)}


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
    offered -= {"manifest_builtin_entry", "manifest_builtin_group"}
    assert set(rows("fixtures-and-markers.md", heading)) == offered, done.stdout


def failures() -> dict[str, type[ModelFailure]]:
    """The failures of a call that the program knows, by kind."""
    found = [one for one in vars(tasks.text_model.failures).values() if isinstance(one, type)]
    return {
        one.kind: one for one in found if issubclass(one, ModelFailure) and one is not ModelFailure
    }


def test_every_variable_of_the_gap_filling_is_listed() -> None:
    """gap-fill.md has each environment variable of database, model, filling and judging."""
    read = [name for settings in SETTINGS for name in names_of(settings)]
    own = {openai_compatible.KEY, openai_compatible.ADDRESS}  # of the example
    assert set(rows("gap-fill.md", "Environment")) == {*read, *own}


@pytest.mark.parametrize(
    ("fixture", "heading"), [(gap_fill_repair, "Plan options"), (gap_fill_judge, "Judge options")]
)
def test_every_option_of_the_gap_filling_is_listed_with_its_default(
    fixture: object, heading: str
) -> None:
    """gap-fill.md has the options of both modes."""
    spec = getattr(fixture, "manifest_plan", None)
    assert isinstance(spec, PlanSpec)
    options = spec.options
    table = rows("gap-fill.md", heading)
    assert list(table) == list(options)
    for name, parameter in options.items():
        if parameter.default is not None:
            shown = str(parameter.default)
            assert table[name][0] == (shown.lower() if parameter.default is False else shown), name


def test_every_failure_of_a_model_is_listed_with_what_is_done() -> None:
    """gap-fill.md has each kind, and says retried, halved or fatal where the class does."""
    table = rows("gap-fill.md", "Failures")
    of_calls = failures()
    others = {"no_passage", "changed_since_planned", "changed_since_asked", "not_asked"}
    assert set(table) == {*of_calls, *get_args(ProblemKind), *others, "answer_foreign"}
    for kind, failure in of_calls.items():
        done = table[kind][1]
        said = ("retried" in done, "halved" in done, "fatal" in done)
        assert said == (failure.retryable, failure.splittable, failure.fatal), kind


def test_every_gap_is_listed_as_the_preview_says_it() -> None:
    """gap-fill.md has each kind of gap."""
    said = {kind: cells[0] for kind, cells in rows("gap-fill.md", "Gaps").items()}
    known = {str(kind): saying for kind, saying in SAYINGS.items()}
    assert said == known | {NOT_LOADED: "not in the database"}


def test_every_column_of_an_annotation_is_listed() -> None:
    """gap-fill.md has the table's columns, in their order."""
    assert list(rows("gap-fill.md", "Database")) == list(Annotation.__table__.columns.keys())


def test_every_extra_is_listed() -> None:
    """configuration.md has those that pyproject.toml has, as they are spelled here."""
    extras = {
        *("embedded", "xdist", "allure", "flower", "sign", "yaml", "mcp", "notify", "parquet"),
        *("openlineage", "otel"),
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert set(rows("configuration.md", "Extras")) == extras == {*project["optional-dependencies"]}
