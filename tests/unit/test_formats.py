"""Open formats: each is valid by the schema that its own project has published."""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from types import ModuleType

import pytest
from google.protobuf import json_format  # type: ignore[import-untyped]  # protobuf has no types
from in_toto_attestation.predicates.test_result.v0 import test_result_pb2
from in_toto_attestation.v1 import statement_pb2
from jsonschema_rs import Registry, validator_for
from prometheus_client import parser as plain
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import parser as openmetrics
from pyarrow import parquet

from pytest_manifest import signing
from pytest_manifest.analysis.metrics import LAST_SUCCESS, METRICS
from pytest_manifest.cli.export import NAMES
from pytest_manifest.reporting import formats
from pytest_manifest.reporting.formats import FORMATS, ctrf, lineage
from pytest_manifest.reporting.formats.in_toto import merkle_root
from pytest_manifest.schema import VerdictStatus
from tests.unit.cli_support import make_run, manifest, refusal, write_manifest
from tests.unit.following_support import MadeRun

SCHEMAS = Path(__file__).parent / "data" / "formats"
PASSED: Sequence[VerdictStatus] = ("passed",) * 5
STATUSES: Sequence[VerdictStatus | None] = ("passed", "failed", None, "unknown", "cancelled")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A manifest of five entries in the folder in which commands run."""
    monkeypatch.chdir(tmp_path)
    return write_manifest(
        Path("m.jsonl"),
        {"id": "a", "task": "shop.price", "tags": ["slow"], "kwargs": {"password": "hunter2222"}},
        *({"id": one, "task": "shop.resize"} for one in "bcde"),
    )


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> signing.Verifier:
    """A key to sign with, in the environment, and the one to check by."""
    private, public = signing.generate()
    signing.write_key(tmp_path / "k.key", private, 0o600)
    monkeypatch.setenv(signing.SIGNING_KEY_VARIABLE, str(tmp_path / "k.key"))
    return signing.read_verifier(public, "k.pub")


def problems(document: object, name: str) -> list[str]:
    """What is wrong with a document by a published schema, formats of texts included."""
    found = {one.name: json.loads(one.read_text("utf-8")) for one in SCHEMAS.glob("*.json")}
    known = Registry([(one["$id"], one) for one in found.values() if "$id" in one])
    validator = validator_for(found[name], registry=known, validate_formats=True)
    return [str(one) for one in validator.iter_errors(document)]


def test_a_table_has_all_formats() -> None:
    """A name and an ending are of one format, and each module can be written with."""
    assert (
        len({one.name for one in FORMATS}) == len({one.ending for one in FORMATS}) == len(FORMATS)
    )
    assert set(NAMES) == {"receipts", "summary", "markdown", "page"} | {one.name for one in FORMATS}
    for one in FORMATS:
        assert formats.format_of(Path(f"Nightly.{one.ending.upper()}")) is one
    assert formats.format_of(Path("nightly.json")) is None


def test_ctrf(file: Path) -> None:
    """Every entry is a test; one of an unknown fate has failed; its own words are beside it."""
    path = make_run(file, 1, STATUSES, [0.25] * 5)
    document = json.loads(manifest("export", "last", "-f", "ctrf"))
    assert problems(document, "ctrf.schema.json") == []
    assert document["runId"] == path.stem
    results = document["results"]
    tests = {one["name"]: one for one in results["tests"]}
    assert [(name, one["status"], one["rawStatus"]) for name, one in tests.items()] == [
        ("a", "passed", "passed"),
        ("b", "failed", "failed"),
        ("c", "pending", "pending"),
        ("d", "failed", "unknown"),
        ("e", "skipped", "cancelled"),
    ]
    counts = [
        results["summary"][one] for one in ("tests", "passed", "failed", "skipped", "pending")
    ]
    assert counts == [5, 1, 2, 1, 1]
    assert (tests["a"]["duration"], tests["a"]["suite"]) == (250, ["m.jsonl", "shop.price"])
    assert "message" in tests["b"]
    assert "message" not in tests["a"]


def test_ctrf_of_a_huge_run_lists_what_failed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the totals of all, and how many are left out."""
    monkeypatch.setattr(ctrf, "MOST", 4)
    make_run(file, 1, STATUSES)
    document = json.loads(manifest("export", "last", "-f", "ctrf"))
    assert problems(document, "ctrf.schema.json") == []
    assert [one["name"] for one in document["results"]["tests"]] == ["b", "d"]
    summary = document["results"]["summary"]
    assert (summary["tests"], summary["extra"]["left_out"]) == (5, 3)


def test_ctrf_has_the_attempts_before_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry that passes after a crash is flaky."""
    monkeypatch.chdir(tmp_path)
    run = MadeRun(tmp_path, monkeypatch, entries=1)
    run.send("e0")
    run.start("e0")
    run.again("e0", 2)
    run.send("e0", attempt=2)
    run.start("e0", attempt=2)
    run.judge("e0", attempt=2)
    run.stop()
    run.close()
    document = json.loads(manifest("export", "last", "-f", "ctrf"))
    assert problems(document, "ctrf.schema.json") == []
    (test,) = document["results"]["tests"]
    assert (test["status"], test["flaky"], test["retries"]) == ("passed", True, 1)
    (earlier,) = test["retryAttempts"]
    assert (earlier["attempt"], earlier["status"]) == (1, "failed")


def events(text: str) -> list[dict[str, object]]:
    """Events of OpenLineage, each valid by its own schema, and its facets by theirs."""
    found: list[dict[str, object]] = [json.loads(line) for line in text.splitlines()]
    for one in found:
        assert problems(one, "OpenLineage.json") == []
        of_run, of_job = one["run"], one["job"]
        assert isinstance(of_run, dict)
        assert isinstance(of_job, dict)
        facets = {**of_run.get("facets", {}), **of_job.get("facets", {})}
        assert {"processing_engine", "jobType"} <= facets.keys()
        for name, facet in facets.items():
            schema = facet["_schemaURL"].rpartition("#")[0].rpartition("/")[2]
            assert problems({name: facet}, schema) == []
    return found


@pytest.mark.parametrize(
    ("statuses", "last"),
    [(STATUSES, "FAIL"), (PASSED, "COMPLETE")],
)
def test_openlineage(file: Path, statuses: Sequence[VerdictStatus | None], last: str) -> None:
    """A run is made, sends and ends, under one id; each entry is a test of it."""
    make_run(file, 1, statuses)
    found = events(manifest("export", "last", "-f", "openlineage"))
    assert [one["eventType"] for one in found] == ["START", "RUNNING", last]
    assert len({json.dumps(one["run"]["runId"]) for one in found}) == 1  # type: ignore[index]  # an object
    facets = found[-1]["run"]["facets"]  # type: ignore[index]  # an object
    words = {"passed": "pass", "failed": "fail", "unknown": "fail"}
    assert [one["status"] for one in facets["test"]["tests"]] == [
        words.get(str(one), "skip") for one in statuses
    ]
    assert ("errorMessage" in facets) == (last == "FAIL")


def test_openlineage_of_a_huge_run_lists_what_failed(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the namespace that the environment names."""
    monkeypatch.setattr(lineage, "MOST", 4)
    monkeypatch.setenv(lineage.NAMESPACE, "nightly")
    make_run(file, 1, STATUSES)
    last = events(manifest("export", "last", "-f", "openlineage"))[-1]
    tests = last["run"]["facets"]["test"]["tests"]  # type: ignore[index]  # an object
    assert [one["name"] for one in tests] == ["b", "d"]
    assert last["job"]["namespace"] == "nightly"  # type: ignore[index]  # an object


def families(module: ModuleType, text: str) -> list[Metric]:
    """The metrics in a text, as one of the client's parsers, which have no types, reads them."""
    read: Callable[[str], Iterable[Metric]] = module.text_string_to_metric_families
    return [*read(text)]


def samples(text: str) -> dict[tuple[str, str], float]:
    """Samples of a file for Prometheus, which both of its parsers read alike, by name and label."""
    read = [families(openmetrics, text), families(plain, text)]
    found: list[dict[tuple[str, str], float]] = []
    for each in read:
        every = [sample for family in each for sample in family.samples]
        assert {one.labels["manifest"] for one in every} == {"m.jsonl"}
        labels = {"manifest", "status", "state"}
        assert {name for one in every for name in one.labels} <= labels
        found.append(
            {
                (one.name, one.labels.get("status") or one.labels.get("state", "")): one.value
                for one in every
            }
        )
    assert found[0] == found[1]
    return found[0]


def test_prometheus(file: Path) -> None:
    """Counts by verdict, and when the last good run was, which is not the last one."""
    good = make_run(file, 1, [*PASSED[1:], "cancelled"])
    first = samples(manifest("export", "last", "-f", "prometheus"))
    make_run(file, 2, STATUSES)
    text = manifest("export", "last", "-f", "prometheus")
    found = samples(text)
    assert text.endswith("# EOF\n")
    assert found["manifest_run_verdicts", "failed"] == 1
    assert found["manifest_run_entries", ""] == 5
    assert found["manifest_run_active", ""] == 0
    name = LAST_SUCCESS.prometheus
    assert name == "manifest_run_last_success_time_seconds"
    assert found[name, ""] == first[name, ""] == first["manifest_run_start_time_seconds", ""]
    assert found["manifest_run_start_time_seconds", ""] - found[name, ""] == 60
    assert samples(manifest("export", good.stem, "-f", "prometheus"))[name, ""] == found[name, ""]


def test_no_good_run_is_no_time(file: Path) -> None:
    """Rather than one that an alert would take for long ago."""
    make_run(file, 1, STATUSES)
    assert LAST_SUCCESS.prometheus not in manifest("export", "last", "-f", "prometheus")


def test_what_waits_longest_is_a_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what no worker has begun; it ends with a start, a verdict, or the run."""
    run = MadeRun(tmp_path, monkeypatch, entries=4)
    (waiting,) = [one for one in METRICS if one.name == "manifest.run.oldest_waiting"]

    def seconds() -> float | None:
        status = reader.look()
        ((_, value),) = waiting.points(status)
        return value

    with run.reader() as reader:
        assert seconds() == 0
        run.send("e0")
        run.after(5)
        run.send("e1", "e2")
        run.after(10)
        assert seconds() == 15
        run.start("e0")
        assert seconds() == 10
        run.infer("e1", "lost")
        run.start("e2")
        assert seconds() == 0
        run.send("e3")
        run.after(7)
        assert seconds() == 7
        run.stop()
        assert seconds() == 0
    run.close()


def test_the_label_of_a_manifest_is_escaped(file: Path) -> None:
    """Its file may have any name."""
    odd = file.rename('a "b"\\.jsonl')
    make_run(odd, 1, STATUSES)
    text = manifest("export", "last", "-f", "prometheus")
    family, *_ = families(openmetrics, text)
    assert family.samples[0].labels["manifest"] == 'a "b"\\.jsonl'


def test_parquet(file: Path) -> None:
    """A row an entry, with types: moments are moments, tags a list."""
    path = make_run(file, 1, STATUSES, [0.25] * 5)
    manifest("export", "last", "-f", "parquet", "-o", "m.parquet")
    rows = parquet.read_table("m.parquet").to_pylist()
    assert [(one["id"], one["verdict"]) for one in rows] == [*zip("abcde", STATUSES, strict=True)]
    assert (rows[0]["tags"], rows[0]["runtime"], rows[0]["run"]) == (["slow"], 0.25, path.stem)
    assert rows[0]["sent_at"].utcoffset() == timedelta(0)


def test_in_toto(file: Path, key: signing.Verifier) -> None:
    """What is signed is a test-result statement about the manifest and the tree of receipts."""
    path = make_run(file, 1, STATUSES)
    manifest("export", "last", "-o", "r.jsonl")
    text = manifest("export", "last", "-f", "in-toto")
    payload = signing.open_envelope(text.encode(), signing.PAYLOAD_TYPE, key)
    statement = json.loads(payload)
    json_format.ParseDict(statement, statement_pb2.Statement())
    result = json_format.ParseDict(statement["predicate"], test_result_pb2.TestResult())
    assert (result.result, [*result.failed_tests]) == ("FAILED", ["b", "d"])
    assert [*result.warned_tests] == ["c", "e"]
    assert statement["predicateType"] == "https://in-toto.io/attestation/test-result/v0.1"
    order, receipts = statement["subject"]
    assert order["digest"]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    lines = Path("r.jsonl").read_bytes().splitlines()
    assert receipts["name"] == f"{path.stem}.receipts.jsonl"
    assert receipts["digest"]["rfc6962Sha256"] == tree(lines).hex()
    assert receipts["annotations"] == {"lines": len(lines)}


@pytest.mark.parametrize(
    ("statuses", "result"),
    [(PASSED, "PASSED"), ((*PASSED[1:], "cancelled"), "WARNED")],
)
def test_in_toto_of_a_good_run(
    file: Path, key: signing.Verifier, statuses: Sequence[VerdictStatus], result: str
) -> None:
    """What an operator has cancelled is a warning."""
    make_run(file, 1, statuses)
    text = manifest("export", "last", "-f", "in-toto")
    statement = json.loads(signing.open_envelope(text.encode(), signing.PAYLOAD_TYPE, key))
    assert statement["predicate"]["result"] == result


def test_an_attestation_takes_a_key(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one nothing is written: unsigned, it would attest nothing."""
    monkeypatch.delenv(signing.SIGNING_KEY_VARIABLE, raising=False)
    make_run(file, 1, STATUSES)
    text = refusal("export", "last", "-f", "in-toto", "-o", "a.intoto.jsonl")
    assert "name a private key by MANIFEST_SIGNING_KEY" in text
    assert not Path("a.intoto.jsonl").exists()


def tree(leaves: Sequence[bytes]) -> bytes:
    """The hash of a Merkle tree as RFC 6962 defines it, by recursion."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    return hashlib.sha256(b"\1" + tree(leaves[:half]) + tree(leaves[half:])).digest()


@pytest.mark.parametrize("number", [0, 1, 2, 3, 4, 5, 7, 8, 9, 100])
def test_the_root_is_that_of_rfc_6962(number: int) -> None:
    """For every shape of the tree."""
    leaves = [b"%d" % one for one in range(number)]
    assert merkle_root(iter(leaves)) == (tree(leaves).hex(), number)


@pytest.mark.parametrize("form", [one.name for one in FORMATS])
def test_no_format_shows_a_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: signing.Verifier, form: str
) -> None:
    """Not even where an error repeats what an argument holds. Nor is a file readable for others."""
    monkeypatch.chdir(tmp_path)
    run = MadeRun(tmp_path, monkeypatch, entries=2, more={"kwargs": {"password": "hunter2222"}})
    run.do("e0", status="failed", error="no login with hunter2222")
    run.do("e1", result={"token": "hunter2222"})
    run.stop()
    run.close()
    manifest("export", "last", "-f", form, "-o", "out")
    assert b"hunter2222" not in Path("out").read_bytes()
    assert stat.S_IMODE(Path("out").stat().st_mode) == 0o600


def test_a_missing_package_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the extra that brings it."""
    monkeypatch.setattr(formats, "find_spec", lambda _name: None)
    make_run(file, 1, STATUSES)
    for form, extra in (("parquet", "parquet"), ("openlineage", "openlineage")):
        text = refusal("export", "last", "-f", form, "-o", "out")
        assert f"pip install pytest-celery-manifest[{extra}]" in text
