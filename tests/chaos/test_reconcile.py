"""The account of messages, and the drain of brokers that it rests on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
import redis
from celery import Celery
from kombu import Connection

from pytest_manifest.ledger import Ledger
from tests import services
from tests.chaos.drain import Message, Remains, count_amqp, drain_amqp, drain_redis
from tests.chaos.executions import Execution
from tests.chaos.kept import AOF, KeptData
from tests.chaos.reconcile import Account, Books, reconcile
from tests.chaos.record import Sending, read_sendings
from tests.chaos.servers import Valkey
from tests.chaos.session import Family
from tests.chaos.workload import Group, late, plain
from tests.support import eventually
from tests.unit.ledger_support import INFO

MEMBERS = {"e": plain(1)}
AT = 5.0
"""When a verdict was told (s)."""


def line(what: str, at: float = 1.0, key: str = "e", task_id: str = "id") -> Execution:
    return Execution(what, at, key, task_id, 0, 7)


RAN = (line("start"), line("end"))


def called(kind: str, *, state: str = "sent", was: str = "") -> Sending:
    """What a ledger says of the one message."""
    told = {one: AT for one in (was, kind) if one}
    return Sending("id", "e", state, kind, told)


def account_of(
    sending: Sending | None,
    lines: Sequence[Execution] = (),
    places: Sequence[str] = (),
    *,
    group: Group = MEMBERS["e"],
    killed: Sequence[int] = (),
    forced: bool = False,
    odd: Sequence[str] = (),
) -> Account:
    """The account of one message that is in these places."""
    remains = Remains([Message("id", place) for place in places], list(odd))
    sendings = [] if sending is None else [sending]
    books = Books({"e": group}, lines, sendings, [remains], killed, forced=forced)
    return reconcile(books)


def places(account: Account) -> tuple[int, int, int, int]:
    return account.executed, account.lost, account.revoked, account.there


def test_each_message_is_in_one_place() -> None:
    """Executed, lost, revoked, or still there; and nothing of that is a flaw where it was told."""
    cases: list[tuple[Account, tuple[int, int, int, int]]] = [
        (account_of(called("passed"), RAN), (1, 0, 0, 0)),
        (account_of(called("crashed"), RAN[:1]), (1, 0, 0, 0)),
        (account_of(called("lost")), (0, 1, 0, 0)),
        (account_of(called("unknown")), (0, 1, 0, 0)),
        (account_of(called("revoked")), (0, 0, 1, 0)),
        (account_of(called("timed_out", state="withdrawn")), (0, 0, 1, 0)),
        (account_of(called("timed_out"), (), ["celery"]), (0, 0, 0, 1)),
        (account_of(called("skipped", state="withheld")), (0, 0, 0, 0)),
    ]
    for account, expected in cases:
        assert places(account) == expected
        assert account.flaws == account.recovered == []


@pytest.mark.parametrize("kind", ["passed", "failed", "forged", "duplicated", ""])
def test_what_is_nowhere_must_be_told(kind: str) -> None:
    """Whatever else it is called, somebody believed that it ran."""
    assert account_of(called(kind)).flaws


@pytest.mark.parametrize(
    ("kind", "root", "flaws"),
    [("", "crashed", 0), ("lost", "lost", 0), ("passed", "crashed", 1), ("", "passed", 1)],
)
def test_a_descendant_that_is_nowhere_has_not_passed(kind: str, root: str, flaws: int) -> None:
    """Nor has the attempt whose job has started it; it may have no verdict of its own."""
    sendings = [called(root), Sending("twig", "e", "sent", kind, root="id")]
    account = reconcile(Books(MEMBERS, RAN, sendings, []))
    assert places(account) == (1, 1, 0, 0)
    assert len(account.flaws) == flaws


def test_what_was_called_lost_and_came_is_recovered() -> None:
    """In the broker, to its end, or begun later; also where its verdict was corrected since."""
    for account in (
        account_of(called("lost"), (), ["unacked"]),
        account_of(called("lost"), RAN),
        account_of(called("lost"), [line("start", AT + 1)]),
        account_of(called("passed", was="lost"), RAN),
    ):
        assert len(account.recovered) == 1
    for account in (
        account_of(called("lost")),
        account_of(called("lost"), [line("start", AT - 1)]),  # its worker died then
        account_of(called("timed_out"), (), ["celery"]),
    ):
        assert account.recovered == []


@pytest.mark.parametrize(
    ("reason", "kind", "recovered"),
    [("lost", "lost", 1), ("lost in flight", "unknown", 0), ("revoked", "revoked", 0)],
)
def test_what_a_resume_sends_again_is_called_what_it_says(
    tmp_path: Path, reason: str, kind: str, recovered: int
) -> None:
    """Lost in flight is what was begun: a session that is ended at once hears no end of it."""
    path = tmp_path / "run.sqlite"
    with Ledger.create(path, INFO) as ledger:
        ledger.attempts.plan([("id", "e", 1, 0)])
        ledger.attempts.plan([("again", "e", 2, 0, reason)], why="resume")
        ledger.attempts.mark(["id", "again"], "sent")
    first, _ = read_sendings([path])
    assert first.kind == kind
    assert len(account_of(first, RAN).recovered) == recovered


def test_what_would_run_again_is_a_flaw() -> None:
    """What has run, or is said to be over, and is in the broker; and what is there twice."""
    assert account_of(called("passed"), RAN, ["unacked"]).flaws
    assert account_of(called("rejected"), (), ["celery"]).flaws
    assert account_of(called("timed_out"), (), ["celery", "unacked"]).flaws


def test_a_fault_may_bring_messages_twice() -> None:
    """Or one that kills the process before it acknowledges; what is acknowledged late may come."""
    assert not account_of(called("duplicated"), RAN, ["celery"], forced=True).flaws
    assert not account_of(called("passed"), RAN, ["celery"], group=late(1)).flaws
    assert not account_of(called("crashed"), RAN, ["unacked"], killed=[7]).flaws


def test_what_no_ledger_knows_is_a_flaw() -> None:
    """Run or waiting; and so is what a ledger says was never sent."""
    assert account_of(None, RAN).flaws
    assert account_of(None, (), ["celery"]).flaws
    assert account_of(called("skipped", state="withheld"), RAN).flaws
    assert account_of(called("skipped", state="planned"), (), ["celery"]).flaws


def test_a_descendant_may_be_unknown_of_an_entry_that_did_not_pass() -> None:
    """Nobody reads what is announced after that."""
    twig = [line("start", key="e/1", task_id="twig")]
    flaws = [account_of(called(kind), [*RAN, *twig]).flaws for kind in ("passed", "timed_out")]
    assert [len(some) for some in flaws] == [1, 0]


def test_what_nobody_can_read_is_a_flaw() -> None:
    """A broker holds something, and whoever drains it cannot say what."""
    assert account_of(called("passed"), RAN, odd=["a hash"]).flaws == ["a hash"]


@pytest.fixture(scope="module")
def valkey_url() -> Iterator[str]:
    with services.valkey_server() as url:
        yield url


def send(url: str, *task_ids: str, queue: str = "celery", priority: int = 0) -> None:
    app = Celery("jobs", broker=url, set_as_current=False)
    with app.connection_for_write() as connection:
        for task_id in task_ids:
            app.send_task(
                "jobs.work", task_id=task_id, queue=queue, priority=priority, connection=connection
            )
    app.close()


@pytest.mark.live
def test_redis_is_drained_of_all_queues_and_of_what_workers_had(valkey_url: str) -> None:
    """Each queue, each priority, what is not acknowledged; then nothing is left."""
    send(valkey_url, "one", "two")
    send(valkey_url, "other", queue="other", priority=9)
    with Connection(valkey_url) as connection, closing(connection.channel()) as channel:
        assert channel.basic_get("celery") is not None
        assert {one.place for one in drain_redis(valkey_url, look_only=True).messages} == {
            *("celery", "unacked", "other\x06\x169")
        }
        remains = drain_redis(valkey_url)
    assert sorted(one.task_id for one in remains.messages) == ["one", "other", "two"]
    assert remains.odd == []
    with closing(redis.Redis.from_url(valkey_url)) as client:
        assert client.dbsize() == 0


@pytest.mark.live
def test_what_nobody_would_find_in_redis_is_odd(valkey_url: str) -> None:
    """Kept without a time, a time without what is kept, a hash of nobody, what is no job."""
    message = json.dumps([{"headers": {"id": "kept"}}, "", "celery"])
    with closing(redis.Redis.from_url(valkey_url)) as client:
        client.hset("unacked", "tag", message)
        client.zadd("unacked_index", {"another": 1.0})
        client.hset("strange", "field", "value")
        client.lpush("celery", "hello")
        client.lpush("x.reply.celery.pidbox", "hello")
        client.hset("manifest:1:starts", "field", "value")
    remains = drain_redis(valkey_url)
    assert [one.task_id for one in remains.messages] == ["kept"]
    assert len(remains.odd) == 4


@pytest.mark.live
@pytest.mark.rabbitmq
def test_rabbitmq_is_drained_of_what_workers_had(rabbitmq_url: str) -> None:
    """It returns when their connection is closed."""
    queue = "chaos-drained"
    send(rabbitmq_url, "one", "two", queue=queue)
    connection = Connection(rabbitmq_url)
    channel = connection.channel()
    assert channel.basic_get(queue) is not None
    eventually(lambda: count_amqp(rabbitmq_url, queue) == 1)
    connection.close()
    remains = drain_amqp(rabbitmq_url, queue)
    assert sorted(one.task_id for one in remains.messages) == ["one", "two"]
    assert remains.odd == []


def test_files_of_a_broker_outlive_it(tmp_path: Path) -> None:
    """As they were when they were removed; one that was made anew is another broker's."""
    stacks = tmp_path / "stacks"
    kept = KeptData(stacks)
    kept.start()
    try:
        for text in ("one", "two"):
            files = stacks / "stack" / AOF
            files.mkdir(parents=True)
            (files / "incr").write_text(text, encoding="utf-8")
            eventually(lambda text=text: text in kept.held())  # type: ignore[misc]  # mypy cannot infer a lambda with a default
            with (files / "incr").open("a", encoding="utf-8") as file:
                file.write(" and more")
            (files / "incr").unlink()
            files.rmdir()
            (stacks / "stack").rmdir()
        copies = kept.copies(tmp_path)
        texts = [(copy / AOF / "incr").read_text("utf-8") for copy in copies]
        assert texts == ["one and more", "two and more"]
    finally:
        kept.stop()


@pytest.mark.live
def test_a_broker_that_is_gone_is_drained_from_its_files(tmp_path: Path) -> None:
    """Killed, and its folder removed at once, as at the end of a private stack."""
    family, folder = Family(), tmp_path / "stacks" / "one"
    server = Valkey(folder, family, aof=True)
    kept = KeptData(folder.parent)
    kept.start()
    try:
        server.start()
        files = len([*(folder / AOF).iterdir()])
        eventually(lambda: len(kept.held()) == files)
        with redis.Redis.from_url(server.url) as client:  # else a busy disk has it write later
            client.config_set("appendfsync", "no")
        send(server.url, "one", "two")
        server.stop()
        shutil.rmtree(folder)
        (copy,) = kept.copies(tmp_path)
        server = Valkey(tmp_path / "again", family, aof=True, data=copy)
        server.start()
        assert {one.task_id for one in drain_redis(server.url).messages} == {"one", "two"}
    finally:
        server.stop()
        kept.stop()
