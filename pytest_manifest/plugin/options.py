"""Define the options of the command line and the configuration file in one table, and read them.

The rows are the attributes of :class:`Options`. A row's name is that of the option after
``--manifest-``, and after ``manifest_`` in the configuration file. An idle session imports this
module: nothing may be slow.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Final, Literal, NoReturn

import pytest

from pytest_manifest.files import FILE_MODE
from pytest_manifest.plugin import option_values as values
from pytest_manifest.plugin.option_values import Flag, Option, Repeated

_BROKER_VARIABLES: Final = ("CELERY_BROKER_WRITE_URL", "CELERY_BROKER_URL")
"""The variables by which Celery is told where to send, the first that is set."""


class Options:
    """Hold what the user asked for, checked; times in seconds, folders absolute.

    ``max_failed`` is a number of entries, or as a float a share of them; ``budget`` is in the
    entries' unit of cost. ``broker`` is a URL of the command line, the file or the environment,
    ``broker_named`` whether it is of the first two; ``stack_word`` is what was written instead of
    a URL. ``environment_source``: the variable that names a broker.
    """

    manifests = values.manifests()
    check = Flag(
        "check the stack and send nothing: who answers, tasks, queues, limits, stores; with "
        "--manifest=FILE also what that file needs; ends with 0, or with 4 for an error"
    )
    check_json = Flag("check the stack, and print what was found as JSON")
    shard = Option(
        values.shard,
        None,
        "only the K-th of N parts of each manifest, like 2/8: for N jobs of CI side by side; "
        "with @RUN parts that take about the same time, by the times of that earlier run",
        metavar="K/N[@RUN]",
    )
    plan = Option(
        values.verbatim,
        None,
        "run a planning fixture, write its manifest, show a preview and stop",
        metavar="WORKFLOW[:MODE]",
    )
    plan_pairs = Repeated(
        "an option of the plan; may be given several times",
        name="plan_opt",
        metavar="NAME=VALUE",
    )
    plan_run = Flag("with --manifest-plan: dispatch and verify what was planned")
    plan_force = Flag("with --manifest-plan --manifest=FILE: replace a different manifest")
    dispatch_only = Flag("send and return with a run id; needs a stack that outlives pytest")
    audit = Flag("send nothing: judge the newest run of the manifest from its ledger")
    wait = Flag("with --manifest-audit: wait for what is still pending")
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
        "send nothing that has passed unchanged in this run, or in any: judge its receipt again",
        metavar="RUN|all",
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
    accept = values.accepted_risks()
    apply_async = values.own_apply_async()
    no_worker = values.time_without_workers()
    require_signature = Flag(
        "send nothing of a manifest that no trusted key has signed, or that was changed since",
        ini="send only manifests that a trusted key has signed",
    )
    public_key = values.public_keys("who may sign manifests", "MANIFEST_PUBLIC_KEY")
    require_signed_receipts = Flag(
        "count only what workers with a trusted key have signed; those of the private stack do",
        ini="count only what workers with a trusted key have signed",
    )
    receipt_key = values.public_keys("the workers", "MANIFEST_RECEIPT_KEY")
    window = Option(
        values.positive,
        None,
        "entries in flight at most (10000)",
        metavar="N",
        ini="entries in flight at most",
    )
    key_limits = values.KeyLimitOption()
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
        choices=["auto", "line", "log", "off"],
        ini="auto, line, log or off",
    )
    log_format = Option(
        values.text,
        "text",
        "format of the run's log and of the workers' logs (text)",
        choices=["text", "json"],
        ini="text or json",
        ini_default="text",
    )
    log_level = Option(
        values.upper,
        "INFO",
        "least level of the workers' logs (INFO)",
        metavar="LEVEL",
        ini="least level of the workers' logs",
        ini_default="INFO",
    )
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
        "is to be sent, like 5%%",
        metavar="N|P%",
        ini="stop sending when more have failed: N, or P%",
        attended=True,
    )
    revoke_on_max_failed = Option(
        lambda given: given.text == "revoke",
        default=False,
        help="what is sent already is then waited for, or taken back (drain)",
        name="on_max_failed",
        choices=["drain", "revoke"],
    )
    budget = Option(
        values.amount,
        None,
        "send no more when the run would cost more than this, in the entries' unit of cost",
        metavar="COST",
        ini="what a run may cost, in the entries' unit of cost",
        attended=True,
    )
    kills = Option(
        values.positive,
        3,
        "quarantine an entry when it has killed its worker K times (3)",
        metavar="K",
        ini="deaths of a worker that quarantine an entry",
    )
    redact = Option(
        values.one_of("yes", "no"),
        "yes",
        "hide secrets in all that is shown and reported of entries and receipts (yes)",
        choices=["yes", "no"],
        ini="yes or no: whether secrets are hidden in reports",
    )
    redact_names = Option(values.secret_names, values.NO_NAMES, ini="more names of secrets")
    on_interrupt = Option(
        values.interruption,
        None,
        "on Ctrl-C take back what waits, or leave it to the workers "
        "(revoke on a stack of our own, else detach)",
        choices=["revoke", "detach"],
        ini="revoke or detach",
    )
    grace = Option(
        values.grace,
        10.0,
        "on Ctrl-C wait so long for jobs that are running (10s)",
        metavar="TIME",
        ini="time for running jobs after Ctrl-C, like 10s",
    )
    resume = Flag("go on with the manifest's newest run: send what has no passing verdict")
    resume_unsafe = Flag(
        "with --manifest-resume: send also what may have run and is not declared idempotent",
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
        values.text,
        None,
        "result store of an existing stack (CELERY_RESULT_BACKEND; a Redis broker's own URL)",
        metavar="URL",
        ini="result store URL of an existing stack",
    )
    app = Option(
        values.text,
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
    summary = Option(
        values.summary_file,
        None,
        "write the run's summary there, too, which is kept beside its ledger",
        metavar="FILE.json",
    )
    markdown = Option(
        values.markdown_file,
        None,
        "write the run's summary in Markdown (GitHub's $GITHUB_STEP_SUMMARY gets it anyway)",
        metavar="FILE.md",
    )
    report = Option(
        values.report_file,
        None,
        "write a page about the run, in one file: timeline, histograms, every entry",
        metavar="FILE.html",
        ini="file of the page about the run, like build/run.html",
        attended=True,
    )
    report_mode = Option(
        values.file_mode,
        FILE_MODE,
        "who may read the files of reports, like 640 or 644 (600: their owner alone)",
        metavar="MODE",
        ini="mode of the files of reports, like 640",
    )
    folder = Option(
        values.project_path,
        Path(),
        name="dir",
        ini="folder of ledgers, receipts and logs",
        ini_default=".manifest",
    )
    plans = Option(
        values.project_path, Path(), ini="folder that plans go into", ini_default="manifests"
    )
    workflows = Option(
        values.project_path, Path(), ini="folder of the workflows", ini_default="workflows"
    )
    issue_link = Option(
        values.issue_link, None, ini="address of an issue for Allure, with {} for its name"
    )

    root: Path
    files: tuple[Path, ...]
    plan_options: dict[str, str]
    key_limits_given: bool
    broker_given: bool
    broker_named: bool
    stack_word: Literal["private", "app"] | None
    environment_source: str
    may_dispatch: bool
    ledgers: Path
    stacks: Path
    settings_file: tuple[str, ...]
    stack_arguments: str

    def __init__(self, config: pytest.Config) -> None:
        """Read all rows. Raises pytest.UsageError where a text is not valid."""
        own = vars(self)
        own.update({attribute: row.read(config) for attribute, row in ROWS.items()})
        folder, word = config.invocation_params.dir, values.stack_word(self.broker)
        named = None if word else self.broker
        source = next((name for name in _BROKER_VARIABLES if os.environ.get(name)), "")
        environment = os.environ.get(source) if word != "private" else None
        if environment and not (named or self.backend):
            # Where the user names a broker, the environment's result store is another stack's.
            own["backend"] = os.environ.get("CELERY_RESULT_BACKEND")
        own.update(
            root=config.rootpath,
            files=tuple((folder / name).resolve() for name in self.manifests),
            plan_options=values.plan_options(self.plan_pairs),
            broker=named or environment,
            key_limits_given=bool(config.option.manifest_limit),
            broker_given=bool(config.option.manifest_broker),
            broker_named=bool(named),
            stack_word=word,
            environment_source=source,
            may_dispatch=not any(
                getattr(config.option, name, False) for name in values.LOOKING_ONLY
            ),
            ledgers=self.folder / "runs",
            stacks=self.folder / "stacks",
            settings_file=values.settings_file(config.option),
            stack_arguments="".join(values.stack_arguments(config.option, ROWS)),
        )

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"options are read once: {name} stays as it is")

    @property
    def active(self) -> bool:
        """Return whether the command line names a manifest or a plan."""
        return bool(self.files or self.plan)


ROWS: Final = {name: row for name, row in vars(Options).items() if isinstance(row, Option)}
"""The table, by the attributes of :class:`Options`."""


def add_options(parser: pytest.Parser) -> None:
    """Declare every option of the plugin to pytest."""
    group = parser.getgroup("manifest", "batches of Celery jobs as tests (pytest-celery-manifest)")
    for row in ROWS.values():
        row.declare(parser, group)


def any_given(options: argparse.Namespace) -> bool:
    """Check whether the command line has an option of the table.

    Options of other plugins may begin with ``--manifest``, too; they do not count.
    """
    given = (getattr(options, row.dest, None) for row in ROWS.values())
    return any(value is not None and value is not False and value != [] for value in given)
