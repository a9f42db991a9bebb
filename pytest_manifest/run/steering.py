"""Carry out what operators ask of a run that goes on: pause, other limits, cancel, send again, end.

Commands come by the ledger, from any process. What a command changes stands there as a fact before
it takes effect, and its answer after: one that a kill cut short is carried out again, by the next
session of the run, and changes only what is left of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final, Literal, Protocol, TypeAlias

from pydantic import JsonValue

from pytest_manifest.analysis.throttles import settings_phrase
from pytest_manifest.broker.attempt import Attempt, attempt_of
from pytest_manifest.broker.locating.base import compare
from pytest_manifest.errors import LedgerError, ManifestToolError, PlanError
from pytest_manifest.ledger.attempts import Planned
from pytest_manifest.ledger.commands import DRY_RUN, KEPT, Answer, Command
from pytest_manifest.redaction.texts import redact
from pytest_manifest.run.connections import EngineContext, Part
from pytest_manifest.run.kept_commands import SHOWN, requeued_answer, steered_by
from pytest_manifest.run.pressure import names_of
from pytest_manifest.run.repeating import GOING_ON, Repeating, places
from pytest_manifest.run.resume_rules import NOT_SENT
from pytest_manifest.run.schedule import Skipped
from pytest_manifest.run.search import SNAPSHOT_GAP
from pytest_manifest.run.settings import FailureLimit, Rate
from pytest_manifest.schema import VerdictStatus
from pytest_manifest.schema.facts import Recalled
from pytest_manifest.schema.run_facts import Action, cancelled_by, names_in
from pytest_manifest.text import duration, listed, many
from pytest_manifest.verdict.problems import Cancelled

_Setting: TypeAlias = tuple[JsonValue, Callable[[], None]]


class Steerable(Protocol):
    """The engine of a run, as far as a command changes what it does."""

    limit: float

    @property
    def sends(self) -> bool: ...
    @property
    def time_left(self) -> float: ...
    def set_deadline(self, limit: float) -> None: ...
    def set_window(self, window: int) -> None: ...
    def withhold(self, skipped: Sequence[Skipped]) -> None: ...
    def cancel(self, task_ids: Collection[str], *, running: bool) -> None: ...
    def note_told(self, before: Mapping[str, VerdictStatus]) -> None: ...
    @property
    def poll_once(self) -> Callable[[], None]: ...


class Steering(Part):
    """Answer the commands of one run. Use it from the engine's thread."""

    def __init__(self, context: EngineContext, engine: Steerable) -> None:
        super().__init__(context)
        self._engine = engine
        self._is_draining = False
        self._says_quiet = False
        self._by_action: Mapping[Action, Callable[[Command], Answer]] = {
            "pause": self._pause,
            "resume": self._resume,
            "drain": self._drain,
            "set": self._set,
            "cancel": self._cancel,
            "requeue": self._requeue,
            "stop": self._stop,
        }

    def begin(self) -> None:
        """Take up what was asked for before this session, where it was kept for that.

        What was cancelled and is under way all the same is taken back once more.
        """
        self._schedule.cancelled |= cancelled_by(self._ledger.jobs.run_facts().steered)
        asked = {one.job for one in self._ledger.facts.of_kind(Recalled) if one.why == "operator"}
        again = asked & self._pending.by_task_id.keys()
        if again and self._engine.sends:
            self._take_back(again, running=False)

    def step(self) -> None:
        """Carry out what was asked for since.

        A session that publishes nothing can revoke nothing: what it is asked is left to a resume.
        """
        for command in self._ledger.commands.open():
            if self._engine.sends or command.action not in KEPT:
                self._carry_out(command)
        if self._says_quiet and not self._pending:
            self._says_quiet = False
            run = self._context.run
            self._context.live_warnings.append(
                f"nothing is in flight any more, and sending is paused: manifest ctl {run} resume"
            )
        if self._is_draining and not (self._pending or self._pending.held):
            self._is_draining = False
            self._end("detach")

    def _carry_out(self, command: Command) -> None:
        does = self._would if command.data.get(DRY_RUN) else self._by_action[command.action]
        try:
            answer = does(command)
        except LedgerError:
            raise  # what was read with it and could not be kept must not count as read
        except ManifestToolError as error:
            answer = Answer(False, False, str(error))
        with self._ledger.transaction():
            self._facts.write()
            self._ledger.commands.answer(command.number, answer)
        self._log.info("{} by {}: {}", command.action, command.by, answer.message)
        reason = f" ({redact(command.reason)})" if command.reason else ""
        if answer.changed:
            said = f"{command.by}{reason}: {answer.message}"
            self._context.live_warnings.append(said)

    def _note(
        self, command: Command, *, changed: bool = True, data: Mapping[str, JsonValue] | None = None
    ) -> None:
        """Add the fact that a command takes effect, once."""
        if any(one.command == command.number for one in self._ledger.jobs.run_facts().steered):
            return
        self._facts.add(None, steered_by(command, changed, data or {}))

    def _would(self, command: Command) -> Answer:
        """Say what a command would change, and change nothing. Raises PlanError as that does."""
        number = many(len(self._pending), "job")
        said = f"the run would end, as by Ctrl-C, with {number} in flight"
        if command.action == "set":
            found = self._settings_of(command)
            noted: dict[str, JsonValue] = {name: value for name, (value, _) in found.items()}
            return Answer(True, False, f"it would be {settings_phrase(noted)}", noted)
        if command.action != "stop":
            self._refuse_unsending()
            before = self._paused_before()
            said = {
                "pause": before or f"nothing new would be sent; {number} in flight would go on",
                "drain": f"the run would end when {number} in flight have ended",
                "resume": "sending would go on" if before else "sending is not paused",
            }[command.action]
        return Answer(True, False, said, {"in_flight": len(self._pending)})

    # Sending

    def _paused_before(self) -> str:
        """Return by whom sending was paused already; "" where it is not."""
        if not self._schedule.paused:
            return ""
        steered = self._ledger.jobs.run_facts().steered
        last = [one for one in steered if one.action in ("pause", "drain") and one.changed][-1:]
        by = "".join(f", by {one.by} at {one.at:%H:%M:%S} UTC" for one in last)
        return f"sending is paused already{by}"

    def _refuse_unsending(self) -> None:
        if not self._engine.sends or self._context.settings.send_only:
            raise PlanError("the session that follows this run sends nothing that could wait")

    def _pause(self, command: Command) -> Answer:
        self._refuse_unsending()
        before = self._paused_before()
        changed, self._schedule.paused = not before, True
        self._says_quiet = self._says_quiet or (changed and bool(self._pending))
        self._note(command, changed=changed)
        number = many(len(self._pending), "job")
        left = f"the run's deadline goes on, and is over in {duration(self._engine.time_left)}"
        said = f"{before or 'nothing new is sent'}; {number} in flight; {left}"
        return Answer(True, changed, said, {"in_flight": len(self._pending)})

    def _resume(self, command: Command) -> Answer:
        self._refuse_unsending()
        changed, self._schedule.paused = self._schedule.paused, False
        self._is_draining = self._says_quiet = False
        self._note(command, changed=changed)
        said = "sending goes on" if changed else "sending was not paused"
        if held := self._context.pressure.held_by:
            said = f"sending is not paused, and is still held back: {held}"
        return Answer(True, changed, said)

    def _drain(self, command: Command) -> Answer:
        self._refuse_unsending()
        changed, self._is_draining = not self._is_draining, True
        self._schedule.paused = True
        self._note(command, changed=changed)
        number = many(len(self._pending), "job")
        said = f"nothing new is sent, and the run ends when {number} in flight have ended"
        return Answer(True, changed, said, {"in_flight": len(self._pending)})

    def _stop(self, command: Command) -> Answer:
        how = command.data.get("how")
        self._note(command, data={} if how is None else {"how": how})
        with self._ledger.transaction():  # before the session ends by it
            self._facts.write()
        self._end("revoke" if how == "take-back" else "detach" if how == "leave" else None)
        return Answer(True, True, "the run ends")

    def _end(self, how: Literal["revoke", "detach"] | None) -> None:
        state = self._context.state
        if how is not None:
            state.settings = replace(state.settings, on_stop=how)
        if self._signals.end_session is not None:
            self._signals.end_session()
        self._signals.interrupted.set()
        self._signals.stop.set()

    # Limits

    def _set(self, command: Command) -> Answer:
        found = self._settings_of(command)
        noted: dict[str, JsonValue] = {name: value for name, (value, _) in found.items()}
        self._note(command, data=noted)
        for _, take_effect in found.values():
            take_effect()
        return Answer(True, True, f"from now on {settings_phrase(noted)}", noted)

    def _settings_of(self, command: Command) -> dict[str, _Setting]:
        """Return what limits are to be, by their names. Raises PlanError."""
        given = {name: text for name, text in command.data.items() if name != DRY_RUN}
        if not given:
            raise PlanError(f"name what is to be set: {listed([*_SETTINGS], len(_SETTINGS))}")
        return {name: self._setting(name, str(text)) for name, text in given.items()}

    def _setting(self, name: str, text: str) -> _Setting:
        """Return what a limit is to be, and what makes it so. Raises PlanError."""
        kind, dot, key = name.partition(".")
        known = _SETTINGS.get(f"{kind}.KEY" if dot else name)
        if known is None:
            names = listed([*_SETTINGS], len(_SETTINGS))
            raise PlanError(f"{name}: there is no such limit; there are: {names}")
        parse, like = known
        try:
            return parse(self, key, text.strip())
        except (ValueError, OverflowError) as error:
            raise PlanError(f"{name}={text}: write it like {name}={like}") from error

    def _window(self, _key: str, text: str) -> _Setting:
        self._refuse_unsending()
        window = _at_least_one(text)
        return window, lambda: self._engine.set_window(window)

    def _key_limit(self, key: str, text: str) -> _Setting:
        self._refuse_unsending()
        held, most = self._schedule.key_limits, _at_least_one(text)
        if held is None or key not in held.limits:
            known = listed(sorted(held.limits), SHOWN) if held else "none"
            raise PlanError(f"limit.{key}: the run has no limit of this key; it has: {known}")
        limits = held.limits
        return most, lambda: limits.update({key: most})

    def _rate(self, _key: str, text: str) -> _Setting:
        self._refuse_unsending()
        found, pressure = Rate.parse_keyed(text), self._context.pressure
        if found is None:
            raise ValueError(text)
        rates = {**pressure.rates, found[0]: found[1]}
        if not names_of(rates) <= pressure.rated_keys:
            known = listed(sorted(pressure.rated_keys), SHOWN) or "none"
            raise PlanError(f"rate={text}: the run has no rate of this key; it has: {known}")
        return text, lambda: pressure.set_rates(rates)

    def _queue_depth(self, _key: str, text: str) -> _Setting:
        self._refuse_unsending()
        most, pressure = _at_least_one(text), self._context.pressure
        if self._publisher is None or not self._publisher.transport.counts_messages:
            raise PlanError("queue-depth: this broker does not say how many messages wait")

        def take_effect() -> None:
            pressure.queue_depth = most

        return most, take_effect

    def _max_failed(self, _key: str, text: str) -> _Setting:
        self._refuse_unsending()
        limit = FailureLimit.parse(text)

        def take_effect() -> None:
            self._schedule.max_failed = limit

        return str(limit), take_effect

    def _budget(self, _key: str, text: str) -> _Setting:
        self._refuse_unsending()
        budget, amount = self._schedule.budget, float(text)
        if budget is None:
            raise PlanError("budget: the run has none; begin it with --manifest-budget")
        if not 0 <= amount < float("inf"):
            raise ValueError(text)
        return amount, lambda: budget.set_limit(amount)

    def _deadline(self, _key: str, text: str) -> _Setting:
        match = re.fullmatch(r"(\+?)(\d+(?:\.\d+)?)([smhd]?)", text)
        if match is None:
            raise ValueError(text)
        given = float(match[2]) * _SECONDS[match[3]]
        limit = given + self._engine.limit if match[1] else given
        longest = float(self._context.state.info.stream_ttl)
        if limit > longest:
            raise PlanError(
                f"deadline={text}: what workers report of this run is kept for "
                f"{duration(longest)}, and nothing could be judged after that"
            )
        return limit, lambda: self._engine.set_deadline(limit)

    # Entries

    def _cancel(self, command: Command) -> Answer:
        running, since = bool(command.data.get("running")), self._asked_for_since(command)
        names = [one for one in names_in(command.data) if one not in since]
        at = places(self._ledger, names)
        told = {name: one.status for name, one in self._ledger.verdicts.reasons(names).items()}
        # What got lost on its way to the broker is lined up, to be published once more.
        lined_up = self._schedule.unsent()
        awaited = {one.entry.id for one in self._pending.by_task_id.values()}
        unsent = [
            one for one in names if at[one] in GOING_ON and (at[one] == "unsent" or one in lined_up)
        ]
        chosen = {one for one in names if at[one] in GOING_ON and one in awaited}.difference(unsent)
        # Also what an earlier session has given up: no later one sends it.
        ended = [
            one for one in names if at[one] in (*GOING_ON, "ended") and told.get(one) != "passed"
        ]
        ended = [one for one in ended if one not in chosen and one not in unsent]
        changed = bool(unsent or chosen)
        data: dict[str, JsonValue] = {"entries": [*unsent, *sorted(chosen), *ended]}
        self._note(command, changed=changed, data=data)
        with self._ledger.transaction():  # before anything is revoked
            self._facts.write()
        self._schedule.cancelled |= {*unsent, *chosen, *ended}
        self._engine.note_told({name: told[name] for name in (*unsent, *chosen) if name in told})
        if unsent:
            self._withhold(unsent)
        jobs = self._pending.by_task_id.items()
        roots = {job.root for _, job in jobs if job.entry.id in chosen}
        left = self._take_back(roots, running=running) if roots else set()
        # What had ended before, and was not read yet, is judged by that.
        reasons = self._ledger.verdicts.reasons(sorted(chosen - left)).values()
        back = [one.status for one in reasons if one.status is not None]
        taken = back.count("cancelled")
        counts: dict[str, JsonValue] = {
            "never_sent": len(unsent),
            "taken_back": taken,
            "under_way": len(chosen) - len(back),
            "ended_before": len(ended) + len(back) - taken + list(told.values()).count("passed"),
            "cancelled_before": sum(place == "dropped" for place in at.values()),
            "asked_for_since": len(since),
            "unknown": [name for name, place in at.items() if place == "absent"],
            "entries": data["entries"],
        }
        return Answer(True, changed, _cancelled_words(counts, running=running), counts)

    def _asked_for_since(self, command: Command) -> set[str]:
        """Return what a cancelling command names, and a later one, which the resume has carried out
        before it, has sent again."""
        steered = self._ledger.jobs.run_facts().steered
        since = [one for one in steered if one.command > command.number]
        again = {name for one in since if one.action == "requeue" for name in names_in(one.data)}
        return again.intersection(names_in(command.data))

    def _withhold(self, entries: Sequence[str]) -> None:
        """Cancel what is still to be sent, and what waits for it."""
        dropped = self._schedule.cancel(frozenset(entries))
        gone = [Skipped(one, Cancelled()) for one in dropped]
        unplanned = set(entries) - {one.entry.id for one in dropped}
        gone += [Skipped(one, Cancelled()) for one in self._attempts(unplanned)]
        blocked: list[Skipped] = []
        for one in gone:
            blocked += self._schedule.finished(one.attempt.entry.id, "cancelled")
        self._engine.withhold([*gone, *blocked])

    def _attempts(self, entries: Iterable[str]) -> list[Attempt]:
        """Return the newest attempts of entries that this session does not have to send."""
        rows = {row.entry: row for row in self._ledger.attempts.of_entries(sorted(entries))}
        manifest = self._context.manifest
        return [
            Attempt(self._context.run, manifest[name], row.attempt, row.task_id)
            for name, row in rows.items()
            if name in manifest
        ]

    def _take_back(self, roots: Collection[str], *, running: bool) -> set[str]:
        """Take back jobs in flight, with the tasks that they started; return the entries of those
        that go on all the same."""
        jobs = self._pending.by_task_id
        chosen = {i: job.entry.id for i, job in jobs.items() if job.root in roots}
        self._engine.cancel(chosen.keys(), running=running)
        return {entry for task_id, entry in chosen.items() if task_id in jobs}

    def _requeue(self, command: Command) -> Answer:
        self._refuse_unsending()
        names, unsafe = names_in(command.data), bool(command.data.get("unsafe"))
        repeating = Repeating(self._ledger, self._context.manifest, names)
        doubts = self._may_be_there(repeating.doubtful)
        if repeating.doubtful:  # what has ended before the looks may have been reported since
            self._engine.poll_once()
            if self._context.look_at_store() is False:
                doubts = list(repeating.doubtful.values())
            repeating = Repeating(self._ledger, self._context.manifest, names)
        coming = self._schedule.unsent() | {one.entry.id for one in self._pending.attempts()}
        refused = repeating.refusals(unsafe=unsafe, doubts=doubts, coming=coming)
        without = {one.entry for one in refused}
        again = [one for one in names if one not in without]
        if self._schedule.closed is not None and again:
            raise PlanError(f"nothing more is sent: {self._schedule.closed.phrase()}")
        asked = {one.entry for one in repeating.refusals(unsafe=False) if one.may_repeat}
        attempts = self._plan(command, again, asked)
        statuses = self._ledger.verdicts.statuses()
        self._schedule.cancelled -= set(again)
        for attempt in attempts:
            missing = [one for one in attempt.entry.after if statuses.get(one) != "passed"]
            self._schedule.send_again(attempt, missing)
        return requeued_answer(again, {one.entry: one.why for one in refused})

    def _may_be_there(self, doubtful: Mapping[str, str]) -> list[str]:
        """Return those of these entries whose job two looks do not show to be gone, by task id."""
        if self._locator is None or not doubtful:
            return list(doubtful.values())
        first = self._locator.snapshot(doubtful.keys())
        if self._signals.stop.wait(SNAPSHOT_GAP):
            return list(doubtful.values())
        second = self._locator.snapshot(doubtful.keys())
        gone = compare(first, second, doubtful, started={}).missing
        return [name for task_id, name in doubtful.items() if task_id not in gone]

    def _plan(
        self, command: Command, entries: Sequence[str], asked: Collection[str]
    ) -> list[Attempt]:
        """Record the attempts that are sent again, and take back the verdicts that they replace.

        What was asked for before and has certainly not run is still asked for.
        """
        insisted = self._ledger.info.sent_on_request()
        rows = {row.entry: row for row in self._ledger.attempts.of_entries(list(entries))}
        before = self._ledger.verdicts.statuses()
        attempts: list[Attempt] = []
        with self._ledger.transaction():
            data: dict[str, JsonValue] = {"entries": list(entries)}
            self._note(command, changed=bool(entries), data=data)
            self._facts.write()
            for name in entries:
                row, entry = rows[name], self._context.manifest[name]
                run = self._context.run
                if row.state in NOT_SENT:
                    attempts.append(Attempt(run, entry, row.attempt, row.task_id))
                    self._ledger.attempts.mark([row.task_id], "planned")
                    continue
                one = attempt_of(run, entry, row.attempt + 1, row.position)
                attempts.append(one)
                reason = f"{before[name]}; an operator asked for it again"
                planned = Planned(one.task_id, name, one.number, row.position, reason)
                self._ledger.attempts.plan([planned], why="requeue")
                if name in asked or row.task_id in insisted:
                    self._ledger.info.add_sent_on_request([one.task_id])
            self._ledger.verdicts.reopen(entries, why="requeue")
        self._engine.note_told({name: before[name] for name in entries})
        return attempts


def _cancelled_words(counts: Mapping[str, JsonValue], *, running: bool) -> str:
    words = {
        "never_sent": "not sent yet and never will be",
        "taken_back": "taken back before a worker began it",
        "under_way": "under way, and judged by what its worker reports",
        "ended_before": "ended before",
        "cancelled_before": "cancelled before",
        "asked_for_since": "asked for again since",
    }
    said = [f"{counts[name]} {what}" for name, what in words.items() if counts[name]]
    hint = "" if running or not counts["under_way"] else _RUNNING
    return f"{', '.join(said) or 'nothing to cancel'}{hint}"


_RUNNING: Final = "; --running ends what runs, which may be half done then"


def _at_least_one(text: str) -> int:
    """Read a whole number from 1. Raises ValueError."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


_SETTINGS: Final[Mapping[str, tuple[Callable[[Steering, str, str], _Setting], str]]] = {
    "window": (Steering._window, "200"),
    "limit.KEY": (Steering._key_limit, "5"),
    "rate": (Steering._rate, "200/s"),
    "queue-depth": (Steering._queue_depth, "5000"),
    "max-failed": (Steering._max_failed, "2%"),
    "budget": (Steering._budget, "30"),
    "deadline": (Steering._deadline, "+2h"),
}
"""The limits that can be set, each with what reads it and an example."""
_SECONDS: Final = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
