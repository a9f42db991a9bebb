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
"""Transactions that are told before their answers are read, which are some 100 bytes each."""

Transaction = Sequence[Command]


class Teller:
    """Sends transactions in their order, on a connection of its own. For any thread.

    They are in the system's hands when :meth:`tell` returns, so they arrive also where this process
    is killed then. Where the connection breaks before the answers have been read, they are sent
    anew: the server may get them twice.
    """

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._connection: Any = None
        self._lock = Lock()
        self._unanswered: deque[Transaction] = deque()
        self._said = 0  # of the unanswered, on this very connection

    def tell(self, *commands: Command) -> None:
        """Have these done, all or none. What the server refuses is logged when it is known.

        Raises what redis-py raises where the server cannot be reached; it is sent with the next.
        """
        with self._lock:
            self._unanswered.append(commands)
            self._go_on(listen=len(self._unanswered) > UNANSWERED)

    def settle(self) -> None:
        """Wait until all that was told is done; raises as :meth:`tell`."""
        with self._lock:
            if self._unanswered:
                self._go_on(listen=True)

    def _go_on(self, *, listen: bool) -> None:
        try:
            self._speak(listen=listen)
        except (Unreachable, Late):
            # It had been idle, and the server or something between had closed it: once more.
            self._speak(listen=listen)

    def _speak(self, *, listen: bool) -> None:
        if self._connection is None:
            self._connection = self._pool.get_connection()
            self._connection.register_connect_callback(self._begin_anew)
            self._said = 0
        connection = self._connection
        connection.connect()  # which it mostly is
        try:
            while self._said < len(self._unanswered):
                commands = (("MULTI",), *self._unanswered[self._said], ("EXEC",))
                connection.send_packed_command(connection.pack_commands(commands))
                self._said += 1
            while listen and self._unanswered:
                answers = [reply_of(connection) for _ in range(len(self._unanswered[0]) + 2)]
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
