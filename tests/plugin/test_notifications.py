"""``manifest_notify``, ``manifest_webhook`` and ``manifest_ping``: who is told of a run."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import psutil
import pytest
from standardwebhooks import Webhook

from pytest_manifest.plugin import notifying
from tests.interrupting import is_alive
from tests.plugin.conftest import Project
from tests.plugin.outside import pytest_beside
from tests.receivers import Receiver, black_hole, receiver
from tests.support import eventually

pytestmark = pytest.mark.live
LATER = pytest.mark.ring(2)
QUICK = ("-p", "no:cacheprovider", "--manifest-broker=memory://", "--manifest=m.jsonl")
SECRET = "whsec_c2VjcmV0IG9mIGEgdGVzdA=="


def told(server: Receiver, path: str = "/hook") -> list[str]:
    """The events that were posted there; each is signed."""
    some = [one for one in server.posts if one.path == path]
    return [Webhook(SECRET).verify(one.body, one.headers)["data"]["event"] for one in some]


def senders(pid: int) -> list[psutil.Process]:
    """The processes that tell, of those that this one has started."""
    some = psutil.Process(pid).children(recursive=True)
    return [one for one in some if "reporting.notifications" in " ".join(one.cmdline())]


def configure(project: Project, **settings: str) -> None:
    lines = "".join(f"manifest_{name} = {value}\n" for name, value in settings.items())
    ini = project.path / "pytest.ini"
    ini.write_text(ini.read_text("utf-8") + lines, "utf-8")


def failing(project: Project) -> None:
    """One job that passes, and one whose error says a secret."""
    project.manifest(
        "m.jsonl",
        [
            {"id": "a", "task": "jobs.double", "kwargs": {"n": 1}},
            {"id": "b", "task": "jobs.fail", "kwargs": {"message": "card 4711-secret"}},
        ],
    )


def test_a_session_tells_what_it_came_to(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """All three ways, and nowhere an argument, a result or what an error says."""
    failing(project)
    monkeypatch.setenv("MANIFEST_WEBHOOK_SECRET", SECRET)
    with receiver() as server:
        monkeypatch.setenv("HOOKS", server.address)
        configure(
            project,
            webhook="${HOOKS}/hook",
            ping=f"{server.address}/ping",
            notify=f"json://{server.host}/chat",
        )
        done = project.run_process(*QUICK, "--manifest-report=r/run.html")
        assert done.ret == pytest.ExitCode.TESTS_FAILED
        assert told(server) == ["first_failure", "finished"]
        pings = [one.path for one in server.posts if one.path.startswith("/ping")]
        assert pings == ["/ping/start", "/ping/fail"]
        (_, last) = (json.loads(p.body) for p in server.posts if p.path == "/chat")
        text = "".join(one.body for one in server.posts)
    assert "4711" not in text
    assert last["title"].startswith("m.jsonl: 1 of 2 entries failed, in ")
    assert "1 x ValueError at " in last["message"]
    assert f"run page: {project.path / 'r/run.html'}" in last["message"]
    header = [one for one in done.outlines if one.startswith("notifications: ")]
    assert header == [
        f"notifications: notify json://..., webhook ${{HOOKS}}..., ping {server.address}"
    ]


@pytest.mark.ring(2)
def test_a_session_that_passes_pings_success(project: Project) -> None:
    project.doubles(count=2)
    with receiver() as server:
        configure(project, ping=server.address)
        done = project.run_process(*QUICK)
        assert done.ret == pytest.ExitCode.OK
        assert [one.path for one in server.posts] == ["/start", "/"]
    assert not [one for one in done.outlines if "was not notified" in one]


@pytest.mark.ring(2)
def test_a_black_hole_is_said_in_a_line_and_changes_nothing(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes connections and never answers; the run is as without it, and pytest ends."""
    project.doubles(count=4)
    monkeypatch.setenv("MANIFEST_WEBHOOK_SECRET", SECRET)
    with black_hole() as address:
        configure(project, webhook=f"{address}/hook", ping=address)
        done = project.run_process(*QUICK)
        left = [one for one in psutil.process_iter() if _is_sender(one, project.path)]
    assert done.ret == pytest.ExitCode.OK
    done.assert_outcomes(passed=4)
    said = [one for one in done.outlines if one.startswith("notifications: ")][1:]
    assert said == [
        f"notifications: {kind} {address} had not taken all 3 s after the end; it is tried for "
        "a minute more"
        for kind in ("webhook", "ping")
    ]
    assert len(left) == 1  # the hole has closed by now, which ends it
    eventually(lambda: not any(map(is_alive, left)), within=90, what="the sender's end")


@pytest.mark.ring(2)
def test_whoever_is_tried_still_is_named_with_the_reason(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A receiver that is out of order, and an address at which nobody listens."""
    project.doubles(count=1)
    monkeypatch.setenv("MANIFEST_WEBHOOK_SECRET", SECRET)
    with receiver() as gone:
        pass
    with receiver() as server:
        server.answers += [503] * 20
        configure(project, webhook=f"{server.address}/hook", ping=gone.address)
        done = project.run_process(*QUICK)
    assert done.ret == pytest.ExitCode.OK
    said = [one for one in done.outlines if one.startswith("notifications: ")][1:]
    assert said == [
        f"notifications: {who} had not taken all 3 s after the end (it {why}); it is tried for a "
        "minute more"
        for who, why in (
            (f"webhook {server.address}", "answered HTTP 503"),
            (f"ping {gone.address}", "cannot be reached: Connection refused"),
        )
    ]


def _is_sender(process: psutil.Process, folder: Path) -> bool:
    try:
        is_one = "reporting.notifications" in " ".join(process.cmdline())
        return is_one and process.cwd() == str(folder)
    except psutil.Error:
        return False


@LATER
def test_a_sender_that_dies_is_said_and_changes_nothing(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.doubles(count=2)
    configure(project, ping="http://127.0.0.1:1")
    monkeypatch.setattr(notifying, "SENDER", "raise SystemExit(3)")
    done = project.run(*QUICK)
    assert done.ret == pytest.ExitCode.OK
    done.stdout.fnmatch_lines(
        ["notifications: ping http://127.0.0.1:1 was not notified of all: the process * failed"]
    )


@LATER
def test_a_receiver_that_refuses_is_said(project: Project) -> None:
    project.doubles(count=2)
    with receiver() as server:
        server.answers += [404, 404]
        configure(project, ping=server.address)
        done = project.run_process(*QUICK)
    assert done.ret == pytest.ExitCode.OK
    done.stdout.fnmatch_lines(
        [f"notifications: ping {server.address} was not notified of all: it answered HTTP 404"]
    )


@LATER
def test_kill_9_of_pytest_is_told_and_its_switch_is_left_alone(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dead man gives no sign: that is by what the switch knows it."""
    project.manifest("m.jsonl", [{"id": "h", "task": "jobs.hold", "kwargs": {"key": "h"}}])
    monkeypatch.setenv("MANIFEST_WEBHOOK_SECRET", SECRET)
    flag = project.hold("h")
    with receiver() as server:
        configure(project, webhook=f"{server.address}/hook", ping=f"{server.address}/ping")
        with pytest_beside(project, *QUICK) as process:
            eventually(lambda: "h" in project.ran(), within=60, what="the job ran")
            some = senders(process.pid)
            assert len(some) == 1
            process.send_signal(signal.SIGKILL)
            process.wait(30)
            eventually(lambda: not any(map(is_alive, some)), within=60, what="the sender's end")
        flag.unlink()
        assert told(server) == ["stalled"]
        assert [one.path for one in server.posts if "/ping" in one.path] == ["/ping/start"]


@LATER
def test_under_xdist_the_controller_tells(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(project)
    monkeypatch.setenv("MANIFEST_WEBHOOK_SECRET", SECRET)
    with receiver() as server:
        configure(project, webhook=f"{server.address}/hook", ping=f"{server.address}/ping")
        done = project.run_process("-n2", *QUICK)
        assert done.ret == pytest.ExitCode.TESTS_FAILED
        assert told(server) == ["first_failure", "finished"]
        pings = [one.path for one in server.posts if one.path.startswith("/ping")]
        assert pings == ["/ping/start", "/ping/fail"]


@LATER
def test_what_is_not_set_is_said_and_the_rest_is_told(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a desk the secrets of CI are not at hand: that must not keep a run from going on."""
    project.doubles(count=2)
    for name in ("MANIFEST_WEBHOOK_SECRET", "SLACK_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    configure(
        project,
        notify="slack://$SLACK_TOKEN",
        webhook="https://hooks.example/x",
        ping="ftp://example",
    )
    done = project.run_process(*QUICK)
    assert done.ret == pytest.ExitCode.OK
    assert [one for one in done.outlines if one.startswith("notifications: ")] == [
        f"notifications: {name} is not notified: {why}"
        for name, why in (
            ("notify slack://...", "SLACK_TOKEN is not set"),
            ("webhook https://hooks.example", "MANIFEST_WEBHOOK_SECRET is not set"),
            ("ping ftp://example", "it is no address of http or https"),
        )
    ]


@LATER
def test_who_is_told_of_nothing_is_said_without_a_header(project: Project) -> None:
    """And an address without a scheme, which may be a key, is not shown."""
    project.doubles(count=1)
    configure(project, ping="4711-of-a-switch")
    done = project.run_process(*QUICK, "-q")
    assert done.ret == pytest.ExitCode.OK
    assert [one for one in done.outlines if one.startswith("notifications: ")] == [
        "notifications: ping ... is not notified: it is no address of http or https"
    ]


@LATER
def test_a_look_tells_nobody(project: Project) -> None:
    project.doubles(count=2)
    with receiver() as server:
        configure(project, ping=server.address)
        project.run_process(*QUICK, "--collect-only")
        assert server.posts == []
    assert senders(os.getpid()) == []


@LATER
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"notify": "json://localhost"}, "*apprise is not installed; *celery-manifest[[]notify]'*"),
        (
            {"notify_on": "finished lately"},
            "*give some of first_failure, stalled, late, recovered, finished*",
        ),
    ],
    ids=["a package that is missing", "an event that is none"],
)
def test_what_nobody_could_be_told_by_is_refused(
    project: Project, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], said: str
) -> None:
    project.doubles(count=2)
    configure(project, **settings)
    monkeypatch.setattr(notifying, "find_spec", lambda _: None)
    done = project.run(*QUICK)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines([said])
