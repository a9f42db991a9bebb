"""Hold what belongs to a process, or to the one session of pytest in it, in objects that end.

Code that any thread reaches without being given anything (a log's sink, a receiver of Celery's
signals, ``redact``) needs a place where it looks. A module names it as a :class:`ProcessState`; the
object there is made anew for each session, and what was there before comes back with its end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")
End = Callable[[], None]


_places: Final[list[ProcessState[Any]]] = []
"""All of this process, in the order in which their modules were imported."""


def known_states() -> Sequence[ProcessState[Any]]:
    """Return all states of this process, whose modules were imported by now."""
    return tuple(_places)


class ProcessState(Generic[T]):
    """One object of this process, ``now``, which a session or an in-memory stack has for itself.

    ``make`` makes it. ``inherit`` makes the one of a session from the one before it, where that
    goes on to count. An object with a method ``close`` is closed when another comes back in its
    place. ``is_of_worker``: it is a worker's, so that an in-memory stack has one of its own, too.
    """

    def __init__(
        self,
        make: Callable[[], T],
        *,
        inherit: Callable[[T], T] | None = None,
        is_of_worker: bool = False,
    ) -> None:
        self.is_of_worker = is_of_worker
        self.now: T = make()
        self._make = make
        self._inherit = inherit
        _places.append(self)

    def begin(self) -> End:
        """Put a new object in place; return what closes it and restores the one before."""
        before = self.now
        self.now = self._make() if self._inherit is None else self._inherit(before)

        def end() -> None:
            ended, self.now = self.now, before
            _close(ended)

        return end

    def reset(self) -> None:
        """Put a new object in place for good, and close the one before."""
        ended, self.now = self.now, self._make()
        _close(ended)


def begin_session(*, is_of_worker: bool = False) -> End:
    """Begin the objects of this process anew, or a worker's alone; return what ends them."""

    def places() -> list[ProcessState[Any]]:
        return [one for one in _places if one.is_of_worker or not is_of_worker]

    begun = places()
    ends = [one.begin() for one in begun]

    def end() -> None:
        with ExitStack() as stack:  # each is ended, also where another one fails
            for one in ends:
                stack.callback(one)
            for later in [one for one in places() if one not in begun]:
                stack.callback(later.reset)  # its module was imported meanwhile

    return end


@contextmanager
def worker_within() -> Iterator[None]:
    """Have this process be a worker's within the block, as far as its state is concerned."""
    end = begin_session(is_of_worker=True)
    try:
        yield
    finally:
        end()


def _close(ended: object) -> None:
    close = getattr(ended, "close", None)
    if close is not None:
        close()


@contextmanager
def holding(variable: ContextVar[T], value: T) -> Iterator[None]:
    """Have a variable of this thread's context hold a value within the block."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)
