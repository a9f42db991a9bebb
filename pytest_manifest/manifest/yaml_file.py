"""Read a manifest that was written by hand in YAML as the JSON lines that it stands for.

A document is a list of entries, or an object of a header's fields and of ``entries``, that list.
A value means what it means in JSON. YAML's own words for numbers, which its versions read
differently, are faults; ``no``, ``on``, dates and times are texts.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from pydantic import JsonValue

from pytest_manifest.manifest.jsonl import Faults, JsonLines, file_error, open_regular
from pytest_manifest.schema.json_values import MAX_DEPTH
from pytest_manifest.text import short

if TYPE_CHECKING:
    import yaml

SUFFIXES: Final = (".yaml", ".yml")
LARGEST: Final = 16 << 20
"""Bytes of a file, and characters of its values once each alias stands for what it names."""
_TAGGED: Final = re.compile(r"(?:&\S+\s+)?!")
"""The beginning of a value that says itself what it is."""
_STANDARD: Final = "tag:yaml.org,2002:"
_WORDS: Final = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_DOUBTFUL: Final = re.compile(
    r"[-+]?(?:0[xXoObB]?[0-9a-fA-F_]+|[0-9][0-9_]*(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?"
    r"|\.[0-9_]+(?:[eE][-+]?[0-9]+)?|\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))"
)
"""What one version of YAML or another takes for a number, and JSON does not."""
_BARE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*")
_TOO_DEEP: Final = f"it is nested deeper than {MAX_DEPTH} levels; flatten it"
_UNPRINTABLE: Final = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")


def is_yaml(path: Path | str) -> bool:
    """Return whether a file's name says that it is YAML."""
    return str(path).endswith(SUFFIXES)


def open_lines(path: Path) -> IO[bytes]:
    """Open a manifest for reading, one in YAML as its JSON lines.

    Raises ManifestError where that fails, it is no regular file, or no YAML.
    """
    file = open_regular(path)
    if not is_yaml(path):
        return file
    with file:
        found = JsonLines.stamp_of(file)
    lines, numbers = _converted(str(path), found)
    return JsonLines(lines, numbers, (found[0], len(lines), found[2]))


@lru_cache(maxsize=4)
def _converted(name: str, _stamp: tuple[int, int, int]) -> tuple[bytes, tuple[int, ...]]:
    """Return a file's lines, and the number of the YAML line where each begins."""
    path = Path(name)
    try:
        import yaml
    except ImportError:
        needs = "it is YAML, which needs an extra: pip install 'pytest-celery-manifest[yaml]'"
        raise file_error(path, needs) from None
    with open_regular(path) as file:
        raw = file.read(LARGEST + 1)
    text = ""
    if len(raw) > LARGEST:
        raise file_error(path, f"it has more than {LARGEST:,} bytes; write JSON lines instead")
    try:
        text = raw.decode("utf-8-sig")
        node = yaml.compose(text, yaml.BaseLoader)  # makes no object of any kind
    except UnicodeDecodeError as error:
        raise file_error(path, "it is not UTF-8; save it as UTF-8") from error
    except yaml.MarkedYAMLError as error:
        mark, what = error.problem_mark, error.problem or error.context or "it cannot be read"
        line = 0 if mark is None else mark.line + 1
        raise file_error(path, f"bad YAML: {what}; correct it there", line) from error
    except RecursionError:
        raise file_error(path, _TOO_DEEP, _first_too_deep(text)) from None
    except (yaml.YAMLError, ValueError) as error:
        said = str(error).splitlines()[0]
        raise file_error(path, f"bad YAML: {said}; correct it") from error
    rows = _Reading(path, text).rows(node)
    return b"".join(_json_line(value) for _, value in rows), tuple(line for line, _ in rows)


def _json_line(value: JsonValue) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # halves of surrogate pairs, escaped: two of them are a character
        return json.dumps(value).encode() + b"\n"


def _first_too_deep(text: str) -> int:
    """Return the first line with a value that is nested too deeply."""
    import yaml

    depth = 0
    for event in yaml.parse(text, yaml.BaseLoader):  # does not recurse, as composing does
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH and event.start_mark is not None:
            return int(event.start_mark.line) + 1
    return 0


class _Reading:
    """The values of a document's nodes; what cannot be a value of JSON is a fault."""

    def __init__(self, path: Path, text: str) -> None:
        self._text = text
        self._faults = Faults(path)
        self._left = LARGEST

    def rows(self, node: yaml.Node | None) -> list[tuple[int, JsonValue]]:
        """Return line and value of the header, if there is one, and of each entry.

        Raises ManifestError with the faults of all.
        """
        import yaml

        found: list[tuple[int, JsonValue]] = []
        entries = node
        if isinstance(node, yaml.MappingNode):
            pairs = [(key, value) for key, value in node.value if key.value != "entries"]
            entries = next((value for key, value in node.value if key.value == "entries"), None)
            header = self._object(yaml.MappingNode(node.tag, pairs, node.start_mark), 0)
            found.append((_line(node), {"manifest": 1, **header}))
        if node is not None and not isinstance(entries, yaml.SequenceNode):
            what = "write the entries as a list, or as that of 'entries' below a header's fields"
            self._faults.add(_line(node), f"there is no list of entries; {what}")
        elif isinstance(entries, yaml.SequenceNode):
            for one in entries.value:
                value = self._value(one, 1)
                if not isinstance(value, dict):
                    self._faults.add(_line(one), "an entry must be an object; make it one")
                found.append((_line(one), value))
        self._faults.raise_any()
        return found

    def _value(self, node: yaml.Node, depth: int) -> JsonValue:
        import yaml

        text = node.value if isinstance(node, yaml.ScalarNode) else ""
        self._left -= 1 + len(text)
        if depth > MAX_DEPTH:
            self._faults.add(_line(node), _TOO_DEEP)
            raise self._faults.error()
        if self._left < 0:
            said = f"its aliases make more than {LARGEST:,} characters of it; write it out"
            self._faults.add(_line(node), said)
            raise self._faults.error()
        if node.tag == f"{_STANDARD}str":
            return self._plain(node, text) if self._is_plain(node) else text
        if node.tag == f"{_STANDARD}seq" and isinstance(node, yaml.SequenceNode):
            return [self._value(one, depth + 1) for one in node.value]
        if node.tag == f"{_STANDARD}map" and isinstance(node, yaml.MappingNode):
            return self._object(node, depth)
        said = f"the tag {short(node.tag.replace(_STANDARD, '!!'))} says nothing here; leave it out"
        self._faults.add(_line(node), said)
        return None

    def _is_plain(self, node: yaml.Node) -> bool:
        """Return whether a scalar has neither quotes nor a tag, so that it may be a number."""
        import yaml

        if not isinstance(node, yaml.ScalarNode) or node.style is not None:
            return False
        return node.start_mark is None or not _TAGGED.match(self._text, node.start_mark.index)

    def _plain(self, node: yaml.Node, text: str) -> JsonValue:
        """Return the value of a scalar without quotes."""
        if text in _WORDS:
            return _WORDS[text]
        if match := _NUMBER.fullmatch(text):
            try:
                value = float(text) if match[1] or match[2] else int(text)
            except ValueError:  # Python's limit on the digits of an integer
                value = math.inf
            if math.isfinite(value):
                return value
            self._faults.add(
                _line(node), f"the number {short(text)} is too large; put it in quotes"
            )
        elif _DOUBTFUL.fullmatch(text):
            said = "is a number in one version of YAML, and in another a text or another number"
            self._faults.add(
                _line(node), f"{short(text)} {said}; put it in quotes, or write it as JSON does"
            )
        return text

    def _object(self, node: yaml.MappingNode, depth: int) -> dict[str, JsonValue]:
        """Return an object; what is merged into it (``<<``) comes before its own fields."""
        import yaml

        own: dict[str, JsonValue] = {}
        merged: dict[str, JsonValue] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._faults.add(_line(key), "a name must be a text; write one")
            elif key.value == "<<" and self._is_plain(key):
                for one in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    found = self._value(one, depth + 1)
                    if not isinstance(found, dict):
                        self._faults.add(_line(one), "'<<' merges objects only; name one")
                    else:
                        merged = {**found, **merged}
            elif key.tag != f"{_STANDARD}str" or not isinstance(
                name := self._value(key, depth + 1), str
            ):
                said = f"the name {short(key.value)} is no text; put it in quotes"
                self._faults.add(_line(key), said)
            elif name in own:
                self._faults.add(_line(key), f"{short(name)} is there twice; keep one")
            else:
                own[name] = self._value(value, depth + 1)
        return {**merged, **own}


def _line(node: yaml.Node) -> int:
    mark = node.start_mark
    return 0 if mark is None else int(mark.line) + 1


def as_yaml(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Yield JSON lines of entries as the items of a YAML list, a field a line, whose values are
    written as JSON."""
    for line in lines:
        fields = json.loads(line)
        shown = "\n  ".join(f"{name}: {_written(value)}" for name, value in fields.items())
        yield f"- {shown}".encode()


def _written(value: JsonValue) -> str:
    if isinstance(value, str) and _BARE.fullmatch(value) and value not in _WORDS:
        return value
    text = json.dumps(value, ensure_ascii=False)
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
