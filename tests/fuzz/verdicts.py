"""What must hold of each verdict, whatever the evidence is: asked without the code that judged."""

from __future__ import annotations

from pydantic import JsonValue

from pytest_manifest.schema import Entry, Receipt, Verdict
from pytest_manifest.verdict.expectations import MAX_MISMATCHES
from pytest_manifest.verdict.explanation import brief, explain
from tests.fuzz.oracles import MOST_VERDICT, expect, expect_sentence

MOST_EXPLAINED = 100_000
FROM_ITS_PROCESS = {"succeeded", "failed", "ignored"}


def expect_verdict(entry: Entry, verdict: Verdict, receipt: Receipt | None) -> None:
    """It is of the entry, says why, and has passed only where that was earned."""
    expect(verdict.entry == entry.id, "a verdict on another entry", verdict)
    expect_sentence(verdict.sentence, MOST_VERDICT)
    expect(verdict.sentence.rstrip().endswith((".", ")", "!")), "no whole sentence", verdict)
    expect(
        len(verdict.mismatches) <= MAX_MISMATCHES, "too many mismatches", len(verdict.mismatches)
    )
    again = Verdict.model_validate_json(verdict.model_dump_json())
    expect(again == verdict, "another verdict after it was stored", verdict, again)
    expect_sentence(brief(verdict, receipt), 400)
    expect_sentence(explain(entry, receipt, verdict), MOST_EXPLAINED)
    if verdict.verdict == "passed":
        expect_earned(entry, receipt)


def expect_earned(entry: Entry, receipt: Receipt | None) -> None:
    """A pass has a receipt of the entry that says what the entry expects."""
    expect(receipt is not None, "passed without a receipt", entry.id)
    if receipt is None:
        return
    wanted = entry.expect
    expect(receipt.entry == entry.id, "passed by another entry's receipt", receipt)
    expect(receipt.state == wanted.state, "passed in another state", receipt)
    expect(receipt.executions <= wanted.executions, "passed, and ran too often", receipt)
    if "result" in wanted.model_fields_set:
        expect(contains(receipt.result, wanted.result), "passed with another result", receipt)
    if wanted.error is not None:
        expect(receipt.error is not None, "passed without its error", receipt)
    for limit, took in ((wanted.max_runtime, receipt.runtime), (wanted.max_wait, receipt.wait)):
        expect(limit is None or (took is not None and took <= limit), "passed late", receipt)
    if receipt.state in FROM_ITS_PROCESS and receipt.runtime is not None:
        expect(receipt.runtime <= entry.timeout, "passed after its timeout", receipt)


def contains(found: JsonValue, wanted: JsonValue, *, exact: bool = False) -> bool:
    """Tell whether a result has what is wanted of it, by the rule in the documents alone."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        if exact and set(found) != set(wanted):
            return False
        return all(k in found and contains(found[k], v, exact=exact) for k, v in wanted.items())
    if isinstance(wanted, list) and isinstance(found, list):
        pairs = zip(found, wanted, strict=False)
        return len(found) == len(wanted) and all(contains(f, w, exact=True) for f, w in pairs)
    if isinstance(wanted, bool) or isinstance(found, bool):
        return wanted is found
    return wanted == found
