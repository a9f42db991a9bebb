"""Read the options, and refuse those that contradict each other or name files of no use."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from pytest_manifest.files import folder_of
from pytest_manifest.plugin.options import ROWS, Options
from pytest_manifest.urls import is_in_process

_EXCLUDING: Final = (
    ("check", "sends and judges nothing", "plan audit resume dispatch_only"),
    (
        "only_plan",
        "only plans; give the other option when the manifest is run",
        "audit dispatch_only compare reuse aggregate shard",
    ),
    ("plan", "makes a new plan", "resume"),
    ("audit", "sends nothing", "rerun dispatch_only resume reuse"),
    ("resume", "goes on with a run and keeps what has passed", "rerun reuse"),
    (
        "dispatch_only",
        "has pytest end before the jobs do",
        "canary max_failed budget key_limits compare report",
    ),
    ("receipts", "is all there is to judge", "wait run shard"),
    ("use_running_stack", "names the stack", "broker_given"),
)
"""An option, what it does, and those that do not go with it."""
_NEEDING: Final = (
    ("plan_run", "plan"),
    ("plan_options", "plan"),
    ("receipts", "audit"),
    ("run", "audit resume"),
    ("audit", "active"),
    ("resume", "active"),
    ("dispatch_only", "active"),
)
"""An option, and those of which it needs one."""
_FLAGS: Final = {name: row.flag for name, row in ROWS.items()} | {
    "only_plan": "--manifest-plan",
    "report": "--manifest-report=FILE.html",
    "wait": "--manifest-audit=wait",
    "broker_given": "--manifest-broker",
    "active": "--manifest=FILE",
    "plan": "--manifest-plan=WORKFLOW:MODE",
}


def read_options(config: pytest.Config) -> Options:
    """Read what the user asked for.

    Raises pytest.UsageError where an option is not valid, or not beside another.
    """
    options = Options(config)
    _refuse_conflicts(options)
    _refuse_closed_sockets(config, options)
    return options


def _refuse_closed_sockets(config: pytest.Config, options: Options) -> None:
    """Raise pytest.UsageError where pytest-socket would cut jobs off from their stack.

    It closes all sockets of the process while a test runs, and a batch is sent and collected
    meanwhile. ``--allow-hosts`` leaves them open for some.
    """
    closed = config.getoption("disable_socket", False) and not (
        config.getoption("force_enable_socket", False) or config.getoption("allow_hosts", None)
    )
    needs_none = options.audit or config.option.collectonly or _only_plans(options)
    in_memory = is_in_process(options.broker or "")
    if closed and options.active and not (needs_none or in_memory):
        raise pytest.UsageError(
            "pytest-socket closes all sockets while tests run (--disable-socket), and jobs are "
            "sent and their receipts read meanwhile; add --force-enable-socket, or --allow-hosts "
            "with the hosts of broker and result store (of a private stack: 127.0.0.1)"
        )


def _conflicts(o: Options) -> Iterator[str]:
    """Yield what contradicts itself in the options."""
    given = {name for name, row in ROWS.items() if getattr(o, name) != row.default}
    given |= {name for name in ("report", "broker_given", "active") if getattr(o, name)}
    given |= {"wait"} if o.audit == "wait" else set()
    given |= {"only_plan"} if _only_plans(o) else set()
    for name, does, others in _EXCLUDING:
        for other in others.split():
            if {name, other} <= given:
                yield f"{_FLAGS[name]} {does}; leave out {_FLAGS[other]}"
    for name, needed in _NEEDING:
        if name in given and given.isdisjoint(needed.split()):
            yield f"{_FLAGS[name]} needs {' or '.join(_FLAGS[one] for one in needed.split())}"
    if o.plan_run and o.require_signature:
        yield (
            "--manifest-plan-run sends an unsigned plan, and signatures are required; plan, sign "
            "the plan with 'manifest sign FILE', and run it with --manifest=FILE"
        )
    if len(o.files) > 1 and (o.plan or o.receipts):
        yield (
            f"{_FLAGS['plan' if o.plan else 'receipts']} is of one manifest; give --manifest=FILE "
            "once"
        )
    if o.backend and o.stack_word == "private" and not o.use_running_stack:
        yield (
            "a private stack keeps its results itself; leave out --manifest-backend "
            "(manifest_backend), or --manifest-broker=private"
        )


def _refuse_conflicts(options: Options) -> None:
    for message in _conflicts(options):
        raise pytest.UsageError(message)
    if options.receipts is not None and not options.receipts.is_file():
        raise pytest.UsageError(f"{options.receipts}: there is no such file of receipts")
    for path in options.files:
        refuse_name(path)
    for path in () if options.plan else options.files:
        if path.is_dir():
            raise pytest.UsageError(f"--manifest={path}: it is a folder; name a manifest in it")
        if not path.is_file():
            raise pytest.UsageError(
                f"--manifest={path}: there is no such manifest; correct its name, or plan one with "
                "--manifest-plan=WORKFLOW:MODE"
            )


def refuse_name(path: Path) -> None:
    """Raise pytest.UsageError for a file name that is not UTF-8: pytest could not write it down."""
    name = str(path)
    try:
        name.encode()
    except UnicodeEncodeError as error:
        shown = name.encode("utf-8", "backslashreplace").decode()
        raise pytest.UsageError(
            f"{shown}: the file's name is not UTF-8, which pytest cannot write down; rename it"
        ) from error


def _only_plans(options: Options) -> bool:
    return bool(options.plan) and not options.plan_run


def refuse_unwritable(config: pytest.Config, options: Options) -> None:
    """Raise pytest.UsageError for the first report that cannot be written where it is wanted.

    Makes folders that are missing.
    """
    for option, path, mode in _reports(config, options):
        try:
            _try(path, mode)
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise pytest.UsageError(
                f"{option}={path}: cannot be written ({why}), so nothing was sent; name a file in "
                "a folder that you can write to"
            ) from error


def _reports(config: pytest.Config, options: Options) -> Iterator[tuple[str, Path, int | None]]:
    """Yield each report's option, file and mode; None: its folder is made as pytest makes it."""
    option = "--manifest-report" if config.option.manifest_report else "manifest_report"
    yield from ((option, path, options.report_mode) for path in options.reports.values())
    if xml := getattr(config.option, "xmlpath", None):
        yield "--junitxml", Path(os.path.expandvars(xml)).expanduser().absolute(), None


def _try(path: Path, mode: int | None) -> None:
    target = Path(os.path.realpath(path))
    if mode is None:
        target.parent.mkdir(parents=True, exist_ok=True)
    else:
        folder_of(target, mode)
    with tempfile.TemporaryFile(dir=target.parent):
        pass
    if target.exists():  # refuses a read-only file too, though its folder would let us replace it
        with target.open("ab"):
            pass
