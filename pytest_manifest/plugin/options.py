"""Define the options of the command line and the configuration file in one table, and read them.

The rows are the attributes of :class:`Options`. A row's name is that of the option after
``--manifest-``, and after ``manifest_`` in the configuration file. An idle session imports this
module: nothing may be slow.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import pytest

from pytest_manifest.files import FILE_MODE
from pytest_manifest.plugin import option_kinds as kinds
from pytest_manifest.plugin import option_values as values
from pytest_manifest.plugin.option_kinds import Flag, Mode, Option, Several

_BROKER_VARIABLES: Final = ("CELERY_BROKER_WRITE_URL", "CELERY_BROKER_URL")
"""The variables by which Celery is told where to send, the first that is set."""


class Options:
    """Hold what the user asked for, checked; times in seconds, folders absolute.

    ``max_failed`` is a number of entries, or as a float a share of them; ``budget`` is in the
    entries' unit of cost. ``broker`` is a URL of the command line, the file or the environment,
    ``broker_named`` whether it is of the first two; ``stack_word`` is what was written instead of
    a URL. ``environment_source``: the variable that names a broker.
    """

    manifests = Several(
        values.texts,
        "dispatch this manifest and verify every receipt; may be given several times",
        name="",
        metavar="FILE",
    )
    check = Mode(
        "json",
        about="check the stack and send nothing: who answers, tasks, queues, limits, stores; with "
        "--manifest=FILE also what that file needs; ends with 0, or with 4 for an error; =json "
        "prints what was found as JSON",
    )
    shard = Option(
        values.shard,
        None,
        "only the K-th of N parts of each manifest, like 2/8: for N jobs of CI side by side; "
        "with @RUN parts that take about the same time, by the times of that earlier run",
        metavar="K/N[@RUN]",
    )
    plan = Option(
        values.plan_name,
        None,
        "run a planning fixture, write its manifest, show a preview and stop",
        metavar="WORKFLOW[:MODE]",
    )
    plan_options = Several(
        values.plan_options,
        "an option of the plan; may be given several times",
        name="plan_opt",
        metavar="NAME=VALUE",
    )
    plan_run = Mode(
        "force",
        about="with --manifest-plan: dispatch and verify what was planned; =force replaces a "
        "different manifest that --manifest=FILE names",
    )
    dispatch_only = Flag("send and return with a run id; needs a stack that outlives pytest")
    audit = Mode(
        "wait",
        about="send nothing: judge the newest run of the manifest from its ledger; =wait waits for "
        "what is still pending",
    )
    receipts = Option(
        values.path,
        None,
        "with --manifest-audit: judge exported receipts alone, without a ledger",
        metavar="FILE.jsonl",
    )
    aggregate = Option(
        values.aggregate,
        None,
        "one test for all entries of a task, or for N entries each, instead of one an entry",
        metavar="task|chunk:N",
    )
    run = Option(
        values.run_name,
        None,
        "with --manifest-audit or --manifest-resume: this run instead of the newest",
        metavar="RUN",
    )
    compare = Option(
        values.compared,
        None,
        "show what changed since an earlier run: its id, its ledger's file, or the last one",
        metavar="RUN|last",
    )
    reuse = Option(
        values.reused,
        None,
        "send nothing that has passed unchanged in this run, the last, or any: judge its receipt "
        "again",
        metavar="RUN|last|all",
    )
    rerun = Flag("dispatch although an earlier run is unfinished or must not be repeated")
    strict = Flag(
        "send nothing when a task is unknown to every worker, or an entry expects no more "
        "than that its job ends, and no test looks at its receipt",
        ini="send nothing for unknown tasks and weak evidence",
    )
    allow = Option(
        values.task_patterns,
        None,
        "send only these tasks: names or patterns with *, like 'shop.* tasks.resize'",
        metavar="TASKS",
        ini="tasks that may be sent, like shop.* tasks.resize",
    )
    accept = Option[tuple[str, ...]](
        values.risks, (), ini="risks with which a run is sent all the same: redelivery"
    )
    apply_async = Flag(ini="have tasks with an apply_async of their own make their messages by it")
    no_worker = Option(
        values.grace,
        120.0,
        ini="time without any worker after which a run ends, like 2m; 0: it waits for its deadline",
    )
    require_signature = Flag(ini="send only manifests that a trusted key has signed")
    public_key = values.public_keys("who may sign manifests", "MANIFEST_PUBLIC_KEY")
    require_signed_receipts = Flag(ini="count only what workers with a trusted key have signed")
    receipt_key = values.public_keys("the workers", "MANIFEST_RECEIPT_KEY")
    window = Option(
        values.positive,
        None,
        "entries in flight at most (10000)",
        metavar="N",
        ini="entries in flight at most",
    )
    key_limits = Several(
        values.key_limits,
        "of each value of the entries' key NAME at most N jobs in flight, like tenant=5; may be "
        "given several times",
        name="key_limit",
        metavar="NAME=N",
        ini="jobs in flight at most of each value of an entry's key, like tenant=5 host=2",
    )
    deadline = Option(
        values.deadline,
        6 * 3600.0,
        "time for the whole run: seconds, or like 90s, 30m, 6h (6h)",
        metavar="TIME",
        ini="time for a whole run, like 6h",
    )
    progress: Option[Literal["auto", "line", "log", "off"]] = Option(
        values.one_of("auto", "line", "log", "off"),
        "auto",
        "how far the run is: one line that is rewritten, sparse lines, or nothing; auto takes "
        "what fits the terminal (auto)",
        metavar="auto|line|log|off",
        ini="auto, line, log or off",
    )
    log_format: Option[Literal["text", "json"]] = Option(
        values.one_of("text", "json"),
        "text",
        ini="format of the run's log and of the workers' logs: text or json",
    )
    log_level = Option(values.log_level, "INFO", ini="least level of the workers' logs")
    canary = Option(
        values.positive,
        0,
        "try N entries, spread over the manifest, and send the others only if they pass",
        metavar="N",
        ini="entries that are tried before the others",
        attended=True,
    )
    max_failed = Option(
        values.failure_limit,
        None,
        "stop sending when more entries than this have failed: a number, or a share of what "
        "is to be sent, like 5%%; with :revoke what is sent already is taken back",
        metavar="N|P%[:revoke]",
        ini="stop sending when more have failed: N, or P%, or with :revoke",
        attended=True,
    )
    budget = Option(
        values.amount,
        None,
        "send no more when the run would cost more than this, in the entries' unit of cost",
        metavar="COST",
        ini="what a run may cost, in the entries' unit of cost",
        attended=True,
    )
    kills = Option(values.positive, 3, ini="deaths of a worker that quarantine an entry")
    redact = Option(
        values.one_of("yes", "no"),
        "yes",
        ini="yes or no: whether secrets are hidden in all that is shown and reported",
    )
    redact_names = Option[tuple[str, ...]](values.secret_names, (), ini="more names of secrets")
    on_interrupt = Option(
        values.interruption,
        None,
        ini="what becomes of what waits on Ctrl-C: revoke takes it back (as by default on a stack "
        "of our own), detach leaves it to the workers (as by default elsewhere)",
    )
    grace = Option(values.grace, 10.0, ini="time for running jobs after Ctrl-C, like 10s")
    resume = Mode(
        "unsafe",
        about="go on with the manifest's newest run: send what has no passing verdict; =unsafe "
        "sends also what may have run and is not declared idempotent",
    )
    repair = Flag("on an existing broker, too, put back the jobs that a lost worker had taken")
    broker = Option(
        values.broker,
        None,
        "where the jobs go: a broker's URL; app: the broker that the app names; private: a stack "
        "for this run alone (the app's, where it names one, else private)",
        metavar="URL|app|private",
        ini="where the jobs go: a broker's URL, app, or private",
    )
    backend = Option(
        kinds.text,
        None,
        "result store of an existing stack (CELERY_RESULT_BACKEND; a Redis broker's own URL)",
        metavar="URL",
        ini="result store URL of an existing stack",
    )
    app = Option(
        kinds.text,
        None,
        "the Celery application, like proj.celery:app",
        metavar="MODULE:APP",
        ini="the Celery application, like proj.celery:app",
    )
    workers = Option(
        values.positive,
        os.cpu_count() or 1,
        "worker processes of the private stack (one a core)",
        metavar="N",
        ini="worker processes of the private stack",
    )
    use_running_stack = Flag(
        "use the stack that 'manifest stack up' keeps running",
        name="stack",
    )
    reports = Several(
        values.report_files,
        "write a report of the run, by the file's ending: .html a page with timeline, histograms "
        "and every entry, .md the summary in Markdown, .json the summary for programs; may be "
        "given several times",
        name="report",
        metavar="FILE",
        ini="files of reports, like build/run.html build/run.json",
    )
    report_mode = Option(
        values.file_mode,
        FILE_MODE,
        ini="who may read the files of reports, like 640 or 644; 600, their owner alone, else",
    )
    folder = Option(
        kinds.project_path,
        Path(),
        name="dir",
        ini="folder of ledgers, receipts and logs",
        ini_default=".manifest",
    )
    plans = Option(
        kinds.project_path, Path(), ini="folder that plans go into", ini_default="manifests"
    )
    workflows = Option(
        kinds.project_path, Path(), ini="folder of the workflows", ini_default="workflows"
    )
    issue_link = Option(
        values.issue_link, None, ini="address of an issue for Allure, with {} for its name"
    )

    def __init__(self, config: pytest.Config) -> None:
        """Read all rows. Raises pytest.UsageError where a text is not valid."""
        given, own = config.option, vars(self)
        own.update({attribute: row.read(config) for attribute, row in ROWS.items()})
        self.stack_word = self.broker if self.broker in ("private", "app") else None
        named = None if self.stack_word else self.broker
        source = next((name for name in _BROKER_VARIABLES if os.environ.get(name)), "")
        environment = os.environ.get(source) if self.stack_word != "private" else None
        if environment and not (named or self.backend):
            # Where the user names a broker, the environment's result store is another stack's.
            own["backend"] = os.environ.get("CELERY_RESULT_BACKEND")
        own["broker"] = named or environment
        self.broker_given = bool(given.manifest_broker)
        self.broker_named = bool(named)
        self.environment_source = source
        self.key_limits_given = bool(given.manifest_key_limit)
        self.root = config.rootpath
        folder = config.invocation_params.dir
        self.files = tuple((folder / name).resolve() for name in self.manifests)
        self.ledgers, self.stacks = self.folder / "runs", self.folder / "stacks"
        self.may_dispatch = not any(getattr(given, name, False) for name in values.LOOKING_ONLY)
        self.settings_file = values.settings_file(given)
        self.stack_arguments = "".join(values.stack_arguments(given, ROWS))
        self.report = self.reports.get(values.PAGE)
        self.markdown = self.reports.get(values.MARKDOWN)
        self.summary = self.reports.get(values.SUMMARY)
        self.active = bool(self.files or self.plan)


ROWS: Final = {name: row for name, row in vars(Options).items() if isinstance(row, Option)}
"""The table, by the attributes of :class:`Options`."""


_ABOUT: Final = "batches of Celery jobs as tests (pytest-celery-manifest)"
_SUBJECTS: Final = {
    "resume and judge": {"audit", "receipts", "run", "reuse", "rerun", "resume", "repair"},
    "limits": {"window", "key_limits", "deadline", "canary", "max_failed", "budget"},
    "reports": {"aggregate", "compare", "progress", "reports"},
    "security": {"strict", "allow"},
}
"""Under which heading of ``--help`` an option stands; all others: what to send, and where."""


def add_options(parser: pytest.Parser, arguments: Sequence[str]) -> None:
    """Declare every option of the plugin to pytest.

    Raises pytest.UsageError where these arguments of pytest have a mode with a word that is none.
    """
    for name, row in ROWS.items():
        subject = next((one for one, names in _SUBJECTS.items() if name in names), "send")
        row.declare(parser, parser.getgroup(f"manifest, {subject}", f"{_ABOUT}: {subject}"))
        if isinstance(row, Mode):
            row.refuse_others(arguments)


def any_given(options: argparse.Namespace) -> bool:
    """Check whether the command line has an option of the table.

    Options of other plugins may begin with ``--manifest``, too; they do not count.
    """
    given = (getattr(options, row.dest, None) for row in ROWS.values())
    return any(value is not None and value is not False and value != [] for value in given)
