"""Hold sending back: by rates, by the length of the queues, by what the project says of its health.

What holds a run back is a fact of it (``Throttled``), recorded as it begins and when it is over.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Final, Literal, TypeAlias, get_args

from pytest_manifest.ledger import utc_now
from pytest_manifest.redaction.texts import redact
from pytest_manifest.run.fact_log import FactLog, stamp
from pytest_manifest.run.settings import Rate
from pytest_manifest.schema.run_facts import ThrottleCause, Throttled
from pytest_manifest.text import middle, one_line, short

Pair: TypeAlias = tuple[str, str]
"""A key's name and value, like ``("tenant", "acme")``."""

BURST: Final = 0.25
"""Seconds of a rate that may be saved up beside a message, as a round of the engine takes time."""
LOOK: Final = 1.0
"""Seconds from one count of the queues to the next."""
QUIET: Final = 2.0
"""Seconds without being held back after which it is over; a rate holds back again and again."""
ASK: Final = 5.0
"""Seconds from one question for the health to the next."""
FIRST_ANSWER: Final = 1.0
"""Seconds that sending waits for the first answer: nothing is sent to what is known to be down."""
SILENCE: Final = 60.0
"""Seconds without an answer after which that is said."""
MOST_KEYS: Final = 20
"""Values of keys that have facts of their own; all others of a name have theirs together."""
_SPARE: Final = 1000
_LONGEST: Final = 200


class _Bucket:
    """A rate's tokens, one a message. It begins with one, and saves up little."""

    def __init__(self, rate: Rate, now: float) -> None:
        self._tokens, self._at = 1.0, now
        self.change(rate)

    def change(self, rate: Rate) -> None:
        """Go on at another rate: what was taken stays taken."""
        self._speed = rate.per_second
        self.size = 1.0 + self._speed * BURST

    def tokens(self, now: float, share: float) -> float:
        gained = max(now - self._at, 0.0) * self._speed * share
        self._tokens, self._at = min(self.size, self._tokens + gained), now
        return self._tokens + 1e-9  # which rounding may have taken

    def take(self, number: int) -> None:
        self._tokens = min(self.size, self._tokens - number)


def names_of(rates: Mapping[str, Rate]) -> frozenset[str]:
    """Return the names of the keys that have a rate."""
    return frozenset(key.partition("=")[0] for key in rates if key)


class KeyRates:
    """Tell of which values of keys one more may be sent now. ``rates`` as of a run's settings."""

    def __init__(self, rates: Mapping[str, Rate]) -> None:
        self._buckets: dict[Pair, _Bucket] = {}
        self._most = _SPARE
        self.share = 1.0
        self.held: dict[Pair, Rate] = {}
        """What has waited for its rate since this was emptied."""
        self.change(rates)
        self.names = names_of(rates)
        """Of the keys that had a rate when the run began: entries are queued by these."""

    def change(self, rates: Mapping[str, Rate]) -> None:
        """Hold to these from now on."""
        self._rates = rates
        for pair in list(self._buckets):
            if (rate := self.rate_of(pair)) is None:
                del self._buckets[pair]
            else:
                self._buckets[pair].change(rate)

    def rate_of(self, pair: Pair) -> Rate | None:
        """Return the rate of one value: its own, else that of each value of its name."""
        return self._rates.get("=".join(pair)) or self._rates.get(pair[0])

    def has_room(self, pair: Pair) -> bool:
        """Return whether one more of this value may be sent; note that it waits where not."""
        rate = self.rate_of(pair)
        if rate is None:
            return True
        now = time.monotonic()
        if self._bucket(pair, rate, now).tokens(now, self.share) >= 1.0:
            return True
        self.held[pair] = rate
        return False

    def take(self, pair: Pair, number: int = 1) -> None:
        """Count so many as sent; less than 0: as not sent after all."""
        if (rate := self.rate_of(pair)) is not None:
            self._bucket(pair, rate, time.monotonic()).take(number)

    def _bucket(self, pair: Pair, rate: Rate, now: float) -> _Bucket:
        if pair not in self._buckets:
            if len(self._buckets) >= self._most:  # a full one is as good as none
                some = self._buckets.items()
                kept = {key: one for key, one in some if one.tokens(now, self.share) < one.size}
                self._buckets, self._most = kept, 2 * len(kept) + _SPARE
            self._buckets[pair] = _Bucket(rate, now)
        return self._buckets[pair]


HealthWord = Literal["ok", "slow", "stop"]
WORDS: Final = get_args(HealthWord)
_ANSWERS: Final = "'ok', 'slow' or 'stop', alone or in a pair with a reason"


class Health:
    """Ask the project how well it does, each time in a thread of its own, which may hang.

    Each kind of fault is said once, among the ``warnings`` and, at once, the ``live`` ones.
    """

    def __init__(
        self, ask: Callable[[], object] | None, warnings: list[str], live: list[str]
    ) -> None:
        self._ask, self._warnings, self.live = ask, warnings, live
        self.word: HealthWord = "ok"
        self.reason = ""
        self._is_asking = self._has_answered = self._has_word = False
        self._answer: list[object] = []
        self.is_silent = False
        """Whether it has not answered for a while: its last answer is an old one."""
        self._asked_at, self._waits_until = float("-inf"), float("inf")
        self._said: set[str] = set()

    def look(self, now: float) -> None:
        """Take the last answer, and ask again where it is time."""
        if self._ask is None:
            return
        self._waits_until = min(self._waits_until, now + FIRST_ANSWER)
        if not self._is_asking and now - self._asked_at >= ASK:
            self._asked_at, self._is_asking = now, True
            threading.Thread(target=self._question, daemon=True, name="manifest-health").start()
        elif self._is_asking and now - self._asked_at >= SILENCE:
            self.is_silent = True
            self._fault("silence", f"has not answered for {SILENCE:g} s")
        self._take()

    def allows(self, now: float) -> bool:
        """Return whether anything may be sent."""
        is_known = self._ask is None or self._has_answered or now >= self._waits_until
        return is_known and self.word != "stop"

    def _question(self) -> None:
        """Ask, in a thread that no one waits for: whatever is raised is an answer, too."""
        assert self._ask is not None
        try:
            self._answer = [self._ask()]
        except BaseException as error:  # as pytest.fail raises
            self._answer = [error]
        self._is_asking = False

    def _take(self) -> None:
        if not self._answer:
            return
        answer, self._has_answered, self.is_silent = self._answer.pop(), True, False
        word, reason = answer if isinstance(answer, tuple) and len(answer) == 2 else (answer, "")
        if isinstance(answer, BaseException):
            self._fault(
                "error", f"raised {_line(f'{type(answer).__name__}: {answer}'.rstrip(': '))}"
            )
        elif isinstance(reason, str) and isinstance(word, str) and word in WORDS:
            self.word, self._has_word = next(one for one in WORDS if one == word), True
            self.reason = _line(reason)
        else:
            self._fault("nonsense", f"answered {_line(short(answer))}, which is not {_ANSWERS}")

    def _fault(self, kind: str, what: str) -> None:
        if kind not in self._said:
            self._said.add(kind)
            holds = f"its last answer holds, {self.word!r}"
            if not self._has_word:
                holds = "there is no answer of it that would hold, so nothing is held back"
            said = f"manifest_health {what}: {holds}"
            self._warnings.append(said)
            self.live.append(said)


def _line(text: str) -> str:
    return middle(one_line(redact(text)), _LONGEST)


class Pressure:
    """Say how much of a run may be sent at this moment, and record what holds it back.

    All but :meth:`look` and :meth:`set_rates` is for the sender. ``count`` returns the longest
    queue and its messages; it raises StackError. ``keys``: by which entries are queued. For one
    thread.
    """

    def __init__(
        self,
        facts: FactLog,
        rates: Mapping[str, Rate],
        queue_depth: int | None,
        count: Callable[[], tuple[str, int]],
        *,
        health: Health,
        keys: KeyRates | None,
    ) -> None:
        self._facts, self._count, self._health = facts, count, health
        self.queue_depth = queue_depth
        self.rates: Mapping[str, Rate] = {}
        self._keys = keys or KeyRates({})
        self._bucket: _Bucket | None = None
        self.set_rates(rates)
        self._longest, self._counted, self._look_at = "", 0, float("-inf")
        self._held: dict[tuple[ThrottleCause, str], tuple[float, str]] = {}
        """What holds sending back: when it did so last, and in which words it began."""
        self._has_news = False

    def set_rates(self, rates: Mapping[str, Rate]) -> None:
        """Send as fast as this at most from now on, by what the run's settings have as keys.

        Raises ValueError for a key by whose name nothing was limited when the run began.
        """
        if new := names_of(rates) - self.rated_keys:
            raise ValueError(f"the run began without a rate of the key {min(new)!r}")
        self.rates = dict(rates)
        self._keys.change(self.rates)
        if "" not in rates:
            self._bucket = None
        elif self._bucket is None:
            self._bucket = _Bucket(rates[""], time.monotonic())
        else:
            self._bucket.change(rates[""])

    @property
    def held_by(self) -> str:
        """Return what holds all sending back at this moment; "" where nothing does."""
        held = {why: detail for (why, key), (_, detail) in self._held.items() if not key}
        # Where nothing is left to be sent it says so still, and holds nothing.
        if self._health.word == "stop" and (said := held.get("health")):
            return f"manifest_health says {said}"
        return held.get("queue", "")

    @property
    def rated_keys(self) -> frozenset[str]:
        """Return the names of the keys that may have a rate."""
        return self._keys.names

    def window(self, most: int) -> int:
        """Return how many may be in flight: half while the project's health is slow."""
        return max(1, most // 2) if self._health.word == "slow" else most

    @property
    def has_room(self) -> bool:
        """Return whether something may be sent now, or the queues are to be counted for that."""
        now = time.monotonic()
        if not self._health.allows(now):
            return False
        if self._bucket is not None and self._tokens(now) < max(1.0, self._bucket.size / 2):
            # Not each by itself: a batch costs as much as many entries.
            self._hold("rate", f"no more than {self.rates['']}", now)
            return False
        return now >= self._look_at or self._has_queue_room(now)

    def room(self) -> int:
        """Return how many may be sent now. Raises StackError where the queues are not counted."""
        now = time.monotonic()
        if self.queue_depth is not None and now >= self._look_at:
            self._longest, self._counted = self._count()
            self._look_at = now + LOOK
        room = self._queue_room if self._has_queue_room(now) else 0
        return room if self._bucket is None else min(room, max(int(self._tokens(now)), 0))

    def sent(self, number: int) -> None:
        """Count so many as sent; less than 0: as not sent after all."""
        self._counted += number
        if self._bucket is not None:
            self._bucket.take(number)

    def end(self) -> None:
        """Record that nothing holds sending back, as there is none any more."""
        self.look(is_sending=False)

    def look(self, *, is_sending: bool) -> None:
        """Ask for the project's health, and record what has begun or is over.

        ``is_sending``: whether anything is left to be sent.
        """
        now = time.monotonic()
        if is_sending:
            self._health.look(now)
            self._keys.share = 0.5 if self._health.word == "slow" else 1.0
            self._note_health(now)
        held, self._keys.held = self._keys.held, {}
        for pair, rate in held.items():
            self._hold("rate", f"no more than {rate}", now, self._name_of(pair))
        for (why, key), (last, _) in list(self._held.items()):
            if not is_sending or (why != "health" and now - last >= QUIET):
                self._release(why, key, now)
        if self._has_news:
            self._has_news = False
            with self._facts.ledger.transaction():
                self._facts.write()

    def _tokens(self, now: float) -> float:
        return 0.0 if self._bucket is None else self._bucket.tokens(now, self._keys.share)

    @property
    def _queue_room(self) -> int:
        return sys.maxsize if self.queue_depth is None else max(self.queue_depth - self._counted, 0)

    def _has_queue_room(self, now: float) -> bool:
        if not self._queue_room:
            said = f"{self._counted:,} messages in queue {self._longest!r}"
            self._hold("queue", f"{said}, of {self.queue_depth:,} at most", now)
        return self._queue_room > 0

    def _note_health(self, now: float) -> None:
        word = self._health.word
        said = "" if word == "ok" else ": ".join(filter(None, (word, self._health.reason)))
        if said and self._health.is_silent:
            said += f" (its last answer: it has been silent for over {SILENCE:g} s)"
        if said == self._held.get(("health", ""), (now, ""))[1]:
            return
        self._release("health", "", now)
        if said:
            self._hold("health", said, now)
            does = "no more is sent" if word == "stop" else "half as much is sent"
            self._health.live.append(f"manifest_health says {said}: {does} until it says otherwise")

    def _name_of(self, pair: Pair) -> str:
        """Return what a key is called in facts, its secrets hidden."""
        own = redact("=".join(pair))
        known = {key for _, key in self._held}
        if own in known or sum("=" in key for key in known) < MOST_KEYS:
            return own
        return pair[0]

    def _hold(self, why: ThrottleCause, detail: str, now: float, key: str = "") -> None:
        if (why, key) not in self._held:
            self._held[why, key] = now, detail
            self._facts.add(None, Throttled(**stamp(), why=why, detail=detail, key=key))
            self._has_news = True
        self._held[why, key] = now, self._held[why, key][1]

    def _release(self, why: ThrottleCause, key: str, now: float) -> None:
        """Record that this holds sending back no more, as of the last time that it did."""
        if (why, key) in self._held:
            last, detail = self._held.pop((why, key))
            ago = 0.0 if why == "health" else now - last
            at = utc_now() - timedelta(seconds=ago)
            over = Throttled(seq=0, at=at, why=why, detail=detail, is_over=True, key=key)
            self._facts.add(None, over)
            self._has_news = True
