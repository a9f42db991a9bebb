"""One session on a failing disk, the one that goes on with it, and what must hold of both."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from xml.etree import ElementTree as ET

from pytest_manifest.errors import LedgerError
from pytest_manifest.ledger import Ledger
from pytest_manifest.processes import is_held
from tests.plugin.conftest import INI, JOBS
from tests.records import broken_promises
from tests.support import eventually
from tests.writes.disk import Call, FailingDisk, Fault

KEPT = (".manifest", "reports")
"""Folders whose disk fails; what the jobs write about themselves is on another one."""
ENTRIES = (
    {"id": "plain", "kwargs": {"n": 1, "key": "plain"}},
    {"id": "late", "kwargs": {"n": 2, "key": "late"}, "after": ["plain"]},
    {"id": "again", "kwargs": {"n": 3, "key": "again"}, "idempotent": True, "retries": 1},
)
REPORTS = {
    "junit.xml": "--junitxml",
    "allure": "--alluredir",
    **dict.fromkeys(("page.html", "summary.json", "summary.md"), "--manifest-report"),
}
SECONDS = 300
"""More than any session here may take."""
TOLD = re.compile(
    r"No space left on device|Input/output error|disk is full|disk I/O error"
    r"|unable to open database file",  # SQLite's words for what it cannot make beside a ledger
    re.I,
)
STACK_TOLD = re.compile(r"ERROR: |gave up|crashed|cannot|does not start")
"""Of the disk of a private stack pytest knows what the broker or the supervisor says of it."""
MAY_HAVE_BEGUN = frozenset({"crashed", "unknown"})
"""Verdicts on jobs that are not sent again, as they may have run."""
TRACEBACK = re.compile(r"^(?:INTERNALERROR> )? *File \"(.+?)\", line \d+, in", re.M)
OWN, OTHERS = "/pytest_manifest/", "/site-packages/"
Session = Callable[[Path, Sequence[str]], tuple[int | None, str]]
"""Runs pytest in a folder; returns its status (None: it did not end) and all that it printed."""


@dataclass
class Trial:
    """What came of a fault. ``call``: None where the session made fewer calls than that."""

    fault: str
    at: int
    call: Call | None
    status: int | None = None
    resumed: int | None = None
    verdicts: dict[str, str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, line: str) -> Trial:
        """Read what :meth:`line` has written."""
        document = json.loads(line)
        call = document.pop("call")
        return cls(**document, call=None if call is None else Call(**call))

    def line(self) -> str:
        return json.dumps(asdict(self))

    @property
    def is_of_stack(self) -> bool:
        """Return whether something else than pytest itself may have been refused, or killed."""
        return self.call is not None and "/stacks/" in self.call.path

    @property
    def is_left(self) -> bool:
        """Return whether an entry has not passed in the end: its job may have begun, and died."""
        return any(verdict != "passed" for verdict in self.verdicts.values())

    @property
    def outcome(self) -> str:
        """Return a word for how the first session ended."""
        if self.call is None:
            return "not reached"
        if self.status == 0:
            return "went on"
        return "killed" if self.status is not None and self.status < 0 else "ended"


class Project:
    """A small batch in a folder, whose ledgers and reports are on a disk of its own."""

    def __init__(self, path: Path, stack: Sequence[str]) -> None:
        self.path = path
        self._stack = stack

    @property
    def folders(self) -> list[Path]:
        return [self.path / name for name in KEPT]

    @property
    def arguments(self) -> list[str]:
        reports = [f"{name}=reports/{file}" for file, name in REPORTS.items()]
        return ["-p", "no:cacheprovider", "--manifest=m.jsonl", *self._stack, *reports]

    def make(self) -> None:
        """Make the folder anew."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir(parents=True)
        (self.path / "jobs.py").write_text(JOBS, "utf-8")
        (self.path / "pytest.ini").write_text(INI, "utf-8")
        rows = [{"task": "jobs.double", "timeout": 20, **entry} for entry in ENTRIES]
        (self.path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")

    def ran(self) -> Counter[str]:
        """Return how often each job's code has run."""
        path = self.path / "ran.txt"
        return Counter(path.read_text("utf-8").split()) if path.exists() else Counter()

    def ledgers(self) -> list[Path]:
        return sorted((self.path / ".manifest" / "runs").glob("*.sqlite"))

    def verdicts(self) -> dict[str, str]:
        """Return the verdicts of the newest run; none where there is no ledger to be read."""
        for path in reversed(self.ledgers()):
            with suppress(LedgerError), Ledger.open(path) as ledger:
                return {e: str(kind) for e, kind in ledger.verdicts.statuses().items()}
        return {}

    def wait_for_stack(self) -> None:
        """Wait until the supervisor of a pytest that was killed has ended its stack."""
        locks = list((self.path / ".manifest" / "stacks").glob("*/lock"))
        eventually(lambda: not any(map(is_held, locks)), within=60, what="the stack has ended")


def play(disk: FailingDisk, project: Project, session: Session, fault: Fault, at: int) -> Trial:
    """Run a session whose call ``at`` fails, then go on with it on a healthy disk."""
    project.make()
    disk.begin(fault, at)
    status, text = session(project.path, project.arguments)
    disk.heal()
    failed = disk.calls()
    trial = Trial(fault.name, at, failed[0] if failed else None, status, texts=[text])
    trial.wrong += wrong_at_first(project, trial)
    project.wait_for_stack()
    status, text = session(project.path, [*project.arguments, "--manifest-resume"])
    trial.texts.append(text)
    if status == 4 and not project.ran():  # there is no run to go on with: nothing was sent
        status, text = session(project.path, project.arguments)
        trial.texts.append(text)
    trial.resumed, trial.verdicts = status, project.verdicts()
    trial.wrong += wrong_in_the_end(project, trial)
    return trial


def has_own_traceback(text: str) -> bool:
    """Return whether an error is shown that this package has raised, or has let pass.

    allure-pytest makes its folder, and pytest opens its files, without a word of ours in between.
    """
    frames = [path for path in TRACEBACK.findall(text) if OWN in path or OTHERS in path]
    return bool(frames) and OWN in frames[-1]


def wrong_at_first(project: Project, trial: Trial) -> Iterator[str]:
    """Yield what must not be so of the session whose disk failed."""
    text = trial.texts[0]
    if trial.status is None:
        yield f"it did not end within {SECONDS} s"
        return
    killed = trial.status < 0
    if has_own_traceback(text):
        yield "it ended with a traceback"
    told = STACK_TOLD if trial.is_of_stack else TOLD
    if trial.call is not None and trial.status > 0 and not told.search(text):
        yield f"it ended with {trial.status} and did not say why"
    if trial.status == 0:
        yield from (f"it is green: {fault}" for fault in unfinished(project))
    if not killed:
        yield from (f"at first, {line}" for line in broken_promises(project.path))


def wrong_in_the_end(project: Project, trial: Trial) -> Iterator[str]:
    """Yield what must not be so when the run was gone on with."""
    text = trial.texts[-1]
    if trial.resumed not in (0, 1):
        yield f"--manifest-resume ended with {trial.resumed}"
    if has_own_traceback(text):
        yield "--manifest-resume ended with a traceback"
    ran = project.ran()
    for entry in ENTRIES:
        name = str(entry["id"])
        verdict = trial.verdicts.get(name)
        if verdict is None:
            yield f"{name} has no verdict"
        if verdict == "passed" and not ran[name]:
            yield f"{name} passed and never ran"
        if ran[name] > (2 if "idempotent" in entry else 1):
            yield f"{name} ran {ran[name]} times"
        waits = verdict == "skipped" and trial.verdicts.get("plain") in MAY_HAVE_BEGUN
        if not (ran[name] or waits or verdict in MAY_HAVE_BEGUN):
            yield f"{name} never ran and is {verdict}"
    if trial.resumed == 0:
        yield from (f"resumed and green: {fault}" for fault in unfinished(project))
    yield from (f"in the end, {line}" for line in broken_promises(project.path))


def unfinished(project: Project) -> Iterator[str]:
    """Yield what a green session has left out: a verdict, or a report that is not whole."""
    verdicts = project.verdicts()
    for entry in ENTRIES:
        if verdicts.get(str(entry["id"])) != "passed":
            yield f"{entry['id']} is {verdicts.get(str(entry['id']))}"
    folder = project.path / "reports"
    try:
        cases = ET.parse(folder / "junit.xml").findall(".//testcase")
        if len(cases) != len(ENTRIES):
            yield f"JUnit has {len(cases)} tests"
        summary = json.loads((folder / "summary.json").read_text("utf-8"))
        if len(summary["succeeded"]) != len(ENTRIES):
            yield "the summary lacks entries"
        if not (folder / "page.html").read_text("utf-8").rstrip().endswith("</html>"):
            yield "the page is not whole"
        if len((folder / "summary.md").read_text("utf-8")) < 100:
            yield "the summary in Markdown is not whole"
        results = [json.loads(p.read_text("utf-8")) for p in folder.glob("allure/*-result.json")]
        names = {one["name"] for one in results}
        if len(names) != len(ENTRIES):
            yield f"Allure has {len(names)} tests"
    except (OSError, ValueError, ET.ParseError, KeyError) as error:
        yield f"a report cannot be read: {error}"
