"""Judging a run: every verdict is held against what the tasks counted themselves."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from tests.chaos.executions import Counted
from tests.chaos.reconcile import PLACES, Account
from tests.chaos.record import Announced, Told, outcome_of
from tests.chaos.workload import PASSED, Group, Kinds, kinds

GRAZE_SECONDS = 0.5
"""A process killed so soon after a task's end may not have handed in the receipt any more."""
CRASHED = kinds("crashed")
PROOF_OF_NOTHING = kinds("lost", "skipped", "expired", "unknown_task", "rejected")
"""Verdicts that say that no execution came to its end."""


@dataclass
class Outcome:
    """One round of one fault. ``seconds``: from the fault to the last verdict; ``sent``: how many
    messages were executed, lost, revoked, and still there; the lists hold one sentence for each
    flaw, and are empty in a good round.

    ``recovered``: called lost, and came; a flaw, unless ``breaks`` names what the fault breaks of
    all that is taken for granted.
    """

    fault: str
    seed: int
    verdicts: dict[str, int] = field(default_factory=dict)
    seconds: float | None = None
    sent: dict[str, int] = field(default_factory=dict)
    recovered: list[str] = field(default_factory=list)
    breaks: str = ""
    wrong: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    doubles: list[str] = field(default_factory=list)
    unaccounted: list[str] = field(default_factory=list)
    record: list[str] = field(default_factory=list)
    hangs: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)

    @property
    def flaws(self) -> list[str]:
        named = {"wrong": self.wrong, "no verdict": self.lost, "double": self.doubles}
        named |= {"recovered": [] if self.breaks else self.recovered}
        named |= {"unaccounted": self.unaccounted, "record": self.record}
        named |= {"hang": self.hangs, "": self.other}
        return [f"{name}: {flaw}".lstrip(": ") for name, found in named.items() for flaw in found]

    def add_account(self, account: Account) -> None:
        """Take over where the round's messages are."""
        self.sent = {name: getattr(account, name) for name in PLACES}
        self.recovered += account.recovered
        self.unaccounted += account.flaws

    def as_property(self) -> dict[str, object]:
        """Plain data, which pytest-xdist can carry."""
        return asdict(self)


@dataclass(frozen=True)
class Evidence:
    """What a round left behind. ``counted``: executions until pytest had ended; ``afterwards``: and
    until the workers had; ``hits``: pid and time of killed processes; ``hurried``: from when until
    when pytest, told a second time to end, killed what it had started; ``forced``: the fault itself
    makes jobs run twice, so that only a second run is a flaw of which pytest could have told."""

    members: Mapping[str, Group]
    verdicts: Mapping[str, Told]
    counted: Mapping[str, Counted]
    afterwards: Mapping[str, Counted] = field(default_factory=dict)
    announced: Sequence[Announced] = ()
    hits: Sequence[tuple[int, float]] = ()
    aimed: frozenset[str] = frozenset()
    hurried: tuple[float, float] | None = None
    forced: bool = False
    damage: int | None = None
    injected: float | None = None

    def in_the_end(self, key: str) -> Counted:
        """All executions of a job that count: those after the end of pytest among them, unless it
        is the broker that has forced them."""
        afterwards = None if self.forced else self.afterwards.get(key)
        return afterwards or self.counted.get(key, Counted())


def judge(fault: str, seed: int, evidence: Evidence) -> Outcome:
    """Hold the verdicts against the count."""
    outcome = Outcome(fault, seed)
    outcome.verdicts = dict(sorted(Counter(t.kind for t in evidence.verdicts.values()).items()))
    for name, group in evidence.members.items():
        if group.shape:
            _judge_tree(name, group, evidence, outcome)
            continue
        counted = evidence.counted.get(name, Counted())
        told = evidence.verdicts.get(name)
        if told is None or (told.kind == "pending" and told.kind not in group.allowed.never):
            outcome.lost.append(f"{name} has no verdict ({_figures(counted)})")
            continue
        allowed = allowed_kinds(name, group, counted, evidence)
        contradicts = contradiction(told.kind, counted, aimed=name in evidence.aimed)
        if told.kind not in allowed or contradicts:
            expected = " or ".join(sorted(allowed)) or "no verdict that fits"
            outcome.wrong.append(
                f"{name} is {told.kind!r}, not {expected} ({_figures(counted)}"
                f"{contradicts}): {told.sentence}"
            )
        every = evidence.in_the_end(name)
        if is_undeclared(group, every, told.kind, evidence):
            outcome.doubles.append(f"{name} is {told.kind!r} ({_figures(every)})")
    _check_damage(outcome, evidence)
    last = max((told.at for told in evidence.verdicts.values()), default=None)
    if last is not None and evidence.injected is not None:
        outcome.seconds = max(0.0, last - evidence.injected)
    return outcome


NAMED = re.compile(r"descendant '[^']+' \(([^)]+)\)")
"""What a verdict's sentence says of the descendant that it is about."""


def _judge_tree(name: str, group: Group, evidence: Evidence, outcome: Outcome) -> None:
    """Hold an entry's verdict against what its job and all that this has started counted."""
    told = evidence.verdicts.get(name)
    counts = {key: evidence.counted.get(key, Counted()) for key in group.keys(name)}
    figures = ", ".join(f"{key}: {_figures(one)}" for key, one in counts.items())
    if told is None or told.kind == "pending":
        outcome.lost.append(f"{name} has no verdict ({figures})")
        return
    allowed = allowed_of_tree(name, group, counts, evidence)
    flaw = contradiction_of_tree(told, group, counts, evidence, aimed=name in evidence.aimed)
    if told.kind not in allowed or flaw:
        expected = " or ".join(sorted(allowed)) or "no verdict that fits"
        outcome.wrong.append(
            f"{name} is {told.kind!r}, not {expected} ({figures}{flaw}): {told.sentence}"
        )
    every = [evidence.in_the_end(key) for key in counts]
    if any(is_undeclared(group, one, told.kind, evidence) for one in every):
        outcome.doubles.append(f"{name} is {told.kind!r} ({figures})")


def allowed_of_tree(
    name: str, group: Group, counts: Mapping[str, Counted], evidence: Evidence
) -> Kinds:
    """The verdicts that an entry may have: those of its jobs that are not sound, if there are any.

    What never began may be waiting for what did not end: that alone allows nothing.
    """
    if name in evidence.aimed and group.allowed.aimed is not None:
        return group.allowed.aimed
    found = [allowed_kinds(name, group, one, evidence) for one in counts.values()]
    others = kinds().union(*found) - group.allowed.done
    return others if any(not is_sound(one) for one in counts.values()) else kinds().union(*found)


def is_sound(counted: Counted) -> bool:
    """Whether a job ran to its end, and never twice."""
    return bool(counted.ends) and counted.most <= 1


def contradiction_of_tree(
    told: Told, group: Group, counts: Mapping[str, Counted], evidence: Evidence, *, aimed: bool
) -> str:
    """Where a verdict cannot be true by the counts of all the entry's jobs: why."""
    unsound = [key for key, one in counts.items() if not is_sound(one)]
    if told.kind == "passed":
        return f"; {unsound[0]} has no end, or two" if unsound and not group.is_idempotent else ""
    if told.kind in PROOF_OF_NOTHING and not unsound and not aimed:
        return "; all came to their end"
    named = NAMED.search(told.sentence)
    if named is None:
        return ""
    for key, one in counts.items():
        if named[1] in {start.task_id for start in one.starts}:
            fits = key in unsound or group.allowed.done != PASSED or _is_grazed(one, evidence)
            return "" if fits or aimed else f"; {key}, which it names, ran as it should"
    return ""


def allowed_kinds(name: str, group: Group, counted: Counted, evidence: Evidence) -> Kinds:
    """The verdicts that this entry may have."""
    rules = group.allowed
    if name in evidence.aimed and rules.aimed is not None:
        return rules.aimed
    if counted.most > group.executions:
        return rules.again or kinds("duplicated")
    if counted.ends:
        grazed = rules.cut if _is_grazed(counted, evidence) else kinds()
        # Handed out again, it has been begun twice, by all that its workers have said.
        again = group.is_late and _is_killed_on_the_way(name, evidence)
        return rules.done | grazed | (kinds("duplicated") if again else kinds())
    if counted.starts:
        return rules.cut
    return rules.never | (rules.cut & CRASHED if _is_killed_on_the_way(name, evidence) else set())


def contradiction(kind: str, counted: Counted, *, aimed: bool) -> str:
    """Where a verdict cannot be true by the count, whatever the fault was: why.

    A fault that destroys the evidence of one entry may make that one look lost.
    """
    if kind == "passed" and not counted.ends:
        return "; nothing that passed can have no end"
    if kind in PROOF_OF_NOTHING and counted.ends and not aimed:
        return "; it did come to its end"
    return ""


def is_undeclared(group: Group, counted: Counted, kind: str, evidence: Evidence) -> bool:
    """Whether it ran more than once, and its manifest did not allow it, or nobody said so.

    Where a worker is killed as its process begins a job, its broker may not have heard yet that
    it has the job, and delivers it again, though it is acknowledged early.
    """
    forced = evidence.forced
    if kind == "duplicated" and (
        forced or group.is_late or _is_killed_at_the_start(counted, evidence)
    ):
        return False
    if not group.is_idempotent and not group.is_late and not forced:
        return counted.runs > group.executions
    return counted.most > group.executions and kind in ("passed", "failed")


def _is_killed_at_the_start(counted: Counted, evidence: Evidence) -> bool:
    killed = dict(evidence.hits)
    return counted.most == counted.runs == 2 and any(
        start.pid in killed and 0.0 <= killed[start.pid] - start.at < GRAZE_SECONDS
        for start in counted.starts
    )


def unlike_reports(
    verdicts: Mapping[str, Told], outcomes: Mapping[str, str], output: str, exit_code: int | None
) -> list[str]:
    """Entries that the report shows otherwise than the ledger.

    A second execution may become known when the test has been reported: then the terminal must say
    what it was at first, and the session must not be green.
    """
    return [
        f"{name} is {told.kind!r} in the ledger and {outcomes[name]!r} in the JUnit file"
        for name, told in verdicts.items()
        if name in outcomes and outcomes[name] != outcome_of(told.kind)
        if exit_code == 0
        or not re.search(rf"{re.escape(repr(name))} was \w+ at first and is {told.kind}", output)
    ]


def _check_damage(outcome: Outcome, evidence: Evidence) -> None:
    damaged = [name for name, told in evidence.verdicts.items() if told.kind != "passed"]
    if evidence.damage is not None and len(damaged) > evidence.damage:
        outcome.wrong.append(
            f"{len(damaged)} entries did not pass, where the fault can have hit at most "
            f"{evidence.damage}: {', '.join(sorted(damaged))}"
        )


def _is_grazed(counted: Counted, evidence: Evidence) -> bool:
    """Whether what ended was killed before it can have handed in a receipt.

    A pool's process outlives its worker, whose kill is noted, by a moment.
    """
    killed, (since, until) = dict(evidence.hits), evidence.hurried or (0.0, 0.0)
    return all(
        (end.pid in killed and abs(killed[end.pid] - end.at) < GRAZE_SECONDS)
        or since - GRAZE_SECONDS < end.at < until
        for end in counted.ends
    )


def _is_killed_on_the_way(name: str, evidence: Evidence) -> bool:
    """Whether a process announced that it begins this entry, and was killed before its first line.

    Its worker says so first and runs the task then: "it crashed" is true of what was announced. A
    pool's process outlives its worker by a moment.
    """
    killed = dict(evidence.hits)
    return any(
        one.entry == name and one.pid in killed and one.at <= killed[one.pid] + GRAZE_SECONDS
        for one in evidence.announced
    )


def _figures(counted: Counted) -> str:
    attempts = len({start.task_id for start in counted.starts})
    return f"{len(counted.starts)} starts in {attempts} attempts, {len(counted.ends)} ends"
