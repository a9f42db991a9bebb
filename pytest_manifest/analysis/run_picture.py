"""Make the document of a run at one moment of the figures that were read of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pytest_manifest.analysis.causes import Tally, headline
from pytest_manifest.analysis.live_causes import lasting
from pytest_manifest.analysis.live_entries import Execution, TaskFigures
from pytest_manifest.analysis.live_figures import RunFigures
from pytest_manifest.analysis.live_story import moment, short
from pytest_manifest.analysis.pace import Foreseen
from pytest_manifest.analysis.statistics import quantile
from pytest_manifest.schema import run_status as status
from pytest_manifest.schema.statuses import STATUSES
from pytest_manifest.text import cut

_MOST: Final = {"causes": 10, "workers": 16, "tasks": 16, "longest": 5, "has": 3}
_MOST_ACTIONS: Final = 10
_TEXT: Final = 200


def document(figures: RunFigures) -> status.RunStatus:
    """Return the run as it is by these figures, without things to know."""
    return _Picture(figures).document()


@dataclass(eq=False)
class _Picture:
    """A document of what a reader has read."""

    reader: RunFigures

    def __post_init__(self) -> None:
        reader = self.reader
        assert reader.info is not None
        self.info, self.state = reader.info, reader.state()
        self.is_over = self.state in status.IS_OVER
        self.began = self.info.created_at.timestamp()
        self.last = reader.heard or self.began
        self.now = reader.now
        self.moment = self.last if self.is_over else self.now
        """The moment that rates are of: a run that is over goes no further."""
        self.going = reader.under_way()
        if self.state != "running":
            self.going = [] if self.state in ("finished", "stopped") else self.going
        self.running = {one.entry for _, one in self.going}

    def document(self) -> status.RunStatus:
        reader, entries = self.reader, self.reader.entries
        waiting = max(entries.in_flight - len(self.running), 0)
        retrying = [
            due
            for entry, due in reader.running.retrying.values()
            if not entries.is_done(entry) and entry not in self.running
        ]
        dues = [due for due in retrying if due is not None]
        foreseen = None if self.state != "running" else reader.foreseen(self.now)
        found = status.RunStatus(
            run=self.info.run,
            manifest=str(self.info.manifest),
            state=self.state,
            at=moment(self.now),
            began=self.info.created_at,
            elapsed=reader.story.elapsed(self.began, self.last, None if self.is_over else self.now),
            heard=None if reader.heard is None else moment(reader.heard),
            total=entries.total,
            done=entries.done,
            sent=entries.sent,
            running=len(self.running),
            waiting=waiting,
            waiting_since=None if self.is_over else reader.waiting_since,
            unsent=max(entries.total - entries.done - len(self.running) - waiting, 0),
            retrying=len(retrying),
            next_try=moment(min(dues)) if dues else None,
            reused=max(entries.reused, 0),
            accepted=len(reader.accepted),
            counts={one: entries.counts[one] for one in STATUSES if one in entries.counts},
            rate=None if self.is_over else reader.pace.rate(self.now),
            median_rate=reader.pace.median_rate(self.moment),
            eta=None if foreseen is None else self._eta(foreseen),
            verdict=self._verdict() if self.is_over else None,
            notices=[],
            causes=self._causes(),
            workers=self._workers(),
            tasks=self._tasks(),
            longest=self._longest(),
            cost=self._cost(),
            limits=reader.story.limits,
            actions=self._actions(),
            throttling=[*reversed(reader.story.throttling)][:_MOST_ACTIONS],
            series=self._series(),
        )
        left_out = {
            "more_causes": len(reader.causes.largest_first(self.moment)) - len(found.causes),
            "more_workers": len(reader.running.workers) - len(found.workers),
            "more_tasks": len(self._known_tasks()) - len(found.tasks),
        }
        return found.model_copy(update=left_out)

    def _actions(self) -> list[status.StatusAction]:
        kept = [
            status.StatusAction(
                at=one.at,
                action=one.action,
                by=short(one.by, 60),
                reason=short(one.reason),
                changed=False,
                data={name: len(of) for name, of in one.data.items() if isinstance(of, list)},
                waits=True,
            )
            for one in self.reader.asked
        ]
        return [*reversed(kept), *reversed(self.reader.story.actions)][:_MOST_ACTIONS]

    def _series(self) -> status.StatusSeries:
        pace = self.reader.pace
        return status.StatusSeries(
            began=self.info.created_at,
            width=pace.width,
            done=pace.done,
            failed=pace.failed,
            flags=list(self.reader.story.flags),
        )

    def _eta(self, found: Foreseen) -> status.StatusEta:
        before, at = found.before, found.before_at
        return status.StatusEta(
            at=moment(self.now + found.seconds),
            earliest=moment(self.now + found.soonest),
            latest=moment(self.now + found.latest),
            before=None if before is None else moment(before),
            before_at=None if at is None else moment(at),
        )

    def _verdict(self) -> str:
        entries = self.reader.entries
        if not entries.total:
            return "no entry"
        counts = self.reader.outcomes()
        found = Tally(entries.total, counts, Counter(), (), (), accepted=len(self.reader.accepted))
        return headline(found)

    def _causes(self) -> list[status.StatusCause]:
        reader = self.reader
        found = reader.causes.largest_first(self.moment)[: _MOST["causes"]]
        names = reader.names(one.example for one in found)
        before = reader.known_before() if found else None
        return [
            status.StatusCause(
                number=one.number,
                title=cut(one.title, _TEXT),
                kind=one.key[0],
                count=one.count,
                last_minute=one.last_minute,
                is_new=None if before is None else lasting(one.key) not in before,
                example=names.get(one.example, "?"),
                message=cut(one.message, _TEXT),
            )
            for one in found
        ]

    def _workers(self) -> list[status.StatusWorker]:
        reader = self.reader
        has: dict[str, list[Execution]] = {}
        for one in sorted(reader.running.open.values(), key=lambda one: one.since):
            if one.worker is not None and not self._is_settled(one):
                has.setdefault(one.worker, []).append(one)
        ended = reader.running.ends_by_worker(self.moment)

        def is_gone(name: str) -> bool:
            silent = reader.running.workers[name].is_silent
            return any(one.is_lost or silent for one in has.get(name, ()))

        order = sorted(
            reader.running.workers,
            key=lambda name: (not is_gone(name), -reader.running.workers[name].done, name),
        )[: _MOST["workers"]]
        shown_ones = {name: has.get(name, [])[: _MOST["has"]] for name in order}
        names = reader.names(one.entry for some in shown_ones.values() for one in some)
        found = []
        for name in order:
            known = reader.running.workers[name]
            found.append(
                status.StatusWorker(
                    name=short(name, 80),
                    running=sum(not one.is_lost for one in has.get(name, ())),
                    done=known.done,
                    rate=0.0 if self.is_over else ended[name] / 60,
                    heard=None if known.heard is None else moment(known.heard),
                    has=[names.get(one.entry, "?") for one in shown_ones[name]],
                    is_gone=is_gone(name),
                )
            )
        return found

    def _is_settled(self, one: Execution) -> bool:
        """Return whether nobody waits for a job any more."""
        return self.state in ("finished", "stopped") or self.reader.entries.is_done(one.entry)

    def _known_tasks(self) -> Sequence[tuple[str, TaskFigures]]:
        return self.reader.entries.tasks[1:]

    def _tasks(self) -> list[status.StatusTask]:
        entries = self.reader.entries
        running = Counter(entries.tasks[entries.task_of[one]][0] for one in self.running)
        most = sorted(self._known_tasks(), key=lambda one: (-one[1].entries, one[0]))
        return [
            status.StatusTask(
                task=name,
                waiting=max(one.entries - one.done - running[name], 0),
                running=running[name],
                passed=one.passed,
                failed=one.failed,
                p50=_quantile(one, 0.5),
                p95=_quantile(one, 0.95),
            )
            for name, one in most[: _MOST["tasks"]]
        ]

    def _longest(self) -> list[status.StatusRunning]:
        entries, found = self.reader.entries, []
        seen: dict[int, Execution] = {}
        for _, one in self.going:
            seen.setdefault(one.entry, one)
            if len(seen) == _MOST["longest"]:
                break
        names = self.reader.names(seen)
        for entry, one in seen.items():
            task, figures = entries.tasks[entries.task_of[entry]]
            place = one.worker if one.pid is None else f"{one.worker}#{one.pid}"
            found.append(
                status.StatusRunning(
                    id=names.get(entry, "?"),
                    task=task or None,
                    seconds=max(self.now - one.since, 0.0),
                    p95=_quantile(figures, 0.95),
                    worker=None if place is None else short(place, 90),
                )
            )
        return found

    def _cost(self) -> status.StatusCost:
        reader, total = self.reader, None
        foreseen = None
        if reader.has_costs:
            total = float(reader.cost)
            judged = reader.entries.done - reader.entries.reused
            if judged > 0 and not self.is_over:
                foreseen = total / judged * (reader.entries.total - reader.entries.reused)
        return status.StatusCost(total=total, budget=reader.budget, foreseen=foreseen)


def _quantile(one: TaskFigures, share: float) -> float | None:
    return quantile(one.runtimes.values, share) if one.runtimes.values else None
