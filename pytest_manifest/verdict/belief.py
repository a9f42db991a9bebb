"""Believe reports of a job: which starts and ends count, which end decides, and which are forged.

Rules C1 to C5 and D1 to D4. Nothing here depends on the order of reports between two milestones:
what was sent, how often it was handed on, retried and delivered again comes before what the clocks
of several machines say, and those before names.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from datetime import datetime, timedelta, timezone
from itertools import chain
from typing import Final, TypeAlias

from pytest_manifest.redaction.documents import redacted
from pytest_manifest.schema import Entry, Receipt, facts, wire
from pytest_manifest.schema.facts import Gone, HandedOn, Sending, Started, value
from pytest_manifest.schema.run_facts import AnyFact, JobFacts, RunFacts, SetBack, StoreFact
from pytest_manifest.schema.statuses import OF_A_KILLED_ONE, OF_ITS_PROCESS, WITHOUT_START
from pytest_manifest.text import short
from pytest_manifest.verdict import problems
from pytest_manifest.verdict.expectations import result_left_out
from pytest_manifest.verdict.reasons import Problem

CLOCK_TOLERANCE: Final = timedelta(minutes=5)
"""By how much the clocks of two hosts may differ."""
STORING: Final = timedelta(seconds=1)
"""How long after a task's end its result is stored, at most."""
_BEFORE_ALL: Final = datetime.min.replace(tzinfo=timezone.utc)
_NONE: Final[Mapping[str | None, HandedOn]] = {}
_STRANGERS: Final = ("run", "entry", "attempt", "task_id")


def is_revocation_notice(receipt: Receipt) -> bool:
    """Return whether a receipt says only that some worker was told of the job's revocation.

    In Celery 5.7 every worker that is told stores it at once, even while the message is queued. A
    worker that dies forgets the revocation, and the worker that gets the message then runs it.
    """
    return receipt.state == "revoked" and receipt.source == "backend"


@value
class Identity:
    """The identity of a job in the run that had sent it, which its receipts must have."""

    run: str
    entry: str
    attempt: int
    task_id: str


@value
class End:
    """An end that counts: of which execution, None where that is not known, and who says so."""

    seq: int
    execution: str | None
    receipt: Receipt


@value
class Traces:
    """All that is known of a job as of some moment, each report once.

    ``starts``: the oldest first; ``ends``: of this job by workers; ``stored``: what the result
    store alone has; ``disbelieved``: the first end that does not count, as a reason.
    """

    starts: tuple[Started, ...] = ()
    handed_on: Mapping[str | None, HandedOn] = field(default_factory=dict)
    ends: tuple[End, ...] = ()
    stored: tuple[End, ...] = ()
    gone: tuple[Gone, ...] = ()
    disbelieved: Problem | None = None
    unreadable: str = ""
    clashes: bool = False
    flight: list[float] = field(default_factory=list, compare=False, repr=False)  # once asked for

    @property
    def last(self) -> Started | None:
        """Return the newest start."""
        return self.starts[-1] if self.starts else None

    @property
    def between(self) -> HandedOn | None:
        """Return the end of the newest start's execution, where the job goes on after it."""
        return self.handed_on.get(self.starts[-1].execution) if self.starts else None

    @property
    def running(self) -> Started | None:
        """Return the newest start, where the job has not gone on after it: a process runs it."""
        return self.last if self.between is None else None

    @property
    def death(self) -> Gone | None:
        """Return how the process of the newest start is known to have ended; None: it is not."""
        last = self.last
        return None if last is None else next((one for one in self.gone if _is_of(one, last)), None)

    @property
    def notice(self) -> End | None:
        """Return what a worker has stored as the job was revoked, which may run all the same."""
        return next((one for one in self.stored if is_revocation_notice(one.receipt)), None)

    @property
    def hearsay(self) -> Sequence[End]:
        """Return the ends that the store alone has, but notices of a revocation."""
        return [one for one in self.stored if not is_revocation_notice(one.receipt)]


def traces_of(job: JobFacts, of: Identity) -> Traces:
    """Sort a job's reports, each once; ends of other jobs do not count."""
    starts, clashes = _in_order(job.each(Started))
    doubted: list[Problem] = []
    ends = [
        End(one.seq, one.execution, one.receipt)
        for one in job.each(facts.Ended)
        if _is_believed(one.receipt, one.fault, of, doubted)
    ]
    found = job.each(facts.Stored)
    stored = [
        End(one.seq, None, one.receipt)
        for one in found
        if one.receipt is not None and _is_believed(one.receipt, one.fault, of, doubted)
    ]
    unreadable = "" if not found else max(one.unreadable for one in found)
    return Traces(
        starts=tuple(starts),
        handed_on=_handed_on(job.each(HandedOn)),
        ends=_each_once(ends),
        stored=_each_once(stored),
        gone=tuple(job.each(Gone)),
        disbelieved=min(doubted, key=repr) if doubted else None,
        unreadable=unreadable,
        clashes=clashes,
    )


def _is_believed(receipt: Receipt, fault: str, of: Identity, doubted: list[Problem]) -> bool:
    """Return whether a receipt is of this job, and of somebody who is believed (C1, C2)."""
    doubt = problems.Unsigned(fault=fault) if fault else _of_another(of, receipt)
    if doubt is not None:
        doubted.append(doubt)
    return doubt is None


def _handed_on(ends: Sequence[HandedOn]) -> Mapping[str | None, HandedOn]:
    if not ends:
        return _NONE
    found: dict[str | None, HandedOn] = {}
    for end in ends:
        same = found.setdefault(end.execution, end)
        # Of two records the same one in whatever order, and one with a cost before one without.
        found[end.execution] = min(same, end, key=lambda one: (one.how, str(one.cost)))
    return found


def _is_of(death: Gone, start: Started) -> bool:
    is_same = None in (death.pid, start.pid) or death.pid == start.pid
    return is_same and death.execution == start.execution


def _each_once(ends: Sequence[End]) -> tuple[End, ...]:
    """Leave out what was reported before, in the same words."""
    if len(ends) < 2:
        return tuple(ends)
    kept: dict[str | None, list[End]] = {}
    for end in ends:
        same = kept.setdefault(end.execution, [])
        if all(end.receipt != one.receipt for one in same):
            same.append(end)
    return tuple(sorted(chain.from_iterable(kept.values()), key=lambda one: one.seq))


def start_order(start: Started) -> tuple[int, int, bool, datetime, str, str]:
    """Return what starts are sorted by, the oldest first.

    What a job's messages count comes before the times, which are by the clocks of several machines.
    """
    began = start.started_at or _BEFORE_ALL
    where = start.hop, start.retries, start.redelivered, began
    return *where, str(start.pid), start.execution


def _in_order(starts: Sequence[Started]) -> tuple[Sequence[Started], bool]:
    """Sort starts, each once; return whether two records of one process's start differ.

    Those of one execution by two processes of a worker are two starts: the pool gives a job to
    another process when the first has died before its worker heard that it had begun.
    """
    if len(starts) < 2:
        return starts, False
    by_process: dict[tuple[str, int | None], list[Started]] = {}
    for start in sorted(starts, key=start_order):
        by_process.setdefault((start.execution, start.pid), []).append(start)
    kept = [same[0] for same in by_process.values()]
    places = {(one.execution, one.worker, one.host) for one in kept}
    clashes = len(places) > len({one.execution for one in kept}) or any(
        len({_identity(one) for one in same}) > 1 for same in by_process.values()
    )
    return kept, clashes


def _identity(start: Started) -> tuple[object, ...]:
    return start.started_at, start.retries, start.worker, start.host


def _of_another(of: Identity, receipt: Receipt) -> Problem | None:
    """Find the receipt of another job: it is no end of this one (C2)."""
    for name in _STRANGERS:
        found, true = getattr(receipt, name), getattr(of, name)
        if found != true:
            what = name.replace("_", " ")
            return problems.OfAnother(of_what=what, found=short(found), true=short(true))
    return None


def turns(starts: Sequence[Started]) -> int:
    """Return the most starts of one turn: as often handed on, and retried since (D4)."""
    if len(starts) < 2:
        return len(starts)
    return max(Counter((start.hop, start.retries) for start in starts).values())


def executions(traces: Traces) -> int:
    """Return how often a job has begun in one turn: by its starts, and by ends whose start is lost.

    Of a task that the job was handed on to, whose turn only its start tells, an end counts nothing.
    """
    starts, ends = traces.starts, traces.ends
    if len(ends) < 2 and (not ends or not starts or starts[-1].execution == ends[0].execution):
        return turns(starts)
    begun = {start.execution for start in starts}
    lost = {
        end.execution: (0, end.receipt.retries)
        for end in ends
        if end.receipt.state in OF_ITS_PROCESS and not end.receipt.replaced
    }
    counts = Counter((start.hop, start.retries) for start in starts)
    counts.update(turn for name, turn in lost.items() if name is not None and name not in begun)
    return max(counts.values(), default=0)


# D: which ends count, and which decides


def counted_ends(job: JobFacts, traces: Traces, base: int) -> Sequence[End]:
    """Return the ends that count, the one that decides last.

    ``base``: when the job was sent, or taken up again, last.
    """
    ends = believed_ends(job, traces)
    if any(one.receipt.state == "revoked" for one in ends):
        begun = {start.execution for start in traces.starts}
        ends = [one for one in ends if one.execution in begun or not _is_recalled(job, one, base)]
    if traces.handed_on or (traces.last is not None and traces.last.retries):
        ends = _without_earlier(ends, job, traces)
    return ends if len(ends) < 2 else _in_order_of_ends(ends, traces.starts)


def believed_ends(job: JobFacts, traces: Traces) -> list[End]:
    """Return all ends of the job that are believed, also of executions after which it went on."""
    goes_on = traces.last is not None and (traces.between is None or traces.between.how != "canvas")
    confirmed = (one for one in traces.hearsay if not goes_on or _is_confirmed(job, one))
    return [*traces.ends, *confirmed]


def _is_recalled(job: JobFacts, end: End, base: int) -> bool:
    """Return whether a worker has only dropped what the run took back as its time was over.

    Then that is why the job did not run. A worker drops a job that it has taken in advance once it
    could begin it.
    """
    return end.receipt.state == "revoked" and any(
        one.why in ("stop", "time") and base < one.seq < end.seq for one in job.each(facts.Recalled)
    )


def _is_confirmed(job: JobFacts, end: End) -> bool:
    """Return whether a search since has found nowhere what the store alone says has ended (D2).

    A task can store an end of its own in the middle of its work, and so can another copy of it. Not
    where the process that runs it is gone: it may have died in its work.
    """
    searches = [one for one in job.each(facts.Nowhere) if one.as_of >= end.seq]
    if not searches:
        return False
    then = job.until(searches[0].seq)
    retried = {one.execution for one in then.each(HandedOn)}
    last = [s for s in _in_order(then.each(Started))[0][-1:] if s.execution not in retried]
    return not any(_is_of(one, start) for start in last for one in then.each(Gone))


def _without_earlier(ends: Sequence[End], job: JobFacts, traces: Traces) -> list[End]:
    """Leave out the end of an execution that has sent its job's message again (D3).

    A task may do so and succeed (``retry(throw=False)``), and its process may be killed after it:
    the last of its runs decides. And what the store has of that end.
    """
    earlier = [one for one in ends if _goes_on_after(one, job, traces)]
    ended = [one.receipt.finished_at for one in earlier]

    def is_copy(end: End) -> bool:
        return end.execution is None and is_stored_at(end.receipt, ended)

    return [one for one in ends if one not in earlier and not is_copy(one)]


def is_stored_at(stored: Receipt, moments: Iterable[datetime | None]) -> bool:
    """Return whether the result store has this of an execution that ended at one of these moments.

    It is stored right after that: a later execution may end before a death is noticed.
    """
    at = stored.finished_at
    return at is not None and any(one is not None and abs(at - one) < STORING for one in moments)


def _goes_on_after(end: End, job: JobFacts, traces: Traces) -> bool:
    """Return whether the job goes on after an execution's end, which it was handed on before.

    Not where that broke off: the last execution could not send the message, or has no success and a
    search finds none, which the run itself has not taken out.
    """
    after, state, last = traces.handed_on.get(end.execution), end.receipt.state, traces.last
    if after is None:  # a later try tells of one whose own reports are lost, and that then died
        tried = {start.execution: start.retries for start in traces.starts}
        is_lost = state in OF_A_KILLED_ONE and end.execution not in {None, *tried}
        return is_lost and end.receipt.retries < max(tried.values(), default=0)
    has_begun_again = last is None or last.execution != end.execution
    if after.how == "canvas":  # its last part has the job's own id
        return has_begun_again and state not in OF_ITS_PROCESS
    if has_begun_again or "succeeded" in (state, *(one.receipt.state for one in traces.hearsay)):
        return True
    if state == "rejected":  # what Celery makes of a retry that the broker does not take
        return False
    recalls = [one.seq for one in job.each(facts.Recalled) if one.stage != "asked"]
    taken_out = min((seq for seq in recalls if seq > end.seq), default=math.inf)
    return not any(end.seq <= one.as_of < taken_out for one in job.each(facts.Nowhere))


def _in_order_of_ends(ends: Sequence[End], starts: Sequence[Started]) -> Sequence[End]:
    """Sort ends, the one that decides last (D1).

    Workers before the store: that of the last execution, by its own process, which alone knows what
    it has done; the main process reports a child that it has ended, or found dead.
    """
    turn: dict[str | None, _Turn] = {}
    for end in ends:
        said = end.receipt
        own = (0, said.retries, said.redelivered, said.started_at or _BEFORE_ALL)
        turn[end.execution] = max(turn.get(end.execution, own), own)
    turn |= {start.execution: start_order(start)[:4] for start in starts}

    def place(end: End) -> tuple[object, ...]:
        said, name = end.receipt, end.execution
        is_known = said.source == "worker", name is not None
        return *is_known, *turn[name], str(name), is_from_child(said)

    def moment(end: End) -> tuple[datetime, str]:
        return end.receipt.finished_at or _BEFORE_ALL, repr(_essence(end.receipt))

    # Of two failures the second is of what could not be sent after the first; what the store has
    # last takes the place of what it had.
    by_time = sorted(ends, key=moment)
    stored = [end for end in by_time if end.receipt.source != "worker"]
    return sorted([*stored, *(end for end in reversed(by_time) if end not in stored)], key=place)


_Turn: TypeAlias = tuple[int, int, bool, datetime]


def is_from_child(receipt: Receipt) -> bool:
    """Return whether the process that ran a task says how it ended."""
    return receipt.state in OF_ITS_PROCESS or receipt.cpu is not None


# C: what cannot be true


def contradiction(
    entry: Entry, job: JobFacts, traces: Traces, ends: Sequence[End], run: RunFacts
) -> Problem | None:
    """Return why the ends of an attempt cannot all be true; None where they can.

    Of a descendant only its own reports are compared: nobody knows what it was to do.
    """
    if job.job.spawn is None:
        for end in ends:
            receipt = without_unproven_claims(end, traces.starts)
            lie = (
                _other_job(entry, receipt)
                or _other_result(receipt)
                or _other_time(job, traces, end, run)
            )
            if lie is not None:
                return lie
    return _disagreement(ends, by_failure=entry.expect.state == "failed") or _against_starts(
        job, traces, ends, run
    )


def _other_job(entry: Entry, receipt: Receipt) -> Problem | None:
    if receipt.replaced:  # Celery lets another task replace this one
        return None
    if receipt.task != entry.task:
        found, true = short(receipt.task), short(entry.task)
        return problems.OfAnother(of_what="task", found=found, true=true)
    if receipt.retries or receipt.args_sha256 is None:  # a retry may be with other arguments
        return None
    digest = wire.arguments_sha256(entry.args, entry.kwargs)
    if digest is not None and digest != receipt.args_sha256:
        return problems.OtherArguments()
    return None


def _other_result(receipt: Receipt) -> Problem | None:
    if receipt.result_sha256 is None or result_left_out(receipt):
        return None
    if wire.json_sha256(receipt.result) in (None, receipt.result_sha256):
        return None
    return problems.ChangedResult(result=short(redacted(receipt.result)))


def _other_time(job: JobFacts, traces: Traces, end: End, run: RunFacts) -> Problem | None:
    """Find an end of no sending of this job, or one that is older than it.

    Which of its messages a receipt is of is known by their times alone.
    """
    receipt = end.receipt
    sendings = [one.sent_at for one in job.each(Sending)]
    known = [moment for moment in sendings if moment is not None]
    is_all_known = len(known) == len(sendings) and bool(known)
    if is_all_known and receipt.sent_at is not None and receipt.sent_at not in known:
        found, true = _time(receipt.sent_at), _time(max(known))
        return problems.OfAnotherMessage(found=found, true=true)
    sent = receipt.sent_at or (min(known) if is_all_known else None)
    if sent is None:
        return None
    for did, moment in (("started", receipt.started_at), ("finished", receipt.finished_at)):
        if moment is None or sent - moment <= CLOCK_TOLERANCE:
            continue
        if sent - moment > CLOCK_TOLERANCE + set_back(job, traces, run, end.seq):
            when, host = _time(moment), receipt.host or ""
            return problems.BeforeSending(did=did, moment=when, sent=_time(sent), host=host)
    return None


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S.%f} UTC"


def set_back(job: JobFacts, traces: Traces, run: RunFacts, until: float) -> timedelta:
    """Return by how much the controller's clock was set back from the job's sending on, until an
    end of it was reported."""
    back = 0.0
    own = (one for one in job.extra if isinstance(one, SetBack))
    for one in (*_in_flight(run.set_backs, job, traces, until), *own):
        back = max(back, min(back + one.by, one.most))
    return timedelta(seconds=back)


def _in_flight(
    some: Sequence[AnyFact], job: JobFacts, traces: Traces, until: float
) -> Sequence[AnyFact]:
    """Return those of the facts from the job's sending on, until an end of it was reported.

    After a first end it is in flight yet where its message is there twice.
    """
    if not some:
        return some
    if not traces.flight:  # what the broker has not taken put nothing in flight
        results = job.each(facts.SendResult)
        kept = {one.number for one in results if one.outcome in ("refused", "unsent")}
        out = (one.seq for one in job.each(Sending) if one.number not in kept)
        traces.flight.append(min(out, default=job.job.seq))
    return [one for one in some if traces.flight[0] < one.seq < until]


def _disagreement(ends: Sequence[End], *, by_failure: bool) -> Problem | None:
    """Find two ends of one execution that cannot both be true (C3).

    Two failures can: Celery reports a second one where it cannot send what is to follow the first.
    Not so where the entry passes ``by_failure``: which of them was its job's is not known.
    """
    own: dict[str, Receipt] = {}
    for end in reversed(ends):  # the first one first
        if end.execution is None or not is_from_child(end.receipt):
            continue
        other, receipt = own.setdefault(end.execution, end.receipt), end.receipt
        failed = other.state == receipt.state == "failed" and not by_failure
        if other is receipt or (failed and _subject(other) == _subject(receipt)):
            continue
        if _essence(other) != _essence(receipt):
            return problems.EndsDiffer(one=_in_short(other), other=_in_short(receipt))
    return None


def _essence(receipt: Receipt) -> tuple[object, ...]:
    error = receipt.error
    described = None if error is None else (error.type, error.message)
    result = receipt.result_sha256 or repr(receipt.result)
    return receipt.state, described, result, *_subject(receipt)


def _subject(receipt: Receipt) -> tuple[object, ...]:
    return receipt.task, receipt.args_sha256


def _in_short(receipt: Receipt) -> str:
    if receipt.state == "succeeded":
        return f"'succeeded' with {short(redacted(receipt.result))}"  # before it is cut
    error = f" with {short(receipt.error.type)}" if receipt.error is not None else ""
    return f"{receipt.state!r}{error}"


def _against_starts(
    job: JobFacts, traces: Traces, ends: Sequence[End], run: RunFacts
) -> Problem | None:
    """Find an end that the starts contradict, where none of these can be lost (C4)."""
    begun = {start.execution for start in traces.starts}
    for end in ends:
        if end.execution is None:
            continue
        state = end.receipt.state
        lie: Problem | None = None
        if end.execution not in begun and state in OF_ITS_PROCESS:
            lie = problems.EndWithoutStart()
        elif end.execution in begun and state in WITHOUT_START:
            lie = problems.EndAfterStart(state=state)
        if lie is not None and not _may_lack_starts(job, traces, end, run):
            return lie
    return problems.StartsDiffer() if traces.clashes and ends else None


def _may_lack_starts(job: JobFacts, traces: Traces, end: End, run: RunFacts) -> bool:
    """Return whether the store may have lost the start of an execution of which this is the end.

    It was emptied while the job was in flight, or was not found intact when the end was looked at.
    """
    if any(one.what == "emptied" for one in job.extra if isinstance(one, StoreFact)):
        return True
    emptied = [one for one in run.store if one.what == "emptied"]
    if _in_flight(emptied, job, traces, end.seq):
        return True
    looks = [one for one in run.store if one.what in ("intact", "emptied", "unreachable")]
    at_end = next((one for one in looks if one.seq > end.seq), None)
    if at_end is not None:
        return at_end.what != "intact"
    return is_emptied(run.until(end.seq))


def is_emptied(run: RunFacts) -> bool:
    """Return whether the store had lost what it held when it was looked at last."""
    looks = [one.what for one in run.store if one.what != "unreachable"]
    return looks[-1:] == ["emptied"]


def excuses(job: JobFacts, of: Identity, run: RunFacts) -> Sequence[StoreFact | SetBack]:
    """Return what the run knew of store and clock that excuses a job's reports, as its own."""
    found: list[StoreFact | SetBack] = []
    traces, at, name = traces_of(job, of), job.job.at, job.job.task_id
    if any(_may_lack_starts(job, traces, end, run) for end in traces.ends):
        found.append(StoreFact(seq=0, at=at, job=name, what="emptied"))
    ended = (end.seq for end in traces.ends if not _goes_on_after(end, job, traces))
    last = max(ended, default=math.inf)
    if back := set_back(job, traces, run, last).total_seconds():
        found.append(SetBack(seq=0, at=at, job=name, by=back, most=back))
    return found


def without_unproven_claims(end: End, starts: Sequence[Started]) -> Receipt:
    """Strike the claims that switch checks off from a receipt, where no start proves them (C5).

    Other arguments are allowed to a retry, and another task to a job that was handed on. In a store
    without a stream, which has no starts, the tries that the receipt lists must do.
    """
    receipt = end.receipt
    if not (receipt.retries or receipt.replaced):
        return receipt
    if receipt.source != "worker":
        return receipt
    own = [start for start in starts if start.execution == end.execution] or starts
    if starts:
        retried = any(start.retries == receipt.retries for start in own)
        replaced = len(starts) > 1 or any(start.hop for start in own)
    else:
        retried, replaced = bool(receipt.retried), True
    struck: dict[str, object] = {}
    if receipt.retries and not retried:
        struck["retries"] = 0
    if receipt.replaced and not replaced:
        struck["replaced"] = False
    if not struck:
        return receipt
    return receipt.model_copy(update=struck)
