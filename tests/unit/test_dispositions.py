"""Which failures a project may have accepted, and which it never may: no green without a reason."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timezone
from pathlib import Path

import pytest

from pytest_manifest.analysis.dispositions import (
    FILE,
    Acceptance,
    Accepted,
    Disposition,
    baseline_file,
    baseline_of,
    disposition_text,
    had_passed,
    read_dispositions,
)
from pytest_manifest.errors import DispositionError
from pytest_manifest.schema import Entry, ErrorInfo, Mismatch, Receipt, Verdict, VerdictStatus
from pytest_manifest.schema.statuses import STATUSES
from tests.unit.ledger_support import NOTHING

TODAY = date(2026, 12, 1)
MANIFEST = Path("/orders/nightly.jsonl")
STATE = Mismatch(path="state", expected="succeeded", actual="failed")


def entry(name: str = "card-17", n: int = 1) -> Entry:
    return Entry.model_validate({"id": name, "task": "jobs.pay", "kwargs": {"n": n}})


def verdict(
    status: VerdictStatus = "failed", *mismatches: Mismatch, name: str = "card-17"
) -> Verdict:
    return Verdict.model_validate(
        {
            "entry": name,
            "verdict": status,
            "sentence": "It went wrong.",
            "mismatches": [one.model_dump() for one in mismatches],
        }
    )


def raised(kind: str = "Refused") -> Receipt:
    return Receipt.model_validate(
        {
            **NOTHING,
            "run": "r",
            "entry": "card-17",
            "attempt": 1,
            "task_id": "t",
            "task": "jobs.pay",
            "state": "failed",
            "error": ErrorInfo(type=kind, message="no"),
        }
    )


def known(**fields: object) -> Disposition:
    given: dict[str, object] = {"line": 1, "reason": "it is known", "until": TODAY, **fields}
    return Disposition(**given)  # type: ignore[arg-type]  # fields of it


def judged(
    some: Sequence[Disposition],
    said: Verdict,
    receipt: Receipt | None = None,
    *,
    today: date = TODAY,
) -> Accepted | None:
    accepts = Acceptance(some, today).of_manifest(MANIFEST)
    assert accepts is not None
    return accepts(entry(), said, receipt)


# What may be accepted


@pytest.mark.parametrize(
    "status", [name for name, one in STATUSES.items() if one.outcome in ("failed", "error")]
)
def test_only_one_end_without_a_doubt_is_accepted(status: VerdictStatus) -> None:
    """Never what ran twice, was forged, or is not known: nobody knows what these have done."""
    found = judged([known(entry="card-17")], verdict(status))
    never = {"duplicated", "forged", "lost", "unknown"}
    assert (found is None) == (status in never)


def test_what_ran_more_often_than_it_may_is_not_accepted() -> None:
    """Also where it failed at the end, in the way that is known."""
    twice = Mismatch(path="executions", expected="at most 1", actual="2")
    child = Mismatch(path="descendant.executions", expected="at most 1", actual="2")
    some = [known(entry="card-17")]
    assert judged(some, verdict("failed", STATE), raised()) is not None
    assert judged(some, verdict("failed", STATE, twice), raised()) is None
    assert judged(some, verdict("failed", STATE, child), raised()) is None


@pytest.mark.parametrize(
    ("cause", "is_known"),
    [("Refused", True), ("Refus*", True), ("Broken", False), ("refused", False)],
)
def test_a_cause_is_the_line_by_which_reports_group_it(cause: str, is_known: bool) -> None:
    found = judged([known(cause=cause)], verdict("failed", STATE), raised())
    assert (found is not None) == is_known


def test_a_further_mismatch_needs_a_disposition_of_its_own() -> None:
    """Else a known fault would hide a new one of the same job."""
    first = Mismatch(path="result.total", expected="3", actual="4")
    new = Mismatch(path="result.card", expected="a", actual="b")
    total = known(cause="result.total is not as expected")
    card = known(cause="result.card is not as expected")
    assert judged([total], verdict("failed", first)) is not None
    assert judged([total], verdict("failed", first, new)) is None
    assert judged([total], verdict("failed", new, first)) is None
    assert judged([total, card], verdict("failed", first, new)) is not None


def test_what_a_job_raised_does_not_hide_a_further_mismatch() -> None:
    slow = Mismatch(path="runtime", expected="at most 1 s", actual="9 s")
    some = [known(cause="Refused")]
    assert judged(some, verdict("failed", STATE), raised()) is not None
    assert judged(some, verdict("failed", STATE, slow), raised()) is None
    both = [*some, known(cause="runtime is not as expected")]
    assert judged(both, verdict("failed", STATE, slow), raised()) is not None


@pytest.mark.parametrize(
    ("fields", "is_known"),
    [
        ({"entry": "card-*"}, True),
        ({"entry": "card-1"}, False),
        ({"entry": "card-17", "cause": "Refused"}, True),
        ({"entry": "card-17", "cause": "Broken"}, False),
        ({"entry": "card-17", "manifest": "nightly.jsonl"}, True),
        ({"entry": "card-17", "manifest": "daily.jsonl"}, False),
    ],
)
def test_all_that_a_disposition_says_must_fit(fields: dict[str, str], is_known: bool) -> None:
    found = judged([known(**fields)], verdict("failed", STATE), raised())
    assert (found is not None) == is_known


def test_it_holds_up_to_the_end_of_its_day() -> None:
    """Then the failure fails again, and says by what it was accepted."""
    some = [known(entry="card-17", issue="SHOP-1")]
    before = judged(some, verdict(), today=TODAY)
    assert before is not None
    assert not before.is_over
    assert before.sentence == (
        "Accepted until 2026-12-01 (dispositions.toml:1, SHOP-1): it is known."
    )
    after = judged(some, verdict(), today=date(2026, 12, 2))
    assert after is not None
    assert after.is_over
    assert after.text.endswith("it is known; that is over")


def test_one_that_holds_goes_before_one_that_is_over() -> None:
    some = [known(entry="card-17", until=date(2026, 1, 1)), known(entry="card-*", line=7)]
    found = judged(some, verdict())
    assert found is not None
    assert not found.is_over
    assert found.by == some[1]


def test_other_processes_of_a_session_accept_the_same() -> None:
    made = Acceptance([known(entry="a", cause="b", issue="c")], TODAY)
    again = Acceptance().begin_by(made.as_json())
    assert (again.dispositions, again.today) == (made.dispositions, made.today)


# The file


def test_no_file_accepts_nothing(tmp_path: Path) -> None:
    assert read_dispositions(tmp_path) == ()
    assert Acceptance().of_manifest(MANIFEST) is None


def test_a_file_is_read_as_it_is_written(tmp_path: Path) -> None:
    some = [known(entry='a"b', line=3), known(cause="x at *", issue="I-1", line=8)]
    text = "# why\n\n" + "\n".join(map(disposition_text, some))
    (tmp_path / FILE).write_text(text, "utf-8")
    assert read_dispositions(tmp_path) == tuple(some)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[accept]]\nentry = 'a'\nreason = 'r'\n", ":1: it has no day until which it is accepted"),
        ("\n[[accept]]\nentry = 'a'\nuntil = 2027-01-01\n", ":2: it has no reason"),
        ("[[accept]]\nreason = 'r'\nuntil = 2027-01-01\n", ":1: it says nothing of which failure"),
        (
            "[[accept]]\nentry = '*'\nreason = 'r'\nuntil = 2027-01-01\n",
            ":1: entry = '*' would accept everything",
        ),
        (
            "[[accept]]\ncause = '?*'\nreason = 'r'\nuntil = 2027-01-01\n",
            ":1: cause = '?*' would accept everything",
        ),
        ("[[accept]]\nentry = 'a'\nreason = 'r'\nuntil = 'soon'\n", ":1: it has no day"),
        (
            "[[accept]]\nentry = 'a'\nreason = 'r'\nuntil = 2027-01-01T00:00:00Z\n",
            ":1: it has no day",
        ),
        ("[[accept]]\nentry = 3\n", ":1: entry is 3; write a text"),
        ("[[accept]]\nentry = 'a'\nreason = ' '\n", ":1: reason is ' '; write a text"),
        ("[[accept]]\nentires = 'a'\n", ":1: there is no 'entires'; it has entry, cause"),
        ("[[accepted]]\nentry = 'a'\n", ": it has 'accepted', which is no [[accept]]"),
        ("[[accept]\n", ": cannot be read: "),
        ("accept = 3\n", ": it has 'accept', which is no [[accept]]"),
        ("accept = [3]\n", ":0: it is no table"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / FILE).write_text(text, "utf-8")
    with pytest.raises(DispositionError) as caught:
        read_dispositions(tmp_path)
    assert f"{FILE}{said}" in str(caught.value)


def test_all_that_is_wrong_is_named_at_once(tmp_path: Path) -> None:
    bad = "[[accept]]\nentry = 'a'\n"
    (tmp_path / FILE).write_text(bad * 3, "utf-8")
    with pytest.raises(DispositionError) as caught:
        read_dispositions(tmp_path)
    assert [line.split(":")[1] for line in str(caught.value).splitlines()] == ["1", "3", "5"]


# Baselines


APPROVED = datetime(2026, 11, 1, tzinfo=timezone.utc)


def gate(folder: Path, *entries: tuple[Entry, bool]) -> Acceptance:
    made = baseline_of(
        "nightly.jsonl", "r1", datetime(2026, 11, 1, tzinfo=timezone.utc), entries, "ann"
    )
    path = folder / "nightly.jsonl"
    baseline_file(path).write_text(made.model_dump_json(), "utf-8")
    acceptance = Acceptance()
    acceptance.load_baseline(path)
    return acceptance


def of_gate(acceptance: Acceptance, folder: Path, one: Entry, said: Verdict) -> str | None:
    accepts = acceptance.of_manifest(folder / "nightly.jsonl")
    assert accepts is not None
    found = accepts(one, said, None)
    return None if found is None else found.text


def test_only_what_the_baseline_had_passed_is_new(tmp_path: Path) -> None:
    acceptance = gate(tmp_path, (entry("good"), True), (entry("bad", 2), False))
    assert of_gate(acceptance, tmp_path, entry("good"), verdict()) is None
    said = of_gate(acceptance, tmp_path, entry("bad", 2), verdict())
    assert said == "no new failure: the approved run r1 had not passed it"
    said = of_gate(acceptance, tmp_path, entry("other", 3), verdict())
    assert said == "no new failure: the approved run r1 did not have it"


def test_what_was_renamed_had_passed_all_the_same(tmp_path: Path) -> None:
    """Else a name would make an old failure of a new one."""
    acceptance = gate(tmp_path, (entry("good"), True))
    assert of_gate(acceptance, tmp_path, entry("called otherwise"), verdict()) is None


@pytest.mark.parametrize("status", ["duplicated", "forged", "lost", "unknown"])
def test_the_baseline_excuses_nothing_that_never_is(tmp_path: Path, status: VerdictStatus) -> None:
    acceptance = gate(tmp_path, (entry("bad"), False))
    assert of_gate(acceptance, tmp_path, entry("bad"), verdict(status)) is None


def test_of_ten_thousand_all_that_passed_are_known(tmp_path: Path) -> None:
    """A filter never forgets; of those that it did not have it takes few for its own."""
    some = [(entry(f"e-{n}", n), True) for n in range(10_000)]
    made = baseline_of(
        "nightly.jsonl", "r1", datetime(2026, 11, 1, tzinfo=timezone.utc), some, "ann"
    )
    assert all(had_passed(made, one) for one, _ in some)
    others = sum(had_passed(made, entry(f"x-{n}", -n - 1)) for n in range(1_000))
    assert others < 60
    assert len(made.model_dump_json()) < 50_000


def test_a_baseline_that_is_missing_or_damaged_is_said(tmp_path: Path) -> None:
    path = tmp_path / "nightly.jsonl"
    with pytest.raises(DispositionError, match=r"no approved baseline .* triage approve RUN"):
        Acceptance().load_baseline(path)
    baseline_file(path).write_text("{", "utf-8")
    with pytest.raises(DispositionError, match="is no baseline that can be read"):
        Acceptance().load_baseline(path)


def test_a_baseline_is_of_one_manifest(tmp_path: Path) -> None:
    """Else each failure of another one would be no new one."""
    gate(tmp_path, (entry("good"), True))
    ours, other = tmp_path / "nightly.jsonl", tmp_path / "other.jsonl"
    baseline_file(other).write_bytes(baseline_file(ours).read_bytes())
    with pytest.raises(DispositionError, match=r"is the baseline of nightly.jsonl, and not of oth"):
        Acceptance().load_baseline(other)
    assert baseline_file(ours.with_suffix(".yaml")) != baseline_file(ours)
