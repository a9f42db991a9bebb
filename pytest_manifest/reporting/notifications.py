"""Tell people and programs what became of a run, by a process of its own that reads the ledger.

pytest says on stdin what to follow; what was not sent is said on stdout. Nothing here can
touch the run: it is not in its process, and pytest waits for it a few seconds at its very end.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
import urllib.request
import warnings
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from http.client import HTTPException
from pathlib import Path
from typing import IO, Final
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit

from pydantic import TypeAdapter

from pytest_manifest.analysis.dispositions import ACCEPTANCE
from pytest_manifest.analysis.following import RunReader
from pytest_manifest.analysis.run_events import RunEvents, earlier_runs, text_of
from pytest_manifest.errors import ManifestToolError
from pytest_manifest.redaction.names import configure
from pytest_manifest.redaction.texts import hide_environment, redact
from pytest_manifest.schema.run_event import EventLink, EventName, RunEvent

LOOK_SECONDS: Final = 2.0
"""Between two looks at a run."""
TRY_SECONDS: Final = 10.0
"""For which an answer is waited."""
PAUSES: Final = (1.0, 4.0)
"""Seconds before the second and the third try."""
LEFT_SECONDS: Final = 60.0
"""After pytest's end; the process ends then, whatever hangs."""
_DYING_SECONDS: Final = 1.0
"""In which the lock of a pytest that was killed is let go of: its pipe may be gone before."""
_LESS_URGENT: Final = 10
_SOURCE: Final = "urn:pytest-celery-manifest"
_TYPE: Final = "pytest_manifest.run"
_AGAIN: Final = frozenset({408, 425, 429})
"""Answers below 500 after which a further try may do."""


class NotToldError(Exception):
    """A failed sending; its text is a phrase without an address. ``may_pass``: try again."""

    def __init__(self, why: str, *, may_pass: bool = True) -> None:
        super().__init__(why)
        self.may_pass = may_pass


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The refusal of redirects: a signed event is for one host."""

    def redirect_request(self, *_args: object) -> None:
        return None


def post(url: str, body: bytes, headers: Mapping[str, str]) -> None:
    """Post a body to an http(s) address. Raises NotToldError where that does not answer 2xx."""
    try:
        request = _request(url, body, headers)
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=TRY_SECONDS):
            return
    except HTTPError as error:
        error.close()
        again = error.code >= 500 or error.code in _AGAIN
        raise NotToldError(f"it answered HTTP {error.code}", may_pass=again) from error
    except TimeoutError as error:
        raise NotToldError(f"it gave no answer within {TRY_SECONDS:g} s") from error
    except (OSError, HTTPException, ValueError) as error:
        why = getattr(error, "reason", error)
        if isinstance(why, TimeoutError):
            raise NotToldError(f"it gave no answer within {TRY_SECONDS:g} s") from error
        known = os.strerror(why.errno or 0) if isinstance(why, OSError) else type(why).__name__
        raise NotToldError(f"it cannot be reached: {known}") from error


def _request(url: str, body: bytes, headers: Mapping[str, str]) -> urllib.request.Request:
    """Return a POST; who is named before the host, as in user:password@host, goes as Basic."""
    parts = urlsplit(url)
    who, named, host = parts.netloc.rpartition("@")
    given = dict(headers)
    if named:
        user, _, password = map(unquote, who.partition(":"))
        given["authorization"] = f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"
    address = parts._replace(netloc=host).geturl()
    return urllib.request.Request(address, body, given, method="POST")  # noqa: S310 - see values.web_addresses


def webhook(url: str, secret: str) -> Callable[[RunEvent], None]:
    """Return what posts an event as a CloudEvent, signed as Standard Webhooks are."""
    from standardwebhooks import Webhook

    def send(event: RunEvent) -> None:
        now = datetime.now(timezone.utc)
        name = message_id(event)
        body = json.dumps(cloud_event(event, name))
        headers = {
            "content-type": "application/cloudevents+json; charset=utf-8",
            "webhook-id": name,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Webhook(secret).sign(name, now, body),
        }
        post(url, body.encode(), headers)

    return send


def message_id(event: RunEvent) -> str:
    """Return the id of an event: the same for each try, another for each event."""
    return f"{event.run}.{event.event}.{event.at:%Y%m%dT%H%M%S%f}"


def cloud_event(event: RunEvent, name: str) -> dict[str, object]:
    """Return an event as a CloudEvents 1.0 document in structured mode."""
    return {
        "specversion": "1.0",
        "id": name,
        "source": f"{_SOURCE}:{event.run}",
        "type": f"{_TYPE}.{event.event}",
        "subject": event.manifest,
        "time": event.at.isoformat(),
        "datacontenttype": "application/json",
        "data": event.model_dump(mode="json"),
    }


def chat(url: str) -> Callable[[RunEvent], None]:
    """Return what sends an event by apprise."""
    from apprise import Apprise, NotifyType

    sender = Apprise()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it imports for other services
        is_known = sender.add(url)

    def send(event: RunEvent) -> None:
        if not is_known:
            raise NotToldError("apprise does not know such an address", may_pass=False)
        kind = NotifyType.FAILURE if event.is_bad else NotifyType.SUCCESS
        if not sender.notify(body=text_of(event), title=event.title, notify_type=kind):
            raise NotToldError("apprise could not send it")

    return send


def ping(url: str) -> Callable[[str], None]:
    """Return what pings a dead man's switch: ``/start``, nothing more for success, or ``/fail``."""

    def send(ending: str) -> None:
        parts = urlsplit(url)
        address = parts._replace(path=parts.path.rstrip("/") + ending).geturl()
        post(address, b"", {})

    return send


@dataclass(eq=False)
class Target:
    """One receiver, and the thread that sends to it one after another. ``name`` has no secret."""

    name: str
    send: Callable[..., None]
    waiting: queue.SimpleQueue[object] = field(default_factory=queue.SimpleQueue)
    sent: int = 0
    fault: str = ""

    def run(self) -> None:
        """Send what is put until None comes."""
        while (one := self.waiting.get()) is not None:
            try:
                self._try(one)
                self.sent += 1
            except Exception as error:  # a sender's own fault must not end the others
                known = isinstance(error, NotToldError)
                self.fault = self.fault or (str(error) if known else type(error).__name__)
        say({"target": self.name, "sent": self.sent, "fault": self.fault})

    def _try(self, one: object) -> None:
        for pause in PAUSES:
            try:
                self.send(one)
            except NotToldError as error:
                if not error.may_pass:
                    raise
                say({"target": self.name, "trying": str(error)})
                time.sleep(pause)
            else:
                return
        self.send(one)


_saying = threading.Lock()


def say(document: Mapping[str, object]) -> None:
    """Write a line for pytest, if that still listens."""
    with _saying, suppress(OSError, ValueError):
        sys.stdout.write(f"{json.dumps(document)}\n")
        sys.stdout.flush()


class Notifier:
    """Follow the runs that pytest names, and put what happens to those who are to be told."""

    def __init__(self, given: Mapping[str, object]) -> None:
        self._root = Path(str(given["root"]))
        self._links = TypeAdapter(list[EventLink]).validate_python(given["links"])
        self._wanted = TypeAdapter(list[EventName]).validate_python(given["wanted"])
        self._starts = bool(given["starts"])
        self._runs: dict[Path, tuple[RunReader, RunEvents]] = {}
        secret = str(given["secret"])
        self._events = list(targets(given, "webhook", lambda url: webhook(url, secret)))
        self._events += targets(given, "notify", chat)
        self._ping = list(targets(given, "ping", ping))
        for one in (*self._events, *self._ping):
            threading.Thread(target=one.run, name=one.name, daemon=True).start()

    def begin(self) -> None:
        """Start the dead man's clock; an audit is the end of what another session has begun."""
        if self._starts:
            self._put_ping("/start")

    def _put_ping(self, ending: str) -> None:
        for one in self._ping:
            one.waiting.put(ending)

    def look(self, exit_status: int | None = None) -> None:
        """Look at every run, and put what has happened."""
        for reader, events in self._runs.values():
            with suppress(ManifestToolError, OSError):  # it is looked at again
                found = reader.look()
                for event in events.see(found, exit_status, had_failed=reader.had_failed):
                    shown = event.model_copy(update={"title": redact(event.title)})
                    for one in self._events:
                        one.waiting.put(shown)

    def follow(self, ledger: Path) -> None:
        """Follow the run of a ledger, too."""
        if ledger in self._runs:
            return
        reader, earlier = RunReader(ledger), None
        with suppress(ManifestToolError, OSError):
            found = reader.look()
            earlier = earlier_runs(found.run, ledger, Path(found.manifest))
        self._runs[ledger] = (
            reader,
            RunEvents(self._root, self._links, earlier=earlier, wanted=self._wanted),
        )

    def end(self, exit_status: int | None) -> None:
        """Put the end; without a status pytest is gone, and its dead man's switch is left alone."""
        if exit_status is None:
            time.sleep(_DYING_SECONDS)
        else:
            self._put_ping("/fail" if exit_status else "")
        self.look(exit_status)
        for one in (*self._events, *self._ping):
            one.waiting.put(None)


def targets(
    given: Mapping[str, object], kind: str, made: Callable[[str], Callable[..., None]]
) -> Iterator[Target]:
    """Yield the receivers of a kind, of those that pytest has named."""
    some = given["targets"]
    for name, of, url in some if isinstance(some, list) else ():
        if of != kind:
            continue
        try:
            yield Target(name, made(url))
        except Exception as error:  # a key that is none, an address that apprise chokes on
            say({"target": name, "sent": 0, "fault": f"cannot be used: {type(error).__name__}"})


def main() -> None:
    """Send for the pytest that has started this process."""
    given = json.loads(sys.stdin.readline())
    configure(names=given["names"], is_on=given["redacts"])
    hide_environment()
    if given["accepts"]:
        ACCEPTANCE.now.begin_by(given["accepts"])
    with suppress(OSError):
        os.nice(_LESS_URGENT)
    notifier = Notifier(given)
    notifier.begin()
    asked: queue.SimpleQueue[dict[str, object] | None] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(sys.stdin, asked), daemon=True).start()
    _follow(notifier, asked)
    end = time.monotonic() + LEFT_SECONDS
    for thread in threading.enumerate():
        if thread.daemon and thread is not threading.current_thread():
            thread.join(max(end - time.monotonic(), 0))
    say({"done": True})
    os._exit(0)  # what hangs is left


def _read(lines: IO[str], asked: queue.SimpleQueue[dict[str, object] | None]) -> None:
    for line in lines:
        asked.put(json.loads(line))
    asked.put(None)


def _follow(notifier: Notifier, asked: queue.SimpleQueue[dict[str, object] | None]) -> None:
    """Look every two seconds until pytest has ended, or is gone."""
    status: int | None = None
    while True:
        try:
            said = asked.get(timeout=LOOK_SECONDS)
        except queue.Empty:
            notifier.look()
            continue
        if said is None:
            return notifier.end(status)
        if "ledger" in said:
            notifier.follow(Path(str(said["ledger"])))
        elif isinstance(said["exit"], int):
            status = said["exit"]
