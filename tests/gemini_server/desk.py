"""What the server did, and what it is to do next."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import JsonValue

from tests.gemini_server.answers import Json
from tests.gemini_server.script import Fault, Script


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


class Desk:
    """Follows a script call by call, and keeps the calls. Thread-safe."""

    def __init__(self, script: Script, key: str) -> None:
        self.key = key
        self.calls: list[Call] = []
        self.stopping = threading.Event()
        self._script = script
        self._lock = threading.Lock()

    @property
    def script(self) -> Script:
        """The script in use."""
        return self._script

    def use(self, script: Mapping[str, JsonValue] | Script) -> None:
        """Follow another script from its beginning, and forget the calls so far."""
        with self._lock:
            self._script = Script.model_validate(script)
            self.calls = []

    def begin(self, method: str, model: str) -> tuple[Call, Fault]:
        """Note a call, and what the script has for it."""
        with self._lock:
            fault = self._script.fault(len(self.calls))
            call = Call(len(self.calls), method, model, fault.kind)
            self.calls.append(call)
            return call, fault

    @property
    def faults(self) -> Counter[str]:
        """How often each kind happened, ``ok`` among them."""
        return Counter(call.fault for call in list(self.calls))

    @property
    def billed(self) -> tuple[int, int]:
        """Tokens in and out, of all calls."""
        calls = list(self.calls)
        return sum(call.tokens_in for call in calls), sum(call.tokens_out for call in calls)
