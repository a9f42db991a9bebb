"""The dashboard for Grafana: its queries are of metrics and labels that are written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import promql_parser
import pytest

from pytest_manifest.schema import VerdictStatus
from pytest_manifest.schema.statuses import STATUSES, outcome_of
from tests.house.conftest import ROOT
from tests.unit.cli_support import make_run, manifest, write_manifest
from tests.unit.test_formats import samples

FILE = ROOT / "docs" / "how-to" / "grafana-dashboard.json"
BOARD = json.loads(FILE.read_text("utf-8"))
ANY = re.compile(r"\$manifest")
KNOWN: dict[str, set[str]] = {"status": {*STATUSES}, "state": {"running", "waiting"}}


def queries() -> Iterator[tuple[str, str]]:
    """Every query of the dashboard, with where it stands."""
    for panel in BOARD["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for one in BOARD["annotations"]["list"]:
        yield one["name"], one["expr"]


def selectors(node: object) -> Iterator[promql_parser.VectorSelector]:
    """Every selector in a query."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    for name in ("lhs", "rhs", "expr", "vector_selector", "args"):
        below = getattr(node, name, None)
        for one in below if isinstance(below, list) else [below] if below is not None else []:
            yield from selectors(one)


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], float]:
    """What is written of a run."""
    monkeypatch.chdir(tmp_path)
    entries = [{"id": one, "task": "t", "cost": 1} for one in "abc"]
    file = write_manifest(Path("m.jsonl"), *entries)  # type: ignore[arg-type]  # JSON
    make_run(file, 1, ["passed"] * 3, results=[{"cost": 1.5}] * 3)
    make_run(file, 2, ["passed", "failed", None])
    return samples(manifest("export", "last", "-f", "prometheus"))


@pytest.mark.parametrize(("where", "query"), [*queries()])
def test_a_query_is_of_what_is_written(
    where: str, query: str, written: dict[tuple[str, str], float]
) -> None:
    """It parses, as Prometheus reads it, and each name, label and status in it is one of ours."""
    found = list(selectors(promql_parser.parse(query)))
    assert found, where
    for one in found:
        # A run without costs has none of that metric.
        assert one.name in {name for name, _ in written} | {"manifest_run_cost"}
        for matcher in one.matchers.matchers:
            if matcher.name == "manifest":
                assert ANY.search(matcher.value)
            else:
                assert {*matcher.value.split("|")} <= KNOWN[matcher.name]


def test_what_did_not_pass_is_what_counts_as_such() -> None:
    """The panel leaves out just the statuses that fail no test."""
    (query,) = [query for where, query in queries() if where == "Did not pass"]
    left_out = re.findall(r'status!~"(.*?)"', query)[0].split("|")
    fine: list[VerdictStatus] = [
        one for one in STATUSES if outcome_of(one) in ("passed", "skipped")
    ]
    assert sorted(left_out) == sorted(fine)


def test_the_choice_of_a_manifest_is_of_a_label_that_is_written(
    written: dict[tuple[str, str], float],
) -> None:
    """By ``label_values``, which Grafana asks Prometheus for."""
    (variable,) = [one for one in BOARD["templating"]["list"] if one["name"] == "manifest"]
    name, label = re.findall(r"label_values\((\w+), (\w+)\)", variable["query"])[0]
    assert (name, "") in written
    assert label == "manifest"
