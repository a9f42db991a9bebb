"""The projects of ``tests/projects``: how a stranger starts each, and a manifest for it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

from tests import beside, processes
from tests.processes import child

PROJECTS = Path(__file__).resolve().parents[1] / "projects"
INSTRUMENTED = ("-I", "pytest_manifest.worker")
STANDARD = {"CELERY_BROKER_URL": "{broker}", "CELERY_RESULT_BACKEND": "{store}"}
"""The variables by which any Celery app is led to another broker and store."""


@dataclass(frozen=True)
class Project:
    """A stranger's project.

    ``app``: as ``celery -A`` has it. ``variables``: by which it is told where broker and store are.
    ``entries``: task, what it is given, and what comes of it: the expected result, or how its entry
    fails. ``prepare``: commands that the project needs once. ``settings``: by which pytest is led
    to the settings of batches, where those of the tests are not to act on them. ``home``: the
    folder in which its owners start workers. ``notice``: what a run on a private stack speaks of.
    """

    app: str
    entries: Mapping[str, tuple[Mapping[str, object], str]]
    variables: Mapping[str, str]
    plugins: tuple[str, ...] = ()
    worker: tuple[str, ...] = ()
    prepare: tuple[tuple[str, ...], ...] = ()
    settings: tuple[str, ...] = ()
    home: str = "."
    notice: str = ""


def entry(task: str, *args: object, expect: object = None, **kwargs: object) -> dict[str, object]:
    """One line of a manifest, without its id."""
    expected = {} if expect is None else {"expect": {"result": expect}}
    return {"task": task, "args": list(args), "kwargs": kwargs, "timeout": 30, **expected}


FLAT = Project(
    app="tasks",
    entries={
        "sum": (entry("tasks.add", 2, 3, expect=5), "passed"),
        "retried": (entry("tasks.fetch", "index", expect={"tries": 3}), "passed"),
        "by-zero": (entry("tasks.divide", 1, 0), "failed"),
        "wrong": (entry("tasks.add", 2, 3, expect=6), "failed"),
    },
    variables=STANDARD,
)
PACKAGE = Project(
    app="shop",
    entries={
        "tea": (entry("shop.orders.tasks.price", "tea", 2, expect={"cents": 500}), "passed"),
        "gin": (entry("shop.orders.tasks.price", "gin", 1), "failed"),
        "mail": (entry("shop.mail.tasks.confirm", 7, expect={"queue": "mail"}), "passed"),
    },
    variables={"SHOP_BROKER": "{broker}", "SHOP_RESULTS": "{store}"},
    worker=("-Q", "shop,mail"),
)
DJANGO = Project(
    app="shop",
    entries={
        "slug": (entry("catalogue.tasks.make_slug", 1, expect="alien"), "passed"),
        "count": (entry("catalogue.tasks.count_films", expect=2), "passed"),
        "nobody": (entry("catalogue.tasks.make_slug", 99), "failed"),
        "noted": (entry("catalogue.tasks.note_execution", expect=True), "passed"),
    },
    variables={"BROKER": "{broker}"},
    plugins=("pytest-django",),
    prepare=(("manage.py", "migrate", "-v0"), ("manage.py", "loaddata", "-v0", "films")),
)
FLASK = Project(
    app="make_celery",
    entries={
        "ada": (entry("shop.tasks.greet", "Ada", expect="Hello, Ada!"), "passed"),
        "unset": (entry("shop.tasks.whoami"), "failed"),
    },
    variables=STANDARD,
)
FASTAPI = Project(
    app="app.worker",
    entries={
        "tea": (
            entry(
                "app.worker.invoice",
                {"item": "tea", "count": 3, "price": "2.50"},
                expect={"item": "tea", "total": "7.50"},
            ),
            "passed",
        ),
        "none": (entry("app.worker.invoice", {"item": "tea", "count": 0, "price": "1"}), "failed"),
        "strict": (entry("app.worker.repeat", "ha", "2"), "failed"),
        "by-name": (entry("app.worker.repeat", text="ha", times=2, expect="haha"), "passed"),
    },
    variables={"BROKER": "{broker}", "BACKEND": "{store}"},
)
CELERY_APP = Project(
    app="myapp", entries={"sum": (entry("myapp.add", 2, 2, expect=4), "passed")}, variables=STANDARD
)
CELERY_NEXT_STEPS = Project(
    app="proj",
    entries={
        "add": (entry("proj.tasks.add", 4, 4, expect=8), "passed"),
        "mul": (entry("proj.tasks.mul", 4, 4, expect=16), "passed"),
        "xsum": (entry("proj.tasks.xsum", [1, 2, "three"]), "failed"),
    },
    variables=STANDARD,
)
CELERY_PERIODIC = Project(
    app="myapp",
    entries={"said": (entry("myapp.say", "hello"), "passed")},
    variables=STANDARD,
)
CELERY_DJANGO = Project(
    app="proj",
    entries={
        "xsum": (entry("demoapp.tasks.xsum", [1, 2, 3], expect=6), "passed"),
        "widgets": (entry("demoapp.tasks.count_widgets", expect=0), "passed"),
        "rename": (entry("demoapp.tasks.rename_widget", 1, "lever"), "failed"),
    },
    variables=STANDARD,
    prepare=(("manage.py", "migrate", "-v0"),),
)
LONG_LIMITS = Project(
    app="shop",
    entries={
        "report": ({"task": "shop.report", "args": [7]}, "passed"),
        **{f"mail-{n}": (entry("shop.mail", n, expect=n), "passed") for n in range(5)},
    },
    variables=STANDARD,
)
"""Most of an app's jobs are short, and its limit is for the longest: half an hour."""
SIGNED_MESSAGES = Project(
    app="shop",
    entries={
        "tea": (entry("shop.price", "tea", 2, expect={"cents": 500}), "passed"),
        "wrong": (entry("shop.price", "tea", 1, expect={"cents": 500}), "failed"),
    },
    variables=STANDARD,
    prepare=(("pytest_manifest", "init"),),
    settings=("-c", "batch.ini"),
)
"""Its tests set the key with which messages are signed, where it is imported by pytest."""
MONOREPO = Project(
    app="shop.celery:app",
    entries={
        "mail": (
            entry(
                "shop.tasks.confirm",
                7,
                expect={
                    "queue": "mails",
                    "priority": 3,
                    "expires": True,
                    "limits": [20, None],
                    "tenant": "tea-house",
                },
            ),
            "passed",
        ),
        "count": (
            entry("shop.tasks.count", expect={"queue": "celery", "shadow": "a count"}),
            "passed",
        ),
    },
    variables=STANDARD,
    worker=("-Q", "celery,mails"),
    home="backend",
)
DJANGO_EAGER = Project(
    app="school",
    entries={
        "mark": (
            entry("audit.tasks.mark", "Ada", expect={"noted": True, "letter": "AsyncResult"}),
            "passed",
        ),
        "ring": (entry("school.celery.ring", expect="ding"), "passed"),
    },
    variables={"BROKER": "{broker}", "STORE": "{store}"},
    notice="task_always_eager",
    prepare=(("manage.py", "migrate", "-v0"),),
)
OBSERVED = Project(
    app="shop",
    entries={
        "tea": (entry("shop.tasks.price", "tea", 2, expect={"cents": 500}), "passed"),
        "retried": (entry("shop.tasks.fetch", "index", expect={"tries": 3}), "passed"),
        "refused": (entry("shop.tasks.refuse", "rum") | {"expect": {"state": "failed"}}, "passed"),
        "handed-on": (entry("shop.tasks.delegate", "salt", expect={"cents": 250}), "passed"),
        "order": (entry("shop.tasks.order", "rice", expect="rice"), "passed"),
        "stock": (entry("shop.tasks.stock", "oats", expect="oats"), "passed"),
    },
    variables=STANDARD,
)
REPORTS = Project(
    app="reports.celery",
    entries={
        "monday": (entry("reports.tasks.execute", "monday", expect=True), "passed"),
        "friday": (entry("reports.tasks.execute", "friday", expect=True), "passed"),
        "never": (entry("reports.tasks.retract", "sunday"), "failed"),
    },
    variables=STANDARD | {"CELERY_RESULT_BACKEND": "reports.store:ReportStore+{store}"},
)
OWN_SENDING = Project(
    app="shop.celery",
    entries={
        "bill": (entry("shop.tasks.bill", 7, expect={"tenant": "tea-house"}), "passed"),
        "other": (
            {**entry("shop.tasks.bill", 8, expect={"tenant": "bar"}), "headers": {"tenant": "bar"}},
            "passed",
        ),
        "tidy": (entry("shop.tasks.tidy", "a", expect={"tenant": "tea-house"}), "passed"),
        "again": (entry("shop.tasks.tidy", "a"), "rejected"),
    },
    variables=STANDARD,
    notice="makes the messages, one by one",
)
OWN_COMMAND = Project(
    app="serve",
    entries={
        "kept": (entry("notes.tasks.write", "milk", "two bottles"), "passed"),
        "lost": (entry("notes.tasks.write", "a/b", "never stored"), "passed"),
    },
    variables=STANDARD,
    notice="notes.celery.commit raised ValueError",
)
ALL = {
    "flat": FLAT,
    "package": PACKAGE,
    "django_results": DJANGO,
    "flask_factory": FLASK,
    "fastapi_pydantic": FASTAPI,
    "celery_app": CELERY_APP,
    "celery_next_steps": CELERY_NEXT_STEPS,
    "celery_periodic": CELERY_PERIODIC,
    "celery_django": CELERY_DJANGO,
    "long_limits": LONG_LIMITS,
    "signed_messages": SIGNED_MESSAGES,
    "monorepo": MONOREPO,
    "django_eager": DJANGO_EAGER,
    "observed": OBSERVED,
    "reports": REPORTS,
    "own_sending": OWN_SENDING,
    "own_command": OWN_COMMAND,
}
"""By their folders."""


class Stranger:
    """A copy of a project, with a manifest beside it, in which commands are run as a user would."""

    def __init__(self, name: str, folder: Path, *, prepared: bool = True) -> None:
        self.project = ALL[name]
        self.folder = folder / name
        shutil.copytree(PROJECTS / name, self.folder, ignore=shutil.ignore_patterns("__pycache__"))
        lines = (json.dumps({"id": i, **row}) for i, (row, _) in self.project.entries.items())
        (self.folder / "batch.jsonl").write_text("".join(f"{line}\n" for line in lines), "utf-8")
        for command in self.project.prepare if prepared else ():
            done = self.run(*command)
            assert done.status == 0, done.text

    @cached_property
    def environment(self) -> dict[str, str]:
        """The environment of the commands: beside the project's own plugins, and no others."""
        return beside.environment(*self.project.plugins)

    def run(self, *command: str) -> beside.Outcome:
        """Run a command of Python's, like ``pytest ...``, in the project's folder."""
        return beside.run(self.folder, command, self.environment)

    def dispatch(self, *options: str) -> beside.Outcome:
        """Run the manifest."""
        app = f"--manifest-app={self.project.app}"
        return self.run("pytest", *self.project.settings, "--manifest=batch.jsonl", app, *options)

    def use(self, broker: str) -> None:
        """Lead the app to this Redis, in the way that the project has for it."""
        parts = urlsplit(broker)
        places = {"broker": broker, "store": parts._replace(path="/1").geturl()}
        given = {name: value.format(**places) for name, value in self.project.variables.items()}
        self.environment |= given

    @contextmanager
    def worker(self, *options: str) -> Iterator[None]:
        """Run a ``celery worker`` of the project, which takes jobs within the block."""
        log = self.folder / "worker.log"
        program = [sys.executable, "-m", "celery", "-A", self.project.app, "worker"]
        command = [*program, "-n", "theirs@localhost", "-c", "1", "-l", "info"]
        command += [*self.project.worker, *options]

        def is_ready() -> bool:
            return "theirs@localhost ready." in log.read_text("utf-8")

        home = self.folder / self.project.home
        with child(command, log=log, cwd=home, env=self.environment) as process:
            processes.wait_until(is_ready, process, log=log, name="the worker")
            yield

    def expected(self) -> dict[str, str]:
        """The verdicts that the batch has on any stack."""
        return {name: verdict for name, (_, verdict) in self.project.entries.items()}

    def verdicts(self) -> dict[str, str]:
        """The verdicts of the newest run."""
        return beside.verdicts(self.folder)
