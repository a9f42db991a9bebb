"""Load templates of prompts: files with a version, identified by their digest.

``movie-bible/1`` is ``movie-bible/1.md`` in the folder of its kind: the instructions, a line
``---``, and the prompt. A file that was used is not changed: another wording is a new version.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Final, Generic, TypeVar

from pytest_manifest.errors import ManifestToolError
from tasks.movie_bible.fields import MOODS
from tasks.text_model.base import estimate_tokens

DEFAULT_NAME: Final = "movie-bible"
DIVIDER: Final = "\n---\n"
VERSION: Final = re.compile(r"^(?P<name>[A-Za-z0-9_-]+)(?:/(?P<number>\d+))?$")
ALL_MOODS: Final = ", ".join(MOODS)


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """A template: ``version`` is its name and number, ``digest`` SHA-256 of the file's bytes."""

    version: str
    digest: str
    instructions: str
    body: str

    def filled_instructions(self) -> str:
        """Return the instructions with the moods that there are."""
        return Template(self.instructions).substitute(moods=ALL_MOODS)

    def filled_body(self, **values: str) -> str:
        """Return the prompt with these values."""
        return Template(self.body).substitute(values)

    def overhead_tokens(self) -> int:
        """Estimate the tokens of a call without what is put into its prompt."""
        return estimate_tokens(self.instructions) + estimate_tokens(ALL_MOODS)


Made = TypeVar("Made", bound=PromptTemplate)


@dataclass(frozen=True, slots=True)
class TemplateKind(Generic[Made]):
    """Templates of one kind, called ``name``, which are in a ``folder`` unless another is named.

    ``variable``: the setting that names one; that of the folder has an S at its end. The prompt may
    hold the ``placeholders``, and must hold the first of them.
    """

    name: str
    make: type[Made]
    folder: Path
    variable: str
    placeholders: tuple[str, ...]
    error: type[ManifestToolError]

    def load(self, version: str, folder: Path | None = None) -> Made:
        """Load the template ``NAME/NUMBER``, or the newest of ``NAME``; raise the kind's error."""
        place = folder or self.folder
        match = VERSION.match(version)
        if match is None:
            raise self.error(
                f"{self.name} {version!r}: write it as NAME/NUMBER, like {DEFAULT_NAME}/1"
            )
        name, number = match["name"], match["number"]
        known = sorted(int(p.stem) for p in (place / name).glob("*.md") if p.stem.isdigit())
        chosen = int(number) if number is not None else known[-1] if known else 0
        path = place / name / f"{chosen}.md"
        if chosen not in known or not path.is_file():
            there = ", ".join(f"{name}/{one}" for one in known) or "none of that name"
            raise self.error(
                f"{self.name} {version!r}: {place} has {there}; set {self.variable} to one that is "
                f"there, and {self.variable}S to the folder that it is in"
            )
        return self._parse(f"{name}/{chosen}", path)

    def refuse_another(self, template: Made, planned: str) -> None:
        """Raise the kind's error where a template is not the planned one, by its digest."""
        if template.digest != planned:
            raise self.error(
                f"the {self.name} {template.version} of this worker is not the one that was "
                f"planned (SHA-256 {template.digest[:12]}, planned {planned[:12]}); nothing was "
                f"asked: give a changed {self.name} a new number, and plan anew"
            )

    def _parse(self, version: str, path: Path) -> Made:
        content = path.read_bytes()
        try:
            instructions, divider, body = content.decode("utf-8").partition(DIVIDER)
        except UnicodeDecodeError as error:
            raise self.error(f"{path}: is not UTF-8 ({error}); save it as UTF-8") from None
        if not divider:
            raise self.error(f"{path}: has no line '---' between the instructions and the prompt")
        self._check_placeholders(path, instructions, ("moods",))
        self._check_placeholders(path, body, self.placeholders)
        if self.placeholders[0] not in _placeholders(body):
            raise self.error(f"{path}: the prompt below '---' must hold ${self.placeholders[0]}")
        digest = hashlib.sha256(content).hexdigest()
        return self.make(version, digest, instructions.strip(), body.strip())

    def _check_placeholders(self, path: Path, text: str, names: tuple[str, ...]) -> None:
        found = _placeholders(text)
        if None in found:
            raise self.error(f"{path}: a '$' that is no placeholder must be written as '$$'")
        unknown = {name for name in found if name} - set(names)
        if unknown:
            known = " and ".join(f"${name}" for name in sorted(names))
            raise self.error(f"{path}: ${min(unknown)} is not known there; use {known}")


def _placeholders(text: str) -> set[str | None]:
    """Return the names that a template's placeholders have; None: for a '$' that is none."""
    found = Template.pattern.finditer(text)
    return {one["named"] or one["braced"] for one in found if one["escaped"] is None}
