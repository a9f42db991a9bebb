"""Read the options, and refuse those that contradict each other or name files of no use."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

from pytest_manifest.files import folder_of
from pytest_manifest.plugin.options import Options
from pytest_manifest.urls import is_in_process

CONFLICTS: Final[Mapping[str, Callable[[Options], object]]] = {
    "--manifest-report is of a run that is over; leave it out with "
    "--manifest-dispatch-only, and give it to --manifest-audit=wait": lambda o: (
        o.report and o.dispatch_only
    ),
    "--manifest-plan is empty; write --manifest-plan=WORKFLOW:MODE": lambda o: o.plan == "",
    "--manifest-check sends and judges nothing; give it alone, or with --manifest=FILE": lambda o: (
        o.check and (o.plan is not None or o.audit or o.resume or o.dispatch_only)
    ),
    "--manifest-plan-run needs --manifest-plan=WORKFLOW:MODE": lambda o: o.plan_run and not o.plan,
    "--manifest-plan-run sends an unsigned plan, and signatures are required; plan, "
    "look at the plan, sign it with 'manifest sign FILE', and run it with "
    "--manifest=FILE": lambda o: o.plan_run and o.require_signature,
    "--manifest-plan-opt needs --manifest-plan=WORKFLOW:MODE": lambda o: (
        o.plan_options and not o.plan
    ),
    "--manifest-plan makes a new plan; name the manifest to go on with by "
    "--manifest=FILE": lambda o: o.plan and o.resume,
    "--manifest-plan only plans; plan first, then use the manifest that it wrote": lambda o: (
        (o.audit or o.dispatch_only) and _only_plans(o)
    ),
    "--manifest-compare is shown at a run's end; use it there, or with "
    "--manifest-audit": lambda o: o.compare and (o.dispatch_only or _only_plans(o)),
    "--manifest-plan only plans; give --manifest-reuse when the manifest is run": lambda o: (
        o.reuse and _only_plans(o)
    ),
    "--manifest-reuse is for a run that begins; --manifest-resume and "
    "--manifest-audit keep what has passed in theirs anyway": lambda o: (
        o.reuse and (o.audit or o.resume)
    ),
    "--manifest-plan only plans; give --manifest-aggregate when the manifest is run": lambda o: (
        o.aggregate and _only_plans(o)
    ),
    "--manifest-plan writes one manifest; give --manifest=FILE once": lambda o: (
        o.plan and len(o.files) > 1
    ),
    "name the manifest with --manifest=FILE": lambda o: (
        (o.audit or o.dispatch_only or o.resume) and not o.active
    ),
    "--manifest-stack and --manifest-broker name two stacks; choose one": lambda o: (
        o.use_running_stack and o.broker_given
    ),
    "--manifest-run names an earlier run; it goes with --manifest-audit or "
    "--manifest-resume": lambda o: o.run and not (o.audit or o.resume),
    "a private stack keeps its results itself; leave out --manifest-backend "
    "(manifest_backend), or --manifest-broker=private": lambda o: (
        o.backend and o.stack_word == "private" and not o.use_running_stack
    ),
    "--manifest-audit sends nothing and --manifest-rerun sends all again; choose one": lambda o: (
        o.audit and o.rerun
    ),
    "--manifest-audit sends nothing and --manifest-dispatch-only only sends; choose "
    "one": lambda o: o.audit and o.dispatch_only,
    "--manifest-receipts is judged by --manifest-audit; add it": lambda o: (
        o.receipts and not o.audit
    ),
    "--manifest-receipts is all there is to judge; give --manifest-audit without wait, and no "
    "--manifest-run": lambda o: o.receipts and (o.wait or o.run),
    "--manifest-receipts is of one manifest; give --manifest=FILE once": lambda o: (
        o.receipts and len(o.files) != 1
    ),
    "--manifest-audit sends nothing and --manifest-resume goes on sending; choose one": lambda o: (
        o.resume and o.audit
    ),
    "--manifest-resume goes on with a run and --manifest-rerun begins a new run; "
    "choose one": lambda o: o.resume and o.rerun,
    "with --manifest-dispatch-only pytest does not stay to judge a canary or to "
    "count failures; leave it out, or --manifest-canary and --manifest-max-failed": lambda o: (
        o.dispatch_only and (o.canary or o.max_failed is not None)
    ),
    "with --manifest-dispatch-only pytest does not stay to count what the jobs "
    "cost; leave it out, or --manifest-budget": lambda o: o.dispatch_only and o.budget is not None,
    "with --manifest-dispatch-only pytest does not stay to hold jobs back until "
    "others have ended; leave it out, or --manifest-key-limit": lambda o: (
        o.dispatch_only and o.key_limits
    ),
    "--manifest-plan only plans, and always all; give --manifest-shard to the runs "
    "of it": lambda o: o.shard and _only_plans(o),
    "--manifest-receipts is all there is to judge; leave out --manifest-shard": lambda o: (
        o.shard and o.receipts
    ),
}
"""The messages by which options are refused, and when; the first that applies counts."""


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


def _refuse_conflicts(options: Options) -> None:
    for message, applies in CONFLICTS.items():
        if applies(options):
            raise pytest.UsageError(message)
    if options.receipts is not None and not options.receipts.is_file():
        raise pytest.UsageError(f"{options.receipts}: there is no such file of receipts")
    for path in options.files:
        refuse_name(path)
    for path in () if options.plan else options.files:
        if path.is_dir():
            raise pytest.UsageError(f"{path}: is a folder; name a manifest in it")
        if not path.is_file():
            raise pytest.UsageError(
                f"{path}: there is no such manifest; correct its name, or plan one with "
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
