"""Hold one receipt, or the lack of one, against one entry's expectations (E).

An expected object is contained in the result; an expected array equals it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

from pydantic import JsonValue

from pytest_manifest.redaction.documents import differ
from pytest_manifest.schema import Entry, Mismatch, Receipt, State, VerdictStatus
from pytest_manifest.schema.json_schemas import SchemaFlawError, Violation, found_in, violations
from pytest_manifest.schema.models import ExpectedError
from pytest_manifest.schema.shown import Secrets, secrets_of, shown_error, shown_text
from pytest_manifest.schema.statuses import OF_ITS_PROCESS
from pytest_manifest.schema.wire import canonical, comparable, json_sha256
from pytest_manifest.text import VALUE_LIMIT, middle, plural, printable, seconds, short
from pytest_manifest.verdict import messages
from pytest_manifest.verdict.reasons import Finding

MAX_MISMATCHES: Final = 20
_OF_NULL: Final = json_sha256(None)


def held_against(
    entry: Entry, receipt: Receipt, *, code: str | None = None, missing: Sequence[str] = ()
) -> Finding:
    """Hold a receipt of this entry against what the entry expects."""
    if messages.is_of_store(receipt):
        error = shown_error(receipt.error, secrets_of(entry, receipt))
        reason = messages.refused_by_store(receipt.model_copy(update={"error": error}))
        return Finding("unknown", reason)
    state = effective_state(entry, receipt)
    other_code = _other_code(receipt, code)
    if receipt.error is None and state == entry.expect.state:
        return _right_state(entry, receipt, receipt, other_code, missing)
    # What is held against the expectations is true, what is said of it has no secrets.
    secrets = secrets_of(entry, receipt)
    told = receipt.model_copy(update={"error": shown_error(receipt.error, secrets)})
    if state != entry.expect.state:
        return _wrong_state(entry, told, state, other_code)
    return _right_state(entry, receipt, told, other_code, missing)


def effective_state(entry: Entry, receipt: Receipt) -> State:
    """Return how it ended, where a runtime past the timeout counts that no pool enforced."""
    too_long = receipt.runtime is not None and receipt.runtime > entry.timeout
    if too_long and receipt.state in OF_ITS_PROCESS:
        return "timed_out"
    return receipt.state


def _wrong_state(
    entry: Entry, receipt: Receipt, state: State, other_code: list[Mismatch]
) -> Finding:
    status: VerdictStatus = "failed"
    if state != "succeeded" and state != "ignored":
        status = state
    mismatches = [*other_code, Mismatch(path="state", expected=entry.expect.state, actual=state)]
    if state != receipt.state and receipt.runtime is not None:
        limit = f"at most {seconds(entry.timeout)} (timeout)"
        mismatches += [Mismatch(path="runtime", expected=limit, actual=seconds(receipt.runtime))]
    mismatches += _executions(entry, receipt)
    if other_code and status == "failed":  # which explains the other end
        reason = messages.other_code(receipt)
    else:
        reason = messages.wrong_state(entry, receipt, state)
    return Finding(status, reason, mismatches)


def _right_state(
    entry: Entry,
    receipt: Receipt,
    told: Receipt,
    other_code: list[Mismatch],
    missing: Sequence[str],
) -> Finding:
    repeated = _executions(entry, receipt)
    found = list(islice(_unmet(entry, receipt, told), MAX_MISMATCHES + 1))
    unverifiable = _unverifiable(entry, receipt)
    status: VerdictStatus = "passed"
    if repeated:
        status, reason = "duplicated", messages.duplicated(entry, told)
    elif other_code:
        status, reason = "failed", messages.other_code(told)
    elif found:
        is_all = len(found) <= MAX_MISMATCHES
        status, reason = "failed", messages.unmet(told, found, is_all=is_all)
    elif unverifiable:
        status, reason = "unknown", messages.unverifiable(told, unverifiable)
    elif missing:
        status, reason = "unknown", messages.incomplete(told, missing)
    else:
        reason = messages.passed(told)
    return Finding(status, reason, (repeated + other_code + found)[:MAX_MISMATCHES])


def _executions(entry: Entry, receipt: Receipt) -> list[Mismatch]:
    # A retry that the task asks Celery for is not counted as an execution in the receipt.
    allowed = entry.expect.executions
    if receipt.executions <= allowed:  # also 0: unknown, no start was reported
        return []
    actual = str(receipt.executions)
    return [Mismatch(path="executions", expected=f"at most {allowed}", actual=actual)]


def _other_code(receipt: Receipt, code: str | None) -> list[Mismatch]:
    # Where a task is replaced, the code that ran last is another task's.
    if receipt.replaced or not comparable(code, receipt.code) or code == receipt.code:
        return []
    return [Mismatch(path="code", expected=short(code), actual=short(receipt.code))]


def missing_fields(
    entry: Entry, receipt: Receipt, *, sent: bool, code: str | None
) -> Sequence[str]:
    """Name what our worker always reports of a task that it ran, and this receipt lacks.

    ``sent``: whether it is known when the attempt was sent; ``code``: the digest of the task's code
    on this side. A field that is absent cannot be found wrong; so without it nothing has passed.
    """
    if receipt.source != "worker" or receipt.state not in OF_ITS_PROCESS:
        return ()
    left_out = [name for name in _ALWAYS if getattr(receipt, name) is None]
    if entry.expect.max_wait is not None and receipt.wait is None:
        left_out.append("wait")
    if not receipt.executions:
        left_out.append("executions")
    if sent and receipt.sent_at is None:
        left_out.append("sent_at")
    if receipt.args_sha256 is None and _args_survive_json(entry):
        left_out.append("args_sha256")
    if code is not None and receipt.code is None and not receipt.replaced:
        left_out.append("code")
    has_digest = receipt.state == "succeeded" and "result_not_json" not in receipt.evidence
    if receipt.result_sha256 is None and has_digest:
        left_out.append("result_sha256")
    return left_out


def _args_survive_json(entry: Entry) -> bool:
    """Return whether a worker gets the arguments as JSON that it can digest.

    kombu turns objects with this key into dates and the like.
    """
    data = canonical([entry.args, entry.kwargs])
    return data is not None and b'"__type__"' not in data


_ALWAYS: Final = ("started_at", "finished_at", "runtime")


def _unverifiable(entry: Entry, receipt: Receipt) -> list[str]:
    """Return the expectations that this receipt has no value for."""
    unverifiable: list[str] = []
    if result_left_out(receipt):
        unverifiable += ["result"] if "result" in entry.expect.model_fields_set else []
        unverifiable += ["schema"] if entry.expect.result_schema is not None else []
    limits = {"runtime": entry.expect.max_runtime, "wait": entry.expect.max_wait}
    return unverifiable + [
        f"max_{name}"
        for name, limit in limits.items()
        if limit is not None and getattr(receipt, name) is None
    ]


def result_left_out(receipt: Receipt) -> bool:
    """Return whether the receipt lacks the result because it is too large, or no JSON.

    Its digest may show otherwise: that the result was null, or JSON after all.
    """
    if receipt.result is not None or receipt.result_sha256 == _OF_NULL:
        return False
    no_json = "result_not_json" in receipt.evidence and receipt.result_sha256 is None
    return no_json or "result_omitted" in receipt.evidence


def _unmet(entry: Entry, receipt: Receipt, told: Receipt) -> Iterator[Mismatch]:
    expect = entry.expect
    if expect.error is not None:
        yield from _unmet_error(expect.error, receipt, told)
    if not result_left_out(receipt):
        if "result" in expect.model_fields_set:
            found = differences(expect.result, receipt.result)
            if next(found, None) is not None:  # secrets are looked for where something is told
                secrets = secrets_of(entry, receipt)
                yield from differences(expect.result, receipt.result, secrets=secrets)
        if expect.result_schema is not None:
            yield from _violations(expect.result_schema, entry, receipt)
    yield from _too_long("runtime", expect.max_runtime, receipt.runtime)
    yield from _too_long("wait", expect.max_wait, receipt.wait)


def _too_long(path: str, limit: float | None, actual: float | None) -> Iterator[Mismatch]:
    if limit is not None and actual is not None and actual > limit:
        expected = f"at most {seconds(limit)} (max_{path})"
        yield Mismatch(path=path, expected=expected, actual=seconds(actual))


def _unmet_error(expected: ExpectedError, receipt: Receipt, told: Receipt) -> Iterator[Mismatch]:
    error = receipt.error
    if error is None or told.error is None:
        wanted = expected.type or f"a message that matches {shown_text(expected.match or '')!r}"
        yield Mismatch(path="error", expected=wanted, actual="no error")
        return
    if expected.type is not None and not _same_class(expected.type, error.type):
        yield Mismatch(path="error.type", expected=expected.type, actual=printable(error.type))
    if expected.match is not None and not found_in(expected.match, error.message):
        wanted = f"a match of {short(shown_text(expected.match))}"
        yield Mismatch(path="error.message", expected=wanted, actual=short(told.error.message))


def _same_class(expected: str, actual: str) -> bool:
    """Return whether class names are equal, without modules where one of them lacks its own."""
    if "." in expected and "." in actual:
        return expected == actual
    return expected.rpartition(".")[2] == actual.rpartition(".")[2]


def _violations(schema: dict[str, JsonValue], entry: Entry, receipt: Receipt) -> list[Mismatch]:
    try:
        found = violations(schema, receipt.result, MAX_MISMATCHES + 1)
    except SchemaFlawError as flaw:
        fault = middle(printable(str(flaw)), 2 * VALUE_LIMIT)
        path = messages.SCHEMA_PATH
        return [Mismatch(path=path, expected="a schema to check by", actual=fault)]
    secrets = secrets_of(entry, receipt) if found else ()
    return [_violation(one, f"result{one.path}", secrets) for one in found]


def _violation(broken: Violation, path: str, secrets: Secrets) -> Mismatch:
    """Return the mismatch of a broken rule; of a secret it has no more than the rule's name."""
    value: JsonValue = broken.found  # type: ignore[assignment]  # a part of a receipt's result
    _, found, differs = differ(path, None, value, secrets)
    if differs or found != value:
        return Mismatch(path=path, expected=f"{broken.keyword} (schema)", actual=short(found))
    return Mismatch(path=path, expected=shown_text(_rule(broken)), actual=short(found))


def _rule(broken: Violation) -> str:
    if broken.keyword in ("type", "const", "enum", "pattern", "minimum", "maximum"):
        return f"{broken.keyword} {short(broken.wanted)} (schema)"
    return f"{middle(printable(broken.message), VALUE_LIMIT)} (schema)"


ABSENT = "absent"
_NAME = re.compile(r"[^\W\d][\w-]*")


def differences(
    expected: JsonValue, actual: JsonValue, path: str = "result", *, secrets: Secrets = ()
) -> Iterator[Mismatch]:
    """Yield every path where ``actual`` is not as ``expected``; none: it is contained.

    ``secrets``: values that are not to be told, beside what is recognised as one.
    An object must have the expected keys and may have others; an array must be equal, whole and
    in order, and so must be what is in it; 1 equals 1.0, but true does not equal 1.
    """
    return _differences(expected, actual, path, secrets, exact=False)


def _differences(
    expected: JsonValue, actual: JsonValue, path: str, secrets: Secrets, *, exact: bool
) -> Iterator[Mismatch]:
    if isinstance(expected, dict) and isinstance(actual, dict):
        yield from _in_object(expected, actual, path, secrets, exact=exact)
    elif isinstance(expected, list) and isinstance(actual, list):
        yield from _in_array(expected, actual, path, secrets)
    elif not _equal(expected, actual):
        wanted, found, differs = differ(path, expected, actual, secrets)
        yield Mismatch(path=path, expected=short(wanted), actual=short(found) + differs)


def _in_object(
    expected: dict[str, JsonValue],
    actual: dict[str, JsonValue],
    path: str,
    secrets: Secrets,
    *,
    exact: bool,
) -> Iterator[Mismatch]:
    for key, wanted in expected.items():
        location = f"{path}{_step(key)}"
        if key in actual:
            yield from _differences(wanted, actual[key], location, secrets, exact=exact)
        else:
            told = _shown(location, wanted, secrets)
            yield Mismatch(path=location, expected=told, actual=ABSENT)
    if exact:
        for key in actual.keys() - expected.keys():
            location = f"{path}{_step(key)}"
            found = _shown(location, actual[key], secrets)
            yield Mismatch(path=location, expected=ABSENT, actual=found)


def _in_array(
    expected: list[JsonValue], actual: list[JsonValue], path: str, secrets: Secrets
) -> Iterator[Mismatch]:
    for i, (wanted, found) in enumerate(zip(expected, actual, strict=False)):
        yield from _differences(wanted, found, f"{path}[{i}]", secrets, exact=True)
    if len(expected) == len(actual):
        return
    shared = min(len(expected), len(actual))
    if abs(len(expected) - len(actual)) > 3:
        sizes = plural(len(expected), "item"), plural(len(actual), "item")
        yield Mismatch(path=path, expected=sizes[0], actual=sizes[1])
        return
    for i, wanted in enumerate(expected[shared:], shared):
        place = f"{path}[{i}]"
        yield Mismatch(path=place, expected=_shown(place, wanted, secrets), actual=ABSENT)
    for i, found in enumerate(actual[shared:], shared):
        place = f"{path}[{i}]"
        yield Mismatch(path=place, expected=ABSENT, actual=_shown(place, found, secrets))


def _shown(path: str, value: JsonValue, secrets: Secrets) -> str:
    """Return a value that one side lacks, without secrets."""
    return short(differ(path, value, None, secrets)[0])


def _equal(expected: JsonValue, actual: JsonValue) -> bool:
    if isinstance(expected, bool) or isinstance(actual, bool):
        return expected is actual
    return expected == actual


def _step(key: str) -> str:
    return f".{key}" if _NAME.fullmatch(key) else f"[{short(key)}]"
