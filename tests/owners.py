"""Read who owns each promise and each row of the reference, from ``owners.toml`` and the pages.

A row's name is its first cell: of an option what stands before its value, of a marker what stands
before its arguments; of an exit status, of which there are several rows, also how it begins.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import tomllib

from tests.nodes import TESTS

ROOT: Final = TESTS.parent
FILE: Final = TESTS / "owners.toml"
PROMISES: Final = "docs/evidence/promises.md#The promises"
PAGES: Final = (
    *("verdicts", "configuration", "fixtures-and-markers", "commands", "exit-codes"),
    *("manifest-format", "receipt-format", "summary-format", "status-format"),
    "digest-format",
)
"""The pages of the reference whose rows are verdicts, options, settings, outcomes and fields."""
ALL: Final = "*"
"""Stands for each row of its table."""
RING2: Final = "ring2"
"""The table of the owners that are not in ring 1, with the reasons."""
SPELLED: Final = "spelled"
"""The table of what the owner of a row calls otherwise."""
OTHERS: Final = frozenset({RING2, SPELLED})


def read(path: Path = FILE) -> dict[str, dict[str, str]]:
    """Return the file's tables: node ids by the name of a row, and the reasons of ``ring2``."""
    found: dict[str, dict[str, str]] = tomllib.loads(path.read_text("utf-8"))
    return found


def rows() -> dict[str, dict[str, tuple[str, ...]]]:
    """Return the rows by page and heading of their table: what each spells, by its name."""
    page, _, _ = PROMISES.partition("#")
    found: dict[str, dict[str, tuple[str, ...]]] = {
        PROMISES: {name: (name,) for name in promises(_page(page))}
    }
    for page in (f"docs/reference/{name}.md" for name in PAGES):
        found.update(tables(page, _page(page)))
    return found


def _page(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def promises(text: str) -> list[str]:
    """Return the names of the promises, in the order of their headings."""
    return re.findall(r"^## ([A-Z]\d): ", text, re.MULTILINE)


def tables(page: str, text: str) -> Iterator[tuple[str, dict[str, tuple[str, ...]]]]:
    """Yield the rows of each table of a page; those below one heading are one.

    Raises ValueError where two rows of a table have one name.
    """
    heading = ""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        elif line.startswith("|"):
            found.setdefault(f"{page}#{heading}", []).append(line)
    for key, (head, _, *body) in found.items():
        named = [row_of(line, is_status=head.startswith("| status")) for line in body]
        if len({name for name, _ in named}) < len(named):
            raise ValueError(f"{key} has two rows of one name")
        yield key, dict(named)


def row_of(line: str, *, is_status: bool = False) -> tuple[str, tuple[str, ...]]:
    """Return the name of a row of a table, and what it spells: the code in its first cell."""
    cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
    first = cells[0].replace("`", "")
    spelled = tuple(_without_value(code) for code in re.findall("`(.+?)`", cells[0]))
    if is_status:
        return f"{first} {' '.join(cells[1].split()[:4])}", (first,)
    return _without_value(first) if len(spelled) == 1 else first, spelled


def _without_value(code: str) -> str:
    return re.split(r"[\[= ]", code)[0] if code.startswith("--") else code.partition("(")[0]


def unmentioned(code: str, text: str) -> bool:
    """Check that nothing of a text spells what a row does.

    An option is also spelled by its name without ``--manifest-``, as the parts of the code know it;
    a command by its words, without what stands for a value.
    """
    if code.startswith("--"):
        spelled = {code, code.replace("--manifest-", "").replace("-", "_")}
        return not any(_has(one, text) for one in spelled)
    words = re.findall(r"[\w-]+", code)
    return not all(_has(word, text) for word in words if len(words) == 1 or word != word.upper())


def _has(word: str, text: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text) is not None


def owner_of(name: str, table: Mapping[str, str]) -> str | None:
    """Return the node id of a row's owner, None where it has none."""
    return table.get(name, table.get(ALL))
