"""How large the package is, and how well its functions say what they do.

    python -m benchmarks.house [FOLDER ...]

Counts modules, lines, those with code, the fields of the largest class, the longest module and
function, functions whose docstring begins with no verb ("What ...", "The ... of which ..."),
classes and modules whose docstring is a clause ("What ..."), and the modules that import the
session's state. FOLDER: the package of another checkout, to hold two side by side.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

PACKAGE: Final = Path(__file__).parents[1] / "pytest_manifest"
NO_VERBS: Final = frozenset(
    {
        "a",
        "all",
        "also",
        "always",
        "an",
        "and",
        "another",
        "any",
        "are",
        "as",
        "at",
        "because",
        "before",
        "both",
        "but",
        "by",
        "each",
        "either",
        "every",
        "first",
        "for",
        "from",
        "how",
        "if",
        "in",
        "it",
        "its",
        "last",
        "more",
        "most",
        "neither",
        "never",
        "no",
        "nobody",
        "none",
        "not",
        "nothing",
        "of",
        "on",
        "once",
        "one",
        "only",
        "or",
        "other",
        "others",
        "some",
        "somebody",
        "such",
        "that",
        "the",
        "their",
        "them",
        "there",
        "these",
        "they",
        "this",
        "those",
        "to",
        "under",
        "until",
        "what",
        "whatever",
        "when",
        "where",
        "whether",
        "which",
        "while",
        "who",
        "whoever",
        "whom",
        "whose",
        "why",
        "with",
        "without",
    }
)
CLAUSES: Final = frozenset(
    {
        "how",
        "it",
        "nobody",
        "somebody",
        "that",
        "those",
        "what",
        "when",
        "where",
        "whether",
        "which",
    }
)
"""First words of what is no noun phrase either: classes and modules may begin with one."""
NO_CODE: Final = frozenset(
    {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
)
SESSION: Final = ("face.session", "plugin.session")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def measure(package: Path) -> dict[str, int]:
    """Count what the package at this folder is made of."""
    sources = {path: path.read_text("utf-8") for path in sorted(package.rglob("*.py"))}
    lines = {path: len(text.splitlines()) for path, text in sources.items()}
    trees = {path: ast.parse(text) for path, text in sources.items()}
    functions = [one for tree in trees.values() for one in functions_of(tree)]
    return {
        "modules": len(sources),
        "lines": sum(lines.values()),
        "lines of code": sum(map(code_lines, sources.values())),
        "lines of a module, mean": sum(lines.values()) // len(lines),
        "lines of the longest module": max(lines.values()),
        "modules of more than 400 lines": sum(count > 400 for count in lines.values()),
        "fields of the largest class": max(n for tree in trees.values() for n in fields_of(tree)),
        "lines of the longest function": max(map(_length, functions)),
        "docstrings of functions": sum(ast.get_docstring(one) is not None for one in functions),
        "docstrings that begin with no verb": sum(map(begins_with_no_verb, functions)),
        "docstrings of classes and modules that are clauses": sum(
            first_word(one) in CLAUSES for tree in trees.values() for one in named_things(tree)
        ),
        "importers of the session's state": sum(map(_imports_session, trees.values())),
    }


def code_lines(text: str) -> int:
    """Return how many lines have code on them."""
    lines = {
        number
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in NO_CODE
        for number in range(token.start[0], token.end[0] + 1)
        if token.string
    }
    for node in ast.walk(ast.parse(text)):
        value = getattr(node, "value", None)
        if isinstance(node, ast.Expr) and isinstance(value, ast.Constant):
            lines -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def fields_of(tree: ast.AST) -> Iterator[int]:
    """Yield the number of each class's fields: what its body declares, and what its methods set."""
    for one in ast.walk(tree):
        if not isinstance(one, ast.ClassDef):
            continue
        declared = {
            part.target.id
            for part in one.body
            if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
        }
        assigned = {
            part.attr
            for part in ast.walk(one)
            if isinstance(part, ast.Attribute)
            and isinstance(part.ctx, ast.Store)
            and isinstance(part.value, ast.Name)
            and part.value.id == "self"
        }
        yield len(declared | assigned)


def functions_of(tree: ast.AST) -> Iterator[Function]:
    return (one for one in ast.walk(tree) if isinstance(one, Function))


def named_things(tree: ast.AST) -> Iterator[ast.ClassDef | ast.Module]:
    """The module itself and its classes, whose docstrings name them."""
    return (one for one in ast.walk(tree) if isinstance(one, ast.ClassDef | ast.Module))


def _length(function: Function) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


def begins_with_no_verb(function: Function) -> bool:
    """Whether a function's docstring says no deed; one without a docstring has nothing to say."""
    first = (ast.get_docstring(function) or "Return").split(None, 1)[0]
    return first_word(function) in NO_VERBS or not first.rstrip(",").isalpha()


def first_word(documented: Function | ast.ClassDef | ast.Module) -> str:
    """Return the first word of a docstring in small letters; "" where there is none."""
    words = (ast.get_docstring(documented) or "").split(None, 1)
    return words[0].strip("\"'(`,.:").lower() if words else ""


def _imports_session(tree: ast.AST) -> bool:
    return any(
        isinstance(one, ast.ImportFrom)
        and (one.module or "").endswith(SESSION)
        and any(name.name == "ManifestSession" for name in one.names)
        for one in ast.walk(tree)
    )


def main(arguments: Sequence[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else arguments
    packages = [Path(one) for one in given] or [PACKAGE]
    found = [measure(package) for package in packages]
    for name in found[0]:
        print(f"| {name} | " + " | ".join(f"{one[name]:,}" for one in found) + " |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
