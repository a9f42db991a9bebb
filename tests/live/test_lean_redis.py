"""Redis asked with less around each round trip: the same answers and faults as by redis-py."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import redis
from loguru import logger
from redis.backoff import NoBackoff
from redis.retry import Retry

from pytest_manifest.worker import lean_redis
from pytest_manifest.worker.lean_redis import LeanRedis, lean
from pytest_manifest.worker.telling import UNANSWERED, Teller
from tests.support import eventually

pytestmark = pytest.mark.live


@pytest.fixture
def plain(valkey: str) -> Iterator[Any]:
    """redis-py's client, of an empty database."""
    with redis.Redis.from_url(valkey) as client:
        client.flushall()
        yield client


@pytest.fixture
def ours(valkey: str) -> Iterator[Any]:
    """The lean one, on the same database."""
    with redis.Redis.from_url(valkey) as client:
        found = lean(client)
        assert isinstance(found, LeanRedis)
        yield found


def outcome(client: Any, *command: object) -> object:
    """The answer, or the kind and words of the refusal."""
    try:
        return client.execute_command(*command)
    except redis.RedisError as error:
        return type(error), str(error)


def test_answers_are_those_of_redis_py(plain: Any, ours: Any) -> None:
    """Also where redis-py turns them into something else, and where the server refuses."""
    commands: tuple[tuple[object, ...], ...] = (
        ("SET", "a", "1"),
        ("SET", "a", "2", "NX"),
        ("GET", "a"),
        ("GET", "nothing"),
        ("EXPIRE", "a", 60),
        ("HSET", "h", "x", b"\x00\xff"),
        ("HGETALL", "h"),
        ("LPUSH", "a", "x"),
        ("NO SUCH COMMAND",),
        ("CONFIG GET", "maxmemory"),
    )
    found: list[list[object]] = []
    for client in (plain, ours):
        client.flushall()
        found.append([outcome(client, *command) for command in commands])
        info = client.execute_command("INFO", "server")
        found[-1].append(sorted(info))  # what is in it are the times of day
    assert found[0] == found[1]


def test_a_transaction_answers_as_redis_py_does(plain: Any, ours: Any) -> None:
    """All of its answers, in their order and as redis-py gives them."""
    found = []
    for client in (plain, ours):
        client.flushall()
        with client.pipeline() as pipe:
            pipe.set("a", 1, ex=60, nx=True)
            pipe.set("a", 2, nx=True)
            pipe.zadd("z", {"one": 1.5})
            pipe.zrange("z", 0, -1, withscores=True)
            pipe.hset("h", mapping={"x": 1})
            pipe.hgetall("h")
            pipe.publish("channel", "word")
            found.append(pipe.execute())
    assert found[0] == found[1]
    assert found[0][0] is True
    assert found[0][1] is None


@pytest.mark.parametrize("wrong", [("LPUSH", "a", "x"), ("NO_SUCH",)], ids=["kind", "command"])
def test_a_refused_transaction_says_what_redis_py_says(
    plain: Any, ours: Any, wrong: tuple[str, ...]
) -> None:
    """And the connection answers the next question with the next answer."""
    said = []
    for client in (plain, ours):
        client.set("a", "text")
        with client.pipeline() as pipe:
            pipe.set("b", 1)
            pipe.execute_command(*wrong)
            pipe.set("c", 1)
            with pytest.raises(redis.ResponseError) as raised:
                pipe.execute()
        said.append((raised.type, str(raised.value)))
        assert client.get("a") == b"text"
    assert said[0] == said[1]


def test_other_ways_of_asking_are_redis_py_s(ours: Any) -> None:
    """Watched keys, scripts, pipelines without a transaction, and errors among the answers."""

    def double(pipe: Any) -> None:
        number = int(pipe.get("n"))
        pipe.multi()
        pipe.set("n", 2 * number)

    ours.set("n", 21)
    assert ours.transaction(double, "n") == [True]
    assert ours.get("n") == b"42"
    assert ours.register_script("return ARGV[1]")(args=["word"]) == b"word"
    with ours.pipeline(transaction=False) as pipe:
        assert pipe.get("n").lpush("n", 1).execute(raise_on_error=False)[0] == b"42"
    assert ours.pipeline().execute() == []


def test_only_redis_py_s_own_client_is_made_lean(valkey: str) -> None:
    """A client of another class, or one whose credentials change, stays what it is."""

    class Other(redis.Redis):
        pass

    with Other.from_url(valkey) as client:
        assert lean(client) is client
    provider = redis.UsernamePasswordCredentialProvider("user", "word")
    changing = redis.Redis(credential_provider=provider)
    assert lean(changing) is changing


def test_a_burst_leaves_room_in_the_pool(valkey: str) -> None:
    """Connections go back, beyond a few, and all where somebody needs another one."""
    with redis.Redis.from_url(valkey, max_connections=20) as client:
        ours = lean(client)
        with ThreadPoolExecutor(20) as threads:
            list(threads.map(lambda _: ours.execute_command("BLPOP", "nothing", "0.2"), range(20)))
        assert len(ours._kept) == lean_redis.KEPT
        pipes = [ours.pipeline() for _ in range(20)]
        for pipe in pipes:
            pipe.watch("a")
        for pipe in pipes:
            pipe.reset()


def test_a_small_pool_is_left_alone(valkey: str) -> None:
    """Connections that are kept would be missed there."""
    with redis.Redis.from_url(valkey, max_connections=2) as client:
        assert lean(client) is client


def test_a_connection_that_is_closed_in_the_middle_is_redis_py_s_error(
    plain: Any, ours: Any
) -> None:
    """Nobody knows what was done by then; the next question is asked by another connection."""
    ours.ping()
    plain.client_kill_filter(skipme=True, _type="normal")
    with pytest.raises(redis.ConnectionError):
        ours.ping()
    assert ours.ping()


def test_a_connection_that_was_closed_while_idle_is_replaced(
    plain: Any, ours: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked at before it is used."""
    ours.ping()
    monkeypatch.setattr(lean_redis, "TRUSTED_SECONDS", 0.0)
    plain.client_kill_filter(skipme=True, _type="normal")
    assert ours.ping()


def test_a_client_with_retries_has_them(valkey: str, plain: Any) -> None:
    """As many as redis-py would have made."""
    with redis.Redis.from_url(valkey, retry=Retry(NoBackoff(), 1)) as client:
        ours = lean(client)
        ours.ping()
        plain.client_kill_filter(skipme=True, _type="normal")
        assert ours.ping()


class BrokenOffError(Exception):
    """What a signal raises in the middle of a command."""


@contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Raise ``BrokenOffError`` after so long, wherever this process is then."""

    def interrupt(*_: object) -> None:
        raise BrokenOffError

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_question_that_is_broken_off_does_not_spoil_the_next_answer(
    plain: Any, ours: Any
) -> None:
    """As by a soft time limit, which Celery raises wherever the task is."""
    ours.set("a", "1")
    with pytest.raises(BrokenOffError), alarm(0.2):
        ours.execute_command("BLPOP", "list", 30)
    plain.lpush("list", "late")
    assert ours.get("a") == b"1"


def test_an_answer_that_nobody_read_is_not_given_to_the_next(
    ours: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the question was broken off before its answer was looked for."""
    ours.set("a", "1")

    def broken_off(*_: object) -> None:
        raise BrokenOffError

    with monkeypatch.context() as patched:
        patched.setattr(lean_redis, "reply_of", broken_off)
        with pytest.raises(BrokenOffError):
            ours.execute_command("ECHO", "late")
    assert ours.get("a") == b"1"


FORKED = """
import os, sys
import redis
from pytest_manifest.worker.lean_redis import lean

client = lean(redis.Redis.from_url(sys.argv[1]))
client.ping()
child = os.fork()
name = "child" if child == 0 else "parent"
wrong = 0
for number in range(500):
    client.set(name, number)
    wrong += client.get(name) != str(number).encode()
if child == 0:
    os._exit(wrong != 0)
_, status = os.waitpid(child, 0)
sys.exit(wrong or os.waitstatus_to_exitcode(status))
"""


def test_a_forked_process_has_connections_of_its_own(valkey: str) -> None:
    """Or parent and child would read each other's answers."""
    ended = subprocess.run([sys.executable, "-c", FORKED, valkey], check=False, timeout=60)
    assert ended.returncode == 0


# Telling


@pytest.fixture
def teller(ours: Any) -> Teller:
    return Teller(ours.connection_pool)


def test_what_is_told_is_done(plain: Any, teller: Teller) -> None:
    """All of it when it is settled, in its order, and far more than is kept of it."""
    for number in range(3 * UNANSWERED):
        teller.tell(("RPUSH", "told", number), ("SET", "last", number))
        assert len(teller._unanswered) <= UNANSWERED
    teller.settle()
    assert plain.lrange("told", 0, -1) == [str(n).encode() for n in range(3 * UNANSWERED)]
    assert plain.get("last") == str(3 * UNANSWERED - 1).encode()
    teller.settle()  # nothing is left to be heard


def test_a_refusal_is_logged(plain: Any, teller: Teller) -> None:
    """In the server's words; what came before and after is done."""
    plain.set("text", "word")
    lines: list[str] = []
    handler = logger.add(lambda message: lines.append(str(message)), level="WARNING")
    try:
        teller.tell(("SET", "a", 1))
        teller.tell(("LPUSH", "text", "x"))
        teller.tell(("NO_SUCH", "x"))
        teller.tell(("SET", "b", 2))
        teller.settle()
    finally:
        logger.remove(handler)
    assert plain.mget("a", "b") == [b"1", b"2"]
    text = "".join(lines)
    assert "WRONGTYPE" in text
    assert "unknown command" in text


@pytest.mark.parametrize("how", ["server", "pool"])
def test_what_was_not_answered_is_told_again(
    plain: Any, ours: Any, teller: Teller, how: str
) -> None:
    """Where the connection broke, from either side, and nobody knows what had arrived."""
    teller.tell(("RPUSH", "told", "a"))
    teller.settle()
    teller.tell(("RPUSH", "told", "b"))
    if how == "server":
        plain.client_kill_filter(skipme=True, _type="normal")
    else:
        ours.connection_pool.disconnect()
    teller.tell(("RPUSH", "told", "c"))
    teller.settle()
    told = plain.lrange("told", 0, -1)
    assert list(dict.fromkeys(told)) == [b"a", b"b", b"c"]
    assert told[-1] == b"c"
    assert told.count(b"a") == 1


def test_a_look_at_the_connection_s_health_does_not_come_between(
    plain: Any, teller: Teller
) -> None:
    """Its answer would be one of those that nobody has read yet; nothing is told twice for it."""
    teller.tell(("RPUSH", "told", "a"))
    teller._connection.health_check_interval = 1
    teller._connection.next_health_check = 0
    teller.tell(("RPUSH", "told", "b"))
    teller.settle()
    assert plain.lrange("told", 0, -1) == [b"a", b"b"]


def test_a_connection_that_is_made_anew_in_the_middle_is_told_all(
    plain: Any, teller: Teller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In order, also where redis-py connects by itself for a later one."""
    teller.tell(("RPUSH", "told", "a"))
    teller.settle()
    connection = teller._connection
    pack = connection.pack_commands
    turns = iter([True, True, False])

    def lose(commands: Any) -> Any:
        packed = pack(commands)
        if not next(turns, True):
            connection.disconnect()
        return packed

    monkeypatch.setattr(connection, "pack_commands", lose)
    for word in ("b", "c", "d"):
        teller.tell(("RPUSH", "told", word))
    teller.settle()
    told = plain.lrange("told", 0, -1)
    assert list(dict.fromkeys(told)) == [b"a", b"b", b"c", b"d"]
    assert told[-3:] == [b"b", b"c", b"d"]
    assert not connection.can_read()  # nothing is left of what was said out of order


def test_a_silent_server_is_waited_for_so_long(plain: Any, teller: Teller) -> None:
    """And what it has not answered may be given up."""
    teller.tell(("SET", "a", "1"))
    teller.settle()
    plain.client_pause(1000, all=True)
    teller.tell(("SET", "b", "2"))
    with pytest.raises(redis.TimeoutError):
        teller.settle(0.2)
    assert teller.abandon() == 1
    teller.settle()


def test_a_server_that_is_away_is_an_error(teller: Teller, plain: Any) -> None:
    """Of redis-py's; and what was told meanwhile is told when it is back."""
    teller.tell(("SET", "a", 1))
    teller.settle()
    connection = teller._connection
    port, connection.port = connection.port, 1
    connection.disconnect()
    connection.retry.update_retries(0)
    with pytest.raises(redis.ConnectionError):
        teller.tell(("SET", "b", 2))
    connection.port = port
    teller.settle()
    assert plain.get("b") == b"2"


# A socket that was being opened when the signal came is closed by whoever finds it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_telling_that_is_broken_off_goes_on(plain: Any, teller: Teller) -> None:
    """A signal may come at any moment; after it all is told, and heard, as before."""
    number = 0

    def tell() -> None:  # in a frame of its own, all of which is within what awaits the exception
        nonlocal number
        end = number + 2000
        while number < end:
            teller.tell(("SADD", "told", str(number)))
            number += 1

    for _ in range(100):
        with suppress(BrokenOffError), alarm(0.005):
            tell()
    teller.tell(("SADD", "told", str(number)))
    teller.settle()
    assert plain.scard("told") == number + 1


def test_a_killed_process_has_told(valkey: str, plain: Any) -> None:
    """What was told is the system's to deliver."""
    code = """
import os, signal, sys
import redis
from pytest_manifest.worker.telling import Teller

teller = Teller(redis.Redis.from_url(sys.argv[1]).connection_pool)
teller.tell(("SET", "a", 1))
os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", code, valkey], check=False, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    eventually(lambda: plain.get("a") == b"1", within=10, what="it has arrived")
