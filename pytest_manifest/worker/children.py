"""Keep the tasks that one execution starts, and tell of them before their messages are sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from loguru import logger

from pytest_manifest.compat.celery import first_messages, is_one_message
from pytest_manifest.schema import stream_records, wire

if TYPE_CHECKING:
    from pydantic import JsonValue

Document: TypeAlias = "dict[str, JsonValue]"

OF_ITS_OWN: Final = (
    wire.HEADER_EXECUTION,
    wire.HEADER_RECEIVED_AT,
    wire.HEADER_RETRIED,
    wire.HEADER_HOP,
)
"""Headers of one task's message, which a task that copies its headers gives to others."""


class Expected(NamedTuple):
    """A message that Celery may send after a task's end, and the announcement that it fulfils.

    ``task_id``, and ``parent_id`` (Celery's header), are None where they are not known.
    """

    key: str
    how: str
    task_id: str | None
    task: str
    parent_id: str | None = None


class Message(NamedTuple):
    """The facts of a message that is about to be sent.

    ``chords`` and ``due`` as ``results.records.Child`` has them.
    """

    task_id: str
    task: str
    queue: str | None
    parent_id: object
    group: object
    chord: object
    chords: tuple[str, ...] = ()
    due: str | None = None


@dataclass(eq=False)
class Children:
    """The tasks that one execution starts; ``send`` puts a record into its run's stream.

    ``origin`` are the fields by which records name the execution, ``headers`` those of its
    children's messages. ``links`` and ``following`` are what its own message has to be called after
    it: signatures.
    """

    _origin: Document
    _headers: Mapping[str, object]
    _send: Callable[[Document], None]
    _links: Iterable[Any] = ()
    _following: Any = None
    count: int = 0
    replaces: bool = False
    """Whether all that is sent from now on replaces the task."""
    expected: list[Expected] = field(default_factory=list)
    announced: list[Document] = field(default_factory=list)
    untold: list[Document] = field(default_factory=list)
    """Records that could not be sent."""
    elsewhere: dict[str, str] = field(default_factory=dict)
    """Brokers of those that were sent to another one than the worker's, by task id."""
    goes_on: bool | None = None
    """Whether handlers that are called once the end is stored may start more; None: nobody has
    looked yet."""
    _unconfirmed: dict[str, None] = field(default_factory=dict)

    def adopt(self, message: Message, headers: MutableMapping[str, object]) -> None:
        """Give a message the headers of this job's, and tell of its task."""
        for name in OF_ITS_OWN:
            headers.pop(name, None)
        headers.update(self._headers)
        headers[wire.HEADER_SENT_AT] = wire.timestamp(datetime.now(timezone.utc))
        self.count += 1
        self._unconfirmed[message.task_id] = None
        self._put(self._spawned([self._child(message)]))

    def confirm(self, task_id: str) -> None:
        """Note that the broker has taken a task's message."""
        self._unconfirmed.pop(task_id, None)

    def tell_again(self) -> None:
        """Send the records that could not be sent, where there is no receipt to take them."""
        records, self.untold = self.untold, []
        for record in records:
            self._put(record)

    def close(self) -> None:
        """Tell that nothing more comes of this execution, where that was announced."""
        keys = [one["key"] for one in self.announced if one["how"] == stream_records.HOW_AFTER]
        for key in keys:
            self._put({**self._spawned([]), "closes": key})

    def at_end(self) -> Document:
        """Return what the record of the execution's end says of them."""
        told: Document = {
            "spawned": [*self.untold],
            "unsent": [*self._unconfirmed],
            "announced": [*self.announced],
            "elsewhere": {**self.elsewhere},
        }
        return {name: value for name, value in told.items() if value}

    def _spawned(self, children: Sequence[Document]) -> Document:
        return {
            "kind": stream_records.KIND_SPAWNED,
            **self._origin,
            "spawned_at": wire.timestamp(datetime.now(timezone.utc)),
            "children": [*children],
        }

    def _put(self, record: Document) -> None:
        try:
            self._send(record)
        except Exception as error:  # the store may be back when the task ends
            self.untold.append(record)
            parent = self._origin["parent"]
            logger.warning("the tasks that {} starts were not recorded: {}", parent, error)

    def _child(self, message: Message) -> Document:
        expected = self._take_expected(message)
        how = self._how(message) if expected is None else expected.how
        child: Document = {"task_id": message.task_id, "task": message.task, "how": how}
        child["chords"] = [*message.chords]
        if message.queue is not None:
            child["queue"] = message.queue
        if message.due is not None:
            child["due"] = message.due
        if expected is not None:
            child["fulfils"] = expected.key
        return child

    def _take_expected(self, message: Message) -> Expected | None:
        for one in self.expected:
            if one.task_id is None:
                is_it = one.task == message.task and one.parent_id in (None, message.parent_id)
            else:
                is_it = one.task_id == message.task_id
            if is_it:
                self.expected.remove(one)
                return one
        return None

    def _how(self, message: Message) -> str:
        """Return how a task that is started before its parent's end is; see ``HOW``.

        A link has no id before it is sent, so a call of the same task is told as one, too.
        """
        if self.replaces:
            return "replace"
        if message.chord and not self._follows(message):
            return "chord"
        if self._follows(message):
            return "chain"
        if any(message.task == first.task for sig in self._links for first in first_messages(sig)):
            return "link"
        return "group" if message.group else "call"

    def _follows(self, message: Message) -> bool:
        """Return whether this is the next task of the chain that the parent is in."""
        sig = self._following
        return (
            sig is not None
            and is_one_message(sig)
            and (sig.get("options") or {}).get("task_id") == message.task_id
        )
