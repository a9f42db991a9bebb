"""A program of the simulation: entries, sessions, what happens to them; drawn, kept, replayed."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal, get_args

from pydantic import JsonValue

from pytest_manifest.schema import Entry

SessionKind = Literal["resume", "part", "unsafe", "audit", "wait"]
"""How a later pytest takes the run up: resumes it, some of its entries, or with what may have run;
judges what is there, or judges it and waits for what is under way."""
WorldAct = Literal[
    "take", "begin", "end", "work", "kill_child", "kill", "vanish", "pause", "go_on", "double",
    "give_back", "uncertain", "broker", "store", "fate", "flush", "jump", "refuse", "remove",
    "revoke", "again", "limit", "lie", "kill_retrying",
]  # fmt: skip
Partner = Literal["excused", "strict"] | None
"""Another shard that the run is merged with: what excuses all of its own jobs, or nothing."""
SessionAct = Literal["crash", "second", "stop", "fair", "idle", "operator"]
Act = Literal[WorldAct, SessionAct]
Health = Literal["ok", "slow", "stop", "nonsense", "raise"]
"""What the project says of its health, when it is asked."""
OFTEN: Sequence[Act] = ("take", "begin", "end", "work", "work", "idle")
BREAKS: Sequence[Act] = (*get_args(WorldAct)[4:], "fate", "fate", "fate")
SESSION_ACTS: Sequence[Act] = (
    *("crash", "crash", "crash", "second", "fair", "idle", "stop"),
    *("operator", "operator", "operator"),
)
POISONS = (*[None] * 10, "child", "worker")
COSTS: Sequence[dict[str, JsonValue]] = ({}, {"costs": 0.0}, {"costs": 0.1}, {"costs": 0.7})
REDIS_SHARE = 0.25
"""Of programs: there each step takes three times as long."""
UNKNOWN_TASK = "unknown"
"""The task that no worker knows."""


@dataclass(frozen=True)
class Step:
    """Something that happens: when the pytest that lives has done ``moments`` more things.

    ``worker`` and ``number`` say to whom and how.
    """

    act: Act
    worker: int = 1
    number: int = 0
    moments: int = 0


@dataclass(frozen=True)
class Program:
    """All that is chosen of an execution; nothing else of it is left to chance."""

    entries: Sequence[Entry]
    steps: Sequence[Step] = ()
    sessions: Sequence[SessionKind] = ()
    """How the run is taken up, when a session has ended or was killed; then it is resumed."""
    redis: bool = False
    """Whether publisher, locator and collector are the real ones, on a Redis that is simulated."""
    is_private: bool = True
    repair: bool = False
    window: int = 10
    canary: int = 0
    max_failed: int | None = None
    revoke_on_max_failed: bool = False
    budget: float | None = None
    kills: int = 3
    deadline: float = 1e6
    partner: Partner = None
    rate: float | None = None
    """Messages a second at most."""
    depth: int | None = None
    """Messages in the queue, beyond which none are added."""
    health: Sequence[Health] = ()
    """What is answered, one after the other, until all is fair."""
    note: str = field(default="", compare=False)
    """What it showed, for people."""

    def to_json(self) -> str:
        """Write it down, to be replayed."""
        document = asdict(self) | {
            "entries": [
                entry.model_dump(mode="json", exclude_unset=True) for entry in self.entries
            ],
            "steps": [[step.act, step.worker, step.number, step.moments] for step in self.steps],
        }
        lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in document.items()]
        return "{\n" + ",\n".join(lines) + "\n}\n"

    @classmethod
    def from_json(cls, text: str) -> Program:
        """Read what :meth:`to_json` has written."""
        document = json.loads(text)
        document["entries"] = tuple(map(Entry.model_validate, document["entries"]))
        document["steps"] = tuple(Step(*step) for step in document["steps"])
        document["sessions"] = tuple(document["sessions"])
        document["health"] = tuple(document.get("health", ()))
        return cls(**document)


def _beginning(chance: random.Random) -> Sequence[Step]:
    """Draw steps that come in this order too rarely by themselves."""
    number, worker = chance.randrange(128), chance.choice((1, 2))
    long = Step("idle", number=3, moments=1)
    return chance.choice(
        (
            (Step("uncertain", number=number),),
            (Step("uncertain", number=number), Step("uncertain", number=number // 2)),
            (Step("idle", moments=15), *8 * (Step("kill", worker, 1), Step("idle", worker, 1, 6))),
            (Step(chance.choice(("broker", "store")), number=4, moments=number % 20), *5 * (long,)),
            (Step("work", worker, 0, 20), Step("begin", 1, 0, 4), *3 * (long,)),
            tuple(Step("fate", number=chance.randrange(6)) for _ in range(5)),
        )
    )


def draw(seed: str) -> Program:
    """Draw a program; the same one for the same seed."""
    chance = random.Random(seed)
    size = chance.choice((2, 10, 25, 60))
    # What happens again and again, as what breaks once often breaks more than once.
    theme = chance.choices(BREAKS, k=3) if chance.random() < 0.5 else BREAKS
    return Program(
        entries=_entries(chance),
        steps=(
            *(_beginning(chance) if chance.random() < 0.5 else ()),
            *(_step(chance, theme) for _ in range(size + chance.randrange(20))),
        ),
        sessions=tuple(
            chance.choice(("resume", "resume", "part", "audit", "wait", "unsafe"))
            for _ in range(chance.randrange(5))
        ),
        is_private=chance.random() < 0.5,
        redis=chance.random() < REDIS_SHARE,
        repair=chance.random() < 0.3,
        window=chance.choice((1, 2, 10)),
        canary=chance.choice((0, 0, 0, 1, 2)),
        max_failed=chance.choice((None, None, None, 0, 1)),
        revoke_on_max_failed=chance.random() < 0.5,
        budget=chance.choice((None, None, None, 1.0, 3.0)),
        kills=chance.choice((2, 3)),
        deadline=chance.choice((1e6, 1e6, 1e6, 45.0)),
        partner=chance.choice((None, None, "excused", "strict")),
        rate=chance.choice((None, None, None, 0.1, 1.0, 3.0)),
        depth=chance.choice((None, None, None, 1, 3)),
        health=tuple(chance.choices(get_args(Health), k=chance.choice((0, 0, 0, 2, 5)))),
    )


def _step(chance: random.Random, breaks: Sequence[Act]) -> Step:
    acts = chance.choices((OFTEN, breaks, SESSION_ACTS), (10, 4, 2))[0]
    moments = chance.choice((0, 0, 1, 2, 3, 4, 6, 9, 14, 25))
    return Step(chance.choice(acts), chance.choice((1, 2)), chance.randrange(128), moments)


def _entries(chance: random.Random) -> tuple[Entry, ...]:
    entries: list[Entry] = []
    for name in "abcde"[: chance.choice((1, 2, 2, 3, 3, 4, 5))]:
        earlier = [entry.id for entry in entries]
        after = chance.sample(earlier, min(len(earlier), chance.choice((0, 0, 0, 1, 2))))
        document: dict[str, JsonValue] = {
            "id": name,
            "task": UNKNOWN_TASK if chance.random() < 0.03 else "t",
            "idempotent": chance.random() < 0.5,
            "retries": chance.choice((0, 0, 1, 2)),
            "timeout": 30.0,
            "after": list(after),
            "meta": {
                "late": chance.random() < 0.3,
                "poison": chance.choice(POISONS),
                **chance.choice(COSTS),
            },
        }
        if chance.random() < 0.15:
            document["deadline"] = 60.0
        if chance.random() < 0.1:
            document["expires"] = 10.0
        cost = chance.choice((None, 0.1, 0.5, 1.0))
        if cost is not None:
            document["cost"] = cost
        entries.append(Entry.model_validate(document))
    return tuple(entries)
