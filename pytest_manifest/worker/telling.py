"""Telling Redis what to do without waiting for each answer, for what may also be done twice."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from threading import Lock
from typing import Any, Final

from loguru import logger
from redis import ConnectionPool
from redis.exceptions import ConnectionError as Unreachable
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as Late

from pytest_manifest.worker.lean_redis import Command, reply_of

UNANSWERED: Final = 100
"""Transactions that are told before their answers are read: so many messages are kept, too."""

Transaction = Sequence[Command]


class Teller:
    """Sends transactions in their order, on a connection of its own. For any thread.

    They are in the system's hands when :meth:`tell` returns. Where this process is killed then,
    they arrive, unless the network was slow. Where the connection breaks before the answers have
    been read, they are sent anew: the server may get them twice.
    """

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._connection: Any = None
        self._lock = Lock()
        self._unanswered: deque[Transaction] = deque()
        self._said = 0  # of the unanswered, on this very connection
        self._timeout: float | None = None

    def tell(self, *commands: Command) -> None:
        """Have these done, all or none. What the server refuses is logged when it is known.

        Raises what redis-py raises where the server cannot be reached; it is sent with the next.
        """
        with self._lock:
            self._unanswered.append(commands)
            self._go_on(listen=len(self._unanswered) > UNANSWERED)

    def settle(self, timeout: float | None = None) -> None:
        """Wait, for so many seconds an answer, until all that was told is done.

        Raises as :meth:`tell`, also where the server is silent for that long.
        """
        with self._lock:
            if self._unanswered:
                self._timeout = timeout
                try:
                    self._go_on(listen=True)
                finally:
                    self._timeout = None

    def abandon(self) -> int:
        """Give up what is unanswered; returns how many transactions those are."""
        with self._lock:
            lost = len(self._unanswered)
            self._unanswered.clear()
            self._said = 0
            if self._connection is not None:
                self._connection.disconnect()
            return lost

    def _go_on(self, *, listen: bool) -> None:
        try:
            self._speak(listen=listen)
        except (Unreachable, Late) as error:
            if isinstance(error, Late) and self._timeout is not None:
                raise
            # It had been idle, and the server or something between had closed it: once more.
            self._speak(listen=listen)

    def _speak(self, *, listen: bool) -> None:
        if self._connection is None:
            self._connection = self._pool.get_connection()
            self._connection.register_connect_callback(self._begin_anew)
            self._said = 0
        connection = self._connection
        try:
            connection.connect()  # which it mostly is
            while self._said < len(self._unanswered):
                commands = (("MULTI",), *self._unanswered[self._said], ("EXEC",))
                said, self._said = self._said, self._said + 1
                # A look at its health would take the first unread answer for its own.
                connection.send_packed_command(
                    connection.pack_commands(commands), check_health=False
                )
                if self._said <= said:  # it was connected anew for this one: now all in order
                    connection.disconnect()
                    connection.connect()
            while listen and self._unanswered:
                expected = len(self._unanswered[0]) + 2
                answers = [reply_of(connection, self._timeout) for _ in range(expected)]
                self._unanswered.popleft()
                self._said -= 1
                _complain(answers)
        except BaseException:
            connection.disconnect()
            raise

    def _begin_anew(self, _connection: object) -> None:
        self._said = 0


def _complain(answers: Sequence[object]) -> None:
    *_, done = answers
    for answer in (*answers, *(done if isinstance(done, list) else ())):
        if isinstance(answer, ResponseError):
            logger.warning("the broker refused to note what a worker took or did: {}", answer)
