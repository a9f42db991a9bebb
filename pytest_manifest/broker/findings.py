"""Record what a check of a stack has found: findings by level, with the workers that answered."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Final, Literal

from pytest_manifest.broker.workers import Worker
from pytest_manifest.text import listed

Level = Literal["error", "warning", "unchecked", "ok"]
LEVELS: Final[tuple[Level, ...]] = ("error", "warning", "unchecked", "ok")
SHOWN: Final = 5
"""Names in one message; the others are counted."""

some_of: Final = partial(listed, most=SHOWN)


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's finding; ``message`` is a sentence for the user, without passwords."""

    level: Level
    check: str
    message: str


@dataclass(slots=True)
class StackCheck:
    """A stack's workers and findings; addresses without passwords, "" where there is none."""

    kind: str
    reason: str
    broker: str = ""
    backend: str = ""
    app: str = ""
    workers: list[Worker] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Tell whether there is no error."""
        return all(one.level != "error" for one in self.findings)

    def count(self, level: Level) -> int:
        """Count the findings of a level."""
        return sum(one.level == level for one in self.findings)

    def add(self, level: Level, check: str, message: str) -> None:
        """Add a finding."""
        self.findings.append(Finding(level, check, message))
