"""What the options of the command line and of the configuration file add up to, checked."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from pytest_manifest.errors import PlanError
from pytest_manifest.face.option_values import (
    aggregate,
    amount,
    applies,
    duration,
    failure_limit,
    ini_text,
    issue_link,
    on_interrupt,
    output_file,
    path_of,
    positive,
    progress,
    refuse_name,
    report_file,
    run_name,
    shard,
)

if TYPE_CHECKING:
    from pytest_manifest.manifest import GroupRule, Shard

_LOOKING_ONLY = (
    "collectonly",
    "setuponly",
    "setupplan",
    "showfixtures",
    "show_fixtures_per_test",
    "help",
    "markers",
    "cacheshow",
)
"""Options with which no test runs; a plugin that is switched off has not even declared its own."""


@dataclass(frozen=True)
class Options:
    """What the user asked for, checked; times in seconds, folders absolute.

    ``max_failed`` is a number of entries, or as a float a share of them; ``budget`` is in the
    entries' unit of cost.
    """

    root: Path
    files: tuple[Path, ...]
    shard: Shard | None
    plan: str | None
    plan_options: dict[str, str]
    plan_run: bool
    plan_force: bool
    dispatch_only: bool
    audit: bool
    wait: bool
    aggregate: GroupRule | None
    run: str | None
    compare: Path | Literal["last"] | None
    receipts: Path | None
    summary: Path | None
    markdown: Path | None
    report: Path | None
    rerun: bool
    resume: bool
    resume_unsafe: bool
    resume_changed: bool
    repair: bool
    canary: int
    max_failed: int | float | None
    budget: float | None
    revoke_on_max_failed: bool
    on_interrupt: Literal["revoke", "detach"] | None
    kills: int
    grace: float
    strict: bool
    window: int | None
    deadline: float
    progress: Literal["auto", "line", "log", "off"]
    issue_link: str | None
    log_format: str
    log_level: str
    broker: str | None
    broker_given: bool
    backend: str | None
    app: str | None
    workers: int
    use_running_stack: bool
    ledgers: Path
    stacks: Path
    plans: Path
    workflows: Path
    may_dispatch: bool

    @property
    def active(self) -> bool:
        """Whether the command line names work of ours."""
        return bool(self.files or self.plan)

    @property
    def resumes(self) -> bool:
        """Whether an earlier run is gone on with."""
        return self.resume or self.resume_changed


def read_options(config: pytest.Config) -> Options:
    """Raises pytest.UsageError with a sentence where options do not go together."""
    option = config.option
    root = config.rootpath
    broker = option.manifest_broker or ini_text(config, "manifest_broker")
    environment = os.environ.get("CELERY_BROKER_URL")
    result = Options(
        root=root,
        files=tuple((config.invocation_params.dir / name).resolve() for name in option.manifest),
        shard=shard(config),
        plan=option.manifest_plan,
        plan_options=_plan_options(option.manifest_plan_opt),
        plan_run=option.manifest_plan_run,
        plan_force=option.manifest_plan_force,
        dispatch_only=option.manifest_dispatch_only,
        audit=option.manifest_audit,
        wait=option.manifest_wait,
        aggregate=aggregate(config),
        run=run_name(config),
        compare=_compare(config),
        receipts=path_of(config, option.manifest_receipts),
        summary=output_file(config, "manifest_summary", ".json"),
        markdown=output_file(config, "manifest_markdown", ".md"),
        report=report_file(config),
        rerun=option.manifest_rerun,
        resume=option.manifest_resume,
        resume_unsafe=option.manifest_resume_unsafe,
        resume_changed=option.manifest_resume_changed,
        repair=option.manifest_repair,
        canary=positive(config, "manifest_canary", 0) if applies(config, "manifest_canary") else 0,
        max_failed=failure_limit(config) if applies(config, "manifest_max_failed") else None,
        budget=amount(config, "manifest_budget") if applies(config, "manifest_budget") else None,
        revoke_on_max_failed=option.manifest_on_max_failed == "revoke",
        on_interrupt=on_interrupt(config),
        kills=positive(config, "manifest_kills", 3),
        grace=duration(config, "manifest_grace", 10.0, zero=True),
        strict=option.manifest_strict,
        window=positive(config, "manifest_window", 0) or None,
        deadline=duration(config, "manifest_deadline", 6 * 3600.0),
        progress=progress(config),
        issue_link=issue_link(config),
        log_format=option.manifest_log_format or config.getini("manifest_log_format"),
        log_level=(option.manifest_log_level or config.getini("manifest_log_level")).upper(),
        broker=broker or environment,
        broker_given=bool(option.manifest_broker),
        backend=_backend(config, broker),
        app=option.manifest_app or ini_text(config, "manifest_app"),
        workers=positive(config, "manifest_workers", os.cpu_count() or 1),
        use_running_stack=option.manifest_stack,
        ledgers=root / config.getini("manifest_dir") / "runs",
        stacks=root / config.getini("manifest_dir") / "stacks",
        plans=root / config.getini("manifest_plans"),
        workflows=root / config.getini("manifest_workflows"),
        may_dispatch=not any(getattr(option, name, False) for name in _LOOKING_ONLY),
    )
    _check_together(result)
    return result


def _backend(config: pytest.Config, broker: str | None) -> str | None:
    """The result store; with a broker given by hand the environment speaks of another stack."""
    given = config.option.manifest_backend or ini_text(config, "manifest_backend")
    if given or broker or not os.environ.get("CELERY_BROKER_URL"):
        return given or None
    return os.environ.get("CELERY_RESULT_BACKEND")


def _compare(config: pytest.Config) -> Path | Literal["last"] | None:
    """The ledger of the run to compare with, or ``last``: which one that is, each run tells."""
    name: str | None = config.option.manifest_compare
    if name is None:
        return None
    if name == "last":
        return "last"
    from pytest_manifest.errors import LedgerError
    from pytest_manifest.ledger import Ledger

    runs = config.rootpath / config.getini("manifest_dir") / "runs"
    places: list[Path] = [runs / f"{name}.sqlite", config.invocation_params.dir / name]
    path = next((place.resolve() for place in places if place.is_file()), None)
    if path is None:
        raise pytest.UsageError(
            f"--manifest-compare={name}: there is no such run, and no such file; give a run's id, "
            "the file of its ledger, or last"
        )
    try:
        Ledger.open(path).close()
    except LedgerError as error:
        raise pytest.UsageError(f"--manifest-compare={name}: {error}") from error
    return path


def _check_together(options: Options) -> None:
    usage = pytest.UsageError
    if options.plan == "":
        raise usage("--manifest-plan is empty; write --manifest-plan=WORKFLOW:MODE")
    if options.plan_run and not options.plan:
        raise usage("--manifest-plan-run needs --manifest-plan=WORKFLOW:MODE")
    if options.plan_options and not options.plan:
        raise usage("--manifest-plan-opt needs --manifest-plan=WORKFLOW:MODE")
    if options.plan and options.resumes:
        raise usage(
            "--manifest-plan plans anew; name the manifest to go on with by --manifest=FILE"
        )
    if options.plan and (options.audit or options.dispatch_only) and not options.plan_run:
        raise usage("--manifest-plan only plans; plan first, then use the manifest that it wrote")
    if options.compare and (options.dispatch_only or (options.plan and not options.plan_run)):
        raise usage(
            "--manifest-compare is told at a run's end; use it there, or with --manifest-audit"
        )
    if options.aggregate and options.plan and not options.plan_run:
        raise usage(
            "--manifest-plan only plans; give --manifest-aggregate when the manifest is run"
        )
    if options.plan and len(options.files) > 1:
        raise usage("--manifest-plan writes one manifest; give --manifest=FILE once")
    if (options.audit or options.dispatch_only or options.resumes) and not options.active:
        raise usage("name the manifest with --manifest=FILE")
    if options.use_running_stack and options.broker_given:
        raise usage("--manifest-stack and --manifest-broker name two stacks; choose one")
    if options.run and not (options.audit or options.resumes):
        raise usage(
            "--manifest-run names an earlier run; it goes with --manifest-audit or "
            "--manifest-resume"
        )
    if options.backend and not options.broker and not options.use_running_stack:
        raise usage("a result store was given without a broker; add --manifest-broker=URL")
    _check_audit(options)
    _check_resume(options)
    _check_shard(options)
    for path in options.files:
        refuse_name(path)
    for path in () if options.plan else options.files:
        if path.is_dir():
            raise usage(f"{path}: is a folder; name a manifest in it")
        if not path.is_file():
            raise usage(
                f"{path}: there is no such manifest; plan one with --manifest-plan=WORKFLOW:MODE"
            )


def _check_audit(options: Options) -> None:
    usage = pytest.UsageError
    if options.audit and options.rerun:
        raise usage(
            "--manifest-audit sends nothing and --manifest-rerun sends all again; choose one"
        )
    if options.audit and options.dispatch_only:
        raise usage(
            "--manifest-audit sends nothing and --manifest-dispatch-only only sends; choose one"
        )
    if options.wait and not options.audit:
        raise usage(
            "--manifest-wait belongs to --manifest-audit; a run without --manifest-audit waits "
            "anyway"
        )
    if options.receipts is None:
        return
    if not options.audit:
        raise usage("--manifest-receipts is judged by --manifest-audit; add it")
    if options.wait or options.run:
        raise usage(
            "--manifest-receipts is all there is to judge; leave --manifest-wait and --manifest-run"
        )
    if len(options.files) != 1:
        raise usage("--manifest-receipts is of one manifest; give --manifest=FILE once")
    if not options.receipts.is_file():
        raise usage(f"{options.receipts}: there is no such file of receipts")


def _check_resume(options: Options) -> None:
    usage = pytest.UsageError
    if options.resume_unsafe and not options.resumes:
        raise usage("--manifest-resume-unsafe belongs to --manifest-resume; add it")
    if options.resumes and options.audit:
        raise usage(
            "--manifest-audit sends nothing and --manifest-resume goes on sending; choose one"
        )
    if options.resumes and options.rerun:
        raise usage(
            "--manifest-resume goes on with a run and --manifest-rerun begins anew; choose one"
        )
    if options.dispatch_only and (options.canary or options.max_failed is not None):
        raise usage(
            "with --manifest-dispatch-only nobody stays to judge a canary or to count failures; "
            "leave it out, or --manifest-canary and --manifest-max-failed"
        )
    if options.dispatch_only and options.budget is not None:
        raise usage(
            "with --manifest-dispatch-only nobody stays to count what the jobs cost; "
            "leave it out, or --manifest-budget"
        )


def _check_shard(options: Options) -> None:
    usage = pytest.UsageError
    if options.shard is None:
        return
    if options.plan and not options.plan_run:
        raise usage(
            "--manifest-plan only plans, and always all; give --manifest-shard to the runs of it"
        )
    if options.receipts is not None:
        raise usage("--manifest-receipts is all there is to judge; leave out --manifest-shard")
    if options.resume_changed:
        raise usage(
            "--manifest-resume-changed cannot go on with a shard, as a changed manifest has other "
            "shards; "
            "finish the shards of the manifest as it was, or run the changed one as a new one"
        )


def _plan_options(pairs: list[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise pytest.UsageError(f"--manifest-plan-opt {pair}: write it as NAME=VALUE")
        if name in values:
            raise pytest.UsageError(f"--manifest-plan-opt {name} was given twice")
        values[name] = value
    return values


__all__ = ["Options", "PlanError", "read_options"]
