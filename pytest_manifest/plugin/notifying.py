"""Have what becomes of a session's runs told by a process of its own, and say what was not."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

import pytest

from pytest_manifest.plugin.session import ACCEPTED_KEY
from pytest_manifest.redaction.texts import hide, passwords_of

if TYPE_CHECKING:
    from pytest_manifest.plugin.options import Options
    from pytest_manifest.run.run import Run

SENDER: Final = (
    "import sys; sys.path[:] = filter(None, sys.path); "
    "from pytest_manifest.reporting.notifications import main; main()"
)
"""Runs without the working folder on the path: a module of the project must not shadow another."""
LAST_SECONDS: Final = 3.0
"""Seconds for which pytest waits, when all else is done, until what it came to has been told."""
SECRET: Final = "MANIFEST_WEBHOOK_SECRET"  # noqa: S105 - the name of a variable
_VARIABLE: Final = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


class Told(NamedTuple):
    """One who is to be told: what is shown of it, notify, webhook or ping, and its address."""

    name: str
    kind: str
    url: str


def receivers(
    addresses: Mapping[str, Sequence[str]], environment: Mapping[str, str]
) -> tuple[list[Told], list[str]]:
    """Return who is to be told, and of each other one in a sentence why not.

    ``addresses``: as they were written, by their kinds.

    Raises pytest.UsageError where what sends to them is not installed.
    """
    found: list[Told] = []
    lacking: list[str] = []
    for kind, texts in addresses.items():
        if texts and kind != "ping":
            _require(kind)
        for text in texts:
            try:
                one = _receiver(kind, text, environment)
            except ValueError as error:  # as of brackets that are not closed
                one = f"{kind}: an address cannot be read ({error})"
            if isinstance(one, str):
                lacking.append(one)
            else:
                found.append(one)
    return found, lacking


def _receiver(kind: str, text: str, environment: Mapping[str, str]) -> Told | str:
    """Return who is to be told by an address as it was written, else why nobody is.

    Raises ValueError for what is no address. It is hidden here, and kept nowhere: whoever has a
    token can tell as we do.
    """
    given = [one or other for one, other in _VARIABLE.findall(text)]
    names = [*given, SECRET] if kind == "webhook" else given
    missing = next((name for name in names if not environment.get(name)), None)
    name = _shown(text, kind)
    if missing is not None:
        return f"{name} is not notified: {missing} is not set"
    url = _VARIABLE.sub(lambda one: environment[one[1] or one[2]], text)
    for secret in (url, *passwords_of(url), *(environment[one] for one in given)):
        hide(secret)
    if kind != "notify" and urlsplit(url).scheme not in ("http", "https"):
        return f"{name} is not notified: it is no address of http or https"
    return Told(name, kind, url)


def _require(kind: str) -> None:
    package = "apprise" if kind == "notify" else "standardwebhooks"
    if find_spec(package) is None:
        raise pytest.UsageError(
            f"manifest_{kind}: {package} is not installed; pip install "
            "'pytest-celery-manifest[notify]', or leave the setting out"
        )


def _shown(text: str, kind: str) -> str:
    """Return what is shown of an address as it was written: of a chat's the host is a secret."""
    parts = urlsplit(_VARIABLE.sub("", text))
    host = parts.hostname if parts.scheme and kind != "notify" else None
    host = f"{host}:{parts.port}" if host and parts.port else host
    if parts.scheme:
        return f"{kind} {parts.scheme}://{host or '...'}"
    return f"{kind} {''.join(one[0] for one in _VARIABLE.finditer(text))}..."


class Notifications:
    """The process that tells, from the session's beginning to its end; pytest's hooks.

    It has no say in the session: whatever fails here is said in a line, and that is all.
    """

    def __init__(self, config: pytest.Config, options: Options) -> None:
        self._config = config
        addresses = {"notify": options.notify, "webhook": options.webhook, "ping": options.ping}
        self._told, self._lacking = receivers(addresses, os.environ)
        self._sends_only = options.dispatch_only
        self._process: subprocess.Popen[bytes] | None = None
        if self._told:
            with suppress(OSError):
                self._start(options)

    def _start(self, options: Options) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", SENDER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=options.root,
            start_new_session=True,  # a Ctrl-C in the terminal is not for it
        )
        self._say(
            {
                "root": str(options.root),
                "targets": [list(one) for one in self._told],
                "secret": os.environ.get(SECRET, ""),
                "wanted": list(options.notify_on),
                "starts": not options.audit,
                "links": list(_links(options)),
                "names": list(options.redact_names),
                "redacts": options.redact == "yes",
                "accepts": self._config.stash.get(ACCEPTED_KEY, None),
            }
        )

    def _say(self, document: dict[str, object]) -> None:
        if self._process is not None and self._process.stdin is not None:
            with suppress(OSError, ValueError):  # it has failed, which is no fault of the run
                self._process.stdin.write(f"{json.dumps(document)}\n".encode())
                self._process.stdin.flush()

    def pytest_report_header(self) -> list[str]:
        names = ", ".join(one.name for one in self._told)
        told = [f"notifications: {names}"] if names else []
        return told + [f"notifications: {one}" for one in self._lacking]

    def pytest_manifest_dispatched(self, run: Run) -> None:
        self._say({"ledger": str(run.ledger_path)})

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, object, object]:
        """Tell what it came to, after all others have had their say in that."""
        try:
            return (yield)
        finally:
            if not (self._sends_only and session.exitstatus == pytest.ExitCode.OK):
                self._say({"exit": int(session.exitstatus)})
            if self._process is not None and self._process.stdin is not None:
                with suppress(OSError):
                    self._process.stdin.close()

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        faults = self._end_sender()
        reporter = self._config.pluginmanager.getplugin("terminalreporter")
        if reporter is not None and (reporter.no_header or not reporter.showheader):
            # Whom nobody tells was not said there.
            faults = [*self._lacking, *faults]
        for line in faults if reporter is not None else ():
            reporter.write_line(f"notifications: {line}", yellow=True)

    def _end_sender(self) -> list[str]:
        """Wait a little for the process that tells; return what it has not told."""
        process, self._process = self._process, None
        if process is None or process.stdin is None or process.stdout is None:
            return []
        with suppress(OSError):
            process.stdin.close()  # where the session has not come to its end
        faults, is_over = _answers(process, [one.name for one in self._told])
        process.stdout.close()
        if is_over:
            with suppress(subprocess.TimeoutExpired):
                process.wait(LAST_SECONDS)
        if process.poll() is None:
            process.returncode = 0  # it ends by itself within a minute; nobody waits for it
        return faults


def _links(options: Options) -> Iterator[dict[str, str]]:
    from pytest_manifest.reporting.ci_job import executor

    build = (executor(os.environ) or {}).get("buildUrl")
    if build:
        yield {"name": "CI", "at": str(build)}
    if options.report is not None:
        yield {"name": "run page", "at": str(options.report)}


def _answers(process: subprocess.Popen[bytes], names: list[str]) -> tuple[list[str], bool]:
    """Return what to say of those who were not notified, and whether the process has done all."""
    assert process.stdout is not None
    waiting, faults, rest = list(names), [], b""
    trying: dict[str, str] = {}
    end = time.monotonic() + LAST_SECONDS
    while waiting and select.select([process.stdout], [], [], max(end - time.monotonic(), 0))[0]:
        more = os.read(process.stdout.fileno(), 65536)
        if not more:
            with suppress(subprocess.TimeoutExpired):
                process.wait(LAST_SECONDS)
            break
        *lines, rest = (rest + more).split(b"\n")
        for line in lines:
            said = json.loads(line)
            if "trying" in said:
                trying[said["target"]] = f" ({said['trying']})"
            elif said.get("target") in waiting:
                waiting.remove(said["target"])
                if said["fault"]:
                    faults.append(f"{said['target']} was not notified of all: {said['fault']}")
    faults += [
        f"{name} had not taken all {LAST_SECONDS:g} s after the end{trying.get(name, '')}; it is "
        "tried for a minute more"
        for name in waiting
        if process.poll() is None
    ]
    faults += [
        f"{name} was not notified of all: the process that notifies has failed"
        for name in waiting
        if process.poll() is not None
    ]
    return faults, not waiting
