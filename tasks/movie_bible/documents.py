"""Define documents: a passage of a corpus, the facts of its film, and what people wrote of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pydantic import JsonValue
from typing_extensions import Self

from tasks.movie_bible.fields import field_fault, kind_of, list_fault, text_digest, text_fault

ID_LENGTH: Final = 150
"""The longest id of a document or film, in characters."""

KIND_LENGTH: Final = 50
LATEST_YEAR: Final = 9999


@dataclass(frozen=True, slots=True)
class FilmFacts:
    """The known facts of a film; None and an empty cast mean that it is not known.

    Raises ValueError, with a sentence, for what cannot be stored.
    """

    id: str
    title: str | None = None
    year: int | None = None
    director: str | None = None
    cast: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _refuse("film", id_fault(self.id))
        for name, text in (("title", self.title), ("director", self.director)):
            _refuse(name, None if text is None else text_fault(text))
        _refuse("year", None if self.year is None else _year_fault(self.year))
        _refuse("cast", list_fault(self.cast))

    @property
    def named(self) -> str:
        """Return title and year on one line, as a break could end the line they are put into.

        "" where the title is not known.
        """
        year = f" ({self.year})" if self.year else ""
        return f"{' '.join(self.title.split())}{year}" if self.title else ""

    def as_json(self) -> dict[str, JsonValue]:
        """Return the facts as plain JSON, without unknown ones."""
        facts: dict[str, JsonValue] = {
            "id": self.id,
            "title": self.title,
            "year": self.year,
            "director": self.director,
            "cast": list(self.cast) or None,
        }
        return {name: value for name, value in facts.items() if value is not None}

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Make the facts from the JSON of ``as_json``. Raises ValueError with a sentence."""
        known = _object(data, "film", ("id", "title", "year", "director", "cast"))
        if "id" not in known:
            raise ValueError("film needs an id")
        cast = known.pop("cast", [])
        _refuse("cast", list_fault(cast))
        return cls(**known, cast=tuple(cast))  # type: ignore[arg-type]  # judged by __post_init__


@dataclass(frozen=True, slots=True)
class Document:
    """One passage: its text, its film, and the fields that people filled in (``given``).

    ``id`` has 1 to 150 printable characters. Raises ValueError, with a sentence, for what cannot
    be stored: a blank text, a field of another type, a NUL character.
    """

    id: str
    text: str
    kind: str = "note"
    film: FilmFacts | None = None
    given: Mapping[str, JsonValue] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _refuse("id", id_fault(self.id))
        _refuse("text", text_fault(self.text))
        _refuse("kind", text_fault(self.kind) or _length_fault(self.kind, KIND_LENGTH))
        for name, value in self.given.items():
            _refuse(name, field_fault(name, value))

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the text, in hexadecimal."""
        return text_digest(self.text)

    def as_json(self) -> dict[str, JsonValue]:
        """Return plain JSON for a manifest's entry; ``from_json`` gives an equal document back."""
        data: dict[str, JsonValue] = {"id": self.id, "text": self.text, "kind": self.kind}
        if self.film is not None:
            data["film"] = self.film.as_json()
        if self.given:
            data["given"] = dict(self.given)
        return data

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Make the document from the JSON of ``as_json``. Raises ValueError with a sentence."""
        known = _object(data, "a document", ("id", "text", "kind", "film", "given"))
        for name in ("id", "text"):
            if name not in known:
                raise ValueError(f"a document needs {name!r}; it has {', '.join(known) or 'none'}")
        film, given = known.pop("film", None), known.pop("given", {})
        if not isinstance(given, Mapping):
            raise ValueError(f"given must be an object, not {kind_of(given)}")  # noqa: TRY004
        facts = None if film is None else FilmFacts.from_json(film)
        return cls(**known, film=facts, given=given)  # type: ignore[arg-type]  # judged there too


def id_fault(value: object) -> str | None:
    """Say what keeps ``value`` from being an id, or return None."""
    fault = text_fault(value)
    if fault is not None or not isinstance(value, str):
        return fault
    if not value.isprintable():
        return f"holds a character that cannot be printed ({value!r:.80})"
    if value != value.strip():
        return f"begins or ends with a space ({value!r:.80})"
    return _length_fault(value, ID_LENGTH)


def _length_fault(value: str, most: int) -> str | None:
    if len(value) <= most:
        return None
    return f"has {len(value)} characters ({value!r:.40}...); {most} is the most"


def _year_fault(value: object) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return f"must be a whole number, not {kind_of(value)}"
    return None if 1 <= value <= LATEST_YEAR else f"must be from 1 to {LATEST_YEAR}, not {value}"


def _refuse(name: str, fault: str | None) -> None:
    if fault is not None:
        raise ValueError(f"{name} {fault}")


def _object(data: object, what: str, names: tuple[str, ...]) -> dict[str, object]:
    if not isinstance(data, Mapping):
        raise ValueError(f"{what} must be an object, not {kind_of(data)}")  # noqa: TRY004
    unknown = [str(name) for name in data if name not in names]
    if unknown:
        raise ValueError(f"{what} has no {unknown[0]!r:.80}; it may have {', '.join(names)}")
    return dict(data)
