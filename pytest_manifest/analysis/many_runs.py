"""Tell from the digests of many runs what broke when, what is flaky, slows down, or grows."""

from __future__ import annotations

import base64
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from statistics import geometric_mean, median
from typing import Final

from pytest_manifest.analysis.comparison import NOTICEABLE, rank_sum_chance
from pytest_manifest.schema import over_time as schema
from pytest_manifest.schema.run_digest import (
    DigestEntry,
    DigestIds,
    DigestTask,
    DigestWorker,
    RunDigest,
    places,
)
from pytest_manifest.schema.statuses import BAD, outcome_of
from pytest_manifest.text import listed, plural, printable, rate_text

MOST_RUNS: Final = 100
"""Runs of a manifest that a history has at most, the newest."""
WINDOW: Final = 40
"""Runs in which a slowdown is looked for."""
LATER: Final = 3
"""Slower runs from which a slowdown is told."""
CHANCE: Final = 0.05
"""How likely the order of a history's medians may be by chance, over all of its tasks: with the
least factor false alarms are rarer by far, see docs/how-to/history.md."""
FACTOR: Final = 1.15
"""How many times as long a task that has slowed down takes at least."""
SPREADS: Final = 3.5
"""Standard deviations of its mean by which the later runs must be slower, besides."""
_ENOUGH_TASKS: Final = 5
"""Tasks from which it is known how slow a run was as a whole, and theirs are held against that."""
_DEVIATIONS: Final = 1.4826
"""Standard deviations in a median distance from the median, of values that vary normally."""
CHANGES: Final = 3
"""Changes between red and green that make an entry flaky."""
INCIDENT: Final = 0.5
"""Share of its entries that is red in a run which says nothing about single ones."""
_FEW: Final = 10
"""Entries below which no run is an incident."""
_GROWTH: Final = 32 << 20
_GROWN: Final = 0.2
"""Bytes, and the share of what it had, that a process grows at least after its first jobs."""
_RECENT: Final = 3
"""Last runs of a worker, of which two show that it grows."""
_EXAMPLES: Final = 10
_places: Final = lru_cache(maxsize=100_000)(places)
_KINDS: Final[Sequence[schema.EntryKind]] = ("broken", "flaky", "one bad run", "mended")


def by_manifest(digests: Iterable[RunDigest], most: int = MOST_RUNS) -> list[list[RunDigest]]:
    """Return the newest runs of each manifest, of digests that are oldest first; at least one each.

    The manifest that ran last comes first.
    """
    found: dict[str, list[RunDigest]] = {}
    for one in digests:
        found[one.manifest] = [*found.pop(one.manifest, []), one]
    return [runs[-most:] for runs in reversed(found.values())]


def over_time(manifests: Iterable[Sequence[RunDigest]]) -> schema.RunsOverTime:
    """Return the history of each manifest, of its runs' digests, oldest first."""
    return schema.RunsOverTime(
        history=1, manifests=[_Runs(digests).document() for digests in manifests]
    )


class _Names:
    """A digest's filter of names, of which many are looked up."""

    def __init__(self, found: DigestIds) -> None:
        self._bits, self._hashes = base64.b64decode(found.bits), found.hashes

    def __contains__(self, name: str) -> bool:
        at = _places(name, len(self._bits), self._hashes)
        return all(self._bits[n >> 3] & 1 << (n & 7) for n in at)


@dataclass
class _Run:
    """A run with what is looked up in it often."""

    n: int
    digest: RunDigest
    ids: _Names = field(init=False)
    works: _Names | None = field(init=False)
    entries: dict[str, DigestEntry] = field(init=False)
    listed_works: set[str] = field(init=False)
    tasks: dict[str, DigestTask] = field(init=False)

    def __post_init__(self) -> None:
        self.ids = _Names(self.digest.ids)
        self.works = None if self.digest.works is None else _Names(self.digest.works)
        self.entries = {one.id: one for one in self.digest.listed}
        self.listed_works = {one.work for one in self.digest.listed}
        self.tasks = {one.task: one for one in self.digest.tasks}

    @property
    def is_incident(self) -> bool:
        digest = self.digest
        return digest.entries >= _FEW and digest.bad >= INCIDENT * digest.entries

    @property
    def counts(self) -> bool:
        """Return whether its figures are part of a trend."""
        return self.digest.partial is None and not self.is_incident

    def has_alone(self, work: str) -> bool:
        """Return whether one entry, and no other one, has this work, so far as that is known."""
        return self.works is not None and work in self.works

    def has_passed(self, work: str) -> bool:
        """Return whether the one entry that has this work is none of those listed."""
        return self.has_alone(work) and work not in self.listed_works


class _Track:
    """An entry over the runs, under each id that it had; ``found``: where it is listed, by run."""

    def __init__(self, entry: DigestEntry) -> None:
        self.ids = [entry.id]
        self.task = entry.task
        self.found: dict[int, DigestEntry] = {}

    def is_in(self, run: _Run) -> bool:
        return any(one in run.ids for one in self.ids)

    def works(self, runs: Sequence[_Run]) -> set[str]:
        """Return by which work it can be known under an id that no digest tells."""
        return {one.work for n, one in self.found.items() if runs[n - 1].has_alone(one.work)}

    def join(self, later: _Track) -> None:
        """Take over what the entry was under another id."""
        self.ids += later.ids
        self.found |= later.found

    def state(self, run: _Run, works: Iterable[str]) -> str:
        """Return its letter in a run, see ``EntryOverTime.states``.

        ``works``: by which it is known under other ids.
        """
        one = self.found.get(run.n)
        if one is not None:
            if one.verdict == "cancelled":
                return "-"
            return "F" if outcome_of(one.verdict) in BAD else "?"
        if not (self.is_in(run) or any(run.has_passed(one) for one in works)):
            return "-"
        return "?" if run.digest.unlisted else "."


class _Runs:
    """The runs of one manifest, oldest first."""

    def __init__(self, digests: Sequence[RunDigest]) -> None:
        self._runs = [_Run(n, one) for n, one in enumerate(digests, 1)]

    def document(self) -> schema.ManifestOverTime:
        entries, growing = self._entries(), list(self._growing())
        breaks = self._breaks(entries)
        tasks, everything = self._tasks(), slowdown(list(self._slowness.items()), self._chance)
        last = self._runs[-1].digest
        return schema.ManifestOverTime(
            manifest=last.manifest,
            sentence=_sentence(breaks, entries, tasks, everything, growing),
            runs=[self._run(run) for run in self._runs],
            tasks=tasks,
            slower=everything,
            breaks=breaks,
            entries=entries,
            growing=growing,
        )

    def _run(self, run: _Run) -> schema.RunOfMany:
        digest = run.digest
        return schema.RunOfMany(
            n=run.n,
            run=digest.run,
            at=digest.created_at,
            status=digest.status,
            partial=digest.partial,
            incident=run.is_incident,
            entries=digest.entries,
            passed=digest.passed,
            bad=digest.bad,
            reused=digest.reused,
            duration=digest.duration,
            rate=digest.rate,
            cost=digest.cost,
            changes=list(self._changes[run.n - 1]),
        )

    # What changed

    @cached_property
    def _changes(self) -> Sequence[Sequence[schema.Change]]:
        """Return what changed in each run since the last one before it that has the same."""
        codes: dict[str, Sequence[str]] = {}
        found: list[Sequence[schema.Change]] = []
        before: RunDigest | None = None
        for run in self._runs:
            changes = list(_run_changes(before, run.digest))
            for task in run.digest.tasks:
                if task.code:
                    known, codes[task.task] = codes.get(task.task), task.code
                    if known is not None:
                        changes += _code_changes(task.task, known, task.code)
            pythons = {(one.before, one.after): one for one in changes if one.what == "python"}
            others = [one for one in changes if one.what != "python"]
            found.append([*pythons.values(), *others])
            before = run.digest
        digests = [run.digest.manifest_sha256 for run in self._runs]
        if sum(one != other for one, other in pairwise(digests)) > len(digests) / 2:
            # It is planned anew for each run, so that it changed says nothing.
            return [[one for one in some if one.what != "manifest"] for some in found]
        return found

    # Entries

    def _entries(self) -> list[schema.EntryOverTime]:
        found = [one for track in self._tracks() if (one := self._entry(track)) is not None]
        return sorted(found, key=lambda one: (_KINDS.index(one.kind), one.since, one.task, one.id))

    def _tracks(self) -> list[_Track]:
        """Return what was listed in any run: by id, and where that is new, by the same work."""
        tracks: dict[str, _Track] = {}
        for run in self._runs:
            for name, one in run.entries.items():
                track = tracks.setdefault(name, _Track(one))
                track.found[run.n] = one
        by_work: defaultdict[str, list[_Track]] = defaultdict(list)
        kept: list[_Track] = []
        for track in sorted(tracks.values(), key=lambda one: min(one.found)):
            same = by_work[track.found[min(track.found)].work]
            earlier = [one for one in same if self._was_renamed(one, track)]
            if len(earlier) == 1:
                earlier[0].join(track)
            else:
                by_work[track.found[max(track.found)].work].append(track)
                kept.append(track)
        return kept

    def _was_renamed(self, one: _Track, other: _Track) -> bool:
        """Return whether the second is what the first became: neither is where the other is."""
        last, first = self._runs[max(one.found) - 1], self._runs[min(other.found) - 1]
        if last.n >= first.n or (last.digest.partial and first.digest.partial):
            return False
        return not (one.is_in(first) or other.is_in(last))

    def _entry(self, track: _Track) -> schema.EntryOverTime | None:
        works = track.works(self._runs)
        states = "".join(track.state(run, works) for run in self._runs)
        # What half of a run came to is no matter of a single entry.
        known = [
            (run.n, state)
            for run, state in zip(self._runs, states, strict=True)
            if state in ".F" and not run.is_incident
        ]
        bad = [n for n, state in known if state == "F"]
        changes = sum(one != other for (_, one), (_, other) in pairwise(known))
        if not bad:
            return None
        since, kind = bad[-1], _kind(changes, len(bad), is_red=known[-1][1] == "F")
        if kind == "broken":
            if not self._is_there(states):
                return None
            since = next(n for n, state in reversed(known) if state == ".") if changes else 0
            since = min(n for n in bad if n > since)
        name = track.found[max(track.found)].id
        return schema.EntryOverTime(
            id=name,
            formerly=[one for one in track.ids if one != name],
            task=track.task,
            kind=kind,
            states=states,
            since=since,
            bad=len(bad),
            runs=len(known),
        )

    def _is_there(self, states: str) -> bool:
        """Return whether the entry is in the last run, or in the last whole one."""
        whole = [run.n for run in self._runs if run.digest.partial is None][-1:]
        return any(states[n - 1] != "-" for n in (len(states), *whole))

    def _breaks(self, entries: Sequence[schema.EntryOverTime]) -> list[schema.Break]:
        """Return the first bad runs of what is broken."""
        groups: defaultdict[int, list[schema.EntryOverTime]] = defaultdict(list)
        for one in entries:
            if one.kind == "broken":
                groups[one.since].append(one)
        found = [self._break(since, group) for since, group in groups.items()]
        return sorted(found, key=lambda one: (-one.count, -one.since))

    def _break(self, since: int, group: Sequence[schema.EntryOverTime]) -> schema.Break:
        tasks = [task for task, _ in Counter(one.task for one in group).most_common()]
        every, digest = self._changes[since - 1], self._runs[since - 1].digest
        changes = [one for one in every if one.task is None or one.task in tasks]
        others = sum(one.what == "code" for one in every) - sum(
            one.what == "code" for one in changes
        )
        has_code = any(one.code for one in digest.tasks if one.task in tasks)
        be = "is" if len(group) == 1 else "are"
        sentence = (
            f"{plural(len(group), 'entry')} {be} red since run {since} "
            f"({digest.created_at:%-d %b, %H:%M}), {_of(tasks, len(group))}; "
            f"{_why(since, changes, others, has_code=has_code)}"
        )
        return schema.Break(
            since=since,
            count=len(group),
            tasks=tasks,
            examples=[one.id for one in group[:_EXAMPLES]],
            changes=changes,
            sentence=sentence,
        )

    # Tasks

    def _tasks(self) -> list[schema.TaskOverTime]:
        names = sorted({name for run in self._runs for name in run.tasks})
        return [self._task(name) for name in names]

    def _task(self, name: str) -> schema.TaskOverTime:
        rows = [run.tasks.get(name) for run in self._runs]
        medians = self._medians.get(name, {})
        some = list(medians.values())
        first = median(some[:5]) if some else 0.0
        compared = [(n, value / self._slowness.get(n, 1.0)) for n, value in medians.items()]
        return schema.TaskOverTime(
            task=name,
            bad=[None if row is None else row.bad for row in rows],
            count=[None if row is None else row.count for row in rows],
            p50=[None if row is None else row.p50 for row in rows],
            change=_rounded(some[-1] / first) if len(some) > 1 and first > 0 else None,
            slower=slowdown(compared, self._chance),
        )

    @cached_property
    def _medians(self) -> Mapping[str, Mapping[int, float]]:
        """Return the medians that count in trends, by task and run."""
        found: defaultdict[str, dict[int, float]] = defaultdict(dict)
        for run in self._runs:
            for name, row in run.tasks.items() if run.counts else ():
                if row.p50:
                    found[name][run.n] = row.p50
        return found

    @cached_property
    def _slowness(self) -> Mapping[int, float]:
        """Return how many times as long as usual tasks took in each run, where that is known."""
        usual = {name: median(values.values()) for name, values in self._medians.items()}
        ratios: defaultdict[int, list[float]] = defaultdict(list)
        for name, values in self._medians.items():
            for n, value in values.items():
                ratios[n].append(value / usual[name])
        return {n: median(some) for n, some in sorted(ratios.items()) if len(some) >= _ENOUGH_TASKS}

    @property
    def _chance(self) -> float:
        return CHANCE / (len(self._medians) + 1)

    # Workers

    def _growing(self) -> Iterator[schema.Growth]:
        seen: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)
        for run in self._runs:
            if run.digest.partial != "selection":
                rates: defaultdict[str, float] = defaultdict(float)
                for one in run.digest.workers:
                    rates[one.worker] = max(rates[one.worker], growth(one))
                for worker, rate in rates.items():
                    seen[worker].append((run.n, rate))
        for worker, found in sorted(seen.items()):
            runs = [n for n, rate in found if rate]
            recent = [n for n, _ in found[-_RECENT:]]
            enough = 2 if len(found) > 1 else 1
            if len(set(runs) & set(recent)) >= enough:
                rate = [rate for _, rate in found if rate][-1]
                yield schema.Growth(worker=worker, per_job=rate, since=runs[0], runs=runs)


def _kind(changes: int, bad: int, *, is_red: bool) -> schema.EntryKind:
    if changes >= CHANGES:
        return "flaky"
    if is_red:
        return "broken"
    return "one bad run" if bad == 1 else "mended"


def growth(one: DigestWorker) -> float:
    """Return the bytes by which each job of a process grew it; 0: it did not grow steadily.

    What it takes to begin with, in its first quarter of jobs, is not looked at.
    """
    _, *quarters = one.memory
    steps = [after - before for before, after in pairwise(quarters)]
    total = sum(steps)
    is_steady = bool(steps) and min(steps) * 2 * len(steps) >= total
    if not is_steady or total < max(_GROWTH, _GROWN * quarters[0]):
        return 0.0
    return float(f"{total / (one.jobs * len(steps) / 4):.3g}")


def slowdown(medians: Sequence[tuple[int, float]], chance: float) -> schema.Slowdown | None:
    """Return since which run a task takes longer; None where chance, or little, may be all.

    ``medians``: places of runs, with the medians of their seconds. Of all ways to part the last
    runs in two that one counts which is least by chance: by the rank test of Mann and Whitney,
    exact, of at least three later runs. It must be less likely than ``chance``, and the later
    median more by a factor and by 10 ms.
    """
    recent = medians[-WINDOW:]
    values = [value for _, value in recent]
    found: schema.Slowdown | None = None
    for later in range(LATER, len(values) // 2 + 1):
        before, after = values[:-later], values[-later:]
        was, now = median(before), geometric_mean(after)
        least = max(FACTOR, math.exp(SPREADS * _spread(before) / math.sqrt(later)))
        if now < was * least or now - was < NOTICEABLE:
            continue
        likely = rank_sum_chance(before, after)
        # Each way to part the runs may be one by chance; those with more later runs need it less.
        allowed = chance * (LATER / later) ** 4
        if likely < (allowed if found is None else min(allowed, found.chance)):
            found = schema.Slowdown(
                since=recent[-later][0],
                before=was,
                after=now,
                ratio=_rounded(now / was),
                chance=float(f"{likely:.2g}"),
            )
    return found


def _spread(values: Sequence[float]) -> float:
    """Return the standard deviation of the logarithms, by their median distance from the median."""
    logs = [math.log(one) for one in values]
    middle = median(logs)
    return _DEVIATIONS * median([abs(one - middle) for one in logs])


def _run_changes(before: RunDigest | None, after: RunDigest) -> Iterator[schema.Change]:
    if before is None:
        return
    if (before.broker, before.backend) != (after.broker, after.backend) and not (
        before.owned and after.owned  # a private stack has another address each time
    ):
        yield schema.Change(what="stack", before=_stack(before), after=_stack(after))
    if before.manifest_sha256 != after.manifest_sha256:
        was, now = before.manifest_sha256[:8], after.manifest_sha256[:8]
        yield schema.Change(what="manifest", before=was, after=now)
    if before.celery and after.celery and before.celery != after.celery:
        yield schema.Change(what="celery", before=before.celery, after=after.celery)
    if before.version != after.version:
        yield schema.Change(what="version", before=before.version, after=after.version)


def _stack(digest: RunDigest) -> str:
    return "private" if digest.owned else f"{digest.broker}, {digest.backend}"


def _code_changes(
    task: str, before: Sequence[str], after: Sequence[str]
) -> Iterator[schema.Change]:
    if set(before) == set(after):
        return
    (python, _, was), (newer, _, now) = before[0].partition(":"), after[0].partition(":")
    if python != newer:  # another one has another syntax tree of the same code
        yield schema.Change(what="python", before=python, after=newer)
    elif was != now:
        yield schema.Change(what="code", task=task, before=was[:8], after=now[:8])
    else:  # some workers have another code than the others
        was, now = (" and ".join(one[-13:][:8] for one in some) for some in (before, after))
        yield schema.Change(what="code", task=task, before=was, after=now)


# In words


def _of(tasks: Sequence[str], count: int) -> str:
    every = "" if count == 1 else "all "
    if len(tasks) == 1:
        return f"{every}of {printable(tasks[0])}"
    return f"of {listed([printable(one) for one in tasks], 3)}"


_WORDS: Final = {
    "python": "the workers' Python changed",
    "celery": "the workers' Celery changed",
    "stack": "the stack changed",
    "manifest": "the manifest changed",
    "version": "the version of pytest-celery-manifest changed",
}


def _why(since: int, changes: Sequence[schema.Change], others: int, *, has_code: bool) -> str:
    """Return what changed in the run since which entries are red."""
    if since == 1:
        return "that is the first run of this history"
    codes = [one for one in changes if one.what == "code"]
    rest = [
        f"{_WORDS[one.what]} ({printable(one.before)} → {printable(one.after)})"
        for one in changes
        if one.what != "code"
    ]
    if codes:
        one = codes[0]
        whose = "its code" if len(codes) == 1 else f"the code of {len(codes)} of them"
        shown = f" ({one.before} → {one.after})" if len(codes) == 1 else ""
        said = f"{whose} changed in that run{shown}"
        return "; ".join([said, *rest])
    if rest:
        return f"in that run {' and '.join(rest)}"
    if others:
        return f"its code did not change in that run, that of {plural(others, 'other task')} did"
    if not has_code:
        return "it is not known whether code changed, as no receipt has it"
    return "no code changed: look at data or the service behind it"


def _sentence(
    breaks: Sequence[schema.Break],
    entries: Sequence[schema.EntryOverTime],
    tasks: Sequence[schema.TaskOverTime],
    everything: schema.Slowdown | None,
    growing: Sequence[schema.Growth],
) -> str:
    """Return what is most worth to know."""
    if breaks:
        return breaks[0].sentence
    slower = [one for one in tasks if one.slower is not None]
    flaky = sum(one.kind == "flaky" for one in entries)
    said = []
    if everything is not None:
        times, since = rate_text(everything.ratio), everything.since
        said.append(f"all tasks take {times} times as long since run {since}")
    if slower:
        first = max(slower, key=lambda one: 0.0 if one.slower is None else one.slower.ratio)
        assert first.slower is not None
        said.append(
            f"{printable(first.task)} takes {rate_text(first.slower.ratio)} times as long since "
            f"run {first.slower.since}"
        )
    if growing:
        each = "grows" if len(growing) == 1 else "grow"
        said.append(f"{plural(len(growing), 'worker')} {each} in memory")
    if flaky:
        said.append(f"{plural(flaky, 'flaky entry')}")
    return "; ".join(said) or "nothing is broken, flaky, slower or growing"


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def name_of(manifest: str) -> str:
    """Return a manifest's file as a title has it."""
    return printable(Path(manifest).name)
