"""Grade a batch of rows as the database has them, and report it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from tasks.filling.report import usd
from tasks.judging.grades import Grading, Judge, Row, is_of_another_text
from tasks.judging.order import JudgeOrder
from tasks.judging.rubric import Rubric
from tasks.movie_bible.bible import MovieBible
from tasks.movie_bible.fields import values_digest

MESSAGE_LENGTH = 300


class JudgeUnfitError(Exception):
    """The judge took too many spoiled rows for good ones."""


@dataclass(frozen=True, slots=True)
class JudgeBatch:
    """A judge, the rubric that it was given, and the database whose rows it grades."""

    bible: MovieBible
    judge: Judge
    rubric: Rubric

    def run(
        self,
        rows: Mapping[str, str],
        order: JudgeOrder,
        *,
        seconds: float,
        progress: Callable[[Grading], None],
    ) -> Grading:
        """Grade the rows that are as they were planned: ``rows`` has the digest of each.

        The others are named as ungraded. Raises a ModelFailure that no call can overcome.
        """
        chosen, ungraded = self._rows(rows, order)
        found = Grading()
        if chosen:
            found = self.judge.grade(chosen, seconds=seconds, progress=progress)
        found.ungraded = {**ungraded, **found.ungraded}
        return found

    def _rows(
        self, rows: Mapping[str, str], order: JudgeOrder
    ) -> tuple[list[Row], dict[str, tuple[str, str]]]:
        stored = self.bible.scan_ids(list(rows), order.prompt)
        chosen: list[Row] = []
        ungraded: dict[str, tuple[str, str]] = {}
        for passage, digest in rows.items():
            there = stored.get(passage)
            if there is None:
                ungraded[passage] = "no_passage", "the database has no passage of this id"
            elif there.current is None:
                ungraded[passage] = "no_row", f"there is no row of {order.prompt}"
            elif values_digest(there.current.values) != digest:
                why = "its row is another one than when this was planned"
                ungraded[passage] = "changed_since_planned", why
            elif is_of_another_text(there):
                why = "its passage has another text than its row was made of"
                ungraded[passage] = "changed_since_planned", why
            else:
                values = there.current.values
                if order.control is not None:
                    values = order.control.values[passage]
                chosen.append(Row(passage, there.text, values, there.film))
        return chosen, ungraded

    def document(self, found: Grading) -> dict[str, JsonValue]:
        """Return the report as plain JSON; a cost of None is an unknown price."""
        answered_by: list[JsonValue] = [*sorted(found.answered_by)]
        return {
            "provider": self.judge.provider,
            "model": self.judge.name,
            "rubric": self.rubric.version,
            "rubric_digest": self.rubric.digest,
            "database": self.bible.identity,
            "cost": usd(found.spent.cost_nanos) if self.judge.has_price else None,
            "grades": {
                passage: {"grade": one.grade, "why": list(one.why)}
                for passage, one in found.grades.items()
            },
            "ungraded": [f"{passage}: {kind}" for passage, (kind, _) in found.ungraded.items()],
            "reasons": {p: message[:MESSAGE_LENGTH] for p, (_, message) in found.ungraded.items()},
            "tokens": {"in": found.spent.tokens_in, "out": found.spent.tokens_out},
            "unpriced": {"in": found.spent.unpriced_in, "out": found.spent.unpriced_out},
            "calls": found.calls,
            "unknown_bills": found.unknown_bills,
            "retries": found.retries,
            "failures": dict(sorted(found.failures.items())),
            "answered_by": answered_by,
        }


def refuse_unfit(found: Grading, order: JudgeOrder) -> None:
    """Raise JudgeUnfitError where too many of the spoiled rows of a control were graded well."""
    control = order.control
    if control is None:
        return
    missed = [one for one, given in found.grades.items() if given.grade >= control.bar]
    graded = len(found.grades)
    if graded and (graded - len(missed)) / graded < control.at_least:
        raise JudgeUnfitError(
            f"of {graded} rows that were spoiled on purpose {order.judge.name} graded "
            f"{len(missed)} {control.bar} or better, {', '.join(missed[:3])} among them, so its "
            "grades would say little and it is asked for nothing else; take another judge "
            "(GAP_FILL_JUDGE) or another rubric, or plan with controls=0"
        )
