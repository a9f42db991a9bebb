"""Write the values of answers: each row once, with its provenance and its share of the price."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from loguru import logger
from pydantic import JsonValue

from tasks.filling.asking import Asker, Outcome
from tasks.filling.gaps import Gap
from tasks.filling.shares import Spent
from tasks.movie_bible.bible import BibleUnavailableError, MovieBible
from tasks.movie_bible.fields import FIELDS, values_digest
from tasks.movie_bible.records import NewAnnotation, ScannedPassage, Written
from tasks.text_model.base import Tier

Values = Mapping[str, JsonValue]
BLANK: Final[Values] = dict.fromkeys(FIELDS)


@dataclass(frozen=True, slots=True)
class Provenance:
    """Hold for whom rows are written; all None outside of a run."""

    run: str | None = None
    entry: str | None = None
    attempt: int | None = None


@dataclass(frozen=True, slots=True)
class Filled:
    """A row that was written, its share of what the call has cost, and what answered the call.

    ``tier`` is the one at which that was.
    """

    written: Written
    share: Spent
    answered_by: str | None
    tier: Tier | None


class RowWriter:
    """Writes rows for one execution of a batch. ``gaps`` and ``passages`` by passage id."""

    def __init__(
        self,
        bible: MovieBible,
        asker: Asker,
        provenance: Provenance,
        gaps: Mapping[str, Gap],
        passages: Mapping[str, ScannedPassage],
    ) -> None:
        self._bible = bible
        self._prompt, self._model = asker.prompt, asker.model
        self._provenance = provenance
        self._gaps = gaps
        self._passages = passages

    def write(
        self, values: Mapping[str, Values], outcome: Outcome, *, again: bool
    ) -> dict[str, Filled]:
        """Commit the values of some passages in one transaction; the call's cost is shared.

        ``again``: an earlier try was interrupted, and may have committed them already.
        """
        if not values:
            return {}
        parts = outcome.for_answer.share(len(values))
        shares = dict(zip(values, parts, strict=True))
        written = self._written_already(list(values)) if again else {}
        rows = [
            self.row(passage, found, shares[passage], outcome.answered_by, outcome.tier)
            for passage, found in values.items()
            if passage not in written
        ]
        if rows:
            written |= self._written(rows)
        return {
            passage: Filled(written[passage], share, outcome.answered_by, outcome.tier)
            for passage, share in shares.items()
        }

    def _written(self, rows: Sequence[NewAnnotation]) -> dict[str, Written]:
        """Write, and once more where the database was away for a moment: the rows are paid for."""
        try:
            return self._bible.write(rows)
        except BibleUnavailableError as error:
            logger.warning("rows are written a second time: {}", error)
            return self._bible.write(rows)

    def _written_already(self, ids: Sequence[str]) -> dict[str, Written]:
        """Return the rows that this very execution committed before its write reported an error."""
        version, whose = self._prompt.version, self._provenance
        history = self._bible.writings(ids, version)
        found: dict[str, Written] = {}
        for passage, row in self._bible.annotations(ids, version).items():
            before = self._passages[passage].current
            last = history[passage][-1] if passage in history else None
            mine = last is not None and Provenance(last.run, last.entry, last.attempt) == whose
            if mine and row.revision == (0 if before is None else before.revision) + 1:
                action: Literal["inserted", "updated"] = "updated" if before else "inserted"
                found[passage] = Written(action, row.revision, values_digest(row.values))
        return found

    def row(
        self,
        passage: str,
        values: Values,
        share: Spent,
        answered_by: str | None,
        tier: Tier | None,
    ) -> NewAnnotation:
        """Return the row of a passage, with its share of the price and what has answered."""
        outdated = BLANK if self._gaps[passage].renews else {}
        return NewAnnotation(
            passage_id=passage,
            prompt_version=self._prompt.version,
            values={**outdated, **values},
            prompt_digest=self._prompt.digest,
            text_digest=self._passages[passage].text_digest,
            provider=self._model.provider,
            model=self._model.name,
            answered_by=answered_by,
            service_tier=tier,
            run=self._provenance.run,
            entry=self._provenance.entry,
            attempt=self._provenance.attempt,
            tokens_in=share.tokens_in,
            tokens_out=share.tokens_out,
            tokens_cached=share.cached,
            cost_nanos=share.cost_nanos,
        )
