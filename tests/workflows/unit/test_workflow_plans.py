"""The planning fixtures of the system test, without pytest around them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from pydantic import JsonValue

from pytest_manifest.errors import PlanError
from pytest_manifest.manifest import Manifest, read_manifest
from pytest_manifest.planning import PlanBuilder, PlanSpec, convert_options
from tests.workflows.crud_load import ROOT
from workflows.system_test import plan

DEFAULT_COUNTS = {
    "debug": 20,
    "sleep": 20,
    "crud": 20,
    "crud_latency": 20,
    "crud_stress": 50,
    "mixed": 60,
}
MODES = list(DEFAULT_COUNTS)


def spec_of(mode: str) -> PlanSpec:
    spec = getattr(plan, f"system_test_{mode}").__dict__["manifest_plan"]
    assert isinstance(spec, PlanSpec)
    return spec


def planned(mode: str, folder: Path, **options: JsonValue) -> Manifest:
    """Run a planning function with options as a command line gives them, and freeze its plan."""
    spec = spec_of(mode)
    values = convert_options(spec, options)
    builder = PlanBuilder(spec, values)
    spec.function(builder, **values)
    folder.mkdir(exist_ok=True)
    manifest = builder.freeze(None, folder)
    assert manifest is not None
    return manifest


@pytest.mark.parametrize("mode", MODES)
def test_default_count(mode: str, tmp_path: Path) -> None:
    """Each mode plans its default number of entries under its own name."""
    manifest = planned(mode, tmp_path)
    assert len(manifest) == DEFAULT_COUNTS[mode]
    assert (manifest.header.workflow, manifest.header.mode) == ("system_test", mode)
    assert manifest.path.name == f"system_test_{mode}_01.jsonl"


@pytest.mark.parametrize("mode", MODES)
def test_any_count(mode: str, tmp_path: Path) -> None:
    """``--manifest-plan-opt count=7`` gives seven, whatever the mode."""
    assert len(planned(mode, tmp_path, count="7")) == 7


@pytest.mark.parametrize("mode", MODES)
def test_the_same_options_give_the_same_bytes(mode: str, tmp_path: Path) -> None:
    """All lines but the header, which holds the time of planning, are the same bytes."""
    one, two = (planned(mode, tmp_path / name, count="25").path.read_bytes() for name in ("a", "b"))
    assert one.partition(b"\n")[2] == two.partition(b"\n")[2]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("count", ["0", "-1", "many", "1.5"])
def test_a_count_that_is_none(mode: str, count: str, tmp_path: Path) -> None:
    """It is refused with a sentence that names the plan, the option and what was given."""
    with pytest.raises(PlanError, match=rf"plan system_test:{mode}: option count='{count}'"):
        planned(mode, tmp_path, count=count)


@pytest.mark.parametrize("mode", ["sleep", "crud_latency", "crud_stress", "mixed"])
@pytest.mark.parametrize("sleep", ["-0.1", "nan", "inf", "3601", "long"])
def test_a_sleep_that_is_no_time(mode: str, sleep: str, tmp_path: Path) -> None:
    """So is a time to sleep that no task would accept."""
    with pytest.raises(PlanError, match=rf"option sleep='{sleep}'"):
        planned(mode, tmp_path, sleep=sleep)


def test_an_unknown_option(tmp_path: Path) -> None:
    """A typing error is answered with the nearest option."""
    with pytest.raises(PlanError, match="unknown option 'sleeep'; did you mean 'sleep'"):
        planned("sleep", tmp_path, sleeep="1")


def test_mixed_is_one_of_each_by_turns(tmp_path: Path) -> None:
    """Sixty entries are fifteen of each of four kinds, spread evenly."""
    manifest = planned("mixed", tmp_path)
    kinds = ["debug", "sleep", "crud", "latency"]
    assert [name.partition("-")[0] for name in manifest.ids] == kinds * 15
    assert [*manifest.ids[:4]] == [f"{kind}-0001" for kind in kinds]
    assert manifest.ids[-1] == "latency-0015"
    assert set(Counter(entry.task for entry in manifest).values()) == {15}


def test_stress_is_both_kinds_of_crud(tmp_path: Path) -> None:
    """Connections are held while others write; each row carries the payload asked for."""
    manifest = planned("crud_stress", tmp_path, count="4", payload="100")
    assert list(manifest.ids) == ["hold-0001", "crud-0002", "hold-0003", "crud-0004"]
    for entry in manifest:
        data = entry.kwargs["data"]
        assert isinstance(data, dict)
        assert data["payload"] == "x" * 100


def test_a_plan_beyond_ten_thousand(tmp_path: Path) -> None:
    """Ids stay of one width, so that they sort in the order of the plan."""
    ids = list(planned("debug", tmp_path, count="10000").ids)
    assert ids[0] == "debug-00001"
    assert ids == sorted(ids)


@pytest.mark.parametrize("mode", MODES)
def test_every_expectation_says_something(mode: str, tmp_path: Path) -> None:
    """No entry passes just because nothing was raised, and each has the time it needs."""
    for entry in planned(mode, tmp_path):
        assert entry.expect.result is not None or entry.expect.result_schema is not None
        seconds = entry.kwargs.get("sec", 0)
        assert isinstance(seconds, int | float)
        assert entry.timeout >= seconds + plan.GRACE_SECONDS


def test_the_committed_manifest_is_what_is_planned(tmp_path: Path) -> None:
    """``manifests/system_test_01.jsonl`` is ``system_test:mixed`` with a count of 12."""
    committed = read_manifest(ROOT / "manifests" / "system_test_01.jsonl")
    fresh = planned("mixed", tmp_path, count="12")
    assert committed.sha256 == fresh.sha256
    assert committed.header.params == fresh.header.params
