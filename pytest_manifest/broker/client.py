"""Load a stack's Celery app, the project's own or a bare one, and connect by explicit URLs.

The app lends its routes, queues, serializer, priorities and transport options. Where its broker
and result store are is told by the address alone: neither the environment nor the app's own
configuration is changed, and connections are made with explicit URLs.

Tell which broker a Celery app names itself, and where it names it.

Celery has a broker for an app that names none, ``amqp://guest@localhost//``; that one is nobody's
choice, so it does not count. In Celery's own order the sources are: a variable or setting for the
URL to write to, the variable or setting for both ways, the parts of a URL, and the app's class.

Say why a Celery app cannot be imported: what is missing or fails, and in which line.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import sysconfig
import traceback
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

import celery
import kombu
from celery import Celery
from celery.app.backends import by_url
from celery.app.utils import find_app
from kombu import Connection

from pytest_manifest.broker import celery_settings
from pytest_manifest.broker.celery_settings import harmless, is_overridden
from pytest_manifest.broker.transports import SOCKET_TIMEOUT, transport_of
from pytest_manifest.compat.celery import setting_names
from pytest_manifest.errors import StackError
from pytest_manifest.redaction.texts import redact, redact_url
from pytest_manifest.text import listed, short_path
from pytest_manifest.urls import StackAddress, is_redis, scheme_of

if TYPE_CHECKING:
    from celery.backends.base import Backend


_MACHINERY: Final = (
    "<frozen",
    *(str(Path(str(package.__file__)).parent) for package in (celery, kombu, importlib)),
    str(Path(__file__).parents[1]),
)
"""How the names of files begin through which an import goes, and in which no fault of it is."""
_STANDARD_LIBRARY: Final = sysconfig.get_path("stdlib")
"""Celery reads its settings by way of it; other packages may be installed below."""


def import_failure(name: str, error: BaseException) -> str:
    """Word the failed import of the app ``name`` (``module:attribute``) in a sentence."""
    module, _, attribute = name.partition(":")
    if module.endswith(".py"):
        named = module.removesuffix(".py").replace("/", ".")
        return f"{name!r} names a file; name its module: {named}:{attribute or 'app'}"
    cause = error
    if getattr(error, "name", None) == name and isinstance(error.__context__, AttributeError):
        # Celery then looks for a module of the whole name; the first error is the true one.
        cause = error.__context__
    place, missing = _place(cause), _missing(cause)
    if missing and not place and (module == missing or module.startswith(f"{missing}.")):
        return (
            f"there is no module {missing!r} for the Celery app {name!r}; name the app as "
            f"module:attribute, importable from the folder where pytest is started ({Path.cwd()}) "
            "or from pytest's root folder"
        )
    if isinstance(cause, AttributeError) and not place:
        return (
            f"the module {module!r} has no {attribute or 'app'!r}, so {name!r} names no Celery "
            "app; name it as module:attribute, for instance proj.celery:app"
        )
    return f"the Celery app {name!r} cannot be imported: {_reason(cause)}"


def tasks_failure(name: str, error: BaseException) -> str:
    """Word the failed import of the modules of tasks that the app ``name`` lists."""
    if "Database access not allowed" in str(error):  # Celery has Django check itself, too
        return (
            f"Django's database is read as the tasks of {name} are loaded, which pytest-django "
            "blocks in pytest, and in no worker: send batches with '-p no:django', for instance by "
            "the batch.ini that 'manifest init' writes"
        )
    return (
        f"a module of tasks that {name} names (by include, imports or autodiscovery) cannot be "
        f"imported, so its workers do not start either: {_reason(error)}"
    )


def _reason(error: BaseException) -> str:
    """Say what is missing or was raised, where, and what to do."""
    place, missing = _place(error), _missing(error)
    if missing:
        who = f", which {place} imports" if place else ""
        return (
            f"there is no module {missing!r}{who}; install what has it into this Python, or "
            "correct its name"
        )
    at = f" at {place}" if place else ""
    if isinstance(error, SystemExit):
        said = "" if error.code is None else f" ({redact(str(error.code))})"
        return f"it ends the program while it is imported{at}{said}; move that out of the import"
    return f"{redact(f'{type(error).__name__}: {error}')}{at}; mend that"


def _missing(error: BaseException) -> str | None:
    return error.name if isinstance(error, ModuleNotFoundError) else None


def _place(error: BaseException) -> str:
    """Return ``file:line`` of the innermost line that is not of the import machinery, or ""."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{short_path(Path(error.filename), Path.cwd())}:{error.lineno}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        name = frame.filename
        is_python = name.startswith(_STANDARD_LIBRARY) and "-packages" not in name
        if not is_python and not name.startswith(_MACHINERY):
            return f"{short_path(Path(name), Path.cwd())}:{frame.lineno}"
    return ""


SHOWN: Final = 5
"""Names of apps in one message."""
_complete: Final[WeakSet[object]] = WeakSet()
"""The loaders of the apps whose modules of tasks have been imported."""


def reply_queue_name(prefix: str) -> str:
    """Name the queue that ``rpc://`` results of a run come back on; ``prefix`` is its RUN8."""
    return f"manifest-replies-{prefix}"


def load_app(address: StackAddress) -> Celery:
    """Give the app that the address names, or a plain Celery app that knows only URLs.

    The working directory is on ``sys.path`` during the import, as in ``celery -A``. The app is
    whole, as a worker has it: Django is set up, then the modules of tasks are imported that the
    app names, and then its tasks are made. Before that a task's own queue is not known.

    Raises:
        StackError: the module, or one of tasks, cannot be imported, has no Celery app under that
            name, or has several and the name says not which.
    """
    if isinstance(address.loaded, Celery):
        return address.loaded
    if address.app is None:
        # fixups: without a project, DJANGO_SETTINGS_MODULE must not pull one in.
        return Celery(
            "pytest_manifest",
            set_as_current=False,
            fixups=(),
            broker=address.broker_url,
            backend=address.backend_url,
        )
    with warnings.catch_warnings():
        # Pytest may have been told to make errors of warnings, and a worker has not.
        warnings.simplefilter("ignore")
        return _complete_app(address.app)


def _complete_app(name: str) -> Celery:
    try:
        found: object = find_app(name)
    except (Exception, SystemExit) as error:
        # A project's modules can raise anything while they are imported, or end the program.
        raise StackError(import_failure(name, error)) from error
    if not isinstance(found, Celery):
        raise StackError(_no_app(name, found))
    if len(choice := _choice(name, found)) > 1:
        raise StackError(
            f"the module {choice[0].partition(':')[0]!r} has {len(choice)} Celery apps, and none "
            "of them is called app or celery; name the one that is meant: "
            f"{listed(choice, SHOWN)}"
        )
    if found.loader not in _complete:
        _set_up_django(name)
        try:
            found.loader.import_default_modules()
        except (Exception, SystemExit) as error:  # whatever a project's module raises
            raise StackError(tasks_failure(f"the app {name!r}", error)) from error
        try:
            found.finalize()  # Tasks made with @app.task are registered only now.
        except (Exception, SystemExit) as error:  # a class of tasks is the project's own code
            raise StackError(import_failure(name, error)) from error
        _complete.add(found.loader)
    return found


def _choice(name: str, found: Celery) -> list[str]:
    """List the names of a module's apps where only their order made ``found`` the one.

    In a module without an attribute Celery looks for ``app``, then for ``celery``, then in its
    submodule ``celery``; where it finds neither, it takes the first app.
    """
    parent, _, attribute = name.rpartition(".")
    if ":" in name or getattr(sys.modules.get(parent), attribute, None) is found:
        return []
    modules = [vars(sys.modules[one]) for one in (f"{name}.celery", name) if one in sys.modules]
    if any(found is module.get(known) for module in modules for known in ("app", "celery")):
        return []
    for module in modules:
        # One app may have several names; ``current_app`` only says that it is one.
        apps = {id(one): key for key, one in module.items() if issubclass(type(one), Celery)}
        if id(found) in apps:
            return [f"{module['__name__']}:{key}" for key in apps.values()]
    return []


def _no_app(name: str, found: object) -> str:
    """Say what a name leads to in place of a Celery app, and what to name instead."""
    what = f"{name!r} is a {type(found).__name__}, not a Celery app; "
    module, _, attribute = name.rpartition(":")
    if inspect.isroutine(found) and module:
        return what + (
            f"if it makes one, let a module of yours say 'app = {attribute}()', and name that as "
            "module:app"
        )
    # As of Flask, whose own object is named app, and beside which the Celery app stands.
    beside = vars(sys.modules[module]).items() if module in sys.modules else ()
    names = [f"{module}:{key}" for key, one in beside if issubclass(type(one), Celery)]
    example = f"here {' or '.join(names)}" if names else "for instance proj.celery:app"
    return f"{what}name it as module:attribute, {example}"


def load_tasks(name: str) -> dict[str, object]:
    """Return the tasks of the app ``name`` by their names, as a worker of it would know them.

    Raises:
        StackError: the app, or a module with tasks of it, cannot be imported.
    """
    return dict(load_app(StackAddress("", "", name, is_private=False)).tasks)


def _set_up_django(name: str) -> None:
    """Set Django up where the app belongs to a Django project, as Celery does in a worker.

    Its routes may import models, and its result store may be one of them. Raises StackError.
    """
    if "DJANGO_SETTINGS_MODULE" not in os.environ or "django" not in sys.modules:
        return
    try:
        import django
        from django.apps import apps

        if not apps.ready:  # again would configure logging anew
            django.setup()
    except (Exception, SystemExit) as error:  # settings and models are the project's own code
        reason = redact(f"{type(error).__name__}: {error}")
        raise StackError(
            f"Django cannot be set up for the Celery app {name!r} ({reason}); look at "
            f"{os.environ['DJANGO_SETTINGS_MODULE']}, which DJANGO_SETTINGS_MODULE names"
        ) from error


def connection_to(app: Celery, address: StackAddress) -> Connection:
    """Make a connection to the address's broker with the app's transport options, not yet open."""
    if address.is_managed:
        options = harmless(app.conf.broker_transport_options) | _timeouts(app, address)
        return app.amqp.Connection(address.broker_url, transport_options=options)
    return app.connection_for_write(
        url=address.broker_url, transport_options=_timeouts(app, address)
    )


def connect(
    app: Celery, address: StackAddress, limits: Mapping[str, float] | None = None
) -> Connection:
    """Open a connection to the address's broker; ``limits``: time limits (s) instead of the usual.

    Raises:
        Exception: what kombu raises when the broker cannot be reached; every host that the URL
            names is tried once, without a pause.
    """
    connection = connection_to(app, address)
    connection.transport_options.update(limits or {})
    try:
        others = max(0, len(connection.alt) - 1)
        connection.ensure_connection(max_retries=others, interval_start=0, interval_step=0)
    except BaseException:
        connection.release()
        raise
    return connection


def result_backend(app: Celery, address: StackAddress) -> Backend:
    """Make the Celery result backend for the address, configured as the app's own would be."""
    backend_class, url = by_url(address.backend_url, app.loader)
    backend = backend_class(app=_without_own_addresses(app) if address.is_managed else app, url=url)
    parameters = getattr(backend, "connparams", None)  # Redis; Celery would wait two minutes
    if isinstance(parameters, dict):
        own = parameters.get("socket_timeout") or SOCKET_TIMEOUT
        parameters["socket_timeout"] = min(own, SOCKET_TIMEOUT)
    return backend


def _without_own_addresses(app: Celery) -> Celery:
    """Make an app with these settings, without those that name a broker or store.

    As workers of ours have it: a user or TLS of the app's own store is nothing to this one.
    """
    settings = {name: app.conf[name] for name in setting_names() if not is_overridden(name)}
    settings |= {name: harmless(app.conf[name]) for name in celery_settings.OPTIONS}
    plain = Celery(app.main, set_as_current=False, fixups=())
    plain.conf.update(settings)
    return plain


def _timeouts(app: Celery, address: StackAddress) -> dict[str, float]:
    """Give the time-outs that the app does not set itself; Celery adds its own options."""
    own = app.conf.broker_transport_options or {}
    return transport_of(address.broker_url).limits(own)


@dataclass(frozen=True, slots=True, repr=False)
class OwnBroker:
    """The broker that an app names: its URL with the password, and what names it.

    ``reads_from``: the URL that the app's workers read from, where that is another one; else "".
    """

    url: str
    source: str
    reads_from: str = ""

    def __repr__(self) -> str:
        return f"OwnBroker(url={redact_url(self.url)!r}, source={self.source!r})"


def own_broker(app: Celery) -> OwnBroker | None:
    """Return the broker that messages of the app go to; None where the app names none."""
    conf = app.conf
    written = _url(conf.broker_write_url)
    parts = [name for name in celery_settings.BROKER_PARTS if conf.get(name)]
    if scheme_of(written):
        url, source = written, _source(conf.get("broker_write_url"))
    else:  # a host without a scheme, parts alone, or what the app's class makes of nothing
        url = app.connection_for_write().as_uri(include_password=True)
        if not written and not parts and url == Connection().as_uri(include_password=True):
            return None
        url = url.rstrip("/") if is_redis(url) else url
        named = "broker_url without a scheme, which Celery takes for RabbitMQ's,"
        source = ", ".join(parts) or (named if written else "the app's class")
    read = _url(conf.broker_read_url)
    return OwnBroker(url, source, read if read and read != written else "")


def _url(named: object) -> str:
    """Give a setting as one text: several brokers of a list are taken one after the other."""
    if isinstance(named, (list, tuple)):
        return ";".join(map(str, named))
    return str(named or "")


def _source(write_url: object) -> str:
    """Name what the URL is taken from, in the order in which Celery looks."""
    if os.environ.get("CELERY_BROKER_WRITE_URL"):
        return "CELERY_BROKER_WRITE_URL"
    if write_url:
        return "broker_write_url"
    return "CELERY_BROKER_URL" if os.environ.get("CELERY_BROKER_URL") else "broker_url"
