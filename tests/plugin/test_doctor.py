"""``manifest doctor``: each reason for which a run does not move, provoked on real parts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any

import pytest
import redis
from celery import Celery

from pytest_manifest.ledger import Ledger
from pytest_manifest.schema.diagnosis import Diagnosis
from tests.plugin.conftest import INI, Project
from tests.plugin.outside import INSTRUMENTED, pytest_beside, worker
from tests.processes import ELSEWHERE
from tests.services import frozen_server, valkey_server
from tests.support import eventually

pytestmark = [pytest.mark.live, pytest.mark.ring(2)]

ONE = "--prefetch-multiplier=1"


def doctor(project: Project, *arguments: str) -> tuple[int, Diagnosis]:
    """The command's exit status, and its document."""
    done = command(project, "--json", *arguments)
    assert done.stdout, done.stderr
    return done.returncode, Diagnosis.model_validate_json(done.stdout)


def command(project: Project, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it where the run's broker is known by the environment, if :func:`going_on` said so."""
    url = project.path / "url.txt"
    known = {"CELERY_BROKER_URL": url.read_text("utf-8")} if url.exists() else {}
    return subprocess.run(
        [sys.executable, "-m", "pytest_manifest", "doctor", *arguments],
        cwd=project.path,
        env=dict(os.environ) | known,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def codes(found: Diagnosis) -> list[str]:
    return [one.code for one in found.findings]


def one(found: Diagnosis, code: str) -> Any:
    """The only finding of this code."""
    (finding,) = [one for one in found.findings if one.code == code]
    return finding


def found_soon(project: Project, code: str, *arguments: str) -> Any:
    """The finding, as soon as the doctor has it: what it is about takes its time."""
    seen: list[Diagnosis] = []

    def look() -> bool:
        seen[:] = [doctor(project, *arguments)[1]]
        return code in codes(seen[0])

    try:
        eventually(look, within=60, what=f"{code} is found")
    except AssertionError as error:
        said = seen[0].model_dump_json(indent=1) if seen else "no document"
        raise AssertionError(f"{error}: {said}") from None
    return one(seen[0], code)


def in_flight(project: Project) -> int:
    """How many messages the broker has taken, by the ledger."""
    ledgers = project.ledgers()
    if not ledgers:
        return 0
    with Ledger.open(ledgers[-1]) as ledger:
        return ledger.attempts.send_states().get("sent", 0)


@contextmanager
def going_on(
    project: Project, broker: str, *options: str, sent: int = 1
) -> Iterator[subprocess.Popen[str]]:
    """A pytest that has sent so many entries of m.jsonl, and waits for them."""
    at = [f"--manifest-broker={broker}"] if broker else []
    if broker:
        project.write("url.txt", broker)
    with pytest_beside(project, "--manifest=m.jsonl", *at, *options) as session:
        try:
            eventually(lambda: in_flight(project) >= sent, within=60, what=f"{sent} are sent")
            eventually(project.ledgers, within=60, what="there is a run")
        except AssertionError as error:
            session.kill()
            assert session.stdout is not None
            raise AssertionError(f"{error}\n{session.stdout.read()}") from None
        yield session


@contextmanager
def client(url: str) -> Iterator[Celery]:
    with closing(Celery(broker=url, backend=url, set_as_current=False)) as app:
        yield app


def hold(name: str, **more: object) -> Mapping[str, object]:
    return {"id": name, "task": "jobs.hold", "args": [name], **more}


# Queues and workers


@pytest.mark.parametrize("kind", ["redis", "rabbitmq"])
def test_a_queue_that_nobody_consumes(
    project: Project, broker: str, kind: str, request: pytest.FixtureRequest
) -> None:
    """It is named, with what each worker consumes, and the command that mends it."""
    url = broker if kind == "redis" else request.getfixturevalue("rabbitmq_url")
    project.manifest("m.jsonl", [{**hold("a"), "queue": "bulk"}, {**hold("b"), "queue": "bulk"}])
    options = (f"--manifest-backend={broker}",)
    with (
        worker(project, url, *INSTRUMENTED, backend=broker),
        going_on(project, url, *options, sent=2),
    ):
        status, found = doctor(project, f"--backend={broker}")
    assert status == 1
    assert codes(found) == ["no_consumer"]
    finding = one(found, "no_consumer")
    assert finding.sentence == "queue 'bulk' has 2 messages and no consumer"
    assert "worker outside@localhost consumes celery" in finding.evidence
    assert "celery -A jobs:app control add_consumer bulk" in finding.remedy
    assert found.is_followed


@pytest.mark.parametrize("kind", ["redis", "rabbitmq"])
def test_no_worker_at_all(
    project: Project, broker: str, kind: str, request: pytest.FixtureRequest
) -> None:
    url = broker if kind == "redis" else request.getfixturevalue("rabbitmq_url")
    project.doubles(count=3)
    with going_on(project, url, f"--manifest-backend={broker}", sent=3):
        status, found = doctor(project, f"--backend={broker}")
    assert (status, codes(found)) == (1, ["no_worker"])
    remedy = "celery -A jobs:app worker -I pytest_manifest.worker -Q celery"
    assert remedy in one(found, "no_worker").remedy


def test_a_worker_that_is_busy_with_others_jobs(project: Project, broker: str) -> None:
    """Its processes run what is not of the run; each is named."""
    project.hold("foreign")
    project.doubles(count=6)
    with (
        worker(project, broker, ONE, *INSTRUMENTED, slots=1),
        client(broker) as app,
    ):
        app.send_task("jobs.hold", args=["foreign"])
        eventually(project.ran, within=60, what="the worker is busy")
        with going_on(project, broker, sent=6):
            _, found = doctor(project)
            finding = found_soon(project, "busy_elsewhere")
    assert "busy with other work than this run's: 1 job (jobs.hold)" in finding.sentence
    assert any("prefork" in seen for seen in finding.evidence)
    assert codes(found) == ["busy_elsewhere"]


def test_a_worker_that_holds_messages_and_begins_none(project: Project, broker: str) -> None:
    """They wait for their countdown, which nothing else shows."""
    project.manifest("m.jsonl", [hold("a", countdown=300)])
    with worker(project, broker, *INSTRUMENTED), going_on(project, broker):
        finding = found_soon(project, "held_back_by_worker")
    assert "holds 1 message and begins none" in finding.sentence


def test_a_worker_that_takes_nothing(project: Project, broker: str) -> None:
    """It consumes the queue, and looks into other lists of it than messages of this priority are
    in."""
    jobs = (project.path / "jobs.py").read_text("utf-8")
    options = "app.conf.broker_transport_options = {'priority_steps': [0]}"
    project.write("jobs.py", f"{jobs}\nimport sys\nif 'worker' in sys.argv:\n    {options}\n")
    project.manifest("m.jsonl", [hold("a", priority=9)])
    with worker(project, broker, *INSTRUMENTED), going_on(project, broker):
        finding = found_soon(project, "takes_nothing")
    assert "queue 'celery': 1 waiting, as before" in finding.evidence
    assert "priority_steps" in finding.remedy


def test_what_slows_the_sending(project: Project, broker: str) -> None:
    """The queue is longer than the run may find it: others' messages are in it."""
    project.hold("foreign")
    project.doubles(count=3)
    with (
        worker(project, broker, ONE, *INSTRUMENTED, slots=1),
        client(broker) as app,
    ):
        for _ in range(9):
            app.send_task("jobs.hold", args=["foreign"])
        eventually(project.ran, within=60, what="the worker is busy")
        with going_on(project, broker, "--manifest-queue-depth=2", sent=0):
            finding = found_soon(project, "throttled")
    assert "held back by queue" in finding.sentence
    assert "--manifest-queue-depth" in finding.remedy


def test_a_worker_that_does_not_know_the_task(project: Project, broker: str) -> None:
    """It came after the dispatch, and consumes the queue all the same."""
    project.hold("a")
    project.write("other.py", "from celery import Celery\napp = Celery('other')\n")
    project.manifest("m.jsonl", [hold("a"), hold("b"), hold("c")])
    other = (sys.executable, "-m", "celery", "-A", "other")
    with (
        worker(project, broker, "-Q", "elsewhere", ONE, *INSTRUMENTED),
        going_on(project, broker, sent=3) as session,
    ):
        session.send_signal(signal.SIGSTOP)  # it would judge what is thrown away
        with worker(project, broker, name="other", program=other):
            _, found = doctor(project)
    finding = one(found, "unknown_task")
    assert "worker other@localhost consumes queue 'celery' and does not know jobs.hold" in (
        finding.sentence
    )
    assert "follower_stopped" in codes(found)


def test_workers_that_cannot_decode(project: Project, broker: str) -> None:
    project.write("pytest.ini", f"{INI}manifest_no_worker = 0\n")
    project.doubles(count=2)
    jobs = (project.path / "jobs.py").read_text("utf-8")
    project.write(
        "jobs.py",
        f"{jobs}\nimport sys\nif 'worker' in sys.argv:\n    app.conf.accept_content = ['yaml']\n",
    )
    with worker(project, broker), going_on(project, broker, sent=2):
        _, found = doctor(project)
    assert "cannot decode json" in one(found, "undecodable").sentence
    assert "accept_content" in one(found, "undecodable").remedy


def test_a_worker_that_is_stopped(project: Project, broker: str) -> None:
    """Its process is named where it is of this machine."""
    project.hold("a")
    project.manifest("m.jsonl", [hold("a"), hold("b")])
    with (
        worker(project, broker, *INSTRUMENTED, name="still", slots=1) as still,
        worker(project, broker, "-Q", "elsewhere", *INSTRUMENTED, name="idle"),
        going_on(project, broker, sent=2),
    ):
        eventually(project.ran, within=60, what="the job has begun")
        still.send_signal(signal.SIGSTOP)
        try:
            finding = found_soon(project, "silent_worker")
        finally:
            still.send_signal(signal.SIGCONT)
    assert f"worker still@localhost (process {still.pid}) is stopped" in finding.sentence
    assert finding.remedy == f"kill -CONT {still.pid}"


@pytest.mark.parametrize("is_alone", [True, False])
def test_what_a_dead_worker_holds(project: Project, broker: str, is_alone: bool) -> None:
    """Since when, when the broker gives it back, and how to have it now."""
    project.hold("a")
    project.manifest("m.jsonl", [hold("a"), hold("b"), hold("c")])
    beside = ["-Q", "elsewhere", *INSTRUMENTED]
    with (
        worker(project, broker, *INSTRUMENTED, name="dead", slots=1) as dead,
        going_on(project, broker, sent=3),
    ):
        eventually(project.ran, within=60, what="the first has begun")
        with redis.Redis.from_url(broker) as server:
            eventually(lambda: server.hlen("unacked") >= 2, what="it has taken others")
        os.killpg(dead.pid, signal.SIGKILL)
        dead.wait(20)
        if is_alone:
            finding = found_soon(project, "held_by_dead")
        else:
            with worker(project, broker, *beside, name="idle"):
                finding = found_soon(project, "held_by_dead")
    assert {"b", "c"} <= set(finding.entries)
    assert any("taken from the queue from" in seen for seen in finding.evidence)
    assert any("(visibility_timeout 3600)" in seen for seen in finding.evidence)
    assert "--manifest-resume --manifest-repair" in finding.remedy


# What a job does


def with_a_long_one(project: Project, quick: int = 4) -> None:
    """Some jobs of a task end at once, and one goes on."""
    project.hold("long")
    project.manifest("m.jsonl", [hold("long"), *(hold(f"q-{n}") for n in range(quick))])


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_the_stack_of_what_runs_too_long(project: Project, broker: str, pool: str) -> None:
    """Its worker has opted in: the line in which it hangs is shown, also by one that answers
    nothing meanwhile."""
    with_a_long_one(project)
    jobs = [hold(f"q-{n}") for n in range(4)]
    project.manifest("m.jsonl", [*jobs, hold("long")])
    with (
        showing_stacks(),
        worker(project, broker, "-P", pool, ONE, *INSTRUMENTED, slots=2),
        going_on(project, broker, sent=5),
    ):
        finding = found_soon(project, "long_running")
    assert finding.entries == ["long"]
    assert "the p95 of the 4 of its task that ended is" in finding.sentence
    assert finding.stacks is not None
    assert "jobs.py" in finding.stacks
    assert "in hold" in finding.stacks


@contextmanager
def showing_stacks() -> Iterator[None]:
    os.environ["MANIFEST_STACKS"] = "1"
    try:
        yield
    finally:
        del os.environ["MANIFEST_STACKS"]


def test_the_stack_is_asked_of_a_worker_elsewhere(project: Project, broker: str) -> None:
    """Its pids mean nothing here, so its main process is asked."""
    with_a_long_one(project)
    with (
        showing_stacks(),
        worker(project, broker, ONE, *INSTRUMENTED, slots=2, prefix=ELSEWHERE),
        going_on(project, broker, sent=5),
    ):
        finding = found_soon(project, "long_running")
    assert finding.stacks is not None
    assert "in hold" in finding.stacks


def test_a_worker_that_has_not_opted_in_is_left_alone(project: Project, broker: str) -> None:
    """SIGUSR2 would end its process."""
    with_a_long_one(project)
    with (
        worker(project, broker, ONE, *INSTRUMENTED, slots=2),
        going_on(project, broker, sent=5) as session,
    ):
        finding = found_soon(project, "long_running")
        _, found = doctor(project)
        (project.path / "hold-long").unlink()
        session.communicate(timeout=60)
    assert finding.stacks is None
    assert (
        "was not started with MANIFEST_STACKS=1"
        in {unseen.what: unseen.why for unseen in found.unseen}["what 'long' does"]
    )
    assert session.returncode == pytest.ExitCode.OK
    assert project.ran()["long"] == 1


# Broker and store


def test_a_stream_that_was_emptied(project: Project, broker: str) -> None:
    project.hold("a")
    project.manifest("m.jsonl", [hold("a")])
    with (
        worker(project, broker, *INSTRUMENTED),
        going_on(project, broker),
        redis.Redis.from_url(broker) as server,
    ):
        eventually(project.ran, within=60, what="the job has begun")
        for key in server.keys("manifest:*"):
            server.delete(key)
        _, found = doctor(project)
    assert "stream_gone" in codes(found)


def test_a_full_memory_and_what_was_evicted(project: Project, broker: str) -> None:
    project.hold("a")
    project.manifest("m.jsonl", [hold("a")])
    with (
        worker(project, broker, *INSTRUMENTED),
        going_on(project, broker) as session,
        redis.Redis.from_url(broker) as server,
    ):
        eventually(project.ran, within=60, what="the job has begun")
        session.send_signal(signal.SIGSTOP)
        server.config_set("maxmemory", int(server.info("memory")["used_memory"]) + 100_000)
        try:
            _, found = doctor(project)
        finally:
            server.config_set("maxmemory", 0)
    assert "maxmemory" in one(found, "memory").evidence[0]


def test_a_broker_that_accepts_and_says_nothing(project: Project, broker: str) -> None:
    """The doctor ends in time, and says what the ledger alone shows."""
    with valkey_server() as url:
        project.doubles(count=2)
        with going_on(project, url, sent=2), frozen_server(url):
            status, found = doctor(project)
    assert status == 1
    assert "it did not answer within 5 s" in one(found, "broker").evidence[0]
    assert found.in_flight == 2
    assert "queues and workers" in {unseen.what for unseen in found.unseen}


# The controller


def test_a_pytest_that_is_stopped_reads_no_reports(project: Project, broker: str) -> None:
    project.hold("a")
    project.manifest("m.jsonl", [hold("a")])
    with worker(project, broker, *INSTRUMENTED), going_on(project, broker) as session:
        eventually(project.ran, within=60, what="the job has begun")
        session.send_signal(signal.SIGSTOP)
        (project.path / "hold-a").unlink()
        finding = found_soon(project, "unread_reports")
        _, found = doctor(project)
        session.send_signal(signal.SIGCONT)
        session.communicate(timeout=60)
    assert "does not read what workers report" in finding.sentence
    assert one(found, "follower_stopped").remedy.startswith(f"kill -CONT {session.pid}")
    assert session.returncode == pytest.ExitCode.OK


def test_a_pytest_that_was_killed(project: Project, broker: str) -> None:
    """Nobody follows the run, and the command that goes on is said; its jobs are looked for."""
    project.hold("a")
    project.manifest("m.jsonl", [hold("a")])
    project.write("nightly.ini", (project.path / "pytest.ini").read_text("utf-8"))
    options = ("-c", "nightly.ini")
    call = "pytest --manifest=m.jsonl {} -c nightly.ini"
    with worker(project, broker, *INSTRUMENTED), going_on(project, broker, *options) as session:
        eventually(project.ran, within=60, what="the job has begun")
        session.kill()
        session.wait(20)
        status, found = doctor(project)
        assert (status, codes(found)) == (1, ["not_followed"])
        assert not found.is_followed
        assert one(found, "not_followed").remedy.startswith(call.format("--manifest-resume"))
        (project.path / "hold-a").unlink()
        with redis.Redis.from_url(broker, decode_responses=True) as store:
            (key,) = eventually(lambda: list(store.scan_iter("celery-task-meta-*")), what="the end")
            eventually(lambda: "SUCCESS" in str(store.get(key)), what="its end is stored")
        status, found = doctor(project)
    assert (status, codes(found)) == (1, ["not_followed", "unread_reports"])
    finding = one(found, "unread_reports")
    assert finding.sentence == "1 job ('a'): ended, and no pytest has read it yet"
    assert finding.remedy.startswith(call.format("--manifest-audit"))
    command = [sys.executable, "-m", "pytest_manifest", "status", "--json"]
    shown = subprocess.run(command, cwd=project.path, capture_output=True, text=True, check=False)
    (notice,) = json.loads(shown.stdout)["notices"]
    run = project.ledgers()[-1].stem
    resume = call.format(f"--manifest-resume --manifest-run={run}")
    assert notice["remedy"].startswith(f"Go on: {resume}")


HELD: Sequence[tuple[str, Sequence[Mapping[str, object]], Sequence[str], str]] = [
    ("after", [hold("a"), hold("b", after=["a"])], (), "until 'a' has passed"),
    (
        "canary",
        [hold("a"), hold("b")],
        ("--manifest-canary=1",),
        "until the canary of 1 has passed",
    ),
    (
        "key_limit",
        [hold("a", key={"tenant": "x"}), hold("b", key={"tenant": "x"})],
        ("--manifest-key-limit=tenant=1",),
        "tenant=x (at most 1) has no room",
    ),
    ("window", [hold("a"), hold("b")], ("--manifest-window=1",), "of at most 1"),
    (
        "budget",
        [hold("a", cost=1.0), hold("b", cost=1.0)],
        ("--manifest-budget=2", "--manifest-window=1"),
        "",
    ),
]


@pytest.mark.parametrize(("why", "entries", "options", "words"), HELD, ids=[row[0] for row in HELD])
def test_what_the_controller_waits_for(
    project: Project,
    why: str,
    entries: Sequence[Mapping[str, object]],
    options: Sequence[str],
    words: str,
) -> None:
    """A run that waits as it was told has no finding; on the private stack, which is asked, too."""
    project.hold("a")
    project.manifest("m.jsonl", entries)
    with going_on(project, "", *options):
        eventually(project.ran, within=60, what="the first has begun")
        status, found = doctor(project)
    if why == "budget":  # the second is within it: the window alone holds it back
        why, words = "window", "of at most 1"
    assert [(hold.why, hold.entries) for hold in found.holds] == [(why, 1)]
    assert words in found.holds[0].sentence
    assert (status, codes(found)) == (0, [])
    assert any("1 worker" in seen for seen in found.looked_at)


def test_a_run_that_an_operator_paused(project: Project) -> None:
    """Who, why and since when; and the command that has it go on."""
    project.hold("a")
    project.manifest("m.jsonl", [hold("a"), hold("b")])
    with going_on(project, "", "--manifest-window=1"):
        eventually(project.ran, within=60, what="the first has begun")
        (path,) = project.ledgers()
        asked = [sys.executable, "-m", "pytest_manifest", "ctl", path.stem, "pause"]
        subprocess.run([*asked, "--reason=db failover"], cwd=project.path, check=True, timeout=60)
        finding = found_soon(project, "paused")
        _, found = doctor(project)
    assert "asked for pause (db failover)" in finding.sentence
    assert finding.remedy == f"manifest ctl {path.stem} resume"
    assert [(hold.why, hold.entries) for hold in found.holds] == [("paused", 1)]


def test_a_run_that_is_over(project: Project) -> None:
    """There is nothing to find, and no stack to ask."""
    project.doubles(count=2)
    project.run("--manifest=m.jsonl").assert_outcomes(passed=2)
    done = command(project)
    assert done.returncode == 0, done.stderr
    assert "2 judged, 0 in flight, 0 not sent" in done.stdout
    assert "nothing found; looked at the run's ledger, lock and log" in done.stdout


def test_without_its_stack_the_ledger_speaks(project: Project) -> None:
    """pytest and its private stack were killed: what can be known is said, and what cannot."""
    project.hold("a")
    project.manifest("m.jsonl", [hold("a"), hold("b", after=["a"])])
    with going_on(project, "") as session:
        eventually(project.ran, within=60, what="the first has begun")
        os.killpg(session.pid, signal.SIGKILL)
        session.wait(20)
    eventually(lambda: "is gone" in _unseen(project), within=60, what="the stack is gone")
    status, found = doctor(project)
    assert (status, codes(found)) == (1, ["not_followed"])
    assert (found.in_flight, found.unsent) == (1, 1)


def _unseen(project: Project) -> str:
    return " ".join(one.why for one in doctor(project)[1].unseen)


def test_a_broker_whose_password_is_not_known_here(project: Project, broker: str) -> None:
    """It was typed on the command line, and the ledger keeps no password."""
    project.doubles(count=1)
    with going_on(project, broker):
        _, told = doctor(project)
        (project.path / "url.txt").unlink()
        status, found = doctor(project)
        assert codes(doctor(project, f"--broker={broker}")[1]) == ["no_worker"]
    assert status == 0
    assert "name it with --broker=URL" in found.unseen[-1].why
    assert codes(told) == ["no_worker"]
    assert broker not in told.model_dump_json()


# Bad input


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nosuchrun",), "there is no file 'nosuchrun'"),
        (("--in=nowhere",), "there is no run in nowhere"),
        (("x.sqlite",), "there is no such ledger"),
    ],
)
def test_a_run_that_is_not_there(project: Project, arguments: Sequence[str], words: str) -> None:
    done = command(project, *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("option", "what"),
    [
        ("--app=nosuch:app", "the app's routes and settings"),
        ("--broker=redis://127.0.0.1:1/0", "queues and workers"),
        ("--broker=nonsense://x", "queues and workers"),
    ],
)
def test_what_names_no_stack_is_said(project: Project, broker: str, option: str, what: str) -> None:
    project.doubles(count=1)
    with going_on(project, broker):
        done = command(project, "--json", option)
    assert done.returncode in (0, 1), done.stderr
    assert "Traceback" not in done.stderr
    assert what in {unseen["what"] for unseen in json.loads(done.stdout)["unseen"]}
