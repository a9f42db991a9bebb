"""Find how many calls a service bears at a time, for all workers together, by Redis or Valkey."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Final, Literal, cast

from loguru import logger
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from tasks.text_model.failures import ModelFailure, Stopped
from tasks.text_model.limits import REFUSALS, Limiter, Slot
from tasks.text_model.shared_limits import (
    KEY_PREFIX,
    REDIS_SECONDS,
    bad_url,
    plain_url,
    unreachable,
)

SLOW_START_CUT: Final = 0.5
"""The share of the limit that is left by the first refusal: slow start has doubled it just now."""
CUT: Final = 0.8
"""The share that is left by a later refusal."""
FASTER: Final = 4
"""Times of a call without a refusal after which one more is added in each: a service that bears
ten times as much as before is not to be found out one by one."""
FIRST_PAUSE: Final = 0.01
LONGEST_PAUSE: Final = 0.2
"""Seconds from one question for a place to the next, which grow: calls take longer than that."""
LEASE_SPARE: Final = 30.0
"""Seconds after a call's timeout when the place of a worker that died is free again."""
_KEPT_MS: Final = 3_600_000
"""Milliseconds without a call after which what was found is forgotten, and found anew."""

ENTER: Final = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
local limit = tonumber(redis.call('HGET', KEYS[1], 'limit') or '1')
local allowed = math.floor(math.min(limit, tonumber(ARGV[3])))
local taken = redis.call('ZCARD', KEYS[2])
if redis.call('ZSCORE', KEYS[2], ARGV[1]) then
    taken = taken - 1
elseif taken >= allowed then
    return {0, allowed, 0, 0}
end
redis.call('ZADD', KEYS[2], now + tonumber(ARGV[2]), ARGV[1])
if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[2]) then
    redis.call('PEXPIRE', KEYS[2], ARGV[2])
end
local turn = redis.call('HINCRBY', KEYS[1], 'turn', 1)
if taken + 1 >= allowed then redis.call('HSET', KEYS[1], 'full', turn) end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return {1, allowed, tonumber(redis.call('HGET', KEYS[1], 'round') or '0'), turn}
"""
"""Take a place: name, milliseconds of its lease, most places, and for which the state is kept.

Keys: the state, the places. Returns whether it was granted, how many are allowed, the round, and
the turn, which counts the places that were granted: moments can be the same, turns cannot. A name
that has a place is granted it again, as the reply to its first question may have been lost.
"""

LEAVE: Final = """
if redis.call('ZREM', KEYS[2], ARGV[1]) == 0 or ARGV[2] == 'other' then return 0 end
local round = tonumber(redis.call('HGET', KEYS[1], 'round') or '0')
if tonumber(ARGV[3]) ~= round then return 0 end
local most = tonumber(ARGV[5])
local limit = math.min(tonumber(redis.call('HGET', KEYS[1], 'limit') or '1'), most)
local steady = redis.call('HEXISTS', KEYS[1], 'steady') == 1
if ARGV[2] == 'refused' then
    limit = math.max(1, limit * tonumber(steady and ARGV[7] or ARGV[6]))
    redis.call('HSET', KEYS[1], 'round', round + 1, 'steady', 1, 'answers', 0)
elseif tonumber(redis.call('HGET', KEYS[1], 'full') or '0') >= tonumber(ARGV[4]) then
    local answers = redis.call('HINCRBY', KEYS[1], 'answers', 1)
    local more = steady and (1 + answers / (tonumber(ARGV[8]) * limit)) / limit or 1
    limit = math.min(most, limit + more)
end
redis.call('HSET', KEYS[1], 'limit', tostring(limit))
redis.call('PEXPIRE', KEYS[1], ARGV[9])
return 1
"""
"""Give a place back, and learn of how its call went: name, how, the round and the turn in which it
was taken, most places, both shares, ``FASTER``, milliseconds for which the state is kept.

Nothing is learnt of a place that is not there: it was given back before, or its lease has ended.
"""

_Ending = Literal["answered", "refused", "other"]


@dataclass(frozen=True, slots=True)
class _Place:
    name: str
    allowed: int
    round: int
    turn: int


class SharedConcurrency:
    """Slow start, then additive increase and multiplicative decrease (AIMD) of calls at a time.

    The number begins at 1 and grows by 1 with each answer, so that it doubles in the time of a
    call; from the first refusal on by 1 in the time of a call, and by 1 more for each ``FASTER``
    such times without a refusal. A refusal cuts it, once for all calls that were under way: what
    these are told of is the same moment. It never passes ``most``, and an answer counts only if all
    places were taken at some moment of its call: the others say nothing of how many more would be
    answered. All workers with the same ``key`` and server share it.

    A worker that dies gives its places back ``LEASE_SPARE`` after its calls would have timed out.
    ``rates`` has the limits a minute, which hold as well.
    """

    def __init__(self, url: str, key: str, most: int, rates: Limiter) -> None:
        self._most = most
        self._key = key
        self._rates = rates
        self._doubtful: list[str] = []  # places that may still be held, by name
        try:
            self._redis = Redis.from_url(
                plain_url(url),
                socket_timeout=REDIS_SECONDS,
                socket_connect_timeout=REDIS_SECONDS,
                retry=Retry(NoBackoff(), 1),
            )
        except ValueError as error:  # it may quote the URL, and the URL a password
            reason = type(error).__name__
        else:
            self._enter = self._redis.register_script(ENTER)
            self._leave = self._redis.register_script(LEAVE)
            # One hash tag: both keys are on the same node of a cluster.
            self._keys = [f"{KEY_PREFIX}:{{{key}}}:{name}" for name in ("concurrency", "places")]
            return
        raise bad_url(reason)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(key={self._key!r}, most={self._most}, rates={self._rates!r})"

    def acquire(self, tokens: int, stop: threading.Event) -> float:
        """Wait as the limits a minute say; the seconds waited."""
        return self._rates.acquire(tokens, stop)

    def slot(self, stop: threading.Event, seconds: float) -> AbstractContextManager[Slot]:
        """Wait for a place, and hold it while the block makes a call of so many seconds at most."""
        return self._slot(stop, int(1000 * (seconds + LEASE_SPARE)))

    @contextmanager
    def _slot(self, stop: threading.Event, lease_ms: int) -> Generator[Slot]:
        began = time.monotonic()
        place = self._taken(stop, lease_ms)
        ending: _Ending = "other"
        try:
            yield Slot(time.monotonic() - began, place.allowed)
            ending = "answered"
        except REFUSALS:
            ending = "refused"
            raise
        except ModelFailure as failure:
            # The service has answered, whatever its answer was worth.
            ending = "answered" if failure.splittable else "other"
            raise
        finally:
            self._give_back(place, ending)

    def close(self) -> None:
        """Give the connections back."""
        self._redis.close()
        self._rates.close()

    def _taken(self, stop: threading.Event, lease_ms: int) -> _Place:
        """Wait for a place. Raises Stopped, and LimitsUnreachable."""
        name, pause = self._name(), FIRST_PAUSE
        while not stop.is_set():
            granted, *found = self._asked(name, lease_ms)
            if granted:
                return _Place(name, *found)
            # Not all at the same moment, nor in the order of the processes.
            stop.wait(random.uniform(pause / 2, pause))  # noqa: S311 - no secret
            pause = min(2 * pause, LONGEST_PAUSE)
        raise Stopped

    def _name(self) -> str:
        """Return the name of a place that may still be held, to take it over, or a new one.

        A server that stood still may grant a place when nobody waits for its reply any more.
        """
        try:
            return self._doubtful.pop()
        except IndexError:
            return uuid.uuid4().hex

    def _asked(self, name: str, lease_ms: int) -> list[int]:
        """Ask for a place once; what :data:`ENTER` returns."""
        arguments = (name, lease_ms, self._most, _KEPT_MS)
        try:
            return cast("list[int]", self._enter(keys=self._keys, args=arguments))
        except RedisError as error:
            reason = type(error).__name__
        self._doubtful.append(name)
        raise unreachable(reason)

    def _give_back(self, place: _Place, ending: _Ending) -> None:
        """Give a place back; where that fails the next call takes it over, or its lease ends."""
        taken = (place.name, ending, place.round, place.turn)
        rule = (self._most, SLOW_START_CUT, CUT, FASTER, _KEPT_MS)
        try:
            self._leave(keys=self._keys, args=(*taken, *rule))
        except RedisError as error:
            self._doubtful.append(place.name)
            logger.debug("a call's place was not given back: {}", type(error).__name__)
