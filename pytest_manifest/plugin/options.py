"""Define the options of the command line and the configuration file in one table, and read them.

The rows are the attributes of :class:`Options`. A row's name is that of the option after
``--manifest-``, and after ``manifest_`` in the configuration file. An idle session imports this
module: nothing may be slow.
"""

from __future__ import annotations

import argparse
import os
from itertools import chain
from pathlib import Path
from typing import Final, Literal

import pytest

from pytest_manifest.files import FILE_MODE
from pytest_manifest.plugin import option_kinds as kinds
from pytest_manifest.plugin import option_values as values
from pytest_manifest.plugin.option_kinds import Flag, Mode, Option, Setting, Several, Switch

_CORES: Final = os.cpu_count() or 1
_BROKER_VARIABLES: Final = ("CELERY_BROKER_WRITE_URL", "CELERY_BROKER_URL")
"""The variables by which Celery is told where to send, the first that is set."""


class Options:
    """Hold what the user asked for, checked; times in seconds, folders absolute.

    ``max_failed`` is a number of entries, or as a float a share of them; ``budget`` is in the
    entries' unit of cost. ``broker`` is a URL of the command line, the file or the environment,
    ``broker_named`` whether it is of the first two; ``stack_word`` is what was written instead of
    a URL; ``stack_named``: one of them says which stack. ``environment_source``: the variable that
    names a broker.
    """

    manifests = Several(
        values.texts, "FILE", "dispatch and verify this manifest; repeatable", name=""
    )
    check = Mode("json", about="check the stack and send nothing; =json: as JSON")
    shard = Option(values.shard, None, "K/N[@RUN]", "only the K-th of N parts of each manifest")
    plan = Option(values.plan_name, None, "WORKFLOW[:MODE]", "plan, show a preview and stop")
    plan_options = Several(values.plan_options, "NAME=VALUE", "option of the plan", name="plan_opt")
    plan_run = Mode("force", about="run what is planned; =force replaces another manifest")
    dispatch_only = Flag("send and return with a run id; needs a stack that outlives pytest")
    detach = Flag("leave the run to a process of its own, and print one JSON record about it")
    audit = Mode("wait", about="send nothing: judge the newest run; =wait: for what is pending")
    receipts = Option(values.path, None, "FILE.jsonl", "with --manifest-audit: judge these alone")
    aggregate = Option(values.aggregate, None, "task|chunk:N", "one test for a task, or for N")
    run = Option(values.run_name, None, "RUN", "audit or resume this run instead of the newest")
    compare = Option(values.compared, None, "RUN|last", "show what changed since an earlier run")
    gate = Option(values.one_of("no-new"), None, "no-new", "fail only what the baseline had passed")
    reuse = Option(values.reused, None, "RUN|last|all", "send nothing that passed unchanged there")
    rerun = Flag("dispatch although an earlier run is unfinished or must not be repeated")
    strict = Flag("send nothing for unknown tasks and weak evidence", ini=True)
    allow = Option(values.task_patterns, None, "TASKS", "tasks that may be sent", ini=True)
    accept = Setting[tuple[str, ...]](values.risks, (), "risks that are taken: redelivery")
    apply_async = Switch("have tasks with an apply_async of their own make their messages by it")
    no_worker = Setting(values.grace, 120.0, "time without a worker after which a run ends")
    require_signature = Switch("send only manifests that a trusted key has signed")
    public_key = values.public_keys("who may sign manifests", "MANIFEST_PUBLIC_KEY")
    require_signed_receipts = Switch("count only what workers with a trusted key have signed")
    receipt_key = values.public_keys("the workers", "MANIFEST_RECEIPT_KEY")
    window = Option(values.positive, None, "N", "entries in flight at most (10000)", ini=True)
    key_limits = Several(
        values.key_limits,
        "NAME=N",
        "jobs in flight of each value of a key",
        name="key_limit",
        ini=True,
    )
    rates = Several(
        values.rates,
        "[KEY:]N/s",
        "messages sent a second (/m, /h) at most, also of a key",
        name="rate",
        ini=True,
    )
    queue_depth = Option(
        values.positive, None, "N", "messages in a queue beyond which none are added", ini=True
    )
    deadline = Option(values.deadline, 6 * 3600.0, "TIME", "time for a run, like 6h", ini=True)
    progress: Option[Literal["auto", "line", "log", "off"]] = Option(
        values.one_of("auto", "line", "log", "off"),
        "auto",
        "HOW",
        "auto, line, log or off",
        ini=True,
    )
    live = Mode("control", about="serve a page about the run; =control: with buttons to steer it")
    log_format: Option[Literal["text", "json"]] = Setting(
        values.one_of("text", "json"), "text", "format of the run's and the workers' logs"
    )
    log_level = Setting(values.log_level, "INFO", "least level of the workers' logs")
    canary = Option(values.positive, 0, "N", "entries that are tried before the others", ini=True)
    max_failed = Option(
        values.failure_limit, None, "N|P%[:revoke]", "stop sending when more have failed", ini=True
    )
    budget = Option(values.amount, None, "COST", "what a run may cost", ini=True)
    kills = Setting(values.positive, 3, "deaths of a worker that quarantine an entry")
    redact = Setting(values.one_of("yes", "no"), "yes", "whether secrets are hidden: yes or no")
    redact_names = Setting[tuple[str, ...]](values.secret_names, (), "more names of secrets")
    on_interrupt = Setting(values.interruption, None, "what waits on Ctrl-C: revoke or detach it")
    grace = Setting(values.grace, 10.0, "time for running jobs after Ctrl-C, like 10s")
    resume = Mode("unsafe", about="go on with the newest run; =unsafe: also what may run twice")
    repair = Flag("on an existing broker, too, put back the jobs that a lost worker had taken")
    broker = Option(values.broker, None, "URL|app|private", "where the jobs go", ini=True)
    backend = Option(kinds.text, None, "URL", "result store of an existing stack", ini=True)
    app = Option(kinds.text, None, "MODULE:APP", "the Celery app, like proj.celery:app", ini=True)
    workers = Option(values.positive, _CORES, "N", "processes of the private stack", ini=True)
    use_running_stack = Flag("use the stack that 'manifest stack up' keeps running", name="stack")
    reports = Several(
        values.report_files,
        "FILE",
        "a report, by its ending: .html, .md, .json, .ctrf.json, .prom and others; repeatable",
        name="report",
        ini=True,
    )
    history = Option(values.history_page, None, "FILE.html", "a page of these manifests' runs")
    report_mode = Setting(values.file_mode, FILE_MODE, "who may read files of reports, like 640")
    otlp = Setting(values.endpoint, None, "a collector, like http://localhost:4318, or env")
    folder = Setting(
        kinds.project_path, Path(), "folder of ledgers", name="dir", ini_default=".manifest"
    )
    plans = Setting(
        kinds.project_path, Path(), "folder that plans go into", ini_default="manifests"
    )
    workflows = Setting(
        kinds.project_path, Path(), "folder of the workflows", ini_default="workflows"
    )
    notify = Setting[tuple[str, ...]](values.words, (), "who is notified of a run, by apprise")
    notify_on = Setting[tuple[str, ...]](values.events, values.EVENTS, "of which events")
    webhook = Setting[tuple[str, ...]](values.words, (), "addresses that are posted what happens")
    ping = Setting[tuple[str, ...]](values.words, (), "a dead man's switch, at start and end")
    issue_link = Setting(values.issue_link, None, "address of an issue for Allure, {} for its name")

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
        self.stack_named = bool(named or self.stack_word or self.use_running_stack)
        self.environment_source = source
        self.key_limits_given = bool(given.manifest_key_limit)
        self.rates_given = bool(given.manifest_rate)
        self.root = config.rootpath
        folder = config.invocation_params.dir
        self.files = tuple((folder / name).resolve() for name in self.manifests)
        self.ledgers, self.stacks = self.folder / "runs", self.folder / "stacks"
        looks = (getattr(given, name, False) for name in values.LOOKING_ONLY.split())
        self.may_dispatch = not any(looks)
        self.settings_arguments = values.settings_arguments(config)
        self.stack_arguments = "".join(values.stack_arguments(config, ROWS))
        self.arguments = values.from_anywhere(self.stack_arguments, folder)
        self.report = self.reports.get(values.PAGE)
        self.markdown = self.reports.get(values.MARKDOWN)
        self.summary = self.reports.get(values.SUMMARY)
        own_endings = (values.PAGE, values.MARKDOWN, values.SUMMARY)
        self.other_reports = [path for end, path in self.reports.items() if end not in own_endings]
        self.active = bool(self.files or self.plan)
        self.only_plans = bool(self.plan) and not self.plan_run


ROWS: Final = {name: row for name, row in vars(Options).items() if isinstance(row, Option)}
"""The table, by the attributes of :class:`Options`."""


_ABOUT: Final = "batches of Celery jobs as tests (pytest-celery-manifest)"
_SUBJECTS: Final = {
    "resume and judge": {"audit", "receipts", "run", "reuse", "rerun", "resume", "repair"},
    "limits": {
        *("window", "key_limits", "rates", "queue_depth", "deadline", "canary", "max_failed"),
        "budget",
    },
    "reports": {"gate", "aggregate", "compare", "progress", "live", "reports", "history"},
    "security": {"strict", "allow"},
}
"""Under which heading of ``--help`` an option stands; all others: what to send, and where."""


def add_options(parser: pytest.Parser, config: pytest.Config | None) -> None:
    """Declare every option of the plugin to pytest.

    Raises pytest.UsageError where pytest is given a mode with a word that is none.
    """
    given = []
    if config is not None:
        others = kinds.other_arguments(config).values()
        given = [*config.invocation_params.args, *chain.from_iterable(others)]
    groups = {
        subject: parser.getgroup(f"manifest, {subject}", f"{_ABOUT}: {subject}")
        for subject in ("send", *_SUBJECTS)
    }
    for name, row in ROWS.items():
        subject = next((one for one, names in _SUBJECTS.items() if name in names), "send")
        row.declare(parser, groups[subject])
        if isinstance(row, Mode) and config is not None:
            with kinds.naming_sources(config):
                row.refuse_others(given)


def any_given(options: argparse.Namespace) -> bool:
    """Check whether the command line has an option of the table.

    Options of other plugins may begin with ``--manifest``, too; they do not count.
    """
    given = (getattr(options, row.dest, None) for row in ROWS.values())
    return any(value is not None and value is not False and value != [] for value in given)
