"""Read corpora of one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from tasks.movie_bible.documents import Document
from tasks.movie_bible.fields import kind_of
from workflows.gap_fill.corpus.columns import document, names_in_file
from workflows.gap_fill.corpus.errors import CorpusError, place
from workflows.gap_fill.corpus.lines import text_lines


def read_json_lines(path: Path, mapping: Mapping[str, str]) -> Iterator[tuple[str, Document]]:
    """Yield place and document of each line; blank lines and unknown names are passed over.

    Raises CorpusError, at the end also where no line had a name that the mapping names.
    """
    names, unseen = names_in_file(mapping), set(mapping.values())
    lines = 0
    for number, line in text_lines(path):
        if not line.strip():
            continue
        lines += 1
        here = place(path, number)
        found = _object(line, here)
        unseen -= found.keys()
        row = {ours: found[theirs] for ours, theirs in names.items() if theirs in found}
        yield here, document(row, here)
    if lines and unseen:
        raise CorpusError(
            f"{place(path)}: no line has the name {min(unseen)!r:.80} that the mapping names; "
            "correct the mapping"
        )


def _object(line: str, here: str) -> dict[str, object]:
    try:
        found = json.loads(line, object_pairs_hook=_pairs, parse_constant=_no_number)
    except json.JSONDecodeError as error:
        raise CorpusError(
            f"{here}: the line is not JSON ({error.msg} at column {error.colno}); write one JSON "
            "object on each line"
        ) from None
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{here}: the line cannot be used ({error}); correct it") from None
    if not isinstance(found, dict):
        raise CorpusError(
            f"{here}: the line is {kind_of(found)}; write one JSON object on each line"
        )
    return found


def _pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it has {twice!r:.80} twice")
    return found


def _no_number(name: str) -> object:
    raise ValueError(f"{name} is not JSON")
