"""What the simulation must have reached: statuses, faults, moments at which pytest is killed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

from pytest_manifest.schema import VerdictStatus
from pytest_manifest.schema.run_facts import Action

PAGE: Final = Path("docs/explanation/what-happens-when-things-break.md")
HEADING: Final = "## Fault by fault"

FAULTS: Mapping[str, Sequence[str]] = {
    "process of a job killed (out of memory, `kill -9`, a crash in C)": ["process of a job killed"],
    "the same, acknowledged late": ["process of a job killed, acknowledged late"],
    "the same, each time it runs": ["status: quarantined"],
    "process dies as the job begins, before its worker has heard of that": [
        "job given to another process",
        "status: duplicated",
    ],
    "whole worker killed while it ran a job": ["whole worker killed while it ran a job"],
    "what that worker had taken and not begun": ["worker killed that had taken and not begun"],
    "worker killed in the instant of taking a message (Redis)": [
        "worker killed in the instant of taking a message"
    ],
    "worker paused, or too busy to answer": ["worker paused"],
    "worker that cannot stay up": ["session: gave up, a worker does not stay up"],
    "broker killed and started again, with its data": ["broker away"],
    "broker or result store emptied, or started again without its data": [
        "broker or result store emptied"
    ],
    "broker or result store away for more than a minute": ["session: gave up, out of reach"],
    "broker away when an entry should be sent": ["broker away at a sending"],
    "broker refuses one queue: its name is a key of the broker's own, it was declared otherwise, "
    "or it is somebody else's": ["broker refuses the queue", "status: rejected"],
    "message removed from the queue": ["message removed from the queue"],
    "message delivered twice": ["message delivered twice", "status: duplicated"],
    "revoked by somebody": ["revoked by somebody", "status: revoked"],
    "not begun before it expired": ["status: expired"],
    "ran longer than its timeout, or than its task's own time limit": ["status: timed_out"],
    "asked Celery for a retry": ["asked Celery for a retry"],
    "process killed as it asked for its retry": [
        "process killed as it had asked for a retry",
        "process killed as it asked for a retry",
    ],
    "deadline of the entry or of the run over": ["a deadline is over"],
    "no worker knows the task": ["status: unknown_task"],
    "receipt lost on its way": ["receipt unsaid", "receipt dropped", "receipt delayed"],
    "receipt doubled": ["receipt doubled"],
    "receipt damaged, or swapped with another one": ["receipt swapped", "receipt tampered"],
    "pytest killed": [
        f"killed at: {moment}" for moment in ("commit", "publisher", "locator", "stream", "clock")
    ],
}
"""Lines of the page, and what must have been reached for each."""
ELSEWHERE: Mapping[str, str] = {
    "broker or result store frozen: it accepts connections and does not answer": "tests/chaos",
    "no queue is bound where a route leads (a topic, an exchange by name)": "tests/live",
    "message damaged, of a content type that is refused, or with a bad `eta`": "tests/chaos",
    "handed on by `Task.replace`": "tests/live",
    "result that this side cannot decode (another serializer, say), and no receipt": "tests/live",
    "result store refuses the end of a job (no memory, no connection)": "tests/plugin",
    "worker with other code": "tests/plugin",
    "xdist worker killed": "tests/plugin",
    "disk full": "tests/chaos",
}
"""Lines that have no part in a world without sockets, codecs and disks, and what holds them."""
SESSIONS: Sequence[str] = (
    *("session: dispatch", "session: resume", "session: part", "session: unsafe"),
    *("session: audit", "session: wait"),
    *("session: refused beside another", "session: stopped"),
    *(f"operator: {action}" for action in get_args(Action)),
    "an operator has an entry sent again",
    *("what had certainly not run is sent anew", "a verdict is corrected"),
    *("a message lost on its way is sent again", "the wall's clock is set"),
    *("a task's own limit is changed", "end told of what nobody had begun"),
    *("a final red judged later", "two shards merged and audited"),
    "its receipts exported and judged alone",
    *("sent at a rate", "sent by the depth of the queue", "health: stop", "health: raise"),
    *("killed between two replies of Redis", "a pipeline to Redis is cut"),
)


@dataclass(frozen=True)
class Situation:
    """A line of the table: what it is of, and how often it was reached, by its rarest part."""

    kind: Literal["status", "fault", "session"]
    name: str
    times: int


def situations(reached: Counter[str]) -> list[Situation]:
    """List all that must be reached, with how often it was."""
    return [
        *(Situation("status", one, reached[f"status: {one}"]) for one in get_args(VerdictStatus)),
        *(
            Situation("fault", name, min(reached[part] for part in parts))
            for name, parts in FAULTS.items()
        ),
        *(Situation("session", name.removeprefix("session: "), reached[name]) for name in SESSIONS),
    ]


def never_reached(found: Sequence[Situation]) -> list[str]:
    """Name what was never reached."""
    return [f"{one.kind} {one.name!r}" for one in found if not one.times]


def lines_of_the_page(page: Path = PAGE) -> list[str]:
    """List the faults of the page's table."""
    section = page.read_text("utf-8").partition(HEADING)[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| .+\|$", section, re.MULTILINE)
    return [row for row in rows if row not in ("fault",) and not set(row) <= set("-| ")]


def table(found: Sequence[Situation]) -> str:
    """Make the table for the page of the promises."""
    lines = ["| what | reached |", "|---|---|"]
    lines += [
        f"| {'`' + one.name + '`' if one.kind == 'status' else one.name} | {one.times:,} |"
        for one in found
    ]
    return "\n".join(lines)
