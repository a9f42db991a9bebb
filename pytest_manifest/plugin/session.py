"""Keep what one pytest process knows of manifests, in ``config.stash`` for as long as it lives."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import pytest

from pytest_manifest.errors import ManifestToolError

if TYPE_CHECKING:
    from pytest_manifest.bindings import Binding
    from pytest_manifest.manifest import Groups, Manifest
    from pytest_manifest.planning import PlanSpec
    from pytest_manifest.plugin.coordination import Coordination
    from pytest_manifest.plugin.options import Options
    from pytest_manifest.plugin.verdict_reader import VerdictReader
    from pytest_manifest.run import Run
    from pytest_manifest.stack.embedded import EmbeddedStack
    from pytest_manifest.stack.in_memory import MemoryStack

Role = Literal["main", "controller", "worker"]
"""main: a pytest without xdist; controller and worker: the processes of one with xdist."""


class SignalOwner(Protocol):
    """Declare what the session needs of the owner of signals: see ``interrupts``."""

    def begin_end(self) -> None:
        """Interrupt nothing from here on."""

    def report_status(self) -> None:
        """Set pytest's exit status for the signal that has come, if any."""

    def remove(self) -> None:
        """Restore the former handlers of the signals."""


@dataclass
class Selection:
    """The entries of a manifest that the collected tests verify, in the manifest's order."""

    _find: Callable[[], Sequence[str]]

    @cached_property
    def entries(self) -> Sequence[str]:
        """Find the ids when they are asked for first, as an audit never asks."""
        return self._find()


class ManifestSession:
    """Hold the plugin's state in one pytest process."""

    def __init__(self, config: pytest.Config, role: Role, options: Options) -> None:
        from pytest_manifest.plugin.gc_tuning import owns_process
        from pytest_manifest.plugin.plans import Plans
        from pytest_manifest.reporting.run_report import REPORT_KEY, RunReport

        self.config = config
        self.role = role
        self.options = options
        self.owns_process = owns_process()
        self.plans = Plans(options.plans)
        self.plans.force = options.plan_force
        self.plans.budget = options.budget
        self.coordination: Coordination | None = None
        self.files: list[Path] = list(options.files) if not options.plan else []
        self.report = RunReport(config, role, options, self.load, self._ledgers_of_runs)
        config.stash[REPORT_KEY] = self.report
        self.runs = self.report.runs
        self.notices = self.report.notices
        self.verdicts: VerdictReader | None = None
        self.stack: EmbeddedStack | None = None
        self.stack_data: Path | None = None
        self.stack_data_is_old = False
        """Whether an earlier run has left the folder ``stack_data``."""
        self.memory_stack: MemoryStack | None = None
        self.interrupted = False
        self.interrupts: SignalOwner | None = None
        """The owner of the signals, where this process handles them."""
        self.resume_lines: list[str] = []
        self.dispatch_begun = False
        self.changed = threading.Event()
        self.planned: list[Manifest] = []
        self.covered: dict[Path, set[str]] = {}
        self.selected: dict[Path, Selection] = {}
        self.log_handlers: list[int] = []
        self.has_tags = False
        """Whether a collected test is of an entry with a tag."""
        self.empty_plan = False
        self._exported = False
        self._scratch: Path | None = None
        self._manifests: dict[Path, Manifest] = {}
        self._resolved: dict[Path, Path] = {}
        self._groups: dict[Path, Groups] = {}
        self._shares: dict[Path, frozenset[str]] = {}

    def _ledgers_of_runs(self) -> Mapping[Path, Path]:
        """Return the ledger of each manifest's run, as far as this process knows of runs."""
        if self.role != "worker":
            return {run.manifest.path.resolve(): run.ledger_path for run in self.runs}
        if self.verdicts is None or self.coordination is None:
            return {}
        return self.coordination.runs()[0]

    # Manifests

    def load(self, path: Path) -> Manifest:
        """Return the manifest in this file, read and checked whole at the first call.

        Raises pytest.UsageError with every fault of the file.
        """
        from pytest_manifest.manifest import read_manifest

        path = self._resolve(path)
        if path not in self._manifests:
            with user_errors():
                lean = self.options.aggregate is not None
                self._manifests[path] = read_manifest(path, lean=lean)
        return self._manifests[path]

    def _resolve(self, path: Path) -> Path:
        """Resolve a path, cached: each test asks, and the file system takes 10 us to answer."""
        if path not in self._resolved:
            self._resolved[path] = path.resolve()
        return self._resolved[path]

    def groups(self, path: Path) -> Groups:
        """Return the groups that ``--manifest-aggregate`` makes of the manifest's entries.

        They hold the entries of this session. Raises pytest.UsageError where they cannot be made.
        """
        from pytest_manifest.manifest import Groups

        path = self._resolve(path)
        if path not in self._groups:
            manifest = self.load(path)
            assert self.options.aggregate is not None
            with user_errors():
                shard = self.options.shard
                share, mark = (None, "") if shard is None else (self.share(manifest), f"@{shard}")
                self._groups[path] = Groups(manifest, self.options.aggregate, share, mark)
        return self._groups[path]

    def loaded(self) -> Mapping[Path, Manifest]:
        return self._manifests

    def share(self, manifest: Manifest) -> Collection[str]:
        """Return the ids of this session's entries: those of its shard, or all without one."""
        shard = self.options.shard
        if shard is None:
            return manifest.ids
        path = manifest.path.resolve()
        if path not in self._shares:
            from pytest_manifest.manifest import entries_of

            with user_errors():
                self._shares[path] = entries_of(shard, manifest)
        return self._shares[path]

    def share_in_order(self, manifest: Manifest) -> Sequence[str]:
        """Return the ids of this session's entries in the manifest's order."""
        if self.options.shard is None:
            return manifest.ids
        share = self.share(manifest)
        return [entry for entry in manifest.ids if entry in share]

    @property
    def files_with_work(self) -> list[Path]:
        """Return the manifests that have entries of this session."""
        if self.options.shard is None:
            return list(self.files)
        return [path for path in self.files if self.share(self.load(path))]

    @property
    def shard_is_empty(self) -> bool:
        """Return whether this session's shard has no entry of any manifest."""
        return bool(self.options.shard and self.files and not self.files_with_work)

    def add_file(self, path: Path) -> None:
        if path not in self.files:
            self.files.append(path)

    def select(self, bindings: Sequence[Binding]) -> None:
        """Record which entries the collected tests verify, each manifest's in its own order.

        A test of a whole run selects no entry where other tests of its manifest do; alone it
        selects all.
        """
        chosen: dict[Path, set[str]] = {}
        for binding in bindings:
            subjects = chosen.setdefault(binding.manifest, set())
            if binding.subject is not None:
                subjects.add(binding.subject)
        whole = {binding.manifest for binding in bindings if binding.whole_run}
        for path, subjects in chosen.items():
            if subjects or path in whole:
                self.selected[path] = Selection(partial(self._entries_of, path, subjects))

    def _entries_of(self, path: Path, subjects: Set[str]) -> Sequence[str]:
        """Return the ids of the session's entries among ``subjects``, in the manifest's order.

        ``subjects`` are entries, or groups under --manifest-aggregate; none means all entries.
        """
        manifest = self.load(path)
        if not subjects:
            return self.share_in_order(manifest)
        if self.options.aggregate is None:
            return [entry for entry in manifest.ids if entry in subjects]
        groups = self.groups(path)
        if len(subjects) == len(groups):
            return self.share_in_order(manifest)
        chosen = {entry for group in subjects for entry in groups.ids(group)}
        return [entry for entry in manifest.ids if entry in chosen]

    # The end

    def scratch_folder(self) -> Path:
        """Return a folder for ledgers that :meth:`close` removes."""
        if self._scratch is None:
            self._scratch = Path(tempfile.mkdtemp(prefix="manifest-audit-"))
        return self._scratch

    def forget_runs(self) -> None:
        """Forget all runs and their logs: they were refused, so there is nothing to report."""
        self.runs.clear()
        while self.log_handlers:
            remove_run_log(self.log_handlers.pop())

    def interrupt(self) -> None:
        """Stop the runs because the user wants the session to end.

        They send nothing more, and wait a while for the jobs that run.
        """
        self.interrupted = True
        for run in self.runs:
            run.begin_stop(interrupted=True)

    def stop_everything(self) -> None:
        """Stop runs and stack, and export the receipts; safe to call more than once."""
        self._stop_runs()
        if not self._exported:
            self._exported = True
            self._export_artifacts()
        self._stop_stacks()

    def _export_artifacts(self) -> None:
        """Keep the workers' logs, and export the receipts while the stack is coming down."""
        if self.stack is not None:
            if self.runs:
                with self.report.writing("the workers' logs were not kept", self.runs[0]):
                    self._keep_worker_logs(self.stack, self.runs[0])
                if not self._leaves_jobs:
                    from pytest_manifest.plugin.leftovers import report_leftovers

                    report_leftovers(self.stack, self.runs[0])
            self.stack.begin_stop(keep_data=self._leaves_jobs)
        if self.memory_stack is not None and self.runs:
            from pytest_manifest.plugin.leftovers import report_leftovers_in_memory

            report_leftovers_in_memory(self.memory_stack, self.runs[0])
        for run in self.runs:
            if run.ledger_path.parent == self.options.ledgers:
                with self.report.writing("the receipts were not exported", run):
                    run.export_receipts()

    def _stop_runs(self) -> None:
        for run in self.runs:
            run.begin_stop(interrupted=self.interrupted)
        for run in self.runs:
            run.stop()

    @property
    def _leaves_jobs(self) -> bool:
        """Return whether a run may still need what the broker holds."""
        if not self.runs:
            return self.stack_data_is_old
        return any(run.leaves_jobs for run in self.runs)

    def _stop_stacks(self) -> None:
        if self.stack is not None:
            self.stack.stop(keep_data=self._leaves_jobs)
        if self.memory_stack is not None:
            self.memory_stack.stop()

    def _keep_worker_logs(self, stack: EmbeddedStack, run: Run) -> None:
        """Copy the workers' logs beside the run's ledger, as the stack removes its folder."""
        from pytest_manifest.ledger.run_files import WORKER_LOGS

        for log in sorted(stack.directory.glob(WORKER_LOGS)) if stack.directory else ():
            kept = run.files.worker_log(log.name)
            kept.touch(mode=0o600)
            shutil.copyfile(log, kept)

    def close(self) -> None:
        """Release what the process holds, whatever happened before."""
        if self.role != "worker":
            for run in self.runs:
                run.stop()
            self._stop_stacks()
        if self.verdicts is not None:
            self.verdicts.close()
            self.verdicts = None
        for run in self.runs:
            run.compact_ledger()
        for handler in self.log_handlers:
            remove_run_log(handler)
        self.log_handlers.clear()
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    # Plans

    def plan(
        self,
        session: pytest.Session,
        name: str,
        options: Mapping[str, str],
        *,
        collecting: bool = False,
    ) -> Manifest | None:
        """Return a plan's manifest; plan now unless another process of this session has done so.

        Returns None for an empty plan. Raises pytest.UsageError for an unknown name or bad options;
        where the planner raises, session.Failed or, while ``collecting``, a collection error.
        """
        spec = self.find_plan(name, options)
        if self.coordination is None:
            return self._plan_here(session, spec, collecting=collecting)
        with self.coordination.planning(spec.name) as known:
            if known.done:
                return None if known.path is None else self.load(known.path)
            manifest = self._plan_here(session, spec, collecting=collecting)
            known.finish(None if manifest is None else manifest.path)
            return manifest

    def record_plan(self, manifest: Manifest) -> None:
        """Keep a plan for the summary, and call the hook ``pytest_manifest_planned``."""
        self.planned.append(manifest)
        self.config.hook.pytest_manifest_planned(config=self.config, manifest=manifest)

    def find_plan(self, name: str, options: Mapping[str, str]) -> PlanSpec:
        """Find the plan of this name among the planning fixtures of plugins and conftests.

        Raises pytest.UsageError for an unknown name or bad options.
        """
        for plugin in self.config.pluginmanager.get_plugins():
            self.plans.register(plugin)
        with user_errors():
            spec = self.plans.find(name)
            self.plans.set_options(spec, options)
        return spec

    def _plan_here(
        self, session: pytest.Session, spec: PlanSpec, *, collecting: bool
    ) -> Manifest | None:
        from pytest_manifest.plugin.plans import fixture_name
        from pytest_manifest.plugin.synthetic import do_nothing, set_up, synthetic_item

        name = fixture_name(spec)
        item = synthetic_item(session, f"plan[{spec.name}]", do_nothing, name)
        report, call = set_up(item)
        if call.excinfo is not None:
            self._planner_failed(item, spec, report, call, collecting=collecting)
        manifest: Manifest | None = item.funcargs[name]  # type: ignore[assignment]  # the fixture's own type
        if manifest is None:
            return None
        path = manifest.path.resolve()
        self._manifests[path] = manifest
        self.record_plan(manifest)
        return manifest

    def _planner_failed(
        self,
        item: pytest.Function,
        spec: PlanSpec,
        report: pytest.TestReport,
        call: pytest.CallInfo[None],
        *,
        collecting: bool,
    ) -> None:
        from pytest_manifest.plugin.synthetic import log_failure

        assert call.excinfo is not None
        if isinstance(call.excinfo.value, pytest.fail.Exception):
            raise pytest.UsageError(str(call.excinfo.value))
        if isinstance(call.excinfo.value, pytest.skip.Exception):
            raise pytest.UsageError(f"plan {spec.name} was skipped: {call.excinfo.value}")
        if collecting:
            raise pytest.Collector.CollectError(f"plan {spec.name} failed:\n{report.longreprtext}")
        log_failure(item, report)
        raise item.session.Failed(f"plan {spec.name} failed; nothing was dispatched")


def remove_run_log(handler: int) -> None:
    from loguru import logger

    with contextlib.suppress(ValueError):  # the project's own code may have removed all handlers
        logger.remove(handler)


SESSION_KEY = pytest.StashKey[ManifestSession]()


def known_session(config: pytest.Config) -> ManifestSession | None:
    """Return the plugin's state; None where nothing has needed it so far."""
    return config.stash.get(SESSION_KEY, None)


def manifest_session(config: pytest.Config) -> ManifestSession:
    """Return the plugin's state, made at the first call, so that an idle plugin costs nothing.

    Raises pytest.UsageError where an option is not valid, or not beside another.
    """
    if SESSION_KEY not in config.stash:
        from pytest_manifest.plugin.option_conflicts import read_options

        role = role_of(config)
        state = ManifestSession(config, role, read_options(config))
        config.stash[SESSION_KEY] = state
        workerinput = getattr(config, "workerinput", None)
        if isinstance(workerinput, dict) and "manifest" in workerinput:
            join_controller(state, workerinput["manifest"])
    return config.stash[SESSION_KEY]


def join_controller(state: ManifestSession, told: str) -> None:
    """Take over, in an xdist worker, the folder that the controller names."""
    from pytest_manifest.plugin.coordination import Coordination

    facts = json.loads(told)
    state.coordination = Coordination(Path(facts["folder"]))


def role_of(config: pytest.Config) -> Role:
    if hasattr(config, "workerinput"):
        return "worker"
    return "main" if getattr(config.option, "dist", "no") == "no" else "controller"


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Raise errors with a message for the user as pytest.UsageError: one line, exit code 4."""
    try:
        yield
    except ManifestToolError as error:
        raise pytest.UsageError(str(error)) from error


__all__: Sequence[str] = (
    "SESSION_KEY",
    "ManifestSession",
    "known_session",
    "manifest_session",
    "role_of",
    "user_errors",
)
