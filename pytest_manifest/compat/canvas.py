"""Private parts of Celery's canvas: which messages a signature begins with, and when they are sent.

Signatures are dictionaries, in a message as in the process that makes them; Celery has no types, so
they are ``Any``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

from pytest_manifest.compat.replaced import _put_in_place

SENT_OTHERWISE: Final = ("celery.map", "celery.starmap", "celery.chunks")
"""Tasks of signatures that are sent under another id (before Celery 5.7), or as a group."""


class FirstMessage(NamedTuple):
    """A message that a signature begins with; ``task_id`` is None where it gets one later."""

    task_id: str | None
    task: str
    headers: Mapping[str, object]


def before_group_is_sent(
    prepare: Callable[[Iterable[Any], Mapping[str, Any]], Iterator[Any]],
) -> Callable[[], None]:
    """Have a group's members pass through ``prepare`` before their messages are sent.

    It gets the members, each a signature with its id, a result and the group's id, and the options
    of all of them; it yields the members again. Doing it again changes nothing. Returns what takes
    it back.
    Relies on ``group._apply_tasks`` being given the members (Celery 5.3).
    Test: ``test_compat_canvas.py::test_members_of_a_group_are_prepared``.
    """
    from celery.canvas import group

    given = group._apply_tasks

    def apply_tasks(one: Any, tasks: Iterable[Any], *args: object, **options: Any) -> Any:
        return given(one, prepare(tasks, options), *args, **options)

    return _put_in_place(group, "_apply_tasks", apply_tasks)


def is_one_message(sig: Any) -> bool:
    """Return whether a signature is sent as one message, under the id that it has.

    Relies on ``subtask_type`` being what tells chains, groups and chords, and on the tasks by which
    Celery maps others (Celery 5.7).
    Test: ``test_compat_canvas.py::test_what_a_signature_begins_with``.
    """
    return not sig.get("subtask_type") and sig["task"] not in SENT_OTHERWISE


def first_messages(sig: Any) -> Iterator[FirstMessage]:
    """Yield the messages that are sent when a signature is called.

    Relies on where chains, groups and chords keep their parts (Celery 5.7).
    Test: ``test_compat_canvas.py::test_what_a_signature_begins_with``.
    """
    kind, fields = sig.get("subtask_type"), sig.get("kwargs") or {}
    if kind == "chain":
        for first in list(fields["tasks"])[:1]:
            yield from first_messages(first)
    elif kind == "group":
        for member in fields["tasks"]:
            yield from first_messages(member)
    elif kind == "chord":
        header = _members(fields["header"])
        for member in header or [fields["body"]]:
            yield from first_messages(member)
    else:
        options = sig.get("options") or {}
        task_id = options.get("task_id") if is_one_message(sig) else None
        yield FirstMessage(task_id, sig["task"], options.get("headers") or {})


def chords_behind(sig: Any) -> Iterator[tuple[str, Any]]:
    """Yield the chords that wait for a signature: the id of each header's group, and its body.

    Relies on options ``chord``, ``group_id`` and ``chain`` of frozen signatures (Celery 5.7).
    Test: ``test_compat_canvas.py::test_chords_that_wait_for_a_signature``.
    """
    kind, fields, options = (sig.get(name) or {} for name in ("subtask_type", "kwargs", "options"))
    if options.get("chord") and options.get("group_id"):
        yield options["group_id"], options["chord"]
        yield from chords_behind(options["chord"])
    for later in options.get("chain") or ():
        yield from chords_behind(later)
    if kind in ("chain", "group"):
        for one in fields["tasks"]:
            yield from chords_behind(one)
    elif kind == "chord" and fields["body"]:
        yield from chords_behind(fields["body"])


def chords_of_message(group: Any, chord: Any, chain: Any) -> tuple[str, ...]:
    """Return the keys of the chords that cannot be completed without a message's task.

    Its own, whose header is ``group``, those around that, and those of its chain's later tasks.
    Relies on what ``chords_behind`` does, and on what a message has of them (Celery 5.7).
    Test: ``test_compat_canvas.py::test_chords_that_need_a_message``.
    """
    found = [str(group)] if chord and group else []
    for later in ([chord] if chord else []) + list(chain or ()):
        found += (key for key, _ in chords_behind(later))
    return tuple(dict.fromkeys(found))


def sent_errbacks(app: Any, errbacks: Iterable[Any]) -> list[Any]:
    """Return those errbacks that Celery sends as tasks; it calls the others where a task fails.

    Relies on ``Backend._call_task_errbacks`` calling what takes more than a task's id, by the
    ``__header__`` of its task, since 5.7 without what its signature holds (Celery 5.7).
    Test: ``test_compat_canvas.py::test_errbacks_that_are_sent``.
    """
    from celery.exceptions import NotRegistered

    found = []
    for one in errbacks:
        sig = app.signature(one)
        try:
            is_called = _takes_more_than_an_id(sig, getattr(sig.type, "__header__", None))
        except NotRegistered:
            is_called = False
        if not is_called:
            found.append(sig)
    return found


def _takes_more_than_an_id(sig: Any, header: Any) -> bool:
    from celery import VERSION
    from celery.utils.functional import arity_greater

    if header is None or isinstance(header, partial):
        return False
    if VERSION >= (5, 7) and not sig.immutable and (sig.args or sig.kwargs):
        try:
            return bool(arity_greater(partial(header, *sig.args, **sig.kwargs), 1))
        except (TypeError, ValueError):
            pass
    return bool(arity_greater(header, 1))


def _members(header: Any) -> list[Any]:
    """Return the members of a chord's header, which may be a group or its tasks."""
    return list(header["kwargs"]["tasks"] if isinstance(header, Mapping) else header)
