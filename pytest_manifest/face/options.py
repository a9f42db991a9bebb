"""Command line options and ini settings, and what they add up to."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_manifest.errors import PlanError

_LOOKING_ONLY = (
    "collectonly",
    "setupplan",
    "showfixtures",
    "show_fixtures_per_test",
    "help",
    "markers",
    "cacheshow",
)
"""Options with which nothing runs; a plugin that is switched off has not even declared its own."""
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def add_options(parser: pytest.Parser) -> None:
    """Declare every option of the plugin; nothing here may be slow."""
    group = parser.getgroup("manifest", "batches of Celery jobs as tests (pytest-celery-manifest)")
    _add_work_options(group)
    _add_stack_options(group)
    _add_ini(parser)


def _add_work_options(group: pytest.OptionGroup) -> None:
    add = group.addoption
    add(
        "--manifest",
        action="append",
        default=[],
        metavar="FILE",
        help="dispatch this manifest and verify every receipt; may be given several times",
    )
    add(
        "--plan",
        metavar="WORKFLOW[:MODE]",
        help="run a planning fixture, write its manifest, show a preview and stop",
    )
    add(
        "--plan-opt",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of the plan; may be given several times",
    )
    add("--plan-run", action="store_true", help="with --plan: dispatch and verify what was planned")
    add(
        "--plan-force",
        action="store_true",
        help="with --plan --manifest=FILE: replace a different manifest",
    )
    add(
        "--dispatch-only",
        action="store_true",
        help="send and return with a run id; needs a stack that outlives pytest",
    )
    add(
        "--audit",
        action="store_true",
        help="send nothing: judge the newest run of the manifest from its ledger",
    )
    add("--wait", action="store_true", help="with --audit: wait for what is still pending")
    add("--manifest-run", metavar="RUN", help="with --audit: this run instead of the newest")
    add(
        "--manifest-rerun",
        action="store_true",
        help="dispatch although an earlier run is unfinished or must not be repeated",
    )
    add(
        "--manifest-strict",
        action="store_true",
        help="refuse the run when a task is unknown to every worker",
    )
    add("--manifest-window", type=int, metavar="N", help="entries in flight at most (10000)")
    add(
        "--manifest-deadline",
        metavar="TIME",
        help="time for the whole run: seconds, or like 90s, 30m, 6h (6h)",
    )
    add(
        "--manifest-log-format",
        choices=["text", "json"],
        help="format of the run's log and of the workers' logs (text)",
    )
    add("--manifest-log-level", metavar="LEVEL", help="least level of the workers' logs (INFO)")


def _add_stack_options(group: pytest.OptionGroup) -> None:
    add = group.addoption
    add("--manifest-broker", metavar="URL", help="broker of an existing stack (CELERY_BROKER_URL)")
    add(
        "--manifest-backend",
        metavar="URL",
        help="result store of an existing stack (CELERY_RESULT_BACKEND; a Redis broker's own URL)",
    )
    add("--manifest-app", metavar="MODULE:APP", help="the Celery application, like proj.celery:app")
    add(
        "--manifest-workers",
        type=int,
        metavar="N",
        help="worker processes of the embedded stack (one a core)",
    )
    add(
        "--manifest-stack",
        action="store_true",
        help="use the stack that 'manifest-stack up' keeps running",
    )


def _add_ini(parser: pytest.Parser) -> None:
    parser.addini("manifest_app", "the Celery application, like proj.celery:app")
    parser.addini("manifest_broker", "broker URL of an existing stack")
    parser.addini("manifest_backend", "result store URL of an existing stack")
    parser.addini("manifest_workers", "worker processes of the embedded stack")
    parser.addini("manifest_window", "entries in flight at most")
    parser.addini("manifest_deadline", "time for a whole run, like 6h")
    parser.addini("manifest_dir", "folder of ledgers, receipts and logs", default=".manifest")
    parser.addini("manifest_plans", "folder that plans are written into", default="manifests")
    parser.addini("manifest_workflows", "folder of the workflows", default="workflows")
    parser.addini("manifest_log_format", "text or json", default="text")
    parser.addini("manifest_log_level", "least level of the workers' logs", default="INFO")


@dataclass(frozen=True)
class Options:
    """What the user asked for, checked; times in seconds, folders absolute."""

    root: Path
    files: tuple[Path, ...]
    plan: str | None
    plan_options: dict[str, str]
    plan_run: bool
    plan_force: bool
    dispatch_only: bool
    audit: bool
    wait: bool
    run: str | None
    rerun: bool
    strict: bool
    window: int
    deadline: float
    log_format: str
    log_level: str
    broker: str | None
    broker_given: bool
    backend: str | None
    app: str | None
    workers: int
    use_running_stack: bool
    ledgers: Path
    plans: Path
    workflows: Path
    may_dispatch: bool

    @property
    def active(self) -> bool:
        """Whether the command line names work of ours."""
        return bool(self.files or self.plan)


def read_options(config: pytest.Config) -> Options:
    """Raises pytest.UsageError with a sentence where options do not go together."""
    option = config.option
    root = config.rootpath
    broker = option.manifest_broker or _ini(config, "manifest_broker")
    environment = os.environ.get("CELERY_BROKER_URL")
    result = Options(
        root=root,
        files=tuple((config.invocation_params.dir / name).resolve() for name in option.manifest),
        plan=option.plan,
        plan_options=_plan_options(option.plan_opt),
        plan_run=option.plan_run,
        plan_force=option.plan_force,
        dispatch_only=option.dispatch_only,
        audit=option.audit,
        wait=option.wait,
        run=option.manifest_run,
        rerun=option.manifest_rerun,
        strict=option.manifest_strict,
        window=_positive(config, "manifest_window", 10_000),
        deadline=_duration(option.manifest_deadline or _ini(config, "manifest_deadline") or "6h"),
        log_format=option.manifest_log_format or config.getini("manifest_log_format"),
        log_level=(option.manifest_log_level or config.getini("manifest_log_level")).upper(),
        broker=broker or environment,
        broker_given=bool(option.manifest_broker),
        backend=_backend(config, broker),
        app=option.manifest_app or _ini(config, "manifest_app"),
        workers=_positive(config, "manifest_workers", os.cpu_count() or 1),
        use_running_stack=option.manifest_stack,
        ledgers=root / config.getini("manifest_dir") / "runs",
        plans=root / config.getini("manifest_plans"),
        workflows=root / config.getini("manifest_workflows"),
        may_dispatch=not any(getattr(option, name, False) for name in _LOOKING_ONLY),
    )
    _check_together(result)
    return result


def _backend(config: pytest.Config, broker: str | None) -> str | None:
    """The result store; with a broker given by hand the environment speaks of another stack."""
    given = config.option.manifest_backend or _ini(config, "manifest_backend")
    if given or broker or not os.environ.get("CELERY_BROKER_URL"):
        return given or None
    return os.environ.get("CELERY_RESULT_BACKEND")


def _check_together(options: Options) -> None:
    usage = pytest.UsageError
    if options.plan == "":
        raise usage("--plan is empty; write --plan=WORKFLOW:MODE")
    if options.plan_run and not options.plan:
        raise usage("--plan-run needs --plan=WORKFLOW:MODE")
    if options.plan_options and not options.plan:
        raise usage("--plan-opt needs --plan=WORKFLOW:MODE")
    if options.plan and (options.audit or options.dispatch_only) and not options.plan_run:
        raise usage("--plan only plans; plan first, then use the manifest that it wrote")
    if options.plan and len(options.files) > 1:
        raise usage("--plan writes one manifest; give --manifest=FILE once")
    if options.audit and options.dispatch_only:
        raise usage("--audit sends nothing and --dispatch-only only sends; choose one")
    if options.wait and not options.audit:
        raise usage("--wait belongs to --audit; a run without --audit waits anyway")
    if (options.audit or options.dispatch_only) and not options.active:
        raise usage("name the manifest with --manifest=FILE")
    if options.use_running_stack and options.broker_given:
        raise usage("--manifest-stack and --manifest-broker name two stacks; choose one")
    if options.run and not options.audit:
        raise usage("--manifest-run names an earlier run; it goes with --audit")
    if options.backend and not options.broker and not options.use_running_stack:
        raise usage("a result store was given without a broker; add --manifest-broker=URL")
    for path in () if options.plan else options.files:
        if path.is_dir():
            raise usage(f"{path}: is a folder; name a manifest in it")
        if not path.is_file():
            raise usage(f"{path}: there is no such manifest; plan one with --plan=WORKFLOW:MODE")


def _plan_options(pairs: list[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise pytest.UsageError(f"--plan-opt {pair}: write it as NAME=VALUE")
        if name in values:
            raise pytest.UsageError(f"--plan-opt {name} was given twice")
        values[name] = value
    return values


def _ini(config: pytest.Config, name: str) -> str | None:
    value = config.getini(name)
    return str(value) if value else None


def _positive(config: pytest.Config, name: str, default: int) -> int:
    value = getattr(config.option, name)
    text = value if value is not None else _ini(config, name)
    if text is None:
        return default
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        flag = "--" + name.replace("_", "-")
        raise pytest.UsageError(f"{flag} {text}: give a whole number from 1")
    return number


def _duration(text: str) -> float:
    """Seconds from ``90``, ``90s``, ``30m``, ``6h`` or ``2d``."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip())
    if match is None or float(match.group(1)) <= 0:
        raise pytest.UsageError(f"--manifest-deadline {text}: write it like 90s, 30m or 6h")
    return float(match.group(1)) * _UNITS[match.group(2)]


__all__ = ["Options", "PlanError", "add_options", "read_options"]
