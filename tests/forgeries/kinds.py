"""The kinds of forgeries, each by what the publisher writes for one job that no worker runs."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from pytest_manifest import signing
from pytest_manifest.schema import wire
from pytest_manifest.schema.stream_records import receipt_bytes
from tests.forgeries.reports import FORGED, TRUE, Fields, Job, Publisher


@dataclass(frozen=True)
class Loot:
    """What the publisher has besides: a key of its own, and what true workers have written."""

    own: signing.Signer
    trusted: str
    """The id of the workers' key."""
    donor: Job
    """Another job of the run, which has succeeded."""
    earlier: Job
    """A job of an earlier run, which has succeeded."""
    order: str
    """A signature that the workers' key has made of something else, in base64."""


Forge = Callable[[Publisher, Job, Loot], None]


@dataclass(frozen=True)
class Kind:
    """One kind: where it is written, in words what, how, and what its entry expects."""

    where: str
    name: str
    forge: Forge
    expect: dict[str, Any] = field(default_factory=dict)


def _record(*make: Callable[[Job], Fields | bytes]) -> Forge:
    """Push what these make of the job."""
    return lambda publisher, job, _: publisher.push(job, *(one(job) for one in make))


def _both(**fields: Any) -> Forge:
    """Push a start and an end with these fields in its receipt."""
    return lambda publisher, job, _: publisher.push(job, job.start(), job.finished(**fields))


def _end(state: str, **fields: Any) -> Forge:
    """Push an end in this state, which no start goes before."""
    none: Fields = {"result": None, "result_sha256": None, **fields}
    unstarted: Fields = {"started_at": None, "wait": None, "runtime": None, "cpu": None}
    unstarted |= {"pid": None, "code": None}
    return lambda publisher, job, _: publisher.push(
        job, job.finished(state=state, **{**unstarted, **none})
    )


def _failed(state: str) -> Forge:
    """Push a start, and an end in this state."""
    none: Fields = {"result": None, "result_sha256": None}
    return _both(state=state, **none)


def _with(change: Callable[[Job, Loot, Fields], Fields | None]) -> Forge:
    """Push the worker's start and the end that is made of its failure, signed where it signs.

    ``change`` is given the record, and returns another one or changes it in place.
    """

    def forge(publisher: Publisher, job: Job, loot: Loot) -> None:
        record = job.signed(job.failure())
        publisher.push(job, job.signed_start(), change(job, loot, record) or record)

    return forge


def _succeeds(job: Job, receipt: Fields) -> None:
    """Have a receipt say that the job succeeded, whatever its signature says."""
    receipt.update(job.receipt())


def _signature(value: str, key: str) -> Fields:
    return {"key": key, "value": value}


def _by(signer: signing.Signer, key: str, job: Job) -> Fields:
    """A record of success that this key has signed in the workers' way, under this id."""
    receipt = {**job.receipt(), "execution": FORGED}
    value = base64.b64encode(signer.sign(receipt_bytes(receipt, None))).decode()
    return {
        "kind": "finished",
        "execution": FORGED,
        "receipt": {**receipt, "signature": _signature(value, key)},
    }


def _own_key(publisher: Publisher, job: Job, loot: Loot) -> None:
    publisher.push(job, job.start(), _by(loot.own, loot.own.key_id, job))


def _own_key_renamed(publisher: Publisher, job: Job, loot: Loot) -> None:
    publisher.push(job, job.start(), _by(loot.own, loot.trusted, job))


def _earlier_as_it_is(publisher: Publisher, job: Job, loot: Loot) -> None:
    earlier = loot.earlier
    publisher.push(job, earlier.signed_start(), earlier.signed(earlier.receipt()))


def _donor_as_it_is(publisher: Publisher, job: Job, loot: Loot) -> None:
    publisher.push(job, job.signed_start(), loot.donor.signed(loot.donor.receipt()))


def _signature_of(other: Callable[[Loot], Job]) -> Forge:
    """Push an end with the signature of another job's."""

    def forge(publisher: Publisher, job: Job, loot: Loot) -> None:
        theirs = other(loot)
        record = theirs.signed(theirs.receipt())
        _succeeds(job, record["receipt"])
        publisher.push(job, job.signed_start(), record)

    return forge


def _flipped(_job: Job, _loot: Loot, record: Fields) -> None:
    record["receipt"] |= {"state": "succeeded", "error": None}


def _with_success(job: Job, _loot: Loot, record: Fields) -> None:
    _succeeds(job, record["receipt"])


def _filled(job: Job, _loot: Loot, record: Fields) -> None:
    _succeeds(job, record["receipt"])
    every = ["state", "result", "result_sha256", "error"]
    record["receipt"].setdefault("signature", _signature("", TRUE * 4))["filled"] = every


def _type_of_a_start(job: Job, _loot: Loot, record: Fields) -> None:
    _succeeds(job, record["receipt"])
    record["receipt"]["signature"] = job.signed_start().get("signature")


def _type_of_an_order(job: Job, loot: Loot, record: Fields) -> None:
    _succeeds(job, record["receipt"])
    record["receipt"]["signature"] = _signature(loot.order, loot.trusted)


def _value(text: str) -> Callable[[Job, Loot, Fields], None]:
    def change(job: Job, loot: Loot, record: Fields) -> None:
        _succeeds(job, record["receipt"])
        record["receipt"] |= {"execution": TRUE, "signature": _signature(text, loot.trusted)}

    return change


def _other_result(publisher: Publisher, job: Job, loot: Loot) -> None:
    """The worker has signed a success with another result; it is exchanged, with its digest."""
    other = {"n": -1}
    record = job.signed(job.receipt(result=other, result_sha256=wire.json_sha256(other)))
    record["receipt"]["result"] = job.value
    publisher.push(job, job.signed_start(), record)


def _no_number(publisher: Publisher, job: Job, loot: Loot) -> None:
    """A result of which nobody can make a digest: JSON has no NaN."""
    other = {"n": -1}
    record = job.signed(job.receipt(result=other, result_sha256=wire.json_sha256(other)))
    record["receipt"]["result"] = {**job.value, "x": float("nan")}
    publisher.push(job, job.signed_start(), record)


def _result_beside(publisher: Publisher, job: Job, loot: Loot) -> None:
    """The worker's receipt has no result, as it was too large: one is put in."""
    left_out = {"result_omitted": 5_000_000}
    receipt = job.receipt(result=None, result_sha256="0" * 64, evidence=left_out)
    record = job.signed(receipt)
    record["receipt"]["result"] = job.value
    publisher.push(job, job.signed_start(), record)


def _another_execution(_job: Job, _loot: Loot, record: Fields) -> None:
    record["execution"] = FORGED


def _without_rest(_job: Job, _loot: Loot, record: Fields) -> None:
    record["unsent"] = ["t-1"]
    record["receipt"] |= {"state": "succeeded", "error": None}


def _start_alone(publisher: Publisher, job: Job, loot: Loot) -> None:
    """A start of a process that is gone."""
    from pytest_manifest.processes import boot_id, pid_namespace
    from pytest_manifest.worker.receipt import host

    here: Fields = {"host": host(), "boot": boot_id(), "pid_namespace": pid_namespace()}
    publisher.push(job, job.start(pid=2**22 - 1, **here))


def _in_result(publisher: Publisher, job: Job, loot: Loot) -> None:
    wrapped = {wire.RESULT_RECEIPT: job.receipt(), wire.RESULT_VALUE: job.value}
    publisher.store(job, result=wrapped)


def _in_result_without_digests(publisher: Publisher, job: Job, loot: Loot) -> None:
    lean = {"result_sha256": None, "args_sha256": None, "code": None, "started_at": None}
    wrapped = {wire.RESULT_RECEIPT: job.receipt(**lean), wire.RESULT_VALUE: job.value}
    publisher.store(job, result=wrapped)


def _in_traceback(publisher: Publisher, job: Job, loot: Loot) -> None:
    import json

    text = f"Traceback{wire.TRACEBACK_MARK}{json.dumps(job.receipt())}"
    publisher.store(job, "FAILURE", result={"exc_type": "E"}, traceback=text)


def _second(job: Job) -> Fields:
    return job.finished("f1")


def _expects(state: str) -> dict[str, Any]:
    return {"state": state}


LONG_AGO: Final = "2020-01-01T00:00:00.000000+00:00"
STORE: Final = "result store"
STREAM: Final = "stream"
SIGNED: Final = "signature"

KINDS: Final = (
    Kind(STORE, "a success, as a stock worker stores it", lambda p, j, _: p.store(j)),
    Kind(
        STORE,
        "with worker, queue and retries",
        lambda p, j, _: p.store(j, worker="w@h", queue="celery", retries=0, name="forged.work"),
    ),
    Kind(STORE, "with a receipt inside", _in_result),
    Kind(STORE, "with a receipt inside that lacks digests and times", _in_result_without_digests),
    Kind(
        STORE,
        "with a receipt beside",
        lambda p, j, _: p.store(j, manifest_receipt=j.receipt()),
    ),
    Kind(STORE, "a failure with the receipt of a success behind its traceback", _in_traceback),
    Kind(
        STORE,
        "a revocation, where that is expected",
        lambda p, j, _: p.fail_stored(j, "TaskRevokedError", "REVOKED"),
        _expects("revoked"),
    ),
    Kind(
        STORE,
        "a lost worker, where that is expected",
        lambda p, j, _: p.fail_stored(j, "WorkerLostError"),
        _expects("crashed"),
    ),
    Kind(
        STORE,
        "a time limit, where that is expected",
        lambda p, j, _: p.fail_stored(j, "TimeLimitExceeded"),
        _expects("timed_out"),
    ),
    Kind(
        STORE,
        "an unknown task, where that is expected",
        lambda p, j, _: p.fail_stored(j, "NotRegistered"),
        _expects("unknown_task"),
    ),
    Kind(
        STORE,
        "a failure, where that is expected",
        lambda p, j, _: p.fail_stored(j, "OSError"),
        {"state": "failed", "error": {"type": "OSError"}},
    ),
    Kind(STREAM, "a start and an end", _both()),
    Kind(STREAM, "an end alone", _record(Job.finished)),
    Kind(
        STREAM,
        "an end with its start inside",
        _record(lambda job: {**job.finished(), "start": job.start()}),
    ),
    Kind(STREAM, "an end before its start", _record(Job.finished, Job.start)),
    Kind(STREAM, "the same end twice", _record(Job.start, Job.finished, Job.finished)),
    Kind(
        STREAM,
        "ends of two executions",
        _record(Job.start, Job.finished, _second),
    ),
    Kind(
        STREAM,
        "a failure, where that is expected",
        _both(
            state="failed",
            result=None,
            result_sha256=None,
            error={"type": "OSError", "message": "x"},
        ),
        {"state": "failed", "error": {"type": "OSError"}},
    ),
    Kind(
        STREAM,
        "that it was ignored, where that is expected",
        _failed("ignored"),
        _expects("ignored"),
    ),
    Kind(
        STREAM,
        "that it was rejected, where that is expected",
        _end("rejected"),
        _expects("rejected"),
    ),
    Kind(
        STREAM, "that it was revoked, where that is expected", _end("revoked"), _expects("revoked")
    ),
    Kind(
        STREAM,
        "that it expired, where that is expected",
        _end("expired"),
        _expects("expired"),
    ),
    Kind(
        STREAM,
        "that its task is unknown, where that is expected",
        _end("unknown_task"),
        _expects("unknown_task"),
    ),
    Kind(
        STREAM, "that it crashed, where that is expected", _failed("crashed"), _expects("crashed")
    ),
    Kind(
        STREAM,
        "that it timed out, where that is expected",
        _failed("timed_out"),
        _expects("timed_out"),
    ),
    Kind(STREAM, "a start in a process that is gone", _start_alone, _expects("crashed")),
    Kind(
        STREAM,
        "that a retry had other arguments",
        lambda p, j, _: p.push(j, j.start(retries=1), j.finished(retries=1, args_sha256="0" * 64)),
    ),
    Kind(
        STREAM,
        "that another task replaced it",
        lambda p, j, _: p.push(
            j, j.start(hop=1), j.finished(replaced=True, task="forged.other", code=None)
        ),
    ),
    Kind(STREAM, "as told by the result store", _both(source="backend")),
    Kind(STREAM, "as told by pytest", _both(source="harness")),
    Kind(STREAM, "without digests", _both(args_sha256=None, result_sha256=None, code=None)),
    Kind(STREAM, "without times", _both(started_at=None, finished_at=None, runtime=None)),
    Kind(
        STREAM,
        "of a message that was sent at another time",
        _both(sent_at=LONG_AGO),
    ),
    Kind(STREAM, "of another run", _both(run="20200101T000000-0badcafe")),
    Kind(STREAM, "of another attempt", _both(attempt=7)),
    Kind(STREAM, "of another entry", _both(entry="donor")),
    Kind(STREAM, "with a result that its digest is not of", _both(result_sha256="0" * 64)),
    Kind(STREAM, "with the digest of other arguments", _both(args_sha256="0" * 64)),
    Kind(SIGNED, "of no key, a text that is no base64", _with(_value("!!"))),
    Kind(SIGNED, "an empty one", _with(_value(""))),
    Kind(SIGNED, "64 zeros", _with(_value(base64.b64encode(bytes(64)).decode()))),
    Kind(SIGNED, "of the publisher's own key", _own_key),
    Kind(SIGNED, "of the publisher's own key, by the name of the workers'", _own_key_renamed),
    Kind(SIGNED, "a receipt of an earlier run, as it is", _earlier_as_it_is),
    Kind(SIGNED, "that of an earlier run's receipt", _signature_of(lambda loot: loot.earlier)),
    Kind(SIGNED, "a receipt of another entry, as it is", _donor_as_it_is),
    Kind(SIGNED, "that of another entry's receipt", _signature_of(lambda loot: loot.donor)),
    Kind(SIGNED, "a failure that was made a success", _with(_flipped)),
    Kind(SIGNED, "that of the failure on a success", _with(_with_success)),
    Kind(SIGNED, "and that pytest has filled in the rest", _with(_filled)),
    Kind(SIGNED, "that of the job's start on its end", _with(_type_of_a_start)),
    Kind(SIGNED, "that of a work order by the same key", _with(_type_of_an_order)),
    Kind(SIGNED, "of a success with another result, exchanged", _other_result),
    Kind(SIGNED, "the same with a NaN in the result", _no_number),
)
MORE: Final = (
    Kind(SIGNED, "of a receipt without its result, put in", _result_beside),
    Kind(SIGNED, "that of one execution for another", _with(_another_execution)),
    Kind(SIGNED, "with other words beside the receipt", _with(_without_rest)),
)
"""Beyond the kinds that are counted."""


def order_signature(signer: signing.Signer) -> str:
    """A signature of a statement about a work order, in base64."""
    from pytest_manifest.signing import PAYLOAD_TYPE

    return base64.b64encode(signer.sign(signing.pae(PAYLOAD_TYPE, b"{}"))).decode()
