"""Hold the plugin's parts in ``config.stash``, for as long as the pytest process lives.

Keep Python's garbage collector from scanning objects that live until the session ends.

The libraries that a dispatch needs are some 100,000 objects that stay until the end. The collector
goes through all of them while they are imported, several times while tests run, and three times in
pytest's own last steps: without this that is a third of the time of a session with one job.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from pytest_manifest.plugin.context import PluginContext, role_of, user_errors
from pytest_manifest.process_state import begin_session

if TYPE_CHECKING:
    from pytest_manifest.bindings import Binding
    from pytest_manifest.plugin.coordination import KnownRuns
    from pytest_manifest.plugin.options import Options
    from pytest_manifest.plugin.verdict_reader import VerdictReader


PROGRAMS: Final = ("pytest", "py.test", "pytest.__main__")


@contextlib.contextmanager
def nothing_thrown_away(*, owns_process: bool) -> Iterator[None]:
    """Disable collection within the block, then freeze all objects that are alive at its end.

    Frozen objects are never collected. Use it for imports, and for what a session makes once. It
    does nothing in a process that the session does not own: there, objects alive now may become
    garbage.
    """
    if not (owns_process and gc.isenabled()):
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def owns_process() -> bool:
    """Check whether the process ends with this session: no script or test has called pytest."""
    if "PYTEST_CURRENT_TEST" in os.environ:
        return False
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    name = os.path.basename(getattr(main, "__file__", "")) if spec is None else spec.name  # noqa: PTH119
    return name in PROGRAMS


class ManifestSession:
    """The parts of the plugin in one pytest process; a function is given those that it needs.

    ``selection``: the entries that the collected tests verify. ``verdicts``: the reader of their
    verdicts, None until something was dispatched. ``tests``: returns the ids of the tests that
    verify something that was dispatched, and what. ``resume_lines``: what resuming a run does, or
    would do, with its entries.
    """

    def __init__(self, context: PluginContext) -> None:
        from pytest_manifest.plugin.manifest_store import ManifestStore, select
        from pytest_manifest.plugin.plans import Plans
        from pytest_manifest.plugin.session_runs import SessionRuns
        from pytest_manifest.reporting.run_report import REPORT_KEY, RunReport

        self.context = context
        self.config, self.options, self.role = context.config, context.options, context.role
        self.manifests = ManifestStore(self.options)
        self.selection = select(self.manifests, [])
        self.plans = Plans(context, self.manifests)
        self.report = RunReport(
            self.config, self.role, self.options, self.manifests.load, self._ledgers
        )
        self.config.stash[REPORT_KEY] = self.report
        self.session_runs = SessionRuns(context, self.report, self.manifests)
        self.verdicts: VerdictReader | None = None
        self.tests: Callable[[], Iterable[tuple[str, Binding]]] = tuple
        self.resume_lines: list[str] = []

    def _ledgers(self) -> Mapping[Path, Path]:
        """Return the ledger of each manifest's run, as far as this process knows of runs."""
        if self.role != "worker":
            return self.session_runs.ledgers()
        coordination = self.context.coordination
        return {} if self.verdicts is None or coordination is None else coordination.runs().ledgers

    def open_verdicts(self, known: KnownRuns, over: Callable[[], bool]) -> None:
        """Begin to read the verdicts of these runs, by manifest."""
        from pytest_manifest.plugin.verdict_reader import VerdictReader

        groups = None if self.options.aggregate is None else self.manifests.groups
        self.verdicts = VerdictReader(known, groups, over)

    def close(self) -> None:
        """Release what the process holds, whatever happened before."""
        self.session_runs.stop()
        if self.verdicts is not None:
            self.verdicts.close()
            self.verdicts = None
        self.session_runs.release()


SALT: Final = "manifest_salt"
"""The key of what xdist hands its workers for the salt of hidden values, in hex."""
ACCEPTED: Final = "manifest_accepted"
"""The key of what xdist hands its workers for the failures that are accepted, as JSON."""
ACCEPTED_KEY = pytest.StashKey[str]()
SESSION_KEY = pytest.StashKey[ManifestSession]()


_HAS_OWN_STATE = pytest.StashKey[bool]()


def own_process_state(config: pytest.Config) -> None:
    """Have this session begin with nothing of another one in its process, and leave nothing.

    It ends after all hooks: what their reports show is still redacted.
    """
    if _HAS_OWN_STATE not in config.stash:
        config.stash[_HAS_OWN_STATE] = True
        config.add_cleanup(begin_session())


def known_session(config: pytest.Config) -> ManifestSession | None:
    """Return the plugin's state; None where nothing has needed it so far."""
    return config.stash.get(SESSION_KEY, None)


def _accept(config: pytest.Config, options: Options) -> None:
    """Read which failures are accepted; xdist workers are given what the controller has read."""
    given = getattr(config, "workerinput", {}).get(ACCEPTED)
    is_there = options.may_dispatch and (options.root / "dispositions.toml").exists()
    if config.getoption("runxfail", False) or not (given or (given is None and is_there)):
        return
    from pytest_manifest.analysis.dispositions import ACCEPTANCE, read_dispositions

    now = ACCEPTANCE.now
    with user_errors():
        read = now.begin_by(given) if given else now.begin(read_dispositions(options.root))
    config.stash[ACCEPTED_KEY] = read.as_json()


def manifest_session(config: pytest.Config) -> ManifestSession:
    """Return the plugin's state, made at the first call, so that an idle plugin costs nothing.

    Raises pytest.UsageError where an option is not valid, or not beside another.
    """
    if SESSION_KEY not in config.stash:
        from pytest_manifest.plugin.coordination import joined
        from pytest_manifest.plugin.run_options import read_options
        from pytest_manifest.redaction.names import configure, use_salt
        from pytest_manifest.redaction.texts import hide_environment

        options = read_options(config)
        configure(names=options.redact_names, is_on=options.redact == "yes")
        hide_environment()
        if (salt := getattr(config, "workerinput", {}).get(SALT)) is not None:
            use_salt(bytes.fromhex(salt))
        _accept(config, options)
        context = PluginContext(config, role_of(config), options, owns_process())
        context.coordination = joined(config) if context.role == "worker" else None
        config.stash[SESSION_KEY] = ManifestSession(context)
    return config.stash[SESSION_KEY]
