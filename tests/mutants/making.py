"""Make the mutants of a module: mutmut those of its functions, a table those of its constants."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import ndiff

from mutmut.mutation.file_mutation import mutate_file_contents

NUMBER = "__mutmut_"
_ORIGINAL = "__mutmut_orig"


@dataclass(frozen=True, order=True)
class Mutant:
    """A mutant: its function or constant, the lines that it replaces (``was``), and by what."""

    where: str
    was: str
    now: str


@dataclass(frozen=True)
class Switch:
    """What makes a mutant take effect: the name of a function's copy, or a constant's value."""

    mutant: Mutant
    copy: str = ""
    value: object = None

    @property
    def original(self) -> str:
        """Return the name of the function that has the copy, as mutmut spells it."""
        return self.copy.partition(NUMBER)[0]


def mutated_source(path: str, text: str) -> tuple[str, Sequence[str]]:
    """Return a module's source with the mutants of each function beside it, and their names."""
    mutated = mutate_file_contents(path, text)
    return mutated.code, mutated.mutant_names


def of_functions(code: str, names: Sequence[str]) -> Iterator[Switch]:
    """Yield the mutants that such a source holds."""
    lines = code.splitlines()
    found = {
        node.name: lines[node.lineno - 1 : node.end_lineno]
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.FunctionDef)
    }
    for name in names:
        plain = name.partition(NUMBER)[0]
        original = plain + _ORIGINAL
        changes = list(
            ndiff(
                [line.replace(original, "") for line in found[original]],
                [line.replace(name, "") for line in found[name]],
            )
        )
        where = plain[2:] if plain.startswith("x_") else plain[2:].replace("ǁ", ".")
        yield Switch(Mutant(where, _of(changes, "- "), _of(changes, "+ ")), name)


def _of(changes: Sequence[str], sign: str) -> str:
    return "\n".join(line[2:].strip() for line in changes if line.startswith(sign))


def of_constants(text: str, values: Mapping[str, object]) -> Iterator[Switch]:
    """Yield the mutants of the constants of a module with this source and these values.

    Statements in SQL are changed word by word, sets and tables are left without each of their
    elements, numbers are one more.
    """
    for name in _constants(text):
        value = values.get(name)
        if isinstance(value, str) and value.lstrip().startswith("SELECT"):
            yield from _of_statement(name, value)
        elif isinstance(value, (set, frozenset)):
            for one in sorted(value, key=repr):
                yield Switch(Mutant(name, repr(one), ""), value=value - {one})
        elif isinstance(value, Mapping):
            for key in value:
                rest = {other: value[other] for other in value if other != key}
                yield Switch(Mutant(name, repr(key), ""), value=rest)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield Switch(Mutant(name, repr(value), repr(value + 1)), value=value + 1)


def _constants(text: str) -> Iterator[str]:
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


def users_of(text: str, constant: str) -> set[str]:
    """Return the functions of a source that name a constant, as mutmut spells them.

    The empty set where none does, or not functions alone.
    """
    found: set[str] = set()
    for node in ast.parse(text).body:
        parts = [("", node)]
        if isinstance(node, ast.ClassDef):
            parts = [(f"{node.name}ǁ", one) for one in node.body]
        for owner, one in parts:
            if not any(isinstance(n, ast.Name) and n.id == constant for n in ast.walk(one)):
                continue
            if isinstance(one, ast.FunctionDef):
                found.add(f"xǁ{owner}{one.name}" if owner else f"x_{one.name}")
            elif not _assigns(one, constant):
                return set()
    return found


def _assigns(node: ast.AST, name: str) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return any(isinstance(one, ast.Name) and one.id == name for one in targets)


CHANGES = (
    (r"\bAND\b", "OR"),
    (r"\bOR\b", "AND"),
    (r"\bIS NOT\b", "IS"),
    (r"\bIS\b(?! NOT)", "IS NOT"),
    (r"\bNOT EXISTS\b", "EXISTS"),
    (r"(?<!NOT )\bEXISTS\b", "NOT EXISTS"),
    (r"\bNOT \(", "("),
    (r"(?<!NOT )\bIN \(", "NOT IN ("),
    (r" = ", " <> "),
    (r" <> ", " = "),
    (r" > ", " >= "),
    (r" >= ", " > "),
    (r" < ", " <= "),
    (r"\bmax\(", "min("),
    (r"\bmin\(", "max("),
    (r"\bDISTINCT ", ""),
    (r"\bLEFT JOIN\b", "JOIN"),
    (r"'([\w.$\[\]]+)'", r"'XX\1XX'"),
    (r"\b0\b", "1"),
    (r"(?<!SELECT )\b1\b(?= )", "2"),  # what EXISTS selects is nothing to anybody
    (r"\b2\b", "3"),
    (r"\n +ORDER BY .*$", ""),
)
"""What is changed in a statement, one place at a time: a pattern, and what stands there then."""


def _of_statement(name: str, statement: str) -> Iterator[Switch]:
    for pattern, instead in CHANGES:
        for found in re.finditer(pattern, statement, re.MULTILINE):
            changed = statement[: found.start()] + found.expand(instead) + statement[found.end() :]
            changes = list(ndiff(statement.splitlines(), changed.splitlines()))
            yield Switch(Mutant(name, _of(changes, "- "), _of(changes, "+ ")), value=changed)
