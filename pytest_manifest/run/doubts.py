"""Say why it is not known what became of a job that nobody has any more."""

from __future__ import annotations

from typing import Final, Literal

from pytest_manifest.ledger import OLDER, STORE_EMPTIED, Ledger, utc_now
from pytest_manifest.ledger.run_info import RunMetadata
from pytest_manifest.schema.run_facts import StoreFact
from pytest_manifest.schema.stream_records import HANDED_ON_AFTER_DEATH

EMPTIED_MEANWHILE: Final = (
    "the broker or the result store was emptied, or lost what it held, while it was out"
)
EMPTIED_EARLIER: Final = (
    "the result store was emptied, or lost what it held, in this run, maybe what it held of this"
)
OLDER_LEDGER: Final = (
    "this ledger is older than what was sent by it, and may lack what was reported"
)
UNREPORTED: Final = (
    "no queue and no worker has it, and its start is not reported: it may have raised Ignore, "
    "stored a state of its own, been handed on, or exited"
)
"""What may have become of a missing job whose start nobody would tell."""
WAITED_FOR: Final = {
    "retry": "where it asked to be tried again, and its next try is nowhere",
    HANDED_ON_AFTER_DEATH: "where its process died and it was sent again, and is nowhere",
    "task": "where it was handed on to another task, which is nowhere",
    "canvas": "where it was handed on to other tasks, and nothing was heard of them",
}
"""What a missing job that no process runs had waited for, by how it was handed on."""
OUT_OF_SIGHT: Final = "it was sent to another broker than the run's"
UNCONFIRMED: Final = (
    "the result store has an end of it that its worker has not reported, and that a task can store "
    "before it ends"
)


def note_emptied(ledger: Ledger, how: str = "1") -> None:
    """Record that the store has lost what it held of the run: starts of what is in flight, too."""
    what: Literal["older", "emptied"] = "older" if how == OLDER else "emptied"
    with ledger.writing():
        ledger.facts.append([(None, StoreFact(seq=0, at=utc_now(), what=what))])
        ledger.info.set_meta(STORE_EMPTIED, how)
    ledger.excuses.note_lost_starts()


def emptied_phrase(info: RunMetadata, run: str, *, now: bool) -> str:
    """Return a phrase where the store may have lost the end of any attempt of a run, else "".

    ``now``: the store lacks its mark. One that is marked again has not got back what it had held,
    so the doubt stays for the rest of the run.
    """
    noted = info.of_run(STORE_EMPTIED, run)
    if noted == OLDER:
        return OLDER_LEDGER
    if now:
        return EMPTIED_MEANWHILE
    return "" if noted is None else EMPTIED_EARLIER
