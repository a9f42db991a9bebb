"""Read from receipts what judges report of rows, and hold it against the database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict

from pytest_manifest.manifest import Manifest
from pytest_manifest.schema import Entry, Receipt
from tasks.judging.grades import GradeNumber, is_of_another_text
from tasks.judging.order import JudgeOrder, read_judge_order
from tasks.movie_bible.bible import MovieBible
from tasks.movie_bible.fields import values_digest
from workflows.gap_fill.judging import KINDS


class GradeAccount(BaseModel):
    """A grade, and why it is no better."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    grade: GradeNumber
    why: list[str]


class JudgeReport(BaseModel):
    """The parts of a judge's result that are verified."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    provider: str
    model: str
    rubric: str
    rubric_digest: str
    database: str
    grades: dict[str, GradeAccount]


@dataclass(slots=True)
class GradedRow:
    """A row with the grades that it got; ``grades`` by judge, 0 for the first and 1 for the second.

    ``digest`` is that of the values that were graded.
    """

    passage: str
    prompt: str
    digest: str
    grades: dict[int, GradeAccount] = field(default_factory=dict)

    @property
    def worst(self) -> tuple[int, float, str]:
        """Return what rows are sorted by, the worst first."""
        numbers = [one.grade for one in self.grades.values()]
        return min(numbers), sum(numbers) / len(numbers), self.passage


@dataclass(slots=True)
class Grades:
    """The grades of a run; ``population``: of how many rows these were drawn.

    ``judges`` has the name of each judge.
    """

    rows: dict[tuple[str, str], GradedRow] = field(default_factory=dict)
    judges: dict[int, str] = field(default_factory=dict)
    databases: set[str] = field(default_factory=set)
    population: int = 0

    def numbers(self, judge: int) -> list[int]:
        """Return the grades that one judge gave."""
        return [one.grades[judge].grade for one in self.rows.values() if judge in one.grades]

    def pairs(self) -> list[tuple[int, int]]:
        """Return both grades of each row that both judges have graded."""
        return [
            (one.grades[0].grade, one.grades[1].grade)
            for one in self.rows.values()
            if len(one.grades) == len(KINDS)
        ]

    def add(self, entry: Entry, report: JudgeReport) -> None:
        """Take in the report of an entry that has graded rows."""
        digests, order = order_of_judge(entry)
        judge = judge_of(entry)
        self.judges[judge] = report.model
        self.databases.add(report.database)
        population = entry.meta.get("population")
        if isinstance(population, int):
            self.population = max(self.population, population)
        for passage, grade in report.grades.items():
            if passage in digests:
                made = GradedRow(passage, order.prompt, digests[passage])
                row = self.rows.setdefault((order.prompt, passage), made)
                row.grades[judge] = grade


def judge_of(entry: Entry) -> int:
    """Return 0 for an entry of the first judge, 1 for one of the second."""
    return int(KINDS[1] in entry.tags)


def order_of_judge(entry: Entry) -> tuple[dict[str, str], JudgeOrder]:
    """Read an entry's order as the task does. Raises BadOrderError where it grades nothing."""
    return read_judge_order(entry.kwargs.get("rows"), entry.kwargs.get("data"))


def report_of(receipt: Receipt | None) -> JudgeReport | None:
    """Return what a judge reports; None where it did not come to an end."""
    if receipt is None or receipt.state != "succeeded":
        return None
    return JudgeReport.model_validate(receipt.result)


def grades_of(manifest: Manifest, receipts: Iterable[Receipt]) -> Grades:
    """Collect the grades of a run. Controls are no rows, and are left out."""
    found = Grades()
    for receipt in receipts:
        entry = manifest[receipt.entry]
        if "judge" in entry.tags and (report := report_of(receipt)) is not None:
            found.add(entry, report)
    return found


def faults_of_grades(entry: Entry, report: JudgeReport, bible: MovieBible) -> list[str]:
    """Check that an entry's rows have their grades, and are what was graded.

    Returns one sentence for each fault.
    """
    digests, order = order_of_judge(entry)
    stored = bible.scan_ids(list(digests), order.prompt)
    faults = _strange_judge(order, report)
    for passage, digest in digests.items():
        there = stored.get(passage)
        if passage not in report.grades:
            faults.append(f"{passage}: has no grade")
        elif there is None or there.current is None:
            faults.append(f"{passage}: its row is gone since it was graded")
        elif values_digest(there.current.values) != digest:
            faults.append(f"{passage}: its row was changed since it was graded")
        elif is_of_another_text(there):
            faults.append(f"{passage}: its text was changed since its row was graded")
    faults += [
        f"{one}: was graded and not asked for" for one in report.grades if one not in digests
    ]
    return faults


def _strange_judge(order: JudgeOrder, report: JudgeReport) -> list[str]:
    expected: Mapping[str, str] = {
        "provider": order.judge.provider,
        "model": order.judge.name,
        "rubric": order.rubric,
        "rubric_digest": order.rubric_digest,
    }
    return [
        f"{name} is {getattr(report, name)!r}, and {value!r} was expected"
        for name, value in expected.items()
        if getattr(report, name) != value
    ]
