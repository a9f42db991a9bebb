"""Define what each command prints with ``--json``; what has a format of its own is not here."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pytest_manifest.schema import fields, summary
from pytest_manifest.schema.triage import Triage


class InitAnswer(fields.Document):
    """The files of a first plan."""

    folder: fields.Text
    """Where they are."""
    app: fields.Text
    """The Celery app that they are for."""
    apps_found: list[fields.Text]
    """All apps that were found."""
    created: list[fields.Text]
    """Files that were made."""
    kept: list[fields.Text]
    """Files that were there already."""
    todo: list[fields.Text]
    """What is left to be done."""
    private_by: fields.Text | None
    """The file that keeps jobs on the private stack; null where none does."""
    next: fields.Text
    """The command to run next."""


class NewAnswer(fields.Document):
    """A manifest that was written."""

    file: fields.Text
    """Its path."""
    entries: fields.Count
    """How many entries it has."""
    next: fields.Text
    """The command to run next."""
    might_run_twice: list[fields.Text] | None = None
    """Of a run's entries those that may have run and are not idempotent."""
    entries_left_out: dict[str, fields.Text] | None = None
    """Entries of the run, or of beat's schedule, that are not in it, and why."""
    left_out: dict[str, list[fields.Text]] | None = None
    """Options of beat's schedule that an entry cannot have, by entry."""


class LintFault(fields.Document):
    """One thing that is wrong in a manifest."""

    line: fields.Count | None
    """Its line, from 1; null for the file as a whole."""
    message: fields.Text
    """What is wrong, and what to do."""


class LintedFile(fields.Document):
    """A manifest that was checked."""

    file: fields.Text
    """Its path."""
    entries: fields.Count
    """How many entries it has; 0 where its form is at fault."""
    faults: list[LintFault]
    """What is wrong in it."""


class LintAnswer(fields.Document):
    """Manifests that were checked."""

    files: list[LintedFile]
    """Each of them."""
    faults: fields.Count
    """How many faults they have together."""


class ShownManifest(fields.Document):
    """The entries of a manifest."""

    manifest: fields.Text
    """Its path."""
    entries_in_all: fields.Count
    """How many entries it has."""
    entries: list[fields.JsonObject]
    """Each its fields, and its line."""
    matching: fields.Count
    """How many there are."""
    shown: fields.Count
    """How many of them are here."""


class ShownRun(fields.Document):
    """The verdicts of a run."""

    run: fields.Text
    """Its id."""
    manifest: fields.Text
    """The path of its manifest."""
    created_at: fields.Text
    """When it began."""
    status: fields.Text
    """What has become of it."""
    verdicts: dict[str, fields.Count]
    """How many entries have each status."""
    reused: dict[str, fields.Count]
    """How many passes are those of an earlier run, by its id."""
    descendants: dict[str, fields.Count]
    """How many tasks that jobs started have each status."""
    throttled: list[fields.JsonObject]
    """What held its sending back, as in the summary."""
    actions: list[fields.JsonObject]
    """What operators have done, as in the summary."""
    entries: list[fields.JsonObject]
    """Its entries, as in the summary."""
    matching: fields.Count
    """How many there are."""
    shown: fields.Count
    """How many of them are here."""


class ShownTree(fields.Document):
    """The tasks that an entry's job started."""

    run: fields.Text
    """The id of the run."""
    entry: fields.Text
    """The id of the entry."""
    attempt: fields.Count
    """The number of its last attempt."""
    task_id: fields.Text
    """The id of that job."""
    verdict: fields.Text | None
    """The attempt's status."""
    descendants: list[fields.JsonObject]
    """Each task, below the one that started it."""
    matching: fields.Count
    """How many there are."""
    shown: fields.Count
    """How many of them are here."""


class ShownFacts(fields.Document):
    """All that is recorded of an entry."""

    run: fields.Text
    """The id of the run."""
    entry: fields.Text
    """The id of the entry."""
    verdict: fields.Text | None
    """Its status."""
    task_ids: list[fields.Text]
    """The ids of its jobs."""
    rule: fields.JsonObject | None
    """The rule by which it is judged; null where the entry cannot be read."""
    facts: list[fields.JsonObject]
    """Each fact, in order."""
    matching: fields.Count
    """How many there are."""
    shown: fields.Count
    """How many of them are here."""


class WatchAnswer(fields.Document):
    """A live page that is served."""

    run: fields.Text
    """The id of the run."""
    address: fields.Text
    """Where the page is."""
    control: bool
    """Whether it has buttons that steer the run."""


class PruneAnswer(fields.Document):
    """Old runs that were removed."""

    dry_run: bool
    """Whether nothing was removed."""
    dropped: list[fields.Text]
    """The ids of the runs."""
    bytes: fields.Count
    """How much they had."""
    kept: fields.Count
    """How many runs are left."""


class CtlAnswer(fields.Document):
    """The answer of a run to who steers it."""

    run: fields.Text
    """The id of the run."""
    command: fields.Count | None
    """The command's number in the run's record; null where nothing was to be done."""
    action: fields.Text
    """What was asked for."""
    applied: bool
    """Whether the run does it, or has done it before."""
    changed: bool
    """Whether it is another run by that."""
    message: fields.Text
    """What the run answers."""
    data: fields.JsonObject
    """The entries or limits that it is about."""


class TriageAccepted(fields.Document):
    """The failures that were accepted."""

    file: fields.Text
    """The file that they were added to."""
    entries: list[fields.Name]
    """The entries that are open by them."""
    text: fields.Text
    """The text that was added."""


class TriageApproved(fields.Document):
    """The run that was approved."""

    run: fields.Name
    """Its id."""
    file: fields.Text
    """The baseline that was written."""
    passed: fields.Count
    """How many entries it had passed."""
    not_passed: fields.Count
    """How many it had not."""


class CheckViolation(fields.Document):
    """A promise that a record breaks."""

    promise: fields.Text
    """The promise, by its sign."""
    entry: fields.Text | None
    """The id of the entry; null where it is the run's."""
    sentence: fields.Text
    """What is wrong."""


class CheckedRun(fields.Document):
    """A run whose record was checked."""

    run: fields.Text
    """Its id."""
    entries: fields.Count
    """How many entries it has."""
    verdicts: fields.Count
    """How many verdicts it has."""
    violations: fields.Count
    """How often its record breaks a promise."""
    shown: list[CheckViolation]
    """The first of them."""


class CheckAnswer(fields.Document):
    """Runs whose records were checked."""

    runs: list[CheckedRun]
    """Each of them."""


class ExportAnswer(fields.Document):
    """A file of a run that was written."""

    run: fields.Text
    """The id of the run."""
    format: fields.Text
    """The file's format."""
    file: fields.Text
    """Its path."""
    bytes: fields.Count
    """How large it is."""


class MergeAnswer(fields.Document):
    """A run that was made of several."""

    ledger: fields.Text
    """The path of its ledger."""
    run: fields.Text
    """Its id."""
    runs: fields.Count
    """How many it is made of."""
    entries: fields.Count
    """How many entries it has."""
    judged: fields.Count
    """How many of them have a final verdict."""
    warnings: list[fields.Text]
    """What to know of it."""
    next: fields.Text
    """The command that judges it."""


class KeygenAnswer(fields.Document):
    """A pair of keys that was made."""

    private: fields.Text
    """The file of the private key."""
    public: fields.Text
    """The file of the public key."""
    key_id: fields.Text
    """The key's id."""


class SignedFile(fields.Document):
    """A manifest that was signed."""

    file: fields.Text
    """Its path."""
    signature: fields.Text
    """The path of its signature."""


class SignAnswer(fields.Document):
    """Manifests that were signed."""

    key_id: fields.Text
    """The id of the key."""
    signed: list[SignedFile]
    """Each of them."""


class VerifiedFile(fields.Document):
    """A manifest whose signature was checked."""

    file: fields.Text
    """Its path."""
    fault: fields.Text | None
    """Why its signature does not hold; null where it does."""


class VerifyAnswer(fields.Document):
    """Manifests whose signatures were checked."""

    files: list[VerifiedFile]
    """Each of them."""


class StackAnswer(fields.Document):
    """The stack that runs in the background."""

    up: bool
    """Whether there is one; if not, nothing else is said."""
    app: fields.Text | None = None
    """The Celery app."""
    folder: fields.Text | None = None
    """Where it was started."""
    broker: fields.Text | None = None
    """The broker's URL without its password."""
    flower: fields.Text | None = None
    """The address of Flower, where it runs."""
    state_file: fields.Text | None = None
    """Where its state is kept."""
    workers: list[fields.JsonObject] = Field(default_factory=list)
    """Its workers."""
    queues: dict[str, fields.Count] | None = None
    """How many messages wait in each queue; null where the broker does not answer."""
    unacked: fields.Count | None = None
    """How many messages workers have taken."""


class StackLogAnswer(fields.Document):
    """A line of the log, one document each."""

    worker: fields.Text
    """The worker."""
    line: fields.Text
    """What it has logged."""


class StackUrlAnswer(fields.Document):
    """The addresses of the stack, with their passwords."""

    broker: fields.Text
    """The broker's URL."""
    backend: fields.Text
    """The result store's URL."""


class StackDownAnswer(fields.Document):
    """The end of the stack."""

    up: Literal[False]
    """Whether it is up."""
    done: fields.Text
    """What was done."""


class DetachAnswer(fields.Document):
    """A run that was left to a process of its own; all is null where there was nothing to do."""

    run: fields.Text | None
    """The id of the run."""
    manifest: fields.Text | None
    """The path of its manifest."""
    ledger: fields.Text | None
    """The path of its ledger."""
    page: fields.Text | None
    """The address of its live page."""
    pid: fields.Count | None
    """The id of its process."""
    output: fields.Text | None
    """The file into which that process prints."""


class McpTool(fields.Document):
    """A tool of the MCP server."""

    name: fields.Text
    """Its name."""
    about: fields.Text
    """What it does."""
    changes: bool
    """Whether it changes something."""


class McpAnswer(fields.Document):
    """The tools that the MCP server has."""

    tools: list[McpTool]
    """Each of them."""


class Answers(fields.Document):
    """The documents that commands print, each by its command's name."""

    init: InitAnswer | None = None
    """``manifest init``."""
    new: NewAnswer | None = None
    """``manifest new -o FILE``."""
    lint: LintAnswer | None = None
    """``manifest lint``."""
    show: ShownManifest | ShownRun | ShownTree | ShownFacts | summary.SummaryComparison | None = (
        None
    )
    """``manifest show`` of a manifest, a run, ``--tree``, ``--facts``, ``--diff``."""
    watch: WatchAnswer | None = None
    """``manifest watch``."""
    prune: PruneAnswer | None = None
    """``manifest prune``."""
    ctl: CtlAnswer | None = None
    """``manifest ctl RUN`` with any action."""
    triage: Triage | TriageAccepted | TriageApproved | CtlAnswer | None = None
    """``manifest triage``, ``accept``, ``approve`` and ``requeue``."""
    check: CheckAnswer | None = None
    """``manifest check``."""
    export: ExportAnswer | None = None
    """``manifest export -o FILE``."""
    merge: MergeAnswer | None = None
    """``manifest merge``."""
    keygen: KeygenAnswer | None = None
    """``manifest keygen``."""
    sign: SignAnswer | None = None
    """``manifest sign``."""
    verify: VerifyAnswer | None = None
    """``manifest verify``."""
    stack_up: StackAnswer | None = Field(default=None, alias="stack up")
    """``manifest stack up``."""
    stack_status: StackAnswer | None = Field(default=None, alias="stack status")
    """``manifest stack status``."""
    stack_logs: StackLogAnswer | None = Field(default=None, alias="stack logs")
    """``manifest stack logs``, each line."""
    stack_url: StackUrlAnswer | None = Field(default=None, alias="stack url")
    """``manifest stack url``."""
    stack_down: StackDownAnswer | None = Field(default=None, alias="stack down")
    """``manifest stack down``."""
    mcp: McpAnswer | None = None
    """``manifest mcp --json``."""
    detach: DetachAnswer | None = Field(default=None, alias="pytest --manifest-detach")
    """``pytest --manifest-detach``."""
