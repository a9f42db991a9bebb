"""Keep what happened to a run as a whole: its stretches, limits, operators, back-pressure, deaths.

It is made of the facts of the run, in their order, and of each death of a process.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from pytest_manifest.schema import shown
from pytest_manifest.schema.facts import Kind
from pytest_manifest.schema.run_status import (
    FlagKind,
    Setting,
    StatusAction,
    StatusFlag,
    StatusThrottle,
)
from pytest_manifest.text import cut, one_line

_Fields: TypeAlias = Mapping[str, Any]  # JSON of a fact: its kind says of what types they are

KEPT: Final = 20
"""Actions, throttlings, deaths and flags that are kept, the last ones."""
_LONGEST: Final = 200
_SAME: Final = 60.0
"""Seconds within which two reports of a process that ran the same entry are of one death."""
_HELD: Final[Mapping[str, Literal["", "paused", "draining"]]] = {
    "pause": "paused",
    "drain": "draining",
    "resume": "",
}
"""What an action makes of the sending; others leave it as it is."""


class Death(NamedTuple):
    """A process that ended while it ran a job; ``entry`` is the number of its entry."""

    at: float
    worker: str
    entry: int
    exit_code: int | None


def moment(at: float) -> datetime:
    """Return a moment (UTC) by the seconds since the epoch."""
    return datetime.fromtimestamp(at, timezone.utc)


def short(text: object, most: int = _LONGEST) -> str:
    """Return a foreign text without secrets, on one line, shortened."""
    return cut(one_line(shown.shown_text(str(text))), most)


class Story:
    """The story of a run, by its facts; moments are seconds since the epoch."""

    def __init__(self) -> None:
        self.held: Literal["", "paused", "draining"] = ""
        self.held_since: float | None = None
        self.stretches: list[tuple[float, float | None]] = []
        """When each stretch of the run began, and when it ended; None: it has not."""
        self.limits: dict[str, Setting] = {}
        self.silent: set[str] = set()
        """The workers that answered nobody in the last search."""
        self.deaths: deque[Death] = deque(maxlen=KEPT)
        self.actions: deque[StatusAction] = deque(maxlen=KEPT)
        self.throttling: deque[StatusThrottle] = deque(maxlen=KEPT)
        self.flags: deque[StatusFlag] = deque(maxlen=KEPT)
        self.over: str = ""
        """Why the run ended before its work; empty: it has not."""
        self.last = 0.0
        """When the last fact was added that was read."""

    def add(self, kind: int, at: float, data: str | None) -> None:
        """Take a fact of the run."""
        fields: _Fields = json.loads(data) if data else {}
        if kind == Kind.SEGMENT:
            self._begin(at, fields)
        elif kind == Kind.SEGMENT_ENDED and self.stretches:
            self.stretches[-1] = self.stretches[-1][0], at
        elif kind == Kind.SEARCH:
            self.silent = set(fields.get("silent", ()))
        elif kind == Kind.RUN_OVER:
            self.over = str(fields.get("why", ""))
        elif kind == Kind.STEERED:
            self._steer(at, fields)
        elif kind == Kind.THROTTLED:
            self._throttle(at, fields)

    def _begin(self, at: float, fields: _Fields) -> None:
        if self.stretches:
            start, end = self.stretches[-1]
            self.stretches[-1] = start, self.last if end is None else end
            self.flag(at, "began", "pytest took the run up again")
        self.stretches.append((at, None))
        self.held, self.held_since, self.over = "", None, ""
        limits = {
            "max-failed": fields.get("max_failed"),
            "budget": fields.get("budget"),
            "deadline": fields.get("deadline"),
            "canary": fields.get("canary") or None,
            "kills": fields.get("kills"),
            **{f"limit.{name}": most for name, most in fields.get("limits", {}).items()},
        }
        self.limits = {name: one for name, one in limits.items() if one is not None}

    def _steer(self, at: float, fields: _Fields) -> None:
        action, reason = str(fields.get("action", "")), str(fields.get("reason", ""))
        given = fields.get("data") or {}
        data = {
            short(name, 60): one if isinstance(one, int | float | None) else short(one, 60)
            for name, one in given.items()
            if not isinstance(one, dict | list)
        }
        lists = {short(name, 60): len(one) for name, one in given.items() if isinstance(one, list)}
        by = short(fields.get("by", ""), 60)
        self.actions.append(
            StatusAction(
                at=moment(at),
                action=short(action, 20),
                by=by,
                reason=short(reason),
                changed=bool(fields.get("changed", True)),
                data=data | lists,
            )
        )
        if action == "set":
            self.limits.update(data)
            what = ", ".join(f"{name}={one}" for name, one in data.items())
            self.flag(at, "limit", f"{what} by {by}")
        if action in _HELD:
            was, self.held = self.held, _HELD[action]
            if was != self.held:
                self.held_since = at if self.held else None
                kind: FlagKind = "paused" if self.held else "resumed"
                self.flag(at, kind, f"{action} by {by}")

    def _throttle(self, at: float, fields: _Fields) -> None:
        why, key = short(fields.get("why", ""), 20), short(fields.get("key", ""), 60)
        for place, one in enumerate(self.throttling):
            if one.ended is None and (one.why, one.key) == (why, key):
                if fields.get("is_over"):
                    self.throttling[place] = one.model_copy(update={"ended": moment(at)})
                return
        if not fields.get("is_over"):
            detail = short(fields.get("detail", ""))
            self.throttling.append(
                StatusThrottle(began=moment(at), ended=None, why=why, detail=detail, key=key)
            )

    def die(self, death: Death) -> None:
        """Note that a process ended while it ran a job; who else reports it adds nothing."""
        if any(one.entry == death.entry and death.at - one.at < _SAME for one in self.deaths):
            return
        self.deaths.append(death)
        self.flag(death.at, "worker", f"a process of {short(death.worker, 60)} ended")

    def flag(self, at: float, kind: FlagKind, text: str) -> None:
        self.flags.append(StatusFlag(at=moment(at), kind=kind, text=cut(text, 100)))

    def elapsed(self, began: float, last: float, now: float | None) -> float:
        """Return the seconds of all stretches; an open one goes on until now, or to the ``last``
        that is known of a run that is over, for which ``now`` is None."""
        total, until = 0.0, last if now is None else now
        for start, end in self.stretches or [(began, None)]:
            total += max((until if end is None else end) - start, 0.0)
        return total
