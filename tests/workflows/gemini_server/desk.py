"""What the server did, and what it is to do next."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from pydantic import JsonValue

from tests.workflows.gemini_server.answers import Json
from tests.workflows.gemini_server.script import Fault, Script


@dataclass(slots=True)
class Call:
    """What the server did with one request; tokens are those it billed, for ``answered``."""

    number: int
    method: str
    model: str
    fault: str
    keys: tuple[str, ...] = ()
    status: int = 0
    answered: str = ""
    tokens_in: int = 0
    tokens_out: int = 0
    cached: int = 0
    tier: str = "standard"
    request: Json = field(default_factory=dict, repr=False)
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    crowded: bool = False
    """Whether it was refused as too many others were under way."""


class Desk:
    """Follows a script call by call, and keeps the calls. Thread-safe."""

    def __init__(self, script: Script, key: str) -> None:
        self.key = key
        self.calls: list[Call] = []
        self.stopping = threading.Event()
        self._script = script
        self._lock = threading.Lock()
        self._under_way = 0
        self._began: float | None = None
        self._befallen: dict[str, Counter[str]] = {}

    @property
    def script(self) -> Script:
        """The script in use."""
        return self._script

    def use(self, script: Mapping[str, JsonValue] | Script) -> None:
        """Follow another script from its beginning, and forget the calls so far."""
        with self._lock:
            self._script = Script.model_validate(script)
            self.calls = []
            self._began = None
            self._befallen = {}

    def begin(self, method: str, model: str) -> tuple[Call, Fault]:
        """Note a call, and what the script has for it."""
        with self._lock:
            fault = self._script.fault(len(self.calls))
            crowded = self._is_crowded()
            if crowded:
                fault = Fault(kind="rate_limited", retry=self._script.retry)
            else:
                self._under_way += 1
            call = Call(len(self.calls), method, model, fault.kind, crowded=crowded)
            self.calls.append(call)
            return call, fault

    def spare(self, fault: Fault, texts: Collection[str]) -> Fault:
        """Let a call be answered well if that kind has befallen one of its passages often enough.

        Each text counts from its last good answer on.
        """
        most = self._script.at_most
        if most is None:
            return fault
        with self._lock:
            befallen = [self._befallen.setdefault(text, Counter()) for text in texts]
            if any(before[fault.kind] >= most for before in befallen):
                fault = Fault()
            for before in befallen:
                if fault.kind == "ok":
                    before.clear()
                else:
                    before[fault.kind] += 1
        return fault

    def note(self, call: Call) -> None:
        """Keep a call that is part of a batch job."""
        with self._lock:
            call.number = len(self.calls)
            self.calls.append(call)

    def end(self, call: Call) -> None:
        """Note that a call has its answer, or never gets one."""
        with self._lock:
            self._under_way -= not call.crowded

    def _is_crowded(self) -> bool:
        now = time.monotonic()
        self._began = now if self._began is None else self._began
        most = self._script.most(now - self._began)
        return most is not None and self._under_way >= most

    @property
    def faults(self) -> Counter[str]:
        """How often each kind happened, ``ok`` among them."""
        return Counter(call.fault for call in list(self.calls))

    @property
    def billed(self) -> tuple[int, int]:
        """Tokens in and out, of all calls."""
        calls = list(self.calls)
        return sum(call.tokens_in for call in calls), sum(call.tokens_out for call in calls)
