"""Know which failures a project has accepted, until when, and what an approved run had passed.

A failure that is accepted is one that a person knows: the job ended once, badly, in a known way.
What ran twice, was forged, or has no known end is never accepted, nor what failed in a further way.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, datetime, timezone
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final, TypeAlias

from pydantic import ValidationError

from pytest_manifest.analysis.causes import sign_and_message, title_of
from pytest_manifest.errors import DispositionError
from pytest_manifest.process_state import ProcessState
from pytest_manifest.schema import Entry, Receipt, Verdict
from pytest_manifest.schema.baseline import Baseline
from pytest_manifest.schema.run_digest import DigestIds, work_of
from pytest_manifest.schema.statuses import ACCEPTABLE
from pytest_manifest.text import one_line

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE: Final = "dispositions.toml"
_TABLE: Final = re.compile(r"\s*\[\[\s*accept\s*\]\]")
_FIELDS: Final = ("entry", "cause", "manifest", "reason", "issue", "until")
_LIKE: Final = 'write it like\n[[accept]]\nentry = "card-17"\nreason = "..."\nuntil = 2027-01-31'
_TOO_OFTEN: Final = re.compile(r"(descendant\.)?executions")
"""The mismatch of a job that ran more often than it may."""


@dataclass(frozen=True, slots=True)
class Disposition:
    """A known failure: of entries, or by a cause, or both; patterns with ``*`` and ``?``.

    ``line``: where it stands in the file. It holds up to the end of the day ``until`` (UTC).
    """

    line: int
    reason: str
    until: date
    entry: str = ""
    cause: str = ""
    manifest: str = ""
    issue: str = ""

    @property
    def place(self) -> str:
        return f"{FILE}:{self.line}" if self.line else FILE

    @property
    def said(self) -> str:
        """Return reason, day and issue in a phrase."""
        issue = f", {self.issue}" if self.issue else ""
        return f"accepted until {self.until} ({self.place}{issue}): {self.reason}"

    def is_about(self, manifest: Path, entry: str) -> bool:
        """Return whether it is about an entry, if that fails by its cause."""
        return _fits(self.entry, entry) and _fits(self.manifest, manifest.name)

    def covers(self, title: str) -> bool:
        """Return whether a cause, in a line, is one that it is about."""
        return _fits(self.cause, title)


def _fits(pattern: str, text: str) -> bool:
    return pattern in ("", text) or fnmatchcase(text, pattern)


@dataclass(frozen=True, slots=True)
class Accepted:
    """A failure that somebody knows. ``is_over``: it is accepted no longer, so it fails.

    ``by``: whose; None: an approved baseline had not passed it, either.
    """

    text: str
    by: Disposition | None = None
    is_over: bool = False

    @property
    def sentence(self) -> str:
        return f"{self.text[:1].upper()}{self.text[1:].rstrip('.')}."


Judge: TypeAlias = Callable[[Entry, Verdict, "Receipt | None"], "Accepted | None"]


@dataclass(eq=False)
class Acceptance:
    """The failures that are accepted in this session. ``today``: by which days are over (UTC)."""

    dispositions: Sequence[Disposition] = ()
    today: date = field(default_factory=lambda: datetime.now(timezone.utc).date())
    _baselines: dict[Path, Baseline] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        return not (self.dispositions or self._baselines)

    def of_manifest(self, manifest: Path) -> Judge | None:
        """Return what says of a failure whether it is accepted; None where none can be."""
        baseline = self._baselines.get(manifest)
        if not self.dispositions and baseline is None:
            return None

        def accepted(entry: Entry, verdict: Verdict, receipt: Receipt | None) -> Accepted | None:
            return self._of(manifest, baseline, entry, verdict, receipt)

        return accepted

    def begin(
        self, dispositions: Sequence[Disposition] = (), today: date | None = None
    ) -> Acceptance:
        """Accept these from here on, and nothing else; return itself."""
        self.dispositions, self.today = dispositions, today or self.today
        self._baselines.clear()
        return self

    def load_baseline(self, manifest: Path) -> None:
        """Accept what the approved baseline of a manifest had not passed.

        Raises DispositionError where that cannot be read.
        """
        self._baselines[manifest] = read_baseline(manifest)

    def _of(
        self,
        manifest: Path,
        baseline: Baseline | None,
        entry: Entry,
        verdict: Verdict,
        receipt: Receipt | None,
    ) -> Accepted | None:
        if not may_be_accepted(verdict):
            return None
        titles = list(titles_of(verdict, receipt))
        about = [one for one in self.dispositions if one.is_about(manifest, entry.id)]
        now = [one for one in about if one.until >= self.today]
        if titles and all(any(one.covers(title) for one in now) for title in titles):
            by = next(one for one in now if one.covers(titles[0]))
            return Accepted(by.said, by)
        if baseline is not None and not had_passed(baseline, entry):
            known = entry.id in baseline.not_passed
            why = "had not passed it" if known else "did not have it"
            return Accepted(f"no new failure: the approved run {baseline.run} {why}")
        for one in about:
            if one.until < self.today and titles and one.covers(titles[0]):
                return Accepted(f"{one.said}; that is over", one, is_over=True)
        return None

    def as_json(self) -> str:
        """Return it as a text, for the other processes of a session."""
        rows = [{**asdict(one), "until": str(one.until)} for one in self.dispositions]
        return json.dumps([rows, str(self.today)])

    def begin_by(self, text: str) -> Acceptance:
        """Accept what another process has given as :meth:`as_json`; return itself."""
        rows, today = json.loads(text)
        made = [Disposition(**{**one, "until": date.fromisoformat(one["until"])}) for one in rows]
        return self.begin(made, date.fromisoformat(today))


ACCEPTANCE: Final = ProcessState(Acceptance)
"""What this process accepts: nothing, until a session or a command has read it."""


def may_be_accepted(verdict: Verdict) -> bool:
    """Return whether a verdict is a failure that somebody can know: one end, and no doubt."""
    too_often = any(_TOO_OFTEN.fullmatch(one.path) for one in verdict.mismatches)
    return verdict.verdict in ACCEPTABLE and not too_often


def titles_of(verdict: Verdict, receipt: Receipt | None) -> Iterator[str]:
    """Yield each cause of a failure, in the lines by which reports group them: all must be known.

    What a job raised is the cause of its state; a further mismatch is one of its own.
    """
    found = sign_and_message(verdict, receipt)
    if found is None:
        return
    (key, _), _ = found
    yield title_of(key, verdict)
    explained = "state" if key[1] is not None else key[3]
    for number, one in enumerate(verdict.mismatches):
        if one.path != explained and (number or key[1] is not None):
            alone = verdict.model_copy(update={"mismatches": [one]})
            further = sign_and_message(alone, None)
            if further is not None:
                yield title_of(further[0][0], alone)


# The file


def read_dispositions(folder: Path) -> tuple[Disposition, ...]:
    """Return what ``dispositions.toml`` of a folder has; nothing where there is no such file.

    Raises DispositionError with all that is wrong in it.
    """
    path = folder / FILE
    try:
        text = path.read_text(encoding="utf-8")
        document = tomllib.loads(text)
    except FileNotFoundError:
        return ()
    except (OSError, ValueError) as error:
        raise DispositionError(
            f"{path}: cannot be read: {one_line(str(error))}; {_LIKE}"
        ) from error
    lines = [n for n, line in enumerate(text.split("\n"), 1) if _TABLE.match(line)]
    tables = document.pop("accept", [])
    if document or not isinstance(tables, list):
        names = ", ".join(map(repr, document)) or "'accept'"
        raise DispositionError(f"{path}: it has {names}, which is no [[accept]]; {_LIKE}")
    lines += [0] * (len(tables) - len(lines))
    made, faults = [], []
    for line, table in zip(lines, tables, strict=False):
        fault = _fault(table)
        if fault is None:
            made.append(Disposition(line, **table))
        else:
            faults.append(f"{path}:{line}: {fault}")
    if faults:
        raise DispositionError("\n".join(faults))
    return tuple(made)


def _fault(table: object) -> str | None:
    """Return what is wrong with a table, None where nothing is."""
    if not isinstance(table, Mapping):
        return f"it is no table; {_LIKE}"
    for name, value in table.items():
        if name not in _FIELDS:
            return f"there is no {name!r}; it has {', '.join(_FIELDS)}"
        if name != "until" and (not isinstance(value, str) or not value.strip()):
            return f"{name} is {value!r}; write a text"
    if not {"entry", "cause"} & table.keys():
        return "it says nothing of which failure; add entry or cause, or both"
    for name in ("entry", "cause"):
        if name in table and not re.search(r"\w", table[name]):
            return f"{name} = {table[name]!r} would accept everything; name what is known"
    until = table.get("until")
    if "reason" not in table:
        return "it has no reason; say why this is accepted"
    if not isinstance(until, date) or isinstance(until, datetime):
        return "it has no day until which it is accepted; add until = 2027-01-31, without quotes"
    return None


def disposition_text(one: Disposition) -> str:
    """Return a disposition as the file has it."""
    rows = [(name, getattr(one, name)) for name in _FIELDS]
    said = (
        f"{name} = {value if name == 'until' else json.dumps(value, ensure_ascii=False)}\n"
        for name, value in rows
        if value
    )
    return f"[[accept]]\n{''.join(said)}"


# Baselines


def baseline_file(manifest: Path) -> Path:
    """Return where the approved baseline of a manifest lies: of n.jsonl and n.yaml two files."""
    name = manifest.stem if manifest.suffix == ".jsonl" else manifest.name
    return manifest.with_name(f"{name}.baseline.json")


def read_baseline(manifest: Path) -> Baseline:
    """Return the baseline of a manifest. Raises DispositionError where there is none."""
    path = baseline_file(manifest)
    try:
        found = Baseline.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise DispositionError(
            f"{path}: there is no approved baseline to tell new failures from; approve a run: "
            "manifest triage approve RUN"
        ) from error
    except (OSError, ValidationError) as error:
        raise DispositionError(
            f"{path}: is no baseline that can be read; approve a run again: "
            "manifest triage approve RUN"
        ) from error
    if found.manifest != manifest.name:
        raise DispositionError(
            f"{path}: is the baseline of {found.manifest}, and not of {manifest.name}, of which "
            "it says nothing; approve a run of that: manifest triage approve RUN"
        )
    return found


def had_passed(baseline: Baseline, entry: Entry) -> bool:
    """Return whether the baseline had passed an entry, by its id or, renamed, by its work.

    Of a hundred that it did not have it seems to have passed two: these fail, which is no harm.
    """
    if entry.id in baseline.not_passed:
        return False
    return entry.id in baseline.passed_ids or work_of(entry) in baseline.passed_works


def baseline_of(
    manifest: str, run: str, created_at: datetime, entries: Iterable[tuple[Entry, bool]], by: str
) -> Baseline:
    """Return the baseline of a run, by its entries and whether each has passed.

    ``manifest``: the name of its file.
    """
    ids, works, others = list[str](), list[str](), list[str]()
    for entry, passed in entries:
        if passed:
            ids.append(entry.id)
            works.append(work_of(entry))
        else:
            others.append(entry.id)
    return Baseline(
        manifest=manifest,
        run=run,
        created_at=created_at,
        approved_at=datetime.now(timezone.utc),
        approved_by=by,
        entries=len(ids) + len(others),
        not_passed=sorted(others),
        passed_ids=DigestIds.of(ids),
        passed_works=DigestIds.of(works),
    )
