"""Find out why a run does not move: what its ledger shows, and what its stack answers.

Nothing is changed, neither of the run nor of the stack, and each question has a limit in time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple, TypeVar

from pytest_manifest.broker.bounded import BoundedCaller, WaitBudget
from pytest_manifest.broker.client import load_app
from pytest_manifest.broker.locating.worker_replies import stack_errors
from pytest_manifest.broker.publisher import Publisher
from pytest_manifest.errors import ManifestToolError, ResultStoreError, StackError
from pytest_manifest.ledger import Ledger, utc_now
from pytest_manifest.ledger.files import RunFiles
from pytest_manifest.manifest import Manifest
from pytest_manifest.redaction.texts import redact, redact_url
from pytest_manifest.results.stream import StreamReader, has_stream, open_client_at
from pytest_manifest.run.ledger_findings import (
    SKEW,
    Case,
    holds_of,
    last_word,
    last_write,
    look_at_ledger,
    note_nothing_sent,
)
from pytest_manifest.run.worker_findings import WorkerQuestions
from pytest_manifest.schema.diagnosis import Diagnosis
from pytest_manifest.schema.wire import stream_key
from pytest_manifest.stack.health import ServerState, check_stack, server_state
from pytest_manifest.text import duration, plural
from pytest_manifest.urls import StackAddress, is_redis, scheme_of

REACH: Final = 5.0
"""Seconds in which a server must answer."""
IN_ALL: Final = 60.0
"""Seconds that all questions together may wait."""
WORKERS_ANSWER: Final = 3.0
QUIET: Final = 0.5
"""Seconds for the workers' answers, and without a further one after which these are all."""
FULL: Final = 0.9
"""Share of a server's memory from which on it is a finding."""
LONGEST: Final = 5
"""Jobs that run too long of which the stacks are asked for."""
STACKS_LIMIT: Final = 8000


class Stack(NamedTuple):
    """The stack of a run: its address, or ``why`` there is none; how commands name its ``app``.

    ``unusable``: why the app cannot be imported, "" where it can, or none is named.
    """

    address: StackAddress | None
    why: str = ""
    app: str = "APP"
    unusable: str = ""


T = TypeVar("T")
Row = Mapping[str, object]


def diagnose(ledger: Ledger, manifest: Manifest, files: RunFiles, stack: Stack) -> Diagnosis:
    """Look at a run and at its stack, and return why it does not move."""
    at, written = utc_now(), last_write(files)
    case = Case(ledger, manifest, files)
    case.notes.looked_at.append("the run's ledger, lock and log")
    if case.status != "finished" or case.pending.task_ids() or case.unsent:
        look_at_ledger(case)
        _ask(case, stack)
    moves = written != last_write(files)
    holds = list(holds_of(case)) if case.is_followed else []
    note_nothing_sent(case, holds, moves=moves)
    counts = ledger.verdicts.counts()
    return Diagnosis(
        run=case.info.run,
        manifest=str(case.info.manifest),
        status=case.status,
        at=at,
        is_followed=case.is_followed,
        last_write=written,
        last_word=last_word(files.log),
        judged=sum(number for status, number in counts.items() if not case.is_open(status)),
        in_flight=len({one.entry.id for one in case.pending.attempts()}),
        unsent=len(case.unsent),
        moves=moves,
        holds=holds,
        findings=case.notes.findings,
        unseen=case.notes.unseen,
        looked_at=case.notes.looked_at,
    )


def _ask(case: Case, stack: Stack) -> None:
    if stack.address is None:
        case.notes.cannot_see("broker, workers and result store", stack.why)
        return
    if stack.address.app is None:
        why = stack.unusable or "no app is named; name it with --app=MODULE:APP"
        case.notes.cannot_see("the app's routes and settings", why)
    try:
        ask(case, stack.address, stack.app)
    except ManifestToolError as error:
        case.notes.cannot_see("the rest of the stack", str(error))


def ask(case: Case, address: StackAddress, app: str) -> None:
    """Ask broker, workers and result store of a case, and note what is found.

    ``app``: how commands name the app. Raises StackError where the broker answers no longer.
    """
    if not _is_reached(case, address):
        return
    budget = WaitBudget()
    budget.end_at(time.monotonic() + IN_ALL)
    with closing(Publisher(address, stream="", ttl=0, budget=budget)) as publisher:
        servers = _Servers(case, publisher)
        servers.ask()
        WorkerQuestions(case, publisher, app).ask()
        servers.ask_again()


def _is_reached(case: Case, address: StackAddress) -> bool:
    """Note whether broker and store answer; return whether the broker does."""
    app = load_app(address) if address.app and not address.is_managed else None
    broker, store = redact_url(address.broker_url), redact_url(address.backend_url)
    try:
        check_stack(address, REACH, app=app)
    except StackError as error:
        is_store = isinstance(error, ResultStoreError)
        case.notes.find(
            "store" if is_store else "broker",
            f"the {'result store' if is_store else 'broker'} is out of reach from here",
            [str(error)],
            f"start it, or mend the way to it ({store if is_store else broker}); the run goes on "
            "by itself where it is back soon, else: " + case.resume(),
        )
        if not is_store:
            case.notes.cannot_see("queues and workers", "the broker is out of reach")
            return False
    else:
        case.notes.looked_at += [f"result store {store}"] if store != broker else []
    case.notes.looked_at.append(f"broker {broker}")
    return True


@dataclass
class _Servers:
    """Put the questions about broker and result store; findings are in the case's notes."""

    case: Case
    publisher: Publisher

    def __post_init__(self) -> None:
        self.notes, self.address = self.case.notes, self.publisher.address

    def ask(self) -> None:
        """Ask both how they are, and the store whether it has the run's reports."""
        with stack_errors(self.publisher, "the servers at {} cannot be asked"):
            self._servers()
            self.waiting = self._stream()

    def ask_again(self) -> None:
        """Note that reports wait which nobody has read since."""
        if self.waiting:
            self._unread(*self.waiting)

    def _servers(self) -> None:
        broker, store = self.address.broker_url, self.address.backend_url
        if is_redis(broker):

            def state() -> ServerState:
                with self.publisher.control.channel() as channel, channel.conn_or_acquire() as one:
                    return server_state(one)

            self._server("broker", broker, lambda: self.publisher.call(state))
        else:
            what = "the broker's memory and clock"
            self.notes.cannot_see(what, f"a broker reached by {scheme_of(broker)}:// tells neither")
        if store != broker and is_redis(store):
            caller = BoundedCaller(store)
            self._server("result store", store, lambda: caller.call(self._state_of_store, REACH))
            caller.close(lambda: None)

    def _state_of_store(self) -> ServerState:
        with closing(open_client_at(self.address)) as client:
            return server_state(client)

    def _server(self, what: str, url: str, ask: Callable[[], ServerState]) -> None:
        try:
            state = ask()
        except Exception as error:  # this user may not ask, or the server is no Redis
            reason = redact(f"{type(error).__name__}: {error}")
            self.notes.cannot_see(f"the {what}'s memory and clock", reason)
            return
        seen = f"{what} {redact_url(url)}: INFO says "
        used = f"{seen}used_memory {state.memory:,} of maxmemory {state.most:,}"
        if state.refuses:
            self.notes.find(
                "store" if what == "result store" else "broker",
                f"the {what} takes no writes: {state.refuses}",
                [f"{seen}so"],
                "see its log, and free memory or disk there",
            )
        if state.evicted and state.policy != "noeviction":
            self.notes.find(
                "memory",
                f"the {what} has thrown away {state.evicted:,} keys, which may have been messages "
                "or reports",
                [f"{seen}maxmemory_policy {state.policy}, evicted_keys {state.evicted:,}", used],
                "CONFIG SET maxmemory-policy noeviction, and give it more memory",
            )
        if state.most and state.memory >= FULL * state.most:
            self.notes.find(
                "memory",
                f"the {what}'s memory is full, or nearly so: it refuses messages and reports then",
                [used],
                "CONFIG SET maxmemory to more, or take out what is not needed",
            )
        if abs(state.ahead) > SKEW + state.within:
            words = "ahead of" if state.ahead > 0 else "behind"
            self.notes.find(
                "clock",
                f"the {what}'s clock is {duration(abs(state.ahead))} {words} this machine's",
                [f"{what} {redact_url(url)}: TIME, within {duration(state.within)}"],
                "set both clocks by NTP (chronyc tracking); visibility timeouts count by its clock",
            )

    def _stream(self) -> tuple[int, str] | None:
        """Note where the stream of reports is gone; return how many wait in it, and from where."""
        if not has_stream(self.address.backend_url) or not self.case.pending.by_task_id:
            return None
        position = self.case.ledger.info.get_meta("stream_position") or "0"
        key = stream_key(self.case.info.run)

        def look() -> tuple[bool, int]:
            opener = partial(open_client_at, self.address)
            reader = StreamReader(
                self.address.backend_url, key, position=position, opener=opener, keeps_records=True
            )
            return reader.is_intact(), len(reader.read())

        caller = BoundedCaller(self.address.backend_url)
        try:
            is_intact, unread = caller.call(look, REACH)
        except StackError as error:
            self.notes.cannot_see("the reports that wait", str(error))
            return None
        finally:
            caller.close(lambda: None)
        if not is_intact:
            self.notes.find(
                "stream_gone",
                "the result store has lost the run's reports: it was emptied, or restarted",
                [f"result store: the stream {key} is not as the run began it"],
                "what had ended unread cannot be known; "
                + self.case.resume("--manifest-resume")
                + " says of each entry whether it may be sent again",
            )
        return (unread, position) if unread else None

    def _unread(self, number: int, position: str) -> None:
        """Note that reports wait which nobody reads."""
        still = (self.case.ledger.info.get_meta("stream_position") or "0") == position
        if not still or not self.case.is_followed:
            return
        self.notes.find(
            "unread_reports",
            "the pytest that follows the run does not read what workers report: "
            f"{plural(number, 'report')} unread",
            [f"result store: {number} records behind {position}, where the ledger is"],
            "see what that pytest does: whether it is stopped, or its disk is full",
        )
