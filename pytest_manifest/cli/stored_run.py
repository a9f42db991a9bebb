"""Find the runs that a command line names, by id, the beginning of one, a path, or ``last``.

Open one that is over: its ledger, and the manifest that it was made of.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pytest_manifest.analysis.dispositions import ACCEPTANCE, read_dispositions
from pytest_manifest.analysis.reading import read_records
from pytest_manifest.analysis.records import EntryRecord
from pytest_manifest.errors import LedgerError, ManifestError, PlanError, StackError
from pytest_manifest.files import FILE_MODE, MODE_HINT, parsed_mode
from pytest_manifest.ini import BATCH_INI, batch_setting, batch_settings, put_on_path
from pytest_manifest.ledger import Ledger, RunInfo, find_runs
from pytest_manifest.ledger.files import RunFiles, find_ledger, ledgers_in
from pytest_manifest.manifest import Manifest, manifest_digest, read_manifest
from pytest_manifest.redaction.names import configure
from pytest_manifest.redaction.texts import hide_environment
from pytest_manifest.text import listed

NAME: Final = "runs"
"""The folder of runs in pytest's ``manifest_dir``."""
LAST: Final = "last"
_SHOWN: Final = 5
"""Runs that a message names at most."""


def runs_folder(given: Path | None) -> Path:
    """Return the folder of runs: the one given, else where pytest, started here, keeps them."""
    if given is not None:
        return given
    root = root_folder()
    return root / (batch_setting(root, "manifest_dir") or ".manifest") / NAME


def pytest_command() -> list[str]:
    """Return how pytest is started here with the settings by which runs are found."""
    config = batch_settings(root_folder())[0]
    if config is None or config.name != BATCH_INI:
        return ["pytest"]
    return ["pytest", "-c", os.path.relpath(config)]


def report_mode() -> int:
    """Return the mode of reports' files by pytest's configuration. Raises StackError."""
    given = batch_setting(root_folder(), "manifest_report_mode")
    mode = FILE_MODE if given is None else parsed_mode(given)
    if mode is None:
        raise StackError(f"manifest_report_mode = {given}: {MODE_HINT}")
    return mode


def hide_secrets() -> None:
    """Hide what pytest, started here, hides in its reports.

    Raises StackError where its configuration names no names.
    """
    settings = batch_settings(root_folder())[1]
    names = settings.get("manifest_redact_names")
    words = names.replace(",", " ").split() if isinstance(names, str) else ()
    try:
        configure(names=words, is_on=settings.get("manifest_redact") != "no")
    except ValueError as error:
        raise StackError(f"manifest_redact_names = {names}: {error}") from error
    hide_environment()


def hide_secrets_of_newest(folder: Path) -> None:
    """Hide what was registered as secrets of the newest run, if there is any."""
    for path in find_runs(folder)[-1:]:
        with suppress(LedgerError), Ledger.open(path) as ledger:
            ledger.info.hide_secrets()


def pytest_setting(name: str) -> str | None:
    """Return a setting of pytest, started here, that is a text; None: it has none."""
    return batch_setting(root_folder(), name)


def put_root_on_path() -> None:
    """Have modules found where pytest, started here, finds them. Raises StackError where its
    configuration cannot be read."""
    root = root_folder()
    put_on_path(root)
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))


def root_folder() -> Path:
    """Return pytest's root folder here: the nearest that has its configuration."""
    here = Path.cwd()
    roots = (place for place in (here, *here.parents) if batch_settings(place)[0] is not None)
    return next(roots, here)


def find_run(text: str, folder: Path) -> Path:
    """Return the ledger of the run that ``text`` names.

    Raises LedgerError where there is none, or several begin like that.
    """
    if text == LAST:
        return _last(folder)
    path = Path(text)
    if path.is_file():
        return path
    if path.suffix == ".sqlite":
        raise LedgerError(f"{path}: there is no such ledger; check the path")
    found = find_ledger(folder, text)
    if found is not None:
        return found
    there = listed(run_ids(folder), _SHOWN) or "none"
    raise LedgerError(
        f"there is no file {text!r}, and no run of that name in {folder}; runs there: {there}"
    )


def run_ids(folder: Path) -> list[str]:
    """Return the ids of the runs in a folder, newest first."""
    return [path.stem for path in reversed(ledgers_in(folder))]


def _last(folder: Path) -> Path:
    runs = find_runs(folder)
    if not runs:
        raise LedgerError(
            f"there is no run in {folder}; dispatch a manifest first with "
            f"{shlex.join(pytest_command())} --manifest=FILE, "
            "or name another folder with --in"
        )
    return next((path for path in reversed(runs) if runs[-1].stem in _parts(path)), runs[-1])


def _parts(path: Path) -> list[str]:
    """Return the runs that a run was merged of; none for others."""
    with Ledger.open(path) as ledger:
        return list(ledger.info.merged())


@dataclass(frozen=True)
class StoredRun:
    """A run as its ledger describes it, with the manifest that it was made of."""

    ledger_path: Path
    info: RunInfo
    manifest: Manifest
    warnings: Sequence[str] = ()
    error: None = None

    @classmethod
    def named(cls, name: str, folder: Path | None) -> StoredRun:
        """Open the run that a command line names. Raises LedgerError where there is none."""
        return cls.open(find_run(name, runs_folder(folder)))

    @classmethod
    def open(cls, path: Path, *, by_settings: bool = True) -> StoredRun:
        """Read a ledger's description. Raises LedgerError where it, or its manifest, is no more.

        ``by_settings``: hide what pytest, started here, hides, and accept the failures that it
        accepts; else that is set already.
        """
        if by_settings:
            hide_secrets()
            ACCEPTANCE.now.begin(read_dispositions(root_folder()))
        with Ledger.open(path) as ledger:
            ledger.info.hide_secrets()
            ledger.check_types()
            info = ledger.info.read()
        return cls(path, info, _manifest(path, info))

    @property
    def files(self) -> RunFiles:
        """Return the run's files."""
        return RunFiles(self.ledger_path)

    def read(self) -> AbstractContextManager[Ledger]:
        """Open the ledger for reading."""
        return Ledger.open(self.ledger_path)

    @contextmanager
    def records(self) -> Iterator[Iterator[EntryRecord]]:
        """Open the run's entries, in the manifest's order; they are read as they are asked for."""
        with self.read() as ledger, closing(read_records(ledger, self.manifest)) as records:
            yield records

    def command(self, *options: str) -> list[str]:
        """Return pytest on the run's manifest, called as its last session was, with these options.

        Of a run that keeps no call, as pytest is started here.
        """
        with self.read() as ledger:
            return ledger.command(*options, unrecorded=pytest_command())

    @property
    def folder_option(self) -> list[str]:
        """Return the option by which a command here finds the run, where it needs one."""
        folder = self.ledger_path.parent
        is_found = folder.resolve() == runs_folder(None).resolve()
        return [] if is_found else [f"--in={os.path.relpath(folder)}"]

    def no_entry(self, entry: str) -> PlanError:
        """Return the error that says that the run has no such entry."""
        run = self.info.run
        return PlanError(
            f"run {run}: there is no entry {entry!r} in it; its entries are shown by "
            f"manifest show {run}"
        )


def _manifest(path: Path, info: RunInfo) -> Manifest:
    """Return the manifest's file if it is as it was, else the run's copy.

    Another version of the file would tell of entries that the run did not have.
    """
    from pytest_manifest.run.changes import kept_manifest

    with suppress(ManifestError):
        if manifest_digest(info.manifest) == info.sha256:
            return read_manifest(info.manifest, lean=True)
    kept = kept_manifest(path, info.sha256)
    if kept is None:
        raise LedgerError(
            f"run {info.run}: the manifest that it was made of is not beside {path.name}, and "
            f"{info.manifest} is another version of it, or none; copy "
            f"{RunFiles(path).manifest(info.sha256).name} from where the run was made"
        )
    return kept
