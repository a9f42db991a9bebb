"""Entries in groups: which there are, when they are complete, and what they amount to."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from pytest_manifest.analysis.causes import explain_group, headline, tally
from pytest_manifest.errors import ManifestError
from pytest_manifest.ledger import Ledger
from pytest_manifest.ledger.verdicts import BATCH
from pytest_manifest.manifest import read_manifest
from pytest_manifest.manifest.partition import GroupRule, Groups
from pytest_manifest.plugin.verdict_reader import GroupProgress
from pytest_manifest.schema import ErrorInfo
from tests.unit.ledger_support import INFO, receipt, verdict

ODD_ONES = ['quoted "a"', "back\\slash", "é/[x]::y", "漢字"]
BY_TASK, BY_TWO = GroupRule(), GroupRule(size=2)


def groups(
    folder: Path, rows: Sequence[tuple[str, str]], rule: GroupRule, *, header: bool = True
) -> Groups:
    """The groups of a manifest with these ids and tasks; some of its lines are not as we write."""
    lines = [{"id": entry, "task": task} for entry, task in rows]
    text = [json.dumps(line, ensure_ascii=n % 2 == 0) for n, line in enumerate(lines)]
    text[-1:] = [json.dumps({"task": rows[-1][1], "id": rows[-1][0]}, indent=None)]
    path = folder / "m.jsonl"
    head = ['{"manifest": 1}'] if header else []
    path.write_text("\n".join([*head, *text]) + "\n", "utf-8")
    return Groups(read_manifest(path, lean=True), rule)


def contents(made: Groups) -> dict[str, list[str]]:
    found = {group.name: list(made.ids(group.name)) for group in made}
    assert [len(ids) for ids in found.values()] == [group.count for group in made]
    return found


@pytest.mark.parametrize("header", [True, False])
def test_so_many_entries_one_after_the_other(tmp_path: Path, header: bool) -> None:
    """Named by their numbers from 1; the last group has what is left."""
    made = groups(tmp_path, [(entry, "t") for entry in "abcde"], BY_TWO, header=header)
    assert contents(made) == {
        "00001-00002": ["a", "b"],
        "00003-00004": ["c", "d"],
        "00005-00005": ["e"],
    }
    assert list(made.owners) == [0, 0, 1, 1, 2]


@pytest.mark.parametrize("rule", [BY_TWO, BY_TASK])
def test_groups_of_a_share_have_its_entries_alone(tmp_path: Path, rule: GroupRule) -> None:
    """They keep their names; one without any of the share is none, and the others are complete
    without what is beyond it."""
    rows = [(entry, "x" if entry in "ab" else "y") for entry in "abcde"]
    groups(tmp_path, rows, rule)
    made = Groups(read_manifest(tmp_path / "m.jsonl"), rule, frozenset("ce"))
    names = ["y"] if rule is BY_TASK else ["00003-00004", "00005-00005"]
    parts = [["c", "e"]] if rule is BY_TASK else [["c"], ["e"]]
    assert contents(made) == dict(zip(names, parts, strict=True))
    assert list(GroupProgress(made).complete("ec")) == names[::-1]


@pytest.mark.parametrize("header", [True, False])
def test_those_of_a_task_wherever_they_stand(tmp_path: Path, header: bool) -> None:
    """Named by the task, whatever is in it, in the order of their first entries."""
    rows = [(f"{n}", task) for n, task in enumerate(["x", "y", "y", "x", *ODD_ONES, "y"])]
    made = groups(tmp_path, rows, BY_TASK, header=header)
    assert contents(made) == {
        "x": ["0", "3"],
        "y": ["1", "2", "8"],
        **{task: [f"{n}"] for n, task in enumerate(ODD_ONES, 4)},
    }
    assert list(made.owners) == [0, 1, 1, 0, 2, 3, 4, 5, 1]


def test_ids_are_read_whatever_is_in_them(tmp_path: Path) -> None:
    """Quotes, escapes and letters outside ASCII."""
    made = groups(tmp_path, [(entry, "t") for entry in ODD_ONES], GroupRule(size=10))
    assert contents(made) == {"00001-00004": ODD_ONES}


def test_numbers_have_as_many_digits_as_the_largest(tmp_path: Path) -> None:
    """So that they are sorted as they stand, in reports too."""
    made = groups(tmp_path, [(f"{n}", "t") for n in range(100_001)], GroupRule(size=100_000))
    assert [group.name for group in made] == ["000001-100000", "100001-100001"]


def test_a_manifest_that_was_changed_meanwhile_is_refused(tmp_path: Path) -> None:
    """The places of its lines are no longer what they were."""
    made = groups(tmp_path, [("a", "t"), ("b", "t")], BY_TWO)
    path = made.manifest.path
    path.write_text(path.read_text() + '{"id": "c", "task": "t"}\n')
    with pytest.raises(ManifestError, match="was changed while it was in use"):
        list(made.ids("00001-00002"))


def test_a_lean_manifest_finds_its_ids_when_asked(tmp_path: Path) -> None:
    """Ids, entries and lines are those of one that kept them."""
    made = groups(tmp_path, [(entry, "t") for entry in ODD_ONES], BY_TASK).manifest
    kept = read_manifest(made.path)
    assert len(made) == len(kept) == 4
    assert made.ids == kept.ids
    assert [made[entry] for entry in made.ids] == list(kept) == list(made)
    assert [made.line_of(entry) for entry in ODD_ONES] == [2, 3, 4, 5]
    assert [made.position_of(entry) for entry in ODD_ONES] == [0, 1, 2, 3]


def test_a_group_is_complete_with_its_last_entry(tmp_path: Path) -> None:
    """Entries that settle again count once, those of another manifest not at all."""
    roll = GroupProgress(groups(tmp_path, [(entry, "t") for entry in "abcde"], BY_TWO))
    assert list(roll.complete(["a", "a", "a", "zzz", "c"])) == []
    assert list(roll.complete(["e", "b"])) == ["00005-00005", "00001-00002"]
    assert list(roll.complete(["b", "e", "d"])) == ["00003-00004"]


# What a group amounts to


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.create(tmp_path / "runs" / f"{INFO.run}.sqlite", INFO) as made:
        yield made


def settle(ledger: Ledger, **kinds: str) -> list[str]:
    """Entries named after them, with these verdicts."""
    ledger.attempts.plan((f"t-{name}", name, 1, n) for n, name in enumerate(kinds))
    ledger.verdicts.record((verdict(name, kind), None) for name, kind in kinds.items())
    return list(kinds)


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ({"a": "passed", "b": "passed"}, "passed"),
        ({"a": "passed", "b": "skipped"}, "skipped"),
        ({"a": "skipped", "b": "pending", "c": "passed"}, "pending"),
        ({"a": "pending", "b": "lost", "c": "skipped"}, "error"),
        ({"a": "pending", "b": "unknown"}, "error"),
        ({"a": "lost", "b": "timed_out", "c": "pending"}, "failed"),
        ({"a": "forged", "b": "passed"}, "failed"),
    ],
)
def test_the_worst_of_its_entries_decides(
    ledger: Ledger, kinds: dict[str, str], expected: str
) -> None:
    """Failed before unknown, before pending, before held back, before passed."""
    assert tally(ledger, settle(ledger, **kinds)).outcome == expected


def test_entries_without_a_verdict_are_unknown(ledger: Ledger) -> None:
    """They were not part of the run: nobody knows what they would have come to."""
    found = tally(ledger, [*settle(ledger, a="passed"), "new"])
    assert found.outcome == "error"
    assert headline(found) == "1 of 2 entries remained unknown, 1 passed"
    assert found.kinds == {"no verdict": 1}
    assert "was not part of the run" in found.first[0].sentence


def test_everything_is_counted_over_many_batches(ledger: Ledger) -> None:
    """A group may be larger than what is asked for at once, and its failures too."""
    kinds = ("passed", "failed", "lost", "skipped")
    ledger.attempts.plan((f"t-{n}", f"e-{n}", 1, n) for n in range(3 * BATCH))
    rows = [(verdict(f"e-{n}", kinds[n % 4]), None) for n in range(3 * BATCH)]
    ledger.verdicts.record(rows)
    found = tally(ledger, (f"e-{n}" for n in range(3 * BATCH)))
    assert found.entries == 3 * BATCH
    share = 3 * BATCH // 4
    assert found.outcomes == Counter(passed=share, failed=share, error=share, skipped=share)
    assert [one.id for one in found.first] == [f"e-{4 * n + 1}" for n in range(10)]


def test_a_failed_group_tells_causes_and_first_entries(ledger: Ledger) -> None:
    """The largest cause first, sentences of the first ones, and how many are left out."""
    error = ErrorInfo(type="ValueError", message="no\n\x1b[31mfilm")
    ledger.attempts.plan((f"t-{n}", f"e-{n}", 1, n) for n in range(14))
    for n in range(14):
        wrong = receipt(f"e-{n}", state="failed", error=error) if n else None
        ledger.verdicts.record([(verdict(f"e-{n}", "failed" if n else "lost"), wrong)])
    settle(ledger, good="passed")
    found = tally(ledger, [*(f"e-{n}" for n in range(14)), "good"])
    text = explain_group(found, [("receipts", "r.jsonl"), ("one in full", "pytest ...")])
    assert text.splitlines() == [
        "13 of 15 entries failed, 1 remained unknown, 1 passed.",
        "",
        "By cause:",
        "  13  ValueError",
        "      no film",
        "      e-1, e-2, e-3 and 10 more",
        "   1  lost",
        "      e-0 lost",
        "      e-0",
        "",
        "The first ones:",
        *(f"  {f'e-{n}':<4}  failed  e-{n} failed" for n in range(1, 11)),
        "  and 4 more",
        "",
        "Read on:",
        "  receipts     r.jsonl",
        "  one in full  pytest ...",
    ]


def test_the_time_of_a_group_is_that_of_its_jobs(ledger: Ledger) -> None:
    """Entries without a receipt, or without a verdict, count nothing."""
    ledger.attempts.plan((f"t-{n}", n, 1, 0) for n in "abc")
    ledger.verdicts.record((verdict(n, "passed"), receipt(n, runtime=0.25)) for n in "abc")
    settle(ledger, d="lost")
    assert ledger.queries.runtime_of("abcdx") == 0.75
