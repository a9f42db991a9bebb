"""What terminal, JUnit and summary say of the tasks that jobs started."""

from __future__ import annotations

from pydantic_core import from_json

from pytest_manifest.ledger import StoredVerdict
from pytest_manifest.plugin.outcome import properties_of
from pytest_manifest.reporting import descendants, figures
from pytest_manifest.reporting.figures import Sheet
from pytest_manifest.schema import Entry, Mismatch, Verdict, VerdictStatus
from pytest_manifest.verdict.explanation import brief, explain
from pytest_manifest.verdict.reasons import Said
from pytest_manifest.verdict.tree import ByDescendant
from tests.unit.ledger_support import INFO
from tests.unit.tree_support import Trees, times

TRACEBACK = 'Traceback (most recent call last):\n  File "/srv/jobs.py", line 3, in work\nBoom: no\n'


def by_descendant(name: str, status: VerdictStatus) -> ByDescendant:
    why = Said(text="It says why.")
    return ByDescendant(
        task=f"task.{name}", task_id=name, parent="t", ended=status, total=2, why=why
    )


def failed(trees: Trees) -> tuple[Entry, Verdict]:
    """An entry of which a descendant has failed."""
    root = trees.entry("a", "failed", children=1)
    trees.child(root, "c1", received=times(1, 2))
    error = {"type": "Boom", "message": "no", "traceback": TRACEBACK}
    told = {**times(2, 3), "state": "failed", "error": error, "log": ["tried", "gave up"]}
    trees.child(root, "c2", "c1", kind="failed", received={**told, "worker": "w2@box"})
    mismatch = Mismatch(path="descendants", expected="each succeeded", actual="1 of 2 did not")
    reason = by_descendant("c2", "failed")
    found = trees.verdict("a").model_copy(
        update={
            "sentence": "The job passed, but c2 failed.",
            "reason": reason.document(),
            "mismatches": [mismatch],
        }
    )
    return Entry.model_validate({"id": "a", "task": "t"}), found


def explained(trees: Trees, entry: Entry, verdict: Verdict) -> str:
    settled = trees.ledger.verdicts.of_entry(entry.id)
    assert settled is not None
    tree = descendants.tree_text(trees.ledger, f"t-{entry.id}", verdict, settled.receipt)
    return explain(entry, settled.receipt, verdict, (), tree)


def properties(trees: Trees, entry: str) -> dict[str, object]:
    """The entry's properties that are about descendants."""
    (_, stored), *_ = trees.ledger.verdicts.stored_from(entry, 1)
    found = dict(properties_of(entry, stored, INFO.run, trees.ledger))
    return {name: value for name, value in found.items() if "descendants" in name}


def test_a_failure_shows_the_descendant_that_it_rests_on(trees: Trees) -> None:
    """Its place, its traceback and its log lines, as an entry's own."""
    text = explained(trees, *failed(trees))
    assert "  tree      2 descendants: 1 failed, 1 passed\n" in text
    assert "The descendant 'task.c2':\n  task id   c2\n  ran on    w2@box" in text
    assert (
        "The descendant's traceback:\n  Traceback (most recent call last):\n    File \"/srv" in text
    )
    assert "The descendant's last log lines:\n  tried\n  gave up" in text


def test_a_failure_of_the_job_itself_shows_no_descendant(trees: Trees) -> None:
    """Only how many there were."""
    entry, verdict = failed(trees)
    text = explained(trees, entry, verdict.model_copy(update={"mismatches": [], "reason": None}))
    assert "2 descendants" in text
    assert "The descendant" not in text


def test_a_descendant_without_a_receipt_is_named_all_the_same(trees: Trees) -> None:
    """It was lost, say."""
    entry, verdict = failed(trees)
    root = trees.entry("b", "lost", children=1)
    trees.child(root, "c3", kind="lost")
    rests = verdict.model_copy(update={"reason": by_descendant("c3", "lost").document()})
    text = explained(trees, entry.model_copy(update={"id": "b"}), rests)
    assert "The descendant 'task.c3':\n  task id   c3\n  receipt   none received" in text


def test_a_failure_in_one_line_is_its_sentence(trees: Trees) -> None:
    """That of the descendant."""
    assert brief(failed(trees)[1], None) == "its descendant 'task.c2' failed: It says why."


def test_details_say_where_descendants_are_not_known(trees: Trees) -> None:
    """With the reason; nothing of one that has none."""
    for name, more, said in (
        ("a", {"source": "backend", "children": None}, "its worker sends no receipts"),
        ("b", {"children": None}, "its worker reports nothing of them"),
        ("c", {"children": 3}, "it started 3, and 0 of them were reported"),
        ("d", {}, ""),
        ("e", {"state": "crashed", "children": None}, ""),
    ):
        trees.entry(name, "failed", **more)
        entry = Entry.model_validate({"id": name, "task": "t"})
        line = f"  tree      descendants: not known ({said})"
        assert (line in explained(trees, entry, trees.verdict(name))) == bool(said)


def test_properties_count_descendants(trees: Trees) -> None:
    """Of entries that have some; elsewhere only where they are not known."""
    failed(trees)
    assert properties(trees, "a") == {"manifest_descendants": 2, "manifest_descendants_failed": 1}
    trees.entry("b", executions=1)
    assert properties(trees, "b") == {}
    trees.entry("c", children=None)
    assert properties(trees, "c") == {"manifest_descendants": "not known"}
    trees.child(trees.entry("d", retries=1, executions=1), "c3")
    assert properties(trees, "d")["manifest_descendants"] == 1


def test_a_job_that_started_nothing_costs_no_query(trees: Trees) -> None:
    """Which nearly all are."""
    trees.entry("a", executions=1)
    (_, stored), *_ = trees.ledger.verdicts.stored_from("a", 1)
    trees.ledger.close()
    assert isinstance(stored, StoredVerdict)
    assert properties_of("a", stored, INFO.run, trees.ledger)


def test_one_line_says_of_how_many_entries_they_are_not_known(trees: Trees) -> None:
    """With the reasons; none where all are known."""
    trees.entry("a")
    assert figures.untold_phrase(descendants.read_trees(trees.ledger), 1) == ""
    trees.entry("b", source="backend", children=None)
    assert figures.untold_phrase(descendants.read_trees(trees.ledger), 2) == (
        "descendants: not known of 1 of 2 entries (their workers send no receipts)"
    )
    trees.entry("c", children=None)
    phrase = figures.untold_phrase(descendants.read_trees(trees.ledger), 3)
    said = "(1: their workers report nothing of them, 1: their workers send no receipts)"
    assert phrase == f"descendants: not known of 2 of 3 entries {said}"


def test_the_slowest_path_is_a_table(trees: Trees) -> None:
    """How long each waited, when it began, and how long it ran; and how to read that."""
    failed(trees)
    lines = [
        line.text for line in figures.path_lines(descendants.read_trees(trees.ledger), Sheet())
    ]
    assert lines == [
        "  slowest tree: a, 3.000 s from its job's start to its last descendant's end",
        "    critical path: each task was sent by the one above it, waited, and ran",
        "    task              waited, s  began, s  ran, s",
        "    t                         -     0.000   1.000",
        "    task.c1               0.000     1.000   1.000",
        "    task.c2 (failed)      0.000     2.000   1.000",
    ]
    slowest = descendants.read_trees(trees.ledger).slowest
    assert slowest is not None
    assert figures.path_text(slowest) == "t -> task.c1 -> task.c2"


def test_a_long_path_is_cut_in_its_middle(trees: Trees) -> None:
    """Six steps of each end are shown."""
    root = parent = trees.entry("a", children=1)
    for number in range(20):
        trees.child(root, f"c{number}", parent, received=times(number + 1, number + 2))
        parent = f"c{number}"
    found = descendants.read_trees(trees.ledger)
    lines = [line.text.strip().split("  ")[0] for line in figures.path_lines(found, Sheet())]
    assert lines[3:] == [
        *("t", "task.c0", "task.c1", "task.c2", "task.c3", "task.c4", "... 9 more ..."),
        *("task.c14", "task.c15", "task.c16", "task.c17", "task.c18", "task.c19"),
    ]


def test_the_summary_counts_descendants(trees: Trees) -> None:
    """By status, with the slowest tree."""
    failed(trees)
    trees.child("t-a", "c3", kind="skipped")
    trees.entry("b", children=None)
    document = from_json(descendants.read_trees(trees.ledger).model_dump_json())
    slowest = document.pop("slowest")
    (bad,) = document.pop("failed")
    assert document == {
        "number": 2,
        "statuses": {"passed": 1, "failed": 1, "skipped": 1},
        "entries": 1,
        "not_known": 1,
        "reasons": {"older": 1},
        "more_failed": 0,
    }
    assert (bad["entry"], bad["task"], bad["status"]) == ("a", "task.c2", "failed")
    assert (slowest["entry"], slowest["seconds"], slowest["left_out"]) == ("a", 3.0, 0)
    assert [(one["task"], one["start"], one["runtime"]) for one in slowest["path"]] == [
        *(("t", 0.0, 1.0), ("task.c1", 1.0, 1.0), ("task.c2", 2.0, 1.0)),
    ]
