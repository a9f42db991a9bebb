"""Keep a process of a private stack to that stack, whatever the app that it runs says.

Every Celery app of the process gets the broker and results that the supervisor's variable names.
An app may name others at any moment: when it is made, in a configuration read later, in a handler
of ``on_after_configure``, in the environment, for one task alone. So nothing is set: the answers
of the settings' class are replaced, before the app is imported.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from pytest_manifest import processes
from pytest_manifest.broker import celery_settings
from pytest_manifest.compat import celery
from pytest_manifest.files import write_whole
from pytest_manifest.process_state import ProcessState

URL_VARIABLE: Final = "MANIFEST_PRIVATE_URL"
"""The stack's broker, for the processes that the supervisor starts."""
READY_VARIABLE: Final = "MANIFEST_READY"
"""The file in which a worker says, by its pid, that it takes jobs."""
ONE_AT_A_TIME: Final = "worker_disable_prefetch"
"""The setting by which a worker takes no job before it can run it.

Not asked for by the option ``--disable-prefetch``: before 5.6 Celery has neither, and fails at an
option that it does not know.
"""
USAGE_ERROR: Final = 2
"""What ``celery`` ends with where an app is of no use: the supervisor does not try again."""


kept_to: Final = ProcessState(str, is_of_worker=True)
"""The broker that this process is kept to; "": none."""


def keep_to(url: str) -> None:
    """Have every Celery app of this process use the broker and result store at ``url`` alone."""
    from celery import signals
    from celery.app.backends import by_url

    def own_backend(app: Any) -> Any:
        kind, place = by_url(url, app.loader)
        return kind(app=app, url=place)

    _exchange_settings(url)
    kept_to.now = url
    # Not by a setting: an app's class may name a class of backends.
    celery.keep_results_by(own_backend)

    def refuse_others(sender: Any, **_: object) -> None:
        elsewhere = leads_elsewhere(sender.app, url)
        if elsewhere:
            sys.stderr.write(f"{elsewhere}\n")
            sys.stderr.flush()
            os._exit(USAGE_ERROR)  # signals keep what a receiver raises

    signals.worker_init.connect(refuse_others, weak=False, dispatch_uid=f"{__name__}.others")


def leads_elsewhere(app: Any, url: str) -> str:
    """Say why this app is not run: its class uses another broker or store; else ""."""
    parts = urlsplit(url)
    for what, connection in (
        ("read from", app.connection_for_read()),
        ("write to", app.connection_for_write()),
    ):
        if (connection.hostname, connection.port) != (parts.hostname, parts.port):
            return f"the app would {what} a broker of its own: a private stack does not run it"
    if celery.has_own_store(type(app)):
        return "the app would keep results in a store of its own: a private stack does not run it"
    return ""


def _exchange_settings(url: str) -> None:
    fixed: dict[str, object] = {
        **dict.fromkeys(celery_settings.URLS, url),
        **celery_settings.PARTS,
        ONE_AT_A_TIME: True,
    }
    former = celery.former_names()

    @cache
    def name_of(key: str, prefix: str | None) -> str:
        """Give Celery's present name of a setting, which may be an older one or have a prefix."""
        if celery_settings.is_overridden(key):
            return key
        bare = key.removeprefix(prefix) if prefix else key
        return former.get(key) or bare.lower()

    def answer(conf: Any, key: str, given: Callable[[], object]) -> object:
        name = name_of(key, conf.prefix)
        if name in fixed:
            return fixed[name]
        return celery_settings.harmless(given()) if name in celery_settings.OPTIONS else given()

    celery.answer_settings(
        answer, celery_settings.URLS, url
    )  # as properties, too: those look into the environment first


def say_when_ready(path: str) -> None:
    """Have this process write its pid to a file when its worker takes jobs.

    Nothing is asked by the broker: how an app calls its keys, its exchange for questions, or in
    which form it answers, is its own business.
    """
    from celery import signals

    def say(**_: object) -> None:
        file = Path(path)
        draft = file.with_suffix(".draft")
        write_whole(draft, str(os.getpid()).encode("ascii"))
        draft.replace(file)

    signals.worker_ready.connect(say, weak=False, dispatch_uid=f"{__name__}.ready")


def import_from(folders: Sequence[str]) -> None:
    """Have modules imported from these folders first, in this order, as their client does.

    The process has its working folder first by itself; where that is among the folders, it takes
    the place that it has there.
    """
    here = str(Path.cwd())
    known = set(sys.path) - {here}
    first = [one for one in folders if one not in known]
    if here not in first:
        first.insert(0, here)
    sys.path[:] = first + [one for one in sys.path if one not in first]


def prepare() -> None:
    """Do what the supervisor's variables ask for."""
    if folders := os.environ.get(processes.PATH):
        import_from(json.loads(folders))
    if url := os.environ.get(URL_VARIABLE):
        keep_to(url)
    if path := os.environ.get(READY_VARIABLE):
        say_when_ready(path)
