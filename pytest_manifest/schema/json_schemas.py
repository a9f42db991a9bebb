"""Apply the JSON Schemas of a manifest's expectations, and refuse those that cannot be applied.

A manifest may come from anywhere: nothing is fetched, patterns take linear time, and how often the
parts of a schema are applied is counted before they are, as those that refer to one another can ask
for more work than ever ends.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias
from urllib.parse import unquote, urljoin

from pydantic import JsonValue

from pytest_manifest.text import middle, number_unprintable, whole_text

if TYPE_CHECKING:
    from jsonschema_rs import Draft202012Validator, RegexOptions, ValidationError

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_OF_STANDARD: Final = DIALECT.removesuffix("schema")
MAX_CHECKS: Final = 10_000
"""How many schemas may be applied to one and the same value."""
STEPS: Final = 100_000
STEPS_A_VALUE: Final = 50
"""Steps for each value in what is checked; an ordinary schema takes a handful."""
MAX_PATTERNS: Final = 500_000
"""Steps of all patterns of a schema: an ordinary one has some dozens."""
_LARGE: Final = 20_000
"""Values of a result of which only the first violation is reported: each takes 40 µs to find."""
_LONGEST: Final = 400
"""Characters in which a flaw of a schema is told."""

_ARRAYS: Final = frozenset(("allOf", "anyOf", "oneOf", "prefixItems"))
_NAMED: Final = frozenset(
    ("$defs", "definitions", "properties", "patternProperties", "dependentSchemas")
)
_ITEMS: Final = frozenset(("items", "contains", "unevaluatedItems"))
_VALUES: Final = frozenset(("additionalProperties", "unevaluatedProperties"))
_SINGLE: Final = _ITEMS | _VALUES | {"not", "if", "then", "else", "propertyNames", "contentSchema"}
_IN_PLACE: Final = frozenset(
    ("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas")
)
"""Keywords whose schemas are applied to the value itself, not to what is in it."""
_Applied: TypeAlias = Literal["itself", "key", "names", "values", "items"]
_APPLIED: Final[Mapping[str, _Applied]] = {
    **dict.fromkeys(_IN_PLACE, "itself"),
    **dict.fromkeys(("properties", "prefixItems"), "key"),
    "propertyNames": "names",
    **dict.fromkeys((*_VALUES, "patternProperties"), "values"),
    **dict.fromkeys(_ITEMS, "items"),
}
"""What of a value the schemas of a keyword are applied to."""
_TOO_DEEP: Final = "refers to itself without end, or is nested too deeply"
_PLAIN_NAME: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9_]*")


class SchemaFlawError(ValueError):
    """A schema that cannot be applied; its text goes on after "it"."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One place of a result that is against a schema: ``path`` begins with "" or ``.name``;
    ``keyword`` and ``wanted`` are the rule, ``message`` says it in a sentence."""

    path: str
    keyword: str
    wanted: object
    message: str
    found: object


@dataclass(slots=True, eq=False)
class _Part:
    """A schema within a schema: its place, the address that its references start from, and the
    parts that are applied to the value itself and to what is in it."""

    path: str
    schema: dict[str, Any]
    base: str
    uses: list[tuple[_Applied, str | int, _Part]] = field(default_factory=list)


def schema_problem(schema: dict[str, JsonValue]) -> str:
    """Say why this object is no JSON Schema (2020-12) that can be applied; "" if it is one.

    It may quote the schema, so what is long loses its middle, and what cannot be printed is
    numbered.
    """
    try:
        _applicable(json.dumps(schema))
    except SchemaFlawError as flaw:
        return number_unprintable(middle(str(flaw), _LONGEST))
    return ""


def violations(schema: dict[str, JsonValue], result: JsonValue, limit: int) -> list[Violation]:
    """Return the first ``limit`` places of the result that violate the schema; of a very large
    result the first.

    Raises SchemaFlawError where the schema cannot be applied.
    """
    root, validator = _applicable(json.dumps(schema))
    size = _size(result)
    most = STEPS + STEPS_A_VALUE * size
    try:
        _Steps(most, most).of(root, result)
        if validator.is_valid(result):
            return []
        errors = validator.iter_errors(result)
        return [_violation(one) for one in islice(errors, limit if size <= _LARGE else 1)]
    except RecursionError:
        raise SchemaFlawError(_TOO_DEEP) from None
    except UnicodeEncodeError as error:  # half of a surrogate pair, which no reader lets pass
        raise SchemaFlawError(f"cannot be applied ({error})") from error


def _violation(error: ValidationError) -> Violation:
    keyword, wanted = error.kind.name, error.kind.value
    if keyword == "type" and len(wanted) == 1:
        wanted = wanted[0]
    return Violation(_place(error.instance_path), keyword, wanted, error.message, error.instance)


@lru_cache(maxsize=256)  # a planner gives the same schema to thousands of entries
def _applicable(text: str) -> tuple[_Part, Draft202012Validator]:
    """Return a schema's parts, and what applies it. Raises SchemaFlawError."""
    from jsonschema_rs import Draft202012Validator, ValidationError

    schema = json.loads(text)
    root = _Part("", schema, "")
    try:
        _Parts(root).refuse_endless()
        validator = Draft202012Validator(
            schema, pattern_options=pattern_options(), offline=True, validate_formats=False
        )
    except ValidationError as error:
        place = _place(error.instance_path).removeprefix(".")
        raise SchemaFlawError(f"{place or 'it'}: {error.message}") from None
    except RecursionError:
        raise SchemaFlawError(f"it: {_TOO_DEEP}") from None
    return root, validator


class _Parts:
    """All parts of a schema, and what they refer to. Raises SchemaFlawError."""

    def __init__(self, root: _Part) -> None:
        self._found: dict[int, _Part] = {id(root.schema): root}
        self._named: dict[str, dict[str, Any]] = {"": root.schema}
        self._patterns = 0
        # Targets of references come last: they may lie where the standard expects no schema.
        new = [root]
        while new:
            new = list(self._targets(self._with_inner(new)))

    def refuse_endless(self) -> None:
        """Raise SchemaFlawError where parts apply to one value endlessly, or very often."""
        steps = _Steps(MAX_CHECKS, len(self._found))
        for part in self._found.values():
            try:
                steps.of(part, None)
            except SchemaFlawError as flaw:
                raise SchemaFlawError(f"{part.path or 'it'}: {flaw}") from None

    def _with_inner(self, pending: list[_Part]) -> list[_Part]:
        """Return parts with all that lie in them."""
        every: list[_Part] = []
        while pending:
            part = pending.pop()
            every.append(part)
            self._note_names(part)
            self._check(part)
            for keyword, key, schema in _inner(part.schema):
                place = f"[{key}]" if isinstance(key, int) else f".{key}" if key else ""
                inner = self._found.get(id(schema))
                if inner is None:
                    inner = _Part(f"{part.path}.{keyword}{place}".lstrip("."), schema, part.base)
                    self._found[id(schema)] = inner
                    pending.append(inner)
                if keyword in _APPLIED:
                    part.uses.append((_APPLIED[keyword], key, inner))
        return every

    def _note_names(self, part: _Part) -> None:
        schema = part.schema
        if isinstance(own := schema.get("$id"), str):
            try:
                part.base = urljoin(part.base, own).removesuffix("#")
            except ValueError as error:
                raise SchemaFlawError(f"it names an address that is none ({error})") from None
            self._named[part.base] = schema
        if isinstance(name := schema.get("$anchor"), str):
            self._named[f"{part.base}#{name}"] = schema

    def _check(self, part: _Part) -> None:
        """Raise SchemaFlawError for another dialect, and for patterns that cannot be used."""
        schema = part.schema
        dialect = schema.get("$schema", DIALECT)
        if isinstance(dialect, str) and dialect.removesuffix("#") != DIALECT:
            place = f"{part.path}.$schema".lstrip(".")
            raise SchemaFlawError(f"{place}: names {dialect!r}, but only {DIALECT} is known")
        for keyword in ("$dynamicRef", "$dynamicAnchor"):
            if keyword in schema:  # what it leads to may be in the standard, and from there back
                place = f"{part.path}.{keyword}".lstrip(".")
                raise SchemaFlawError(f"{place}: is not known here; refer to it by $ref")
        named = schema.get("patternProperties")
        found = [("patternProperties", one) for one in named] if isinstance(named, dict) else []
        if isinstance(pattern := schema.get("pattern"), str):
            found.append(("pattern", pattern))
        for keyword, one in found:
            place = f"{part.path}.{keyword}".lstrip(".")
            if why := pattern_problem(one):
                raise SchemaFlawError(f"{place}: {one!r} is not a regular expression: {why}")
            self._patterns += pattern_size(one)
            if self._patterns > MAX_PATTERNS:
                raise SchemaFlawError(f"{place}: its patterns are too large, all in all")

    def _targets(self, every: list[_Part]) -> Iterator[_Part]:
        """Attach what these parts refer to; yield what of that is new."""
        for part in every:
            if not isinstance(wanted := part.schema.get("$ref"), str):
                continue
            place = f"{part.path}.$ref".lstrip(".")
            try:
                base, target = self._target(part.base, wanted)
            except (LookupError, TypeError, ValueError):
                why = f"{place}: refers to {wanted!r}, which is not part of it"
                raise SchemaFlawError(why) from None
            if isinstance(target, dict):
                found = self._found.get(id(target))
                if found is None:
                    found = _Part(f"{place} ({wanted})", target, base)
                    self._found[id(target)] = found
                    yield found
                part.uses.append(("itself", "", found))
            elif not isinstance(target, bool):
                raise SchemaFlawError(f"{place}: refers to {wanted!r}, which is no schema")

    def _target(self, base: str, wanted: str) -> tuple[str, object]:
        """Return what a reference leads to, with the address of the schema that has it.

        Raises LookupError, TypeError or ValueError where it leads nowhere.
        """
        whole, _, fragment = (
            base + wanted if wanted[:1] == "#" else urljoin(base, wanted)
        ).partition("#")
        if whole.startswith(_OF_STANDARD):
            return whole, True
        if fragment and not fragment.startswith("/"):
            return whole, self._named[f"{whole}#{unquote(fragment)}"]
        found: Any = self._named[whole]
        for step in unquote(fragment).split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            found = found[int(name) if isinstance(found, list) else name]
        return whole, found


def _inner(schema: Mapping[str, Any]) -> Iterator[tuple[str, str | int, dict[str, Any]]]:
    """Yield the direct subschemas of a schema: keyword, name or number, schema."""
    for keyword, value in schema.items():
        if keyword in _SINGLE and isinstance(value, dict):
            yield keyword, "", value
        elif keyword in _ARRAYS and isinstance(value, list):
            yield from ((keyword, n, one) for n, one in enumerate(value) if isinstance(one, dict))
        elif keyword in _NAMED and isinstance(value, dict):
            yield from ((keyword, k, one) for k, one in value.items() if isinstance(one, dict))


def _of(value: object, what: _Applied, key: str | int) -> Iterable[object]:
    """Return what of a value a part within a part is applied to."""
    if what == "itself":
        return (value,)
    if isinstance(value, dict):
        if what == "key":
            return (value[key],) if key in value else ()
        return value if what == "names" else value.values() if what == "values" else ()
    if not isinstance(value, list):
        return ()
    if what == "key":
        return value[key : key + 1] if isinstance(key, int) else ()
    return value if what == "items" else ()


class _Steps:
    """Count how often parts are applied to a value, and to what is in it, at the most.

    ``most``: of these steps; ``pairs``: of different parts and values. Once for each pair, however
    often that comes: so it is counted in a time that is in sight.
    """

    def __init__(self, most: int, pairs: int) -> None:
        self._most = most
        self._pairs = pairs
        self._known: dict[tuple[int, int], int] = {}

    def of(self, part: _Part, value: object) -> int:
        """Return the number of steps; raise SchemaFlawError where there are too many."""
        key = id(part), id(value)
        if key in self._known:
            if not self._known[key]:
                raise SchemaFlawError("refers to itself without end")
            return self._known[key]
        self._known[key] = 0  # not known yet
        steps = 1
        for what, name, inner in part.uses:
            for one in _of(value, what, name):
                steps += self.of(inner, one)
        if steps > self._most or len(self._known) > self._pairs:
            raise SchemaFlawError(f"asks for more than {self._most} checks of a value of this size")
        self._known[key] = steps
        return steps


def _place(path: list[str | int]) -> str:
    """Return a place as ``.name[0]['other name']``."""
    place = ""
    for step in path:
        if isinstance(step, int):
            place += f"[{step}]"
        elif _PLAIN_NAME.fullmatch(step):
            place += f".{step}"
        else:
            escaped = step.replace("\\", "\\\\").replace("'", "\\'")
            place += f"['{escaped}']"
    return place


def _size(value: object) -> int:
    """Count the values within a value, itself included."""
    nodes: list[Any] = [value]
    for node in nodes:  # the loop appends to it
        if isinstance(node, dict):
            nodes.extend(node.values())
        elif isinstance(node, list):
            nodes.extend(node)
    return len(nodes)


MAX_LENGTH: Final = 10_000
"""Characters of a pattern: what is longer was not written by hand, and costs as much to compile."""
MAX_SIZE: Final = 20_000
"""Steps of a pattern, of which many are kept: ``(...){1000}`` is short and large."""
_MEMORY: Final = 1 << 20
"""Bytes that a compiled pattern may take."""
_WIDE: Final = 20
"""Steps of a class that many characters are of, at a guess."""

_TOKENS: Final = re.compile(
    r"(?P<wide>\\[pP](?:\{\w*\}|.)|\[\^(?:\\.|[^\]\\])*\]|\.)|\[(?:\\.|[^\]\\])*\]|\\."
    r"|(?P<open>\()|(?P<close>\))|\{(?P<least>\d{1,9})(?:,(?P<most>\d{0,9}))?\}|.",
    re.DOTALL,
)
_OTHERWISE: Final = (
    (re.compile(r"\\[<>]"), "'\\<' and '\\>' do not stand for themselves; leave the backslash out"),
    (re.compile(r"\(\?[a-zA-Z]*s"), "'(?s)' does nothing here; write [\\s\\S] for any character"),
    (re.compile(r"\[\[:"), "classes like [:alpha:] are not known; write a-z, or \\p{L}"),
)
"""What the engine takes for something else than most people who write it."""
_REPEATS: Final = re.compile(r"[*+?]|\{\d+(?:,\d*)?\}").fullmatch
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)


def pattern_options() -> RegexOptions:
    """Return what has the engine search in linear time, with patterns of limited size."""
    from jsonschema_rs import RegexOptions

    return RegexOptions(size_limit=_MEMORY)


@lru_cache(maxsize=256)  # a planner gives the same pattern to thousands of entries
def _compiled(pattern: str) -> Draft202012Validator:
    from jsonschema_rs import Draft202012Validator, ValidationError

    written = _ESCAPE.sub(lambda escape: r"\z" if escape[1] == "Z" else escape[0], pattern)
    try:
        return Draft202012Validator(
            {"pattern": written}, pattern_options=pattern_options(), offline=True
        )
    except ValidationError:
        raise ValueError("it cannot be read, or needs look-around or back-references") from None


def pattern_problem(pattern: str) -> str:
    """Say why this pattern cannot be searched for; "" if it can."""
    if why := _odd(pattern):
        return why
    try:
        _compiled(pattern)
    except ValueError as error:  # halves of surrogate pairs are one, too
        return str(error)
    return ""


def _odd(pattern: str) -> str:
    """Say why this pattern is too large to be compiled, or means something else; "" if neither."""
    if len(pattern) > MAX_LENGTH:
        return f"it has {len(pattern)} characters, more than {MAX_LENGTH}"
    if (size := pattern_size(pattern)) > MAX_SIZE:
        return f"it comes to some {size} steps, more than {MAX_SIZE}; have it repeat less"
    tokens = (token[0] for token in _TOKENS.finditer(pattern))
    if any(later == "+" and _REPEATS(before) for before, later in pairwise(tokens)):
        return "possessive quantifiers like 'a++' are not known; leave the second sign out"
    return next((why for form, why in _OTHERWISE if form.search(pattern)), "")


def pattern_size(pattern: str) -> int:
    """Return of about how many steps a pattern consists: what it repeats counts as often."""
    outer: list[int] = []
    size = last = 0
    for token in _TOKENS.finditer(pattern):
        if token["open"]:
            outer.append(size)
            size = last = 0
        elif token["close"]:
            last = size
            size += outer.pop() if outer else 0
        elif token["least"]:
            times = max(int(token["least"]), int(token["most"] or 0), 1)
            size += last * (times - 1)
            last *= times
        else:
            last = _WIDE if token["wide"] else 1
            size += last
    return size + sum(outer)


def found_in(pattern: str, text: str) -> bool:
    """Return whether the pattern matches somewhere in the text.

    Raises ValueError for a pattern that ``pattern_problem`` reports.
    """
    return _compiled(pattern).is_valid(whole_text(text))
