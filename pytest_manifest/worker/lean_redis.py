"""redis-py's client with less around each round trip, for what a worker does with every message.

redis-py 8 takes a connection out of its pool and looks whether it is clean, counts, measures, and
reads each reply by several calls: that is two thirds of what a round trip costs a process. Here a
client keeps the connections that it has used, and asks them directly. Retries, health checks and
the kinds of errors are redis-py's own, as is everything but plain commands and plain transactions.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

from redis import ConnectionPool, Redis
from redis.client import EMPTY_RESPONSE, Pipeline
from redis.exceptions import ResponseError

TRUSTED_SECONDS: Final = 1.0
"""A connection that was idle for longer may have been closed: the pool looks, and opens another."""

KEPT: Final = 8
"""Connections that are kept; those of a burst of more go back to their pool, which others use."""

Command = Sequence[object]


def lean(client: Any) -> Any:
    """The same client, leaner; others than redis-py's own, on its own pool, stay as they are."""
    pool = getattr(client, "connection_pool", None)
    if type(client) is not Redis or type(pool) is not ConnectionPool or pool.max_connections < 3:
        return client
    # Credentials that change come to a connection when it goes back to its pool.
    if pool.cache is not None or pool.connection_kwargs.get("credential_provider") is not None:
        return client
    return LeanRedis(connection_pool=pool)


class LeanRedis(Redis):
    """For any number of threads, each with a connection of its own while it waits for an answer."""

    def __init__(self, connection_pool: ConnectionPool) -> None:
        super().__init__(connection_pool=connection_pool)
        self._kept: deque[tuple[Any, float]] = deque()
        self._process = os.getpid()

    def execute_command(self, *args: Any, **options: Any) -> Any:
        if options.keys() - {"keys"}:
            self.give_back()
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]  # redis-py's
        (answer,) = self.ask([args])
        if isinstance(answer, ResponseError):
            raise answer
        return _read(self.response_callbacks, args[0], answer)

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> LeanPipeline:
        return LeanPipeline(self, transaction, shard_hint)

    def ask(self, commands: Sequence[Command]) -> list[Any]:
        """Send all at once and read an answer to each; a refusal is an exception among them.

        Raises what redis-py raises where there is no answer.
        """
        connection = self._take()
        try:
            packed = connection.pack_commands(commands)

            def ask() -> list[Any]:
                connection.send_packed_command(packed)
                return [reply_of(connection) for _ in commands]

            answers: list[Any] = connection.retry.call_with_retry(
                ask, lambda _error: connection.disconnect()
            )
        except BaseException:
            # Broken off between question and answer, it would answer the next question wrongly.
            connection.disconnect()
            self.connection_pool.release(connection)
            raise
        if len(self._kept) < KEPT:
            self._kept.append((connection, time.monotonic()))
        else:
            self.connection_pool.release(connection)
        return answers

    def pubsub(self, **options: Any) -> Any:
        self.give_back()
        return super().pubsub(**options)  # type: ignore[no-untyped-call]  # redis-py's

    def give_back(self) -> None:
        """Put the connections that nobody uses back into the pool, for those who go to it."""
        while True:
            try:
                connection, _ = self._kept.popleft()
            except IndexError:
                return
            self.connection_pool.release(connection)

    def _take(self) -> Any:
        if self._process != os.getpid():  # the parent goes on with its own
            self._kept.clear()
            self._process = os.getpid()
        try:
            connection, used = self._kept.pop()
        except IndexError:
            return self.connection_pool.get_connection()
        if time.monotonic() - used < TRUSTED_SECONDS and not connection.should_reconnect():
            return connection
        self.connection_pool.release(connection)
        return self.connection_pool.get_connection()


class LeanPipeline(Pipeline):
    """One that sends a plain transaction leanly, and leaves the rest to redis-py."""

    def __init__(self, client: LeanRedis, transaction: bool, shard_hint: str | None) -> None:
        super().__init__(client.connection_pool, client.response_callbacks, transaction, shard_hint)
        self._client: Any = client
        self._is_transaction = transaction

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        if not (raise_on_error and self._is_plain()):
            self._client.give_back()
            return super().execute(raise_on_error)
        commands = self.command_stack
        try:
            *queued, answers = self._client.ask(
                [("MULTI",), *(args for args, _ in commands), ("EXEC",)]
            )
        finally:
            self.reset()
        for number, answer in enumerate(queued):
            if isinstance(answer, ResponseError):
                if number:
                    command = commands[number - 1][0]
                    self.annotate_exception(answer, number, command)  # type: ignore[no-untyped-call]  # redis-py's
                raise answer
        if isinstance(answers, ResponseError):
            raise answers
        self.raise_first_error(commands, answers)  # type: ignore[no-untyped-call]  # redis-py's
        return [
            _read(self.response_callbacks, args[0], answer, options)
            for (args, options), answer in zip(commands, answers, strict=True)
        ]

    def immediate_execute_command(self, *args: Any, **options: Any) -> Any:
        self._client.give_back()
        return super().immediate_execute_command(*args, **options)  # type: ignore[no-untyped-call]  # redis-py's

    def _is_plain(self) -> bool:
        return (
            self._is_transaction
            and bool(self.command_stack)
            and not (self.watching or self.explicit_transaction or self.scripts or self.connection)
            and not any(
                EMPTY_RESPONSE in options or str(args[0]).startswith("HIMPORT")
                for args, options in self.command_stack
            )
        )


def _read(
    callbacks: Mapping[str, Any], name: str, answer: Any, options: Mapping[str, Any] | None = None
) -> Any:
    """An answer as redis-py's own clients give it."""
    callback = callbacks.get(name)
    if callback is None:
        return answer
    return callback(answer, **{k: v for k, v in (options or {}).items() if k != "keys"})


def reply_of(connection: Any, timeout: float | None = None) -> Any:
    """The next answer; what the server refused is the exception that redis-py has for it.

    ``timeout``: seconds to wait for it; None: as long as the connection waits.
    """
    limit = {} if timeout is None else {"timeout": timeout}
    try:
        return connection.read_response(**limit)
    except ResponseError as error:  # an answer like any other: more are to be read
        return error
