"""Record what a check of a stack has found: findings by level, with the workers that answered."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Literal

from pytest_manifest.broker.workers import Worker
from pytest_manifest.text import listed, printable

Level = Literal["error", "warning", "unchecked", "ok"]
LEVELS: Final[tuple[Level, ...]] = ("error", "warning", "unchecked", "ok")
LEVEL_WIDTH: Final = len("unchecked")
NARROWEST: Final = 60
WIDEST: Final = 120
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


def table_rows(findings: Sequence[Finding]) -> Iterator[tuple[Level, str]]:
    """Yield the level of each finding with its lines, as wide as the terminal, worst first."""
    width = min(max(shutil.get_terminal_size().columns, NARROWEST), WIDEST)
    name = max((len(one.check) for one in findings), default=0)
    indent = " " * (LEVEL_WIDTH + name + 4)
    for one in sorted(findings, key=lambda one: LEVELS.index(one.level)):
        text = printable(one.message)
        first, *others = textwrap.wrap(text, width - len(indent), break_on_hyphens=False)
        lines = [f"{one.level:<{LEVEL_WIDTH}}  {one.check:<{name}}  {first}"]
        yield one.level, "\n".join([*lines, *(f"{indent}{line}" for line in others)])
