"""Give reporters a session's runs, options, notices and files."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Protocol

import pytest

from pytest_manifest.errors import ManifestToolError
from pytest_manifest.redaction.texts import redact
from pytest_manifest.text import short_path

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from pytest_manifest.ledger import Ledger, RunInfo
    from pytest_manifest.ledger.files import RunFiles
    from pytest_manifest.manifest import Manifest
    from pytest_manifest.run.run import Run
    from pytest_manifest.schema.summary import FileKind


UNWRITTEN: Final = "manifest_unwritten"
"""The key of an xdist worker's output for the files that it could not write: messages."""


class ReportOptions(Protocol):
    """Options of a session for its reporters; folders and files are absolute."""

    @property
    def root(self) -> Path: ...
    @property
    def ledgers(self) -> Path: ...
    @property
    def audit(self) -> str: ...
    @property
    def receipts(self) -> Path | None: ...
    @property
    def resume(self) -> str: ...
    @property
    def rerun(self) -> bool: ...
    @property
    def compare(self) -> str | Path | None: ...
    @property
    def progress(self) -> Literal["auto", "line", "log", "off"]: ...
    @property
    def summary(self) -> Path | None: ...
    @property
    def markdown(self) -> Path | None: ...
    @property
    def report(self) -> Path | None: ...
    @property
    def other_reports(self) -> Sequence[Path]: ...
    @property
    def history(self) -> Path | None: ...
    @property
    def report_mode(self) -> int: ...
    @property
    def key_limits(self) -> Mapping[str, int]: ...
    @property
    def stack_arguments(self) -> str: ...


class ReportedRun(Protocol):
    """A run as files about it need it: one of this session, or one that is read from its ledger."""

    @property
    def manifest(self) -> Manifest: ...
    @property
    def files(self) -> RunFiles: ...
    @property
    def info(self) -> RunInfo: ...
    @property
    def ledger_path(self) -> Path: ...
    @property
    def warnings(self) -> Sequence[str]: ...
    @property
    def error(self) -> ManifestToolError | None: ...

    def read(self) -> AbstractContextManager[Ledger]: ...


class Notices(list[str]):
    """Messages to the user about a whole session; the terminal shows each once."""

    _shown = 0

    def take_new(self) -> Sequence[str]:
        """Return the notices that no earlier call has returned."""
        new, self._shown = self[self._shown :], len(self)
        return new


@dataclass
class RunReport:
    """One session as its reporters see it.

    ``role``: which process of pytest this is. ``load`` returns a manifest by its file, checked;
    ``ledgers`` returns the ledger of each manifest's run. ``poll`` is called wherever pytest waits
    for jobs, and returns the seconds after which it wants to be called again.
    """

    config: pytest.Config
    role: Literal["main", "controller", "worker"]
    options: ReportOptions
    load: Callable[[Path], Manifest]
    ledgers: Callable[[], Mapping[Path, Path]]
    runs: list[Run] = field(default_factory=list)
    notices: Notices = field(default_factory=Notices)
    poll: Callable[[], float] = lambda: math.inf
    lacks_artifacts: bool = False
    """True if a file that this session had to write could not be written."""

    def name_of(self, run: ReportedRun) -> str:
        """Return the run's manifest as a person types it in pytest's root folder."""
        return short_path(run.manifest.path, self.options.root)

    @contextlib.contextmanager
    def writing(self, fault: str, run: Run, *, needed: bool = True) -> Iterator[None]:
        """Note a fault of the block as a warning of the run, so that the other files are written.

        ``fault``: the message about it. The session fails if the file is ``needed``.
        """
        try:
            yield
        except Exception as error:  # of any kind: a report must not end the session
            if not isinstance(error, OSError | ManifestToolError):
                from pytest_manifest.console import begin_line
                from pytest_manifest.log import log_failure

                reporter = self.config.pluginmanager.getplugin("terminalreporter")
                if reporter is not None:
                    begin_line(reporter)
                log_failure(fault, error)
            consequence = ", so this session fails" if needed else ""
            run.warnings.append(f"{fault}{consequence}: {redact(str(error) or repr(error))}")
            self.lacks_artifacts = self.lacks_artifacts or needed

    def note_unwritten(self, fault: str) -> None:
        """Note, once, that a file of the session could not be written, so that the session fails.

        An xdist worker, which knows of no run and shows nothing, tells its controller at its end.
        """
        message: str = fault
        notes: list[str] = self.notices
        if self.role == "worker":
            notes = getattr(self.config, "workeroutput", {}).setdefault(UNWRITTEN, [])
        else:
            self.lacks_artifacts = True
            if self.runs:
                message += "; free some space, then write it again with --manifest-audit"
                notes = self.runs[0].warnings
        if message not in notes:
            notes.append(message)


REPORT_KEY: Final = pytest.StashKey[RunReport]()
"""Key of pytest's configuration, for reporters that are given nothing else."""


@dataclass(frozen=True)
class PlanReport:
    """The plans of a session. ``notes``: the planners' messages, by the plan's name.

    ``empty``: the name of a plan with nothing to do. ``resume_lines``: what resuming a run would
    do, if the user only asked for that. ``stack`` returns where the jobs would go,
    ``queues`` to which queue the app sends each task of these.
    """

    asked_for: str | None
    empty: str | None
    planned: Sequence[Manifest]
    notes: Mapping[str, Sequence[str]]
    resume_lines: Sequence[str]
    stack: Callable[[], str]
    queues: Callable[[Iterable[str]], Mapping[str, str]]


# Files

_ARTIFACTS: Final = pytest.StashKey[dict[str | None, list[tuple[str, Path | str]]]]()


def add_artifact(
    config: pytest.Config, kind: str, location: Path | str, run: str | None = None
) -> None:
    """Have the summary name a file or an address that is of this kind (one word, like ``page``).

    ``run``: the id of the run that it is about; None: it is about the session.
    """
    rows = config.stash.setdefault(_ARTIFACTS, {}).setdefault(run, [])
    if (kind, location) not in rows:
        rows.append((kind, location))


def artifacts(config: pytest.Config, run: str | None = None) -> list[tuple[str, Path | str]]:
    """Return ``(kind, location)`` of what was added for this run, or for the session, in order."""
    return list(config.stash.get(_ARTIFACTS, {}).get(run, ()))


def step_summary_file() -> Path | None:
    """Return the file whose Markdown GitHub shows on the step's page, None elsewhere."""
    name = os.environ.get("GITHUB_STEP_SUMMARY")
    return Path(name) if name else None


def run_files(run: ReportedRun) -> Iterator[tuple[FileKind, Path]]:
    """Yield kind and path of the files that a run has left, if they exist."""
    found: list[tuple[FileKind, Path]] = [
        ("manifest", run.manifest.path),
        ("ledger", run.ledger_path),
        ("receipts", run.files.receipts),
        ("log", run.files.log),
    ]
    found += [("worker-log", path) for path in run.files.worker_logs()]
    return ((kind, path) for kind, path in found if path.is_file())
