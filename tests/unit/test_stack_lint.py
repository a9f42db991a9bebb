"""The rules of ``--manifest-check`` that need no server."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import closing

import pytest
from celery import Celery

from pytest_manifest import signing as keys
from pytest_manifest.broker.checks import Finding, StackCheck, demand_of
from pytest_manifest.broker.publisher import Publisher
from pytest_manifest.broker.rules import Case, ends, findings, late_limits
from pytest_manifest.broker.transports import (
    Amqp,
    InMemory,
    Redis,
    Sqs,
    Transport,
    transport_of,
)
from pytest_manifest.broker.workers import Worker
from pytest_manifest.plugin.stack_check import document, signing_findings, table
from pytest_manifest.schema import Entry
from pytest_manifest.schema.wire import SIGNED_MARK
from pytest_manifest.urls import StackAddress

WHERE = "visibility_timeout"


def levels(findings: Iterable[Finding]) -> list[str]:
    return [one.level for one in findings]


def test_a_limit_beyond_the_visibility_timeout_is_an_error() -> None:
    """Late acknowledged, longer than the broker waits: it would run twice."""
    found = list(late_limits({"a.long": 7200.0, "a.short": 10.0}, 3600.0, WHERE))
    assert levels(found) == ["error"]
    assert "task a.long" in found[0].message
    assert "raise visibility_timeout" in found[0].message


@pytest.mark.parametrize(
    ("late", "said"), [({"a.b": None}, ["warning"]), ({"a.b": 10.0}, []), ({}, [])]
)
def test_a_late_task_without_a_limit_is_a_warning(
    late: dict[str, float | None], said: list[str]
) -> None:
    """It may run for ever; one that is short enough, or acknowledged early, is well."""
    assert levels(late_limits(late, 3600.0, WHERE)) == said


@pytest.mark.parametrize(
    ("countdown", "said"), [(5.0, []), (0.0, []), (1800.0, ["consumer_timeout"])]
)
def test_delayed_messages_on_rabbitmq(countdown: float, said: list[str]) -> None:
    """By the time for which a worker would hold them."""
    entry = Entry(id="a", task="jobs.a", countdown=countdown or None)
    found = list(Amqp().warnings(demand_of([entry]).longest_held([])))
    assert len(found) == len(said)
    assert all(text in one for text, one in zip(said, found, strict=True))


def work() -> None:
    """Do nothing."""


def options(**given: object) -> list[tuple[str, str]]:
    """What is found of a task with these options, with its one entry."""
    task = Celery(set_as_current=False).task(name="jobs.a", shared=False, **given)(work)
    demand = demand_of([Entry(id="a", task="jobs.a")])
    return [(one.level, one.message) for one in ends({"jobs.a": task}, demand, given=True)]


def test_what_celery_sends_again_after_an_end_is_named() -> None:
    """By an option of its 5.7."""
    assert not options()
    ((level, message),) = options(retry_on_worker_lost=True)
    assert level == "warning"
    assert "not declared idempotent" in message


def test_who_declares_a_retried_job_idempotent_is_not_warned() -> None:
    """Without a manifest nobody has said either."""
    app = Celery(set_as_current=False)
    task = app.task(name="jobs.a", shared=False, retry_on_worker_lost=True)(work)
    tasks, safe = {"jobs.a": task}, Entry(id="a", task="jobs.a", idempotent=True)
    assert not list(ends(tasks, demand_of([safe]), given=True))
    assert levels(ends(tasks, demand_of([Entry(id="a", task="jobs.a")]), given=False)) == [
        "unchecked"
    ]


def found_of(app: Celery, *, ours: bool, sending: bool) -> list[tuple[str, str]]:
    """What the table finds of an app, and of no worker; a private stack is ours."""
    address = StackAddress("memory://", "cache+memory://", "jobs:app", is_private=ours, loaded=app)
    with closing(Publisher(address, stream="", ttl=0)) as publisher:
        case = Case(publisher, demand_of([Entry(id="a", task="jobs.a")]), [], {})
        return [(one.check, one.level) for one in findings(case, sending=sending)]


@pytest.mark.parametrize("sending", [False, True])
def test_an_eager_app_is_refused_but_on_a_stack_of_ours(sending: bool) -> None:
    """Nothing of it reaches a worker; there it is switched off, which a notice says."""
    app = Celery("jobs", set_as_current=False, task_always_eager=True)
    app.task(name="jobs.a", shared=False)(work)
    assert ("app", "error") in found_of(app, ours=False, sending=sending)
    assert ("app", "ok") in found_of(app, ours=True, sending=sending)
    app.conf.task_always_eager = False
    assert "app" not in dict(found_of(app, ours=False, sending=sending))


def test_a_rule_of_a_check_alone_is_not_asked_before_a_dispatch() -> None:
    """Who is about to send has no use for what a lint of the stack says besides."""
    app = Celery("jobs", set_as_current=False)
    app.task(name="jobs.a", shared=False, retry_on_worker_lost=True)(work)
    assert found_of(app, ours=False, sending=True) == []
    assert found_of(app, ours=False, sending=False) == [("acks_late", "warning")]


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("REDISS://h", Redis),
        ("redis+socket:///a", Redis),
        ("sentinel://a;sentinel://b", Redis),
        ("pyamqp://h", Amqp),
        ("sqs://k:s@", Sqs),
        ("memory://", InMemory),
        ("sqla+sqlite:///a", Transport),
        ("filesystem://", Transport),
        ("confluentkafka://h", Transport),
        ("", Transport),
    ],
)
def test_a_broker_is_what_its_row_says(url: str, kind: type[Transport]) -> None:
    """Without a row it is one of which nothing more is known."""
    assert type(transport_of(url)) is kind


def test_workers_must_sign_with_a_key_that_is_trusted() -> None:
    """Where signed receipts are required; those that did not list their tasks are not judged."""
    (key_id,) = keys.read_verifier(trusted := keys.generate()[1], "key").key_ids
    (other,) = keys.read_verifier(keys.generate()[1], "key").key_ids
    signing = Worker("w@h", tasks={"jobs.a": False, f"{SIGNED_MARK}{key_id}": False})
    wrong = Worker("x@h", tasks={"jobs.a": False, f"{SIGNED_MARK}{other}": False})
    silent = Worker("y@h", tasks={"jobs.a": False})
    unsaid = Worker("z@h")
    assert levels(signing_findings([signing, unsaid], trusted)) == ["ok"]
    found = list(signing_findings([signing, wrong, silent], trusted))
    assert levels(found) == ["error", "error"]
    assert "y@h sign nothing" in found[0].message
    assert "x@h sign with a key that is not among those that are trusted" in found[1].message
    assert not list(signing_findings([silent], None))
    assert not list(signing_findings([unsaid], trusted))


def test_the_document_has_what_the_reference_page_lists() -> None:
    """Every key, also for a stack without anything."""
    check = StackCheck("app", "why", "redis://b", "redis://s", "jobs:app")
    check.workers = [
        Worker("w@h", tasks={"jobs.a": False, "celery.chord": False}, queues=frozenset({"q"}))
    ]
    check.add("warning", "limits", "too long")
    found = json.loads(document(check))
    assert found == {
        "schema": "manifest-check/1",
        "ok": True,
        "stack": {
            "kind": "app",
            "reason": "why",
            "broker": "redis://b",
            "backend": "redis://s",
            "app": "jobs:app",
        },
        "workers": [
            {
                "name": "w@h",
                "pool": "",
                "slots": 1,
                "queues": ["q"],
                "tasks": ["jobs.a"],
                "receipts": False,
            }
        ],
        "findings": [{"level": "warning", "check": "limits", "message": "too long"}],
        "counts": {"error": 0, "warning": 1, "unchecked": 0, "ok": 0},
    }


def test_the_table_begins_with_the_worst(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors first, long sentences wrapped below themselves, one line that sums up."""
    monkeypatch.setenv("COLUMNS", "60")
    check = StackCheck("app", "why")
    check.add("ok", "broker", "answers")
    check.add("error", "queues", "no worker " * 12)
    lines = list(table(check, "some stack"))
    assert lines[0] == "manifest: some stack"
    assert lines[1].startswith("error      queues  no worker no worker")
    assert lines[2].startswith(" " * 19 + "no worker")
    assert lines[-2] == "ok         broker  answers"
    assert lines[-1] == "1 error; nothing was sent"
