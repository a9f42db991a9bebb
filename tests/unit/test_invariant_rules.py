"""Each rule of the record's check by itself: what it says of each record that was changed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import pytest

from pytest_manifest.errors import LedgerError
from pytest_manifest.ledger import RECEIPT_KEYS, Ledger
from pytest_manifest.ledger.verdicts import Queries, StoredPass
from pytest_manifest.manifest import Manifest, read_manifest
from pytest_manifest.run import invariants
from pytest_manifest.run.audit import RecordSize, record_size
from pytest_manifest.run.invariants import Violation
from pytest_manifest.schema.wire import arguments_sha256, json_sha256
from tests.broken_records import MUTATIONS
from tests.unit.ledger_support import INFO
from tests.unit.record_changes import BROKEN, EARLIER, LAWFUL
from tests.unit.record_support import KeptRecord, RecordWriter, write_record
from tests.unit.test_broken_records import SAID

Rule: TypeAlias = Callable[[Ledger, Manifest], Iterator[Violation]]
RULES: Mapping[str, tuple[str, Rule]] = {
    "sendings": ("S1", lambda ledger, _: invariants.sendings(ledger)),
    "repetitions": ("S2", lambda ledger, manifest: invariants.repetitions(ledger, manifest)),
    "losses": ("S3", lambda ledger, _: invariants.losses(ledger)),
    "passes": ("S4", lambda ledger, manifest: invariants.passes(ledger, manifest)),
    "trees": ("S4, of a tree", lambda ledger, manifest: invariants.trees(ledger, manifest)),
    "corrections": ("S5", lambda ledger, _: invariants.corrections(ledger)),
    "completeness": ("S6", lambda ledger, manifest: invariants.completeness(ledger, manifest)),
}
"""What each is about, and how it is called."""
OF_TREES = ("its descendant", "that its job started", "its tree has")


def subject(one: Violation) -> str:
    if one.promise == "S4" and any(words in one.sentence for words in OF_TREES):
        return "S4, of a tree"
    return {"L1": "S6"}.get(one.promise, one.promise)


def everything() -> Iterator[tuple[str, list[Violation]]]:
    """Yield the SQL of each change, and all that is broken by it."""
    for name, (_, statements) in MUTATIONS.items():
        yield statements, [Violation(*one) for one in SAID[name]]  # type: ignore[arg-type]  # promises of the file
    for statements, broken in BROKEN.values():
        yield statements, [Violation(*one) for one in broken]  # type: ignore[arg-type]  # promises of the table
    for statements in LAWFUL.values():
        yield statements, []


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> KeptRecord:
    return KeptRecord(write_record(tmp_path_factory.mktemp("sound")))


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_says_what_is_broken_of_its_own(rule: str, sound: KeptRecord) -> None:
    """In its words and order, and nothing else, in more than a hundred records."""
    about, find = RULES[rule]
    said = 0
    for statements, broken in everything():
        expected = [one for one in broken if subject(one) == about]
        with sound.changed(statements) as ledger:
            assert list(find(ledger, sound.manifest)) == expected, statements
        said += len(expected)
    assert said


def test_all_rules_are_asked(sound: KeptRecord) -> None:
    """One after the other."""
    one_of_each = (
        "UPDATE jobs SET asked_for = 0;"
        "UPDATE attempts SET sent_at = NULL WHERE entry = 'other';"
        "UPDATE verdicts SET status = 'lost', verdict = json_set(verdict, '$.verdict', 'lost') "
        "WHERE status IS NOT NULL "
        "AND job = (SELECT n FROM attempts WHERE entry = 'again' AND attempt = 1);"
        "UPDATE settled SET receipt = NULL WHERE entry = 'plain';"
        "UPDATE descendants SET kind = 'failed' WHERE task_id = 't1';"
        "UPDATE settled SET verdict = json_set(verdict, '$.entry', 'x') WHERE entry = 'held';"
        "DELETE FROM settled WHERE entry = 'fails'"
    )
    found = [(subject(one), one.entry) for one in sound.broken(one_of_each)]
    assert found == [
        ("S1", "other"),
        ("S2", "once"),
        ("S3", "again"),
        ("S3", "again"),
        ("S4", "plain"),
        ("S4, of a tree", "tree"),
        ("S5", "held"),
        ("S6", "fails"),
    ]


def test_the_size_of_a_record_is_that_of_its_entries(sound: KeptRecord) -> None:
    """Entries count once, however often they were sent; and verdicts."""
    with sound.changed() as ledger:
        assert record_size(ledger) == RecordSize(14, 14)
    with sound.changed("DELETE FROM settled WHERE entry = 'plain'") as ledger:
        assert record_size(ledger) == RecordSize(14, 13)


def test_each_part_of_a_long_manifest_is_judged(
    sound: KeptRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Entries are read some at a time, each as the line that it is."""
    sizes: list[int] = []
    ask = Queries.stored_passes

    def asked(part: Queries, entries: Mapping[str, object]) -> Iterator[StoredPass]:
        sizes.append(len(entries))
        return ask(part, entries)

    monkeypatch.setattr(invariants, "BATCH", 1)
    monkeypatch.setattr(Queries, "stored_passes", asked)
    late = "UPDATE settled SET receipt = json_set(receipt, '$.task', 'x') WHERE entry = 'twice'"
    with sound.changed(late) as ledger:
        found = list(invariants._unearned_passes(ledger, sound.manifest))
    assert [(one.promise, one.entry) for one in found] == [("S4", "twice")]
    assert sizes == [1] * len(sound.manifest.path.read_bytes().splitlines())


ARGUMENTS = arguments_sha256([1], {"x": 2})
RIGHT = {"state": "succeeded", "task": "t", "runtime": 1.0, "executions": 1}
IT_RAN = ", and it ran for {} s, its limit is {} s"
OTHER_RESULT = " by a result that is not the one that its worker reported"
OTHER_ARGUMENTS = " by a receipt of other arguments"


@pytest.mark.parametrize(
    ("entry", "receipt", "limits", "why"),
    [
        ({}, {}, {}, ""),
        ({}, {"state": "failed"}, {}, ", and its receipt says 'failed', not 'succeeded'"),
        ({"expect": {"state": "failed"}}, {"state": "failed"}, {}, ""),
        ({"expect": {"state": "timed_out"}}, {"state": "failed", "runtime": 900.0}, {}, ""),
        (
            {"expect": {"state": "timed_out"}},
            {"state": "revoked"},
            {},
            ", and its receipt says 'revoked', not 'timed_out'",
        ),
        (
            {"expect": {"state": "failed"}},
            {"state": "timed_out"},
            {},
            ", and its receipt says 'timed_out', not 'failed'",
        ),
        ({}, {"runtime": 300.0}, {}, ""),
        ({}, {"runtime": 301.0}, {}, IT_RAN.format(301, 300)),
        ({"timeout": 10}, {"runtime": 11.0}, {}, IT_RAN.format(11, 10)),
        ({"timeout": 10}, {"runtime": 11.0}, {"t": 11.0}, ""),
        ({"timeout": 10}, {"runtime": 12.0}, {"t": 11.0}, IT_RAN.format(12, 11)),
        ({"timeout": 0.5}, {"runtime": 0.75}, {"u": 9.0}, IT_RAN.format(0.75, 0.5)),
        ({"timeout": 0.5}, {"runtime": None}, {}, ""),
        ({}, {"executions": 2}, {}, ", and its receipt counts 2 executions"),
        ({"expect": {"executions": 2}}, {"executions": 2}, {}, ""),
        ({}, {"result": 1, "result_sha256": json_sha256(1)}, {}, ""),
        ({}, {"result": 2, "result_sha256": json_sha256(1)}, {}, OTHER_RESULT),
        ({}, {"result_sha256": json_sha256(1)}, {}, OTHER_RESULT),
        ({}, {"result_sha256": json_sha256(1), "evidence": {"a": 1}}, {}, ""),
        (
            {},
            {"result": 2, "result_sha256": json_sha256(1), "evidence": {"a": 1}},
            {},
            OTHER_RESULT,
        ),
        ({}, {"task": "u"}, {}, " by a receipt of the task 'u'"),
        ({}, {"task": "u", "replaced": True}, {}, ""),
        ({"args": [1], "kwargs": {"x": 2}}, {"args_sha256": ARGUMENTS}, {}, ""),
        ({"args": [1]}, {"args_sha256": ARGUMENTS}, {}, OTHER_ARGUMENTS),
        ({"kwargs": {"x": 2}}, {"args_sha256": ARGUMENTS}, {}, OTHER_ARGUMENTS),
        ({"args": [1]}, {"args_sha256": ARGUMENTS, "retries": 1}, {}, ""),
    ],
)
def test_a_pass_is_held_against_its_line_of_the_manifest(
    entry: dict[str, object], receipt: dict[str, object], limits: dict[str, float], why: str
) -> None:
    assert invariants._unearned({"task": "t", **entry}, {**RIGHT, **receipt}, limits) == why


def test_a_receipt_without_a_count_counts_nothing() -> None:
    receipt = {name: value for name, value in RIGHT.items() if name != "executions"}
    assert invariants._unearned({"task": "t"}, receipt, {}) == ""


def test_a_pass_without_a_receipt_hides_no_other(sound: KeptRecord) -> None:
    both = (
        "UPDATE settled SET receipt = NULL WHERE entry = 'plain';"
        "UPDATE settled SET receipt = json_set(receipt, '$.task', 'x') WHERE entry = 'twice'"
    )
    with sound.changed(both) as ledger:
        found = list(invariants._unearned_passes(ledger, sound.manifest))
    assert [one.entry for one in found] == ["twice"]


def test_a_receipt_that_is_none_is_damage(sound: KeptRecord) -> None:
    """It is no contradiction: the ledger cannot be read, and why is said."""
    with pytest.raises(LedgerError, match=r"run\.sqlite") as raised:
        sound.broken(
            "UPDATE verdicts SET \"end\" = NULL, added = '{}' "
            "WHERE seq = (SELECT seq FROM settled WHERE entry = 'plain')"
        )
    assert "there is no 'state'" in str(raised.value)


def manifest_of(folder: Path, *names: str) -> Manifest:
    """A manifest with these entries alone."""
    path = folder / f"{'-'.join(names) or 'none'}.jsonl"
    path.write_text("".join(f'{{"id": "{name}", "task": "jobs.t"}}\n' for name in names), "utf-8")
    return read_manifest(path)


def test_what_was_sent_and_is_not_in_the_manifest_is_strange(tmp_path: Path) -> None:
    """A run is of one manifest to its end."""
    writer = RecordWriter(tmp_path, [{"id": i, "task": "jobs.t"} for i in ("a", "taken", "more")])
    for name in writer.manifest.ids:
        writer.attempt(name)
    now = manifest_of(tmp_path, "a")
    with Ledger.open(writer.finish()) as ledger:
        found = list(invariants.completeness(ledger, now))
    strange = "was sent, and is not in the run's manifest"
    assert found == [Violation("S6", name, strange) for name in ("more", "taken")]


# What one of several runs, or one moment of it, excuses


def known(key: str, value: object) -> str:
    """SQL that has the record know this."""
    text = value if isinstance(value, str) else json.dumps(value)
    return f"UPDATE run SET {key} = '{text}';"


def parts(run: int, segments: Sequence[Sequence[str | None]]) -> str:
    """SQL that has the record know when one of its runs was worked on."""
    return "".join(
        f"INSERT INTO segments (run, started, stopped) VALUES ({run}, '{began}', "
        f"{'NULL' if stopped is None else repr(stopped)});"
        for began, stopped in segments
    )


MERGED = f"INSERT INTO run (n, id) VALUES (2, '{INFO.run}'), (3, '{EARLIER}');"
"""Whose attempts are all of the first of these."""
ONCE: Sequence[Sequence[str | None]] = [["2000-01-01", None]]
TWICE: Sequence[Sequence[str | None]] = [["2000-01-01", "2001-01-01"], ["2002-01-01", None]]
OTHERWISE = (
    "INSERT INTO corrections (entry, attempt, was, kind, told_at, corrected_at) "
    "VALUES ('plain', 1, 'lost', 'failed', '2000-01-01', '2000-01-02');"
    "UPDATE receipts SET after_verdict = 1;"
)
CHANGED = (
    "UPDATE verdicts SET seq = seq * 1000 WHERE seq = (SELECT seq FROM settled WHERE entry = "
    "'plain'); INSERT INTO verdicts (seq, entry, job, status, at, verdict) SELECT seq - 1, number, "
    "job, 'failed', 0, json_object('verdict', 'failed', 'entry', 'plain', 'attempt', 1, "
    "'sentence', '.') FROM settled WHERE entry = 'plain';"
)
BY_CHANGE: Mapping[str, str] = {
    OTHERWISE: "attempt 1 has a correction, and not the verdict that it names",
    CHANGED: "attempt 1 had another verdict, and no correction says that it changed",
}


@pytest.mark.parametrize("change", BY_CHANGE)
@pytest.mark.parametrize(
    ("of_own", "of_other", "is_lawful"), [(TWICE, ONCE, True), (ONCE, TWICE, False)]
)
def test_a_session_that_goes_on_with_a_run_judges_it_anew(
    change: str,
    of_own: Sequence[Sequence[str | None]],
    of_other: Sequence[Sequence[str | None]],
    is_lawful: bool,
    sound: KeptRecord,
) -> None:
    """That run alone, of a merged record."""
    when = parts(2, of_own) + parts(3, of_other)
    with sound.changed(change + MERGED + when) as ledger:
        found = list(invariants.corrections(ledger))
    assert found == ([] if is_lawful else [Violation("S5", "plain", BY_CHANGE[change])])


@pytest.mark.parametrize("change", BY_CHANGE)
def test_other_keys_judge_anew_and_correct_nothing(change: str, sound: KeptRecord) -> None:
    """What is recorded as corrected is so all the same."""
    with sound.changed(change + known(RECEIPT_KEYS, [])) as ledger:
        found = list(invariants.corrections(ledger))
    assert bool(found) == (change == OTHERWISE)
