"""A corpus of others from loading to grades, with the models that need no key.

    python -m benchmarks.whole_corpus [--passages=3000] [--batch=50] [--sample=300]

The corpus is the docstrings of Python's standard library that have 80 characters or more: texts of
many people, which nobody has written for this project, and which are on each machine; a module is
what the sample has films for. The commands are those of the how-to, in a copy of the project with
a database of its own, on a private stack: load, plan, fill, plan the judges, grade.

Told are the seconds of each, what pytest says at its end, and by the database: rows, rows that
were written twice, fields that are empty, and what was paid.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pydantic import JsonValue

from tests.docs.runner import NOT_INHERITED, copy_project

ROOT: Final = Path(__file__).parents[1]
SHORTEST: Final = 80
LONGEST_ID: Final = 150
LEFT_OUT: Final = {"test", "tests", "idlelib", "lib2to3", "site-packages", "dist-packages"}
"""Folders of the standard library: no text for readers, or not of it."""


def docstrings(library: Path) -> Iterator[tuple[str, str, str]]:
    """Yield module, name within it and docstring of all that a library documents, by name."""
    for path in sorted(library.rglob("*.py")):
        parts = path.relative_to(library).with_suffix("").parts
        if LEFT_OUT & set(parts):
            continue
        module = ".".join(part for part in parts if part != "__init__")
        try:
            tree = ast.parse(path.read_text("utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue  # some are there to be refused
        yield from ((module, name, text) for name, text in _of(tree, ""))


def _of(node: ast.AST, within: str) -> Iterator[tuple[str, str]]:
    for one in ast.iter_child_nodes(node):
        if isinstance(one, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            name = f"{within}{one.name}"
            if text := ast.get_docstring(one):
                yield name, text
            yield from _of(one, f"{name}.")


def passages(number: int) -> list[dict[str, JsonValue]]:
    """Return the first passages of the standard library, as lines of a corpus."""
    found: dict[str, dict[str, JsonValue]] = {}
    for module, name, text in docstrings(Path(sysconfig.get_path("stdlib"))):
        identity = f"{module}/{name}"
        if len(text) >= SHORTEST and len(identity) <= LONGEST_ID and identity not in found:
            found[identity] = {"id": identity, "film": module, "kind": "docstring", "text": text}
        if len(found) == number:
            break
    return list(found.values())


def run(folder: Path, *command: str) -> tuple[float, str]:
    """Run a command of the how-to in a copy of the project; return its seconds and its output."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(NOT_INHERITED)}
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env={**environment, "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(
            f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-4000:]}"
        )
    return time.monotonic() - began, done.stdout


ROWS: Final = """
import json
from collections import Counter
from sqlalchemy import select
from tasks.movie_bible.connecting import Store
from tasks.movie_bible.fields import FIELDS
from tasks.movie_bible.models import Annotation, Passage
from tasks.movie_bible.settings import bible_settings
with Store(bible_settings()).reading() as connection:
    table = Annotation.__table__
    rows = list(connection.execute(select(table)).mappings())
    passages = len(list(connection.execute(select(Passage.id))))
of = Counter(row["passage_id"] for row in rows)
empty = sum(row[name] is None for row in rows for name in FIELDS)
print(json.dumps({
    "passages": passages,
    "rows": len(rows),
    "not right": passages - len(of) + sum(number > 1 for number in of.values()) + empty,
    "models": sorted({row["model"] for row in rows}),
}))
"""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passages", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--sample", type=int, default=300)
    options = parser.parse_args(arguments)
    lines = passages(options.passages)
    with tempfile.TemporaryDirectory(prefix="manifest-corpus-") as name:
        folder = Path(name)
        copy_project(ROOT, folder)
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / "corpus.jsonl").write_text(text, "utf-8")
        size = sum(len(str(line["text"])) for line in lines)
        print(f"{len(lines):,} passages, {size:,} characters, of Python {sys.version.split()[0]}")
        judged = ("of=fill.jsonl", f"sample={options.sample}", "at_least=0")
        steps = {
            "load": ("workflows.gap_fill.corpus", "load", "corpus.jsonl"),
            "plan": (
                *("pytest", "--manifest-plan=gap_fill", "--manifest=fill.jsonl"),
                *("--manifest-plan-opt", f"batch={options.batch}"),
            ),
            "fill": ("pytest", "--manifest=fill.jsonl"),
            "plan the judges": (
                *("pytest", "--manifest-plan=gap_fill:judge", "--manifest=grades.jsonl"),
                *(word for one in judged for word in ("--manifest-plan-opt", one)),
            ),
            "grade": ("pytest", "--manifest=grades.jsonl"),
            "plan again": (
                *("pytest", "--manifest-plan=gap_fill", "--manifest=again.jsonl"),
                *("--manifest-plan-opt", f"batch={options.batch}"),
            ),
        }
        for step, command in steps.items():
            seconds, output = run(folder, *command)
            said = [line.strip(" =") for line in output.splitlines() if line.strip(" =")]
            told = [line for line in said if ": run " in line or "record " in line]
            print(f"{step:16} {seconds:7.1f} s  {'; '.join([*told, said[-1]])}")
        found = rows_of(folder)
        print(json.dumps(found))
    expected = {"passages": len(lines), "rows": len(lines), "not right": 0}
    if {name: found[name] for name in expected} != expected:
        raise SystemExit("not each passage has one whole row")


def rows_of(folder: Path) -> dict[str, JsonValue]:
    """Return what the database of a copy of the project holds."""
    (folder / "rows.py").write_text(ROWS, "utf-8")
    told: dict[str, JsonValue] = json.loads(run(folder, "rows")[1])
    return told


if __name__ == "__main__":
    main()
