"""The options of the command line and of the configuration file, as pytest is told of them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Final

import pytest

_OURS: Final = "manifest"
"""How the names of all options begin."""
_DEFAULTS: Final[tuple[object, ...]] = (None, [], "drain")  # and False


def any_given(options: argparse.Namespace) -> bool:
    """Whether the command line has any of the options; another plugin's may look like ours."""
    return any(
        value is not False and value not in _DEFAULTS  # 0 was given
        for name, value in vars(options).items()
        if name.startswith(_OURS)
    )


_RENAMED: Final = {
    f"--{name}": f"--manifest-{name}"
    for name in (
        "plan",
        "plan-opt",
        "plan-run",
        "plan-force",
        "dispatch-only",
        "audit",
        "wait",
        "resume",
        "resume-unsafe",
        "resume-changed",
    )
}
"""Options by the names that they had until other plugins were given room for theirs."""


def refuse_former_names(parser: pytest.Parser, arguments: Sequence[str]) -> None:
    """Raise pytest.UsageError that names the new option for each former name on the command line.

    Names that another plugin has registered are left to it, so call this when all plugins and
    initial conftests are loaded. pytest allows no abbreviations of options, so none are looked for.
    """
    if not any(argument.partition("=")[0] in _RENAMED for argument in arguments):
        return  # without parsing once more
    _, unknown = parser.parse_known_and_unknown_args(arguments)
    former = dict.fromkeys(argument.partition("=")[0] for argument in unknown)
    changes = [f"{_RENAMED[name]} for {name}" for name in former if name in _RENAMED]
    if changes:
        raise pytest.UsageError(
            f"write {', '.join(changes)}: all options of pytest-celery-manifest begin with "
            "--manifest"
        )


def add_options(parser: pytest.Parser) -> None:
    """Declare every option of the plugin; nothing here may be slow."""
    group = parser.getgroup("manifest", "batches of Celery jobs as tests (pytest-celery-manifest)")
    _add_work_options(group)
    _add_run_options(group)
    _add_gate_options(group)
    _add_resume_options(group)
    _add_stack_options(group)
    _add_report_options(group)
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
        "--manifest-shard",
        metavar="K/N",
        help="only the K-th of N parts of each manifest, like 2/8: for N jobs of CI side by side",
    )
    add(
        "--manifest-plan",
        metavar="WORKFLOW[:MODE]",
        help="run a planning fixture, write its manifest, show a preview and stop",
    )
    add(
        "--manifest-plan-opt",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of the plan; may be given several times",
    )
    add(
        "--manifest-plan-run",
        action="store_true",
        help="with --manifest-plan: dispatch and verify what was planned",
    )
    add(
        "--manifest-plan-force",
        action="store_true",
        help="with --manifest-plan --manifest=FILE: replace a different manifest",
    )


def _add_run_options(group: pytest.OptionGroup) -> None:
    add = group.addoption
    add(
        "--manifest-dispatch-only",
        action="store_true",
        help="send and return with a run id; needs a stack that outlives pytest",
    )
    add(
        "--manifest-audit",
        action="store_true",
        help="send nothing: judge the newest run of the manifest from its ledger",
    )
    add(
        "--manifest-wait",
        action="store_true",
        help="with --manifest-audit: wait for what is still pending",
    )
    add(
        "--manifest-receipts",
        metavar="FILE.jsonl",
        help="with --manifest-audit: judge exported receipts alone, without a ledger",
    )
    add(
        "--manifest-aggregate",
        metavar="task|chunk:N",
        help="one test for all entries of a task, or for N entries each, instead of one an entry",
    )
    add(
        "--manifest-run",
        metavar="RUN",
        help="with --manifest-audit or --manifest-resume: this run instead of the newest",
    )
    add(
        "--manifest-compare",
        metavar="RUN|last",
        help="tell what changed since an earlier run: its id, its ledger's file, or the last one",
    )
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
        "--manifest-progress",
        choices=["auto", "line", "log", "off"],
        help="how far the run is: one line that is rewritten, sparse lines, or nothing; auto takes "
        "what fits the terminal (auto)",
    )
    add(
        "--manifest-log-format",
        choices=["text", "json"],
        help="format of the run's log and of the workers' logs (text)",
    )
    add("--manifest-log-level", metavar="LEVEL", help="least level of the workers' logs (INFO)")


def _add_gate_options(group: pytest.OptionGroup) -> None:
    add = group.addoption
    add(
        "--manifest-canary",
        metavar="N",
        help="try N entries, spread over the manifest, and send the others only if they pass",
    )
    add(
        "--manifest-max-failed",
        metavar="N|P%",
        help="stop sending when more entries than this have failed: a number, or a share of what "
        "is to be sent, like 5%%",
    )
    add(
        "--manifest-on-max-failed",
        choices=["drain", "revoke"],
        default="drain",
        help="what is sent already is then waited for, or taken back (drain)",
    )
    add(
        "--manifest-budget",
        metavar="COST",
        help="send no more when the run would cost more than this, in the entries' unit of cost",
    )
    add(
        "--manifest-kills",
        metavar="K",
        help="quarantine an entry when it has killed its worker K times (3)",
    )
    add(
        "--manifest-on-interrupt",
        choices=["revoke", "detach"],
        help="on Ctrl-C take back what waits, or leave it to the workers "
        "(revoke on a stack of our own, else detach)",
    )
    add(
        "--manifest-grace",
        metavar="TIME",
        help="on Ctrl-C wait so long for jobs that are running (10s)",
    )


def _add_resume_options(group: pytest.OptionGroup) -> None:
    add = group.addoption
    add(
        "--manifest-resume",
        action="store_true",
        help="go on with the manifest's newest run: send what has no passing verdict",
    )
    add(
        "--manifest-resume-unsafe",
        action="store_true",
        help="with --manifest-resume: send also what may have run and is not declared idempotent",
    )
    add(
        "--manifest-resume-changed",
        action="store_true",
        help="the manifest was changed: send what changed; with --manifest-resume also what has "
        "not passed",
    )
    add(
        "--manifest-repair",
        action="store_true",
        help="on an existing broker, too, put back what a worker that is gone had taken",
    )


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


def _add_report_options(group: pytest.OptionGroup) -> None:
    add = group.addoption
    add(
        "--manifest-summary",
        metavar="FILE.json",
        help="write the run's summary there, too, which is kept beside its ledger",
    )
    add(
        "--manifest-markdown",
        metavar="FILE.md",
        help="write the run's summary in Markdown (GitHub's $GITHUB_STEP_SUMMARY gets it anyway)",
    )
    add(
        "--manifest-report",
        metavar="FILE.html",
        help="write a page about the run, in one file: timeline, histograms, every entry",
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
    parser.addini("manifest_canary", "entries that are tried before the others")
    parser.addini("manifest_max_failed", "stop sending when more have failed: N, or P%")
    parser.addini("manifest_budget", "what a run may cost, in the entries' unit of cost")
    parser.addini("manifest_on_interrupt", "revoke or detach")
    parser.addini("manifest_kills", "deaths of a worker that quarantine an entry")
    parser.addini("manifest_grace", "time for running jobs after Ctrl-C, like 10s")
    parser.addini("manifest_progress", "auto, line, log or off")
    parser.addini("manifest_issue_link", "address of an issue for Allure, with {} for its name")
    parser.addini("manifest_log_format", "text or json", default="text")
    parser.addini("manifest_report", "file of the page about the run, like build/run.html")
    parser.addini("manifest_log_level", "least level of the workers' logs", default="INFO")
