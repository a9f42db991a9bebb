"""Return entries, receipts and verdicts as they are shown: without secrets.

What an entry's arguments and expectations, and its receipt, hold under the name of a secret is
hidden in their texts, too, where nothing else says what it is: in an error's message, say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from pydantic import JsonValue
from pydantic_core import from_json

from pytest_manifest.redaction.documents import redacted, redacted_schema, secrets_in
from pytest_manifest.redaction.names import is_on
from pytest_manifest.redaction.texts import redact, secret_signs, spelled, without, without_cut
from pytest_manifest.schema.json_schemas import found_in
from pytest_manifest.schema.models import Entry, Expectations, Header
from pytest_manifest.schema.receipts import ErrorInfo, Mismatch, Receipt, Verdict

Secrets = Sequence[str]
_SHORTEST_WORD: Final = 8


def secrets_of(entry: Entry, receipt: Receipt | None = None) -> Secrets:
    """Return the values that stand under names of secrets, in all spellings, the longest first."""
    if not is_on():
        return ()
    values: list[JsonValue] = [entry.args, entry.kwargs, entry.meta]
    values += [{**entry.key}, {**entry.headers}]
    values += [entry.expect.result] if "result" in entry.expect.model_fields_set else []
    values += [] if receipt is None else [receipt.result, receipt.evidence]
    return spelled({secret for value in values for secret in secrets_in(value)})


def pieces_of(entry: Entry, receipt: Receipt | None = None) -> Secrets:
    """Return secrets and their words, the longest first: who prints a long text may part it.

    They are those of an entry's and its receipt's texts that are not there any more once it is
    shown. Shorter ones than eight characters are left out, as they may be any words.
    """
    if not is_on():
        return ()
    secrets = secrets_of(entry, receipt)
    pairs: list[tuple[str, Entry | Receipt]] = [
        (entry.model_dump_json(by_alias=True), shown_entry(entry, secrets))
    ]
    if receipt is not None:
        pairs.append((receipt.model_dump_json(), shown_receipt(receipt, secrets)))
    found: set[str] = set()
    for before, shown in pairs:
        if not may_hold_secret(before) and not secrets:
            continue
        left = {*_words(from_json(shown.model_dump_json(by_alias=True)))}
        found.update({*_words(from_json(before))} - left)
    found.update(secrets)
    spelt = {*found, *(repr(one)[1:-1] for one in found)}
    return sorted(spelt, key=lambda one: (-len(one), one))


def _words(value: JsonValue) -> Iterator[str]:
    if isinstance(value, str):
        yield from (one for one in value.split() if len(one) >= _SHORTEST_WORD)
    elif isinstance(value, list):
        for item in value:
            yield from _words(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _words(item)


def shown_text(text: str, secrets: Secrets = ()) -> str:
    """Return a text without secrets, and without these values."""
    return redact(without(text, secrets)) if is_on() else text


def shown_entry(entry: Entry, secrets: Secrets | None = None) -> Entry:
    """Return an entry without secrets; ``secrets``: None, they are looked for in it."""
    if secrets is None:
        secrets = secrets_of(entry)
    changes: dict[str, object] = {
        "args": redacted(entry.args, secrets),
        "kwargs": redacted(entry.kwargs, secrets),
        "headers": redacted(dict[str, JsonValue](entry.headers), secrets),
        "meta": redacted(entry.meta, secrets),
        "key": redacted(dict[str, JsonValue](entry.key), secrets),
        "tags": redacted(list[JsonValue](entry.tags), secrets),
        "expect": _shown_expectations(entry.expect, secrets),
    }
    return entry.model_copy(update=_given(changes, entry.model_fields_set))


def shown_params(header: Header) -> dict[str, JsonValue]:
    """Return the options that a manifest was planned with, without secrets."""
    shown = redacted(header.params)
    return shown if isinstance(shown, dict) else {}


def may_hold_secret(document: str) -> bool:
    """Return whether a document, as JSON, may have something that is not shown."""
    try:
        return is_on() and found_in(secret_signs(), document)
    except ValueError:  # of very many values that are hidden, or very long ones
        return True


def shown_receipt(receipt: Receipt, secrets: Secrets = ()) -> Receipt:
    """Return a receipt without secrets, and without these values.

    The digest of a result that was changed is left out, and that of the arguments, which are not
    here to be looked at: they are not salted, and would tell short secrets.
    """
    if not is_on():
        return receipt
    changes: dict[str, object] = {
        "args_sha256": None,
        "result": redacted(receipt.result, secrets),
        "evidence": redacted(receipt.evidence, secrets),
        "error": shown_error(receipt.error, secrets),
        "log": [shown_text(line, secrets) for line in receipt.log],
        "retried": [
            one.model_copy(update={"error": shown_error(one.error, secrets)})
            for one in receipt.retried
        ],
    }
    changes = _given(changes, receipt.model_fields_set)
    if changes.get("result", receipt.result) != receipt.result:
        changes["result_sha256"] = None
    return receipt.model_copy(update=changes)


def shown_error(error: ErrorInfo | None, secrets: Secrets = ()) -> ErrorInfo | None:
    """Return an error without secrets, and without these values."""
    if error is None:
        return None
    changes = {"message": shown_text(error.message, secrets)}
    if error.traceback is not None:
        changes["traceback"] = shown_text(error.traceback, secrets)
    return error.model_copy(update=changes)


def shown_verdict(verdict: Verdict, secrets: Secrets = ()) -> Verdict:
    """Return a verdict without secrets, and without these values and what was cut off of them."""

    def shown(text: str) -> str:
        return without_cut(shown_text(text, secrets), secrets)

    mismatches = [
        Mismatch(path=shown(one.path), expected=shown(one.expected), actual=shown(one.actual))
        for one in verdict.mismatches
    ]
    sentence = shown(verdict.sentence)
    return verdict.model_copy(update={"sentence": sentence, "mismatches": mismatches})


def _given(changes: Mapping[str, object], fields: set[str]) -> dict[str, object]:
    """Return the changes of fields that were given: the others are as empty as they were."""
    return {name: value for name, value in changes.items() if name in fields}


def _shown_expectations(expect: Expectations, secrets: Secrets) -> Expectations:
    changes: dict[str, object] = {"result": redacted(expect.result, secrets)}
    if expect.result_schema is not None:
        changes["result_schema"] = redacted_schema(expect.result_schema, secrets)
    if expect.error is not None and expect.error.match is not None:
        shown = shown_text(expect.error.match, secrets)
        changes["error"] = expect.error.model_copy(update={"match": shown})
    return expect.model_copy(update=_given(changes, expect.model_fields_set))
