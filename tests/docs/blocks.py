"""The fenced blocks of a Markdown document, and what their info strings say.

``console``: lines after ``$ `` are commands, the others what they print. ``exit=1`` in the info
string: the last command ends with that status; ``order=any``: lines may come in any order.
``python``, ``json`` and others with ``title=NAME`` are files; without, ``python`` is a script.
``skip="why"``: not run, for that reason.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

FENCE = re.compile(
    r"^(?P<indent> *)(?P<fence>`{3,})(?P<info>[^`\n]*)\n(?P<body>.*?)^(?P=indent)(?P=fence) *$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """One fenced block; ``line`` is that of its first fence, from 1."""

    path: Path
    line: int
    language: str
    options: dict[str, str]
    body: str
    section: str = ""
    """The title of the section (``## ...``) that it is in."""
    above: str = ""
    """The text between the block before and this one."""

    @property
    def place(self) -> str:
        return f"{self.path.name}:{self.line}"


@dataclass
class Step:
    """A command and the lines that it is said to print."""

    command: str
    output: list[str] = field(default_factory=list)


def blocks(path: Path) -> Iterator[Block]:
    """Every fenced block of the file, in order."""
    text = path.read_text("utf-8")
    end, section = 0, ""
    for match in FENCE.finditer(text):
        above = text[end : match.start()]
        section = (re.findall(r"^## (.+)$", above, re.MULTILINE) or [section])[-1]
        end = match.end()
        language, _, rest = match["info"].strip().partition(" ")
        options = dict(word.split("=", 1) for word in shlex.split(rest))
        body = re.sub(f"^{match['indent']}", "", match["body"], flags=re.MULTILINE)
        line = text.count("\n", 0, match.start()) + 1
        yield Block(path, line, language, options, body, section, above)


def steps(block: Block) -> list[Step]:
    """The commands of a console block. A line that ends in a backslash goes on in the next."""
    found: list[Step] = []
    for line in block.body.splitlines():
        if line.startswith("$ "):
            found.append(Step(line.removeprefix("$ ")))
        elif not found:
            raise AssertionError(f"{block.place}: a console block starts with a command ('$ ')")
        elif found[-1].command.endswith("\\"):
            found[-1].command += "\n" + line
        else:
            found[-1].output.append(line)
    return found


def missing_line(expected: list[str], actual: str, *, ordered: bool = True) -> str | None:
    """The first expected line that the output does not have, in order; None when all are there.

    Jobs settle in any order, and so do their tests: not ``ordered`` asks for the lines alone.

    ``...`` in a line stands for any text; a line of only that is passed over, and so is an empty
    one. Rules (``====``) and gaps may differ in width, and figures of seconds in value.
    """
    patterns = [line for line in expected if line.strip() not in ("", "...")]
    lines = iter(actual.splitlines())
    for line in patterns:
        pattern = _pattern(line)
        if not ordered:
            lines = iter(actual.splitlines())
        if not any(pattern.fullmatch(candidate.rstrip()) for candidate in lines):
            return line
    return None


def _pattern(line: str) -> re.Pattern[str]:
    text = re.escape(line.rstrip())
    text = text.replace(re.escape("..."), ".*")
    # pytest's own "in 1.23s", which is "in 61.23s (0:01:01)" from a minute on.
    text = re.sub(r"\b\d+(?:\\\.\d+)?s\b", r"[\\d.:() ]+s(?: \\([\\d:]+\\))?", text)
    text = re.sub(r"(?:=){3,}", "=+", text)
    text = re.sub(r"(?:_){3,}", "_+", text)
    text = re.sub(r"(?:\\ )+", " +", text)  # columns are as wide as the terminal
    return re.compile(text)
