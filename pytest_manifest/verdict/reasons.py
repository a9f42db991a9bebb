"""Give a verdict its reason: a code with fields, from which the sentence for people is made.

A ledger keeps code and fields, and nothing reads a sentence. Fields hold no secrets, as these are
hidden when they are made. The codes are in ``verdict.problems``, of jobs without a receipt, and in
``verdict.messages``, of receipts and of trees.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence, Set
from inspect import get_annotations
from string import Formatter
from typing import ClassVar, Final

from typing_extensions import Self, dataclass_transform

from pytest_manifest.schema import Entry, Mismatch, Verdict, VerdictStatus
from pytest_manifest.schema.facts import value
from pytest_manifest.schema.shown import secrets_of, shown_text
from pytest_manifest.schema.statuses import STATUSES
from pytest_manifest.text import duration, plural, printable, seconds

_PLAIN: Final = str, int, float
_REQUIRED: Final = object()
_NOT_BY_ITSELF = "this entry expects this end, and it is not known that the job ended so by itself"
_WORD_STARTS: Final = re.compile(r"(?<=.)(?=[A-Z])")
_OPTIONAL: Final = re.compile(r"\[([^][]*)\]")
_NAMED: Final = re.compile(r"\{(\w+)")


RULES: Final[Mapping[str, str]] = {
    "B": "what was never sent, verdict/judge.py",
    "C": "which reports count, verdict/belief.py",
    "E": "what an entry expects of it, verdict/expectations.py",
    "F": "what is inferred where there is no end, verdict/inference.py",
    "J": "the tasks that it started, verdict/tree.py",
    "K": "the pass of an earlier run, verdict/case.py",
    "L": "other work in the manifest, verdict/judge.py",
}
"""The judge's rules by the letters that its modules name them by, each with where it stands."""


class _Words(Formatter):
    """Format fields for people: ``{n:#worker}`` a count, ``{s:time}`` seconds, tuples as lists."""

    def format_field(self, value: object, format_spec: str) -> str:
        if isinstance(value, int | float) and format_spec.startswith("#"):
            return plural(int(value), format_spec[1:])
        if isinstance(value, int | float) and format_spec == "time":
            return duration(value)
        if isinstance(value, tuple):
            return (format_spec or ", ").join(map(repr, value))
        return format(printable(value) if isinstance(value, str) else value, format_spec)


_WORDS: Final = _Words()


def worded(template: str, values: Mapping[str, object]) -> str:
    """Fill a template; what stands in ``[...]`` is left out where a field in it is empty."""

    def part(found: re.Match[str]) -> str:
        return found[1] if all(values[name] for name in _NAMED.findall(found[1])) else ""

    return _WORDS.vformat(_OPTIONAL.sub(part, template), (), values)


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Reason:
    """Base of all reasons: a subclass is a code, and its annotated attributes are the fields.

    ``rule``: which of :data:`RULES` it is a finding by.
    """

    code: ClassVar[str] = ""
    rule: ClassVar[str] = "E"
    by_code: ClassVar[dict[str, type[Reason]]] = {}
    _defaults: ClassVar[dict[str, object]] = {}
    _needed: ClassVar[Set[str]] = frozenset()

    # Dataclasses are not used, as making a hundred of them would cost each start of pytest 60 ms.
    def __init_subclass__(cls) -> None:
        own = (name for name, kind in get_annotations(cls).items() if "ClassVar" not in str(kind))
        cls._defaults = {**cls._defaults, **{name: vars(cls).get(name, _REQUIRED) for name in own}}
        cls._needed = {name for name, value in cls._defaults.items() if value is _REQUIRED}
        cls.code = _WORD_STARTS.sub("_", cls.__name__).lower()
        cls.by_code[cls.code] = cls

    def __init__(self, **given: object) -> None:
        values = self._defaults | given
        if len(values) > len(self._defaults) or not given.keys() >= self._needed:
            raise TypeError(f"{self.code} has the fields {', '.join(self._defaults)}: {given}")
        vars(self).update(values)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"the field {name!r} of a reason is never changed")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash((self.code, *vars(self).values()))

    def __repr__(self) -> str:
        return f"{self.code}({', '.join(f'{name}={one!r}' for name, one in vars(self).items())})"

    def having(self, **changes: object) -> Self:
        """Return it with other values of these fields."""
        return type(self)(**{**vars(self), **changes})

    @property
    def cause(self) -> Reason:
        """Return the reason that this one rests on: that of a descendant, or of another run."""
        return self

    def parts(self, status: VerdictStatus) -> tuple[str, str]:
        """Return what happened, and what to do; "" where nothing is."""
        raise NotImplementedError

    def with_tree(self, descendants: int, did: str) -> Self:
        """Return it with what all tasks of the job's tree did, where it is of one that passed."""
        passes = "did" in self._defaults
        return self.having(descendants=descendants, did=did) if passes else self

    def sentence(self, status: VerdictStatus) -> str:
        what, then = self.parts(status)
        return f"{what}; {then}." if then else what

    def advice(self, status: VerdictStatus) -> str:
        """Return what to do; "" where nothing is."""
        return self.parts(status)[1]

    def document(self) -> dict[str, object]:
        """Return code and fields as a ledger keeps them, without what is as by default."""
        told: dict[str, object] = {"code": self.code}
        given = vars(self)
        for name, default in self._defaults.items():
            if (value := given[name]) != default:
                told[name] = value if isinstance(value, _PLAIN) else _plain(value)
        return told

    def mapped(self, change: Callable[[str], str]) -> Self:
        """Return it with all texts of its fields changed, as where secrets are hidden."""
        return self.having(**{name: _mapped(one, change) for name, one in vars(self).items()})

    def hidden(self, entry: Entry) -> Self:
        """Return it without secrets."""
        secrets = secrets_of(entry)
        return self.mapped(lambda text: shown_text(text, secrets))


def _mapped(value: object, change: Callable[[str], str]) -> object:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, tuple):
        return tuple(_mapped(one, change) for one in value)
    return value.mapped(change) if isinstance(value, Reason) else value


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return value.document() if isinstance(value, Reason) else value


def read_reason(document: Mapping[str, object]) -> Reason:
    """Return a reason as a ledger keeps it. Raises ValueError for what is none."""
    given = {name: _read(value) for name, value in document.items() if name != "code"}
    try:
        return Reason.by_code[str(document["code"])](**given)
    except (KeyError, TypeError) as error:
        raise ValueError(f"no reason of a verdict: {document!r}") from error


def _read(value: object) -> object:
    if isinstance(value, dict):
        return read_reason(value)
    return tuple(map(_read, value)) if isinstance(value, list) else value


@value
class Finding:
    """A status with its reason, and what was not as expected."""

    status: VerdictStatus
    reason: Reason
    mismatches: Sequence[Mismatch] = ()


def verdict_of(entry: str, attempt: int | None, status: VerdictStatus, reason: Reason) -> Verdict:
    """Return a verdict with its reason."""
    return verdict_by(entry, attempt, Finding(status, reason))


def verdict_by(entry: str, attempt: int | None, found: Finding) -> Verdict:
    """Return what was found as a verdict, with the sentence that follows from it."""
    return Verdict(
        verdict=found.status,
        entry=entry,
        attempt=attempt,
        sentence=found.reason.sentence(found.status),
        reason=found.reason.document(),
        mismatches=list(found.mismatches),
    )


def verdict_without_receipt(
    entry: Entry, attempt: int | None, status: VerdictStatus, why: Problem
) -> Verdict:
    """Return the verdict on an entry of which no receipt counts; None: it was never sent."""
    return verdict_of(entry.id, attempt, status, why.of(entry, status))


def reason_of(verdict: Verdict) -> Reason:
    """Return a verdict's reason; of a verdict of another version, which has none, its sentence."""
    try:
        return read_reason(verdict.reason or {})
    except ValueError:
        return Said(text=verdict.sentence)


def in_brackets(phrase: str) -> str:
    phrase = phrase.strip().rstrip(".")
    return f" ({phrase})" if phrase else ""


class Said(Reason):
    """The sentence of a verdict without a reason that is known here."""

    text: str

    def sentence(self, status: VerdictStatus) -> str:  # noqa: ARG002 - whichever it is
        return self.text

    def advice(self, status: VerdictStatus) -> str:  # noqa: ARG002 - it is not known
        return ""


class Problem(Reason):
    """Base of the reasons of jobs without a receipt, and the reason where no more is known.

    ``says``: a phrase; ``what`` and ``then``: where they are other than the status's. ``task``,
    ``timeout`` and ``expected`` (the entry expects this status, and it is not known that the job
    came to it by itself) are what the sentence takes of the entry; :meth:`of` sets them.
    """

    rule: ClassVar[str] = "F"
    says: ClassVar[str] = ""
    what: ClassVar[str] = ""
    then: ClassVar[str] = ""
    task: str = ""
    timeout: float = 0.0
    expected: bool = False

    def of(self, entry: Entry, status: VerdictStatus) -> Self:
        """Return it without secrets, and with what its sentence takes of the entry that came to
        this status."""
        expected = status == entry.expect.state and entry.expect.error is None
        task = entry.task if status == "unknown_task" else ""
        timeout = entry.timeout if status == "timed_out" else 0.0
        return self.hidden(entry).having(task=task, timeout=timeout, expected=expected)

    def phrase(self) -> str:
        """Return what is known, as a part of a sentence; "" where nothing is."""
        return worded(self.says, vars(self))

    def parts(self, status: VerdictStatus) -> tuple[str, str]:
        known = STATUSES[status]
        what, then = self.what or known.what, self.then or known.then
        if self.expected:
            then = f"{_NOT_BY_ITSELF}, so {then}"
        of_entry = {"task": repr(self.task), "timeout": seconds(self.timeout)}
        return f"{what.format_map(of_entry)}{in_brackets(self.phrase())}", then


UNEXPLAINED: Final = Problem()
