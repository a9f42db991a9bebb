"""List every status that a verdict can have, with all that is asked of it anywhere.

Nowhere else stands a set of statuses: a new one needs its row here, and the rule that gives it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

State = Literal[
    "succeeded",
    "failed",
    "timed_out",
    "crashed",
    "revoked",
    "expired",
    "rejected",
    "ignored",
    "unknown_task",
]
OF_ITS_PROCESS: Final[frozenset[State]] = frozenset({"succeeded", "failed", "ignored"})
"""Ends that only the process which ran the task can report, after it reported the start."""
OF_A_KILLED_ONE: Final[frozenset[State]] = frozenset({"crashed", "timed_out"})
"""Ends that its worker's main process reports of a process that died, or that it has killed."""
NEVER_STARTED_STATES: Final[frozenset[State]] = frozenset(
    {"revoked", "expired", "rejected", "unknown_task"}
)
"""Final states that a job can reach without having been started."""
WITHOUT_START: Final[frozenset[State]] = frozenset({"expired", "unknown_task"})
"""Those that no job reaches which a worker has begun."""

VerdictStatus = Literal[
    "passed",
    "failed",
    "pending",
    "unknown",
    "crashed",
    "lost",
    "timed_out",
    "unknown_task",
    "rejected",
    "expired",
    "revoked",
    "withdrawn",
    "cancelled",
    "duplicated",
    "quarantined",
    "skipped",
    "forged",
]
Outcome = Literal["passed", "failed", "error", "skipped", "pending"]
"""What a report shows: ``error`` where the job's fate is unknown."""
TestOutcome = Literal["passed", "failed", "error", "skipped"]
BAD: Final[frozenset[Outcome]] = frozenset({"failed", "error"})
AllureStatus = Literal["passed", "failed", "broken", "skipped"]
Trait = Literal[
    "end",
    "open",
    "fixed",
    "unsent",
    "silent",
    "own",
    "death",
    "taken back",
    "given up",
    "kept",
    "raised",
    "acceptable",
]


@dataclass(frozen=True, slots=True)
class Sign:
    """The looks of an outcome on a terminal: a colour, and a letter."""

    colour: str
    letter: str


SIGNS: Final[Mapping[Outcome, Sign]] = {
    "passed": Sign("green", "."),
    "failed": Sign("red", "F"),
    "error": Sign("red", "E"),
    "skipped": Sign("yellow", "s"),
    "pending": Sign("yellow", "?"),
}


@dataclass(frozen=True, slots=True)
class Status:
    """A status: its outcome, the words for a task that came to it, and its names for Allure.

    ``title``: of the list of entries that came to it; "" where there is none. ``traits``:

    - end: it is an end of the job, once, whichever, and leaves no doubt;
    - open: an end may be reported yet, so who takes the run up again judges it again;
    - fixed: no further report changes it;
    - unsent: the job was not sent;
    - silent: nobody reports how the job ended, so an entry that allows it is sent again;
    - own: a job that was started may have come to it by itself, though no receipt reports it;
    - death: a process died of it;
    - taken back: the job was, by the run or by others;
    - given up: by the run, which then takes the job back;
    - kept: a run that is resumed leaves the entry as it is;
    - raised: what the job raised explains it best;
    - acceptable: it may be a failure that somebody knows: one end, once, and no doubt about it.

    ``what`` and ``then``: what is said where there is no receipt, and what to do.
    """

    outcome: Outcome
    words: str
    title: str
    allure: AllureStatus
    traits: frozenset[Trait]
    what: str
    then: str


REQUEUE: Final = "manifest ctl RUN requeue ENTRY"
RESEND: Final = (
    "if running it twice does no harm, send it again "
    "(--manifest-resume, or --manifest-resume=unsafe)"
)
_DEATH: Final = f"look at the worker's log and for a lack of memory, then {RESEND}"
_WANTED: Final = "send it again (--manifest-resume) if it is still wanted"
_LATE: Final = "add workers, or give it a later 'expires', and send it again"


def _traits(*names: Trait) -> frozenset[Trait]:
    return frozenset(names)


STATUSES: Final[Mapping[VerdictStatus, Status]] = {
    "passed": Status(
        *("passed", "passed", "", "passed", _traits("end", "kept", "raised")),
        *("The job passed, though its receipt is not at hand", "look at the run's ledger"),
    ),
    "failed": Status(
        *(
            "failed",
            "failed",
            "Expectation not met",
            "failed",
            _traits("end", "raised", "acceptable"),
        ),
        *("The job failed, and no receipt says how", "look at the worker's log"),
    ),
    "timed_out": Status(
        *(
            "failed",
            "timed out",
            "Timed out",
            "failed",
            _traits("own", "given up", "raised", "acceptable"),
        ),
        "The job was not seen to finish in time: its timeout is {timeout} from the start",
        "see whether workers are running and free, and what held it up, or raise its limits",
    ),
    "crashed": Status(
        *("failed", "crashed", "Crashed: the process that ran it died", "broken"),
        _traits("end", "silent", "own", "death", "raised", "acceptable"),
        *("The process that ran the task died before the task ended", _DEATH),
    ),
    "quarantined": Status(
        *("failed", "was quarantined", "Quarantined: killed its worker too often", "broken"),
        _traits("end", "fixed", "death", "acceptable"),
        "The job is given up, as it killed its worker again and again",
        "run the task by hand under a debugger or with more memory before sending it again",
    ),
    "lost": Status(
        *("error", "was lost", "Lost: neither a queue nor a worker has it", "broken"),
        _traits("silent"),
        "The job was sent and cannot be found: it waits in no queue of the broker, no worker "
        "has it, and the result store has no result of it",
        f"look at the worker's and the broker's logs, then {RESEND}",
    ),
    "duplicated": Status(
        *("failed", "ran more than once", "Ran more often than is allowed", "broken"),
        _traits("raised"),
        "The job ran more often than it is allowed to",
        "look for what it did twice, and at acks_late and the broker's visibility timeout",
    ),
    "unknown_task": Status(
        *("failed", "is of a task that no worker knows", "Unknown task", "broken"),
        _traits("end", "unsent", "acceptable"),
        "No worker has a task named {task}, so the job was not run",
        "correct the name, or start a worker whose app has that task",
    ),
    "rejected": Status(
        *(
            "failed",
            "was rejected",
            "Rejected by the worker",
            "broken",
            _traits("end", "acceptable"),
        ),
        "The message was refused and the task not run",
        "name another queue, or mend the entry, if it was refused here, else see the worker's log",
    ),
    "expired": Status(
        *(
            "failed",
            "expired",
            "Expired before it was started",
            "broken",
            _traits("end", "acceptable"),
        ),
        *("The job expired before a worker started it", _LATE),
    ),
    "revoked": Status(
        *("failed", "was revoked", "Revoked", "broken", _traits("end", "taken back", "acceptable")),
        *("The job was revoked before it ended", _WANTED),
    ),
    "forged": Status(
        *("failed", "has a receipt that cannot be trusted", "Forged receipt", "broken"),
        _traits("fixed"),
        "The receipt cannot be trusted",
        f"find out what else writes to this run's result store, then {RESEND}",
    ),
    "pending": Status(
        *("pending", "has not ended", "Still queued or running", "broken", _traits("open")),
        "There is no receipt yet; the job may still be queued or running",
        "look again with --manifest-audit, or wait for it with --manifest-audit=wait",
    ),
    "unknown": Status(
        *("error", "has no known end", "Unknown: it is not known", "broken"),
        _traits("open", "silent", "raised"),
        *("What became of the job is not known", f"look at the worker's log, then {RESEND}"),
    ),
    "skipped": Status(
        *("skipped", "was held back", "Held back", "skipped", _traits("end", "fixed", "unsent")),
        "The job was held back and never sent",
        "put right what held it back, then send it with --manifest-resume",
    ),
    "withdrawn": Status(
        *("skipped", "was taken back", "Taken back: the run was stopped", "skipped"),
        _traits("end", "taken back", "given up"),
        *("The job was taken back before it ended", "send it with --manifest-resume"),
    ),
    "cancelled": Status(
        *("skipped", "was cancelled", "Cancelled by an operator", "skipped"),
        _traits("end", "taken back", "given up", "kept"),
        "An operator cancelled the job",
        f"where it is wanted after all, have it sent by {REQUEUE}",
    ),
}


def those_with(trait: Trait) -> frozenset[VerdictStatus]:
    """Return the statuses that have a trait."""
    return frozenset(name for name, status in STATUSES.items() if trait in status.traits)


ENDS: Final = those_with("end")
OPEN: Final = those_with("open")
FIXED: Final = those_with("fixed")
UNSENT: Final = those_with("unsent")
RESENDABLE: Final = those_with("silent")
OWN: Final = those_with("own")
DEATHS: Final = those_with("death")
TAKEN_BACK: Final = those_with("taken back")
GIVEN_UP: Final = those_with("given up")
RAISED: Final = those_with("raised")
KEPT: Final = those_with("kept")
ACCEPTABLE: Final = those_with("acceptable")
SILENT: Final = RESENDABLE | OWN
"""Of jobs whose end nobody has reported: a report that comes later knows better."""
INFERRED: Final = SILENT | TAKEN_BACK
"""Of jobs without a receipt; others of these have one."""
NOT_SENT: Final[VerdictStatus] = "skipped"
"""The status of a descendant whose message never left: its parent saw that, and it did not run."""


def outcome(status: VerdictStatus) -> TestOutcome:
    """Return the outcome of a test: ``error`` where the job's fate is unknown."""
    found = STATUSES[status].outcome
    return "error" if found == "pending" else found


def outcome_of(status: VerdictStatus | None) -> Outcome:
    """Return what a report shows of an entry; None: it has no verdict."""
    return STATUSES[status or "pending"].outcome


def in_sql(some: Iterable[VerdictStatus | State]) -> str:
    """Write statuses, or states, as a list in SQL."""
    return "(" + ", ".join(f"'{one}'" for one in sorted(some)) + ")"
