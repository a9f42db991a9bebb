"""What is posted and how: signed, enveloped, tried again, never where it was not meant to go."""

from __future__ import annotations

import base64
from datetime import datetime, timezone

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_structured_event
from standardwebhooks import Webhook, WebhookVerificationError

from pytest_manifest.plugin.notifying import SECRET as SECRET_NAME
from pytest_manifest.plugin.notifying import receivers
from pytest_manifest.redaction.texts import redact, registered_secrets
from pytest_manifest.reporting import notifications
from pytest_manifest.reporting.notifications import NotToldError, Target, chat, ping, webhook
from pytest_manifest.schema.run_event import EventCause, RunEvent
from tests.receivers import black_hole, receiver

SECRET = "whsec_" + base64.b64encode(b"a key of 24 bytes, or so").decode()
EVENT = RunEvent(
    event="first_failure",
    title="m.jsonl: first failure, after 3 entries",
    run="20261201T010203-00000001",
    manifest="m.jsonl",
    at=datetime(2026, 12, 1, 1, 2, 3, tzinfo=timezone.utc),
    state="running",
    is_bad=True,
    elapsed=12.5,
    total=10,
    done=3,
    counts={"passed": 2, "failed": 1},
    causes=[EventCause(title="Refused", kind="failed", count=1)],
    links=[],
)


def test_a_webhook_is_a_cloudevent_that_its_receiver_can_verify() -> None:
    """By the packages of both standards; what was changed on its way is refused."""
    with receiver() as server:
        webhook(f"{server.address}/hooks?a=b", SECRET)(EVENT)
        (post,) = server.posts
    assert post.path == "/hooks?a=b"
    Webhook(SECRET).verify(post.body, post.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(post.body.replace("3", "4"), post.headers)
    read = from_structured_event(HTTPMessage(post.headers, post.body.encode()))
    assert read.get_type() == "pytest_manifest.run.first_failure"
    assert read.get_id() == post.headers["webhook-id"]
    assert read.get_subject() == "m.jsonl"
    assert RunEvent.model_validate(read.get_data()) == EVENT


def test_each_event_has_an_id_and_each_try_the_same() -> None:
    later = EVENT.model_copy(update={"event": "finished"})
    assert notifications.message_id(EVENT) != notifications.message_id(later)
    assert notifications.message_id(EVENT) == notifications.message_id(EVENT)


def test_apprise_sends_title_and_text() -> None:
    with receiver() as server:
        chat(f"json://{server.host}/chat")(EVENT)
        (post,) = server.posts
    assert '"title": "m.jsonl: first failure, after 3 entries"' in post.body
    assert '"type": "failure"' in post.body
    assert "1 x Refused" in post.body


def test_an_address_that_apprise_does_not_know_is_said() -> None:
    with pytest.raises(NotToldError, match="does not know such an address") as caught:
        chat("nonsense://x")(EVENT)
    assert not caught.value.may_pass


@pytest.mark.parametrize("ending", ["/start", "", "/fail"])
def test_a_ping_is_an_address_and_its_ending(ending: str) -> None:
    with receiver() as server:
        ping(f"{server.address}/4711-uuid/?rid=1")(ending)
        assert [one.path for one in server.posts] == [f"/4711-uuid{ending}?rid=1"]


def test_a_user_and_a_password_go_as_basic_credentials() -> None:
    with receiver() as server:
        ping(f"http://ann:a%40b@{server.host}/4711")("/start")
        (post,) = server.posts
    assert post.path == "/4711/start"
    assert base64.b64decode(post.headers["authorization"].removeprefix("Basic ")) == b"ann:a@b"


def test_an_address_is_hidden_and_kept_nowhere() -> None:
    """Also what a variable stands for: whoever reads a ledger could tell as we do."""
    given = {"TOKEN": "swordfish-4711", SECRET_NAME: "whsec_1"}
    webhooks = ["https://ann:trout-fly@box:81/${TOKEN}"]
    found, lacking = receivers({"notify": ["json://box/$TOKEN"], "webhook": webhooks}, given)
    assert lacking == []
    assert [one.name for one in found] == ["notify json://...", "webhook https://box:81"]
    assert found[1].url == "https://ann:trout-fly@box:81/swordfish-4711"
    said = redact(f"{found[0].url} swordfish-4711 trout-fly")
    assert "swordfish" not in said
    assert "trout-fly" not in said
    assert not [one for one in registered_secrets() if "swordfish" in one or "trout" in one]


@pytest.mark.parametrize("address", ["http://[::1", "http://box:99999/x", "https://$BAD/x"])
def test_an_address_that_cannot_be_read_is_said(address: str) -> None:
    """It ends no batch."""
    found, lacking = receivers({"ping": [address, "http://box/y"]}, {"BAD": "[::1"})
    assert [one.url for one in found] == ["http://box/y"]
    (why,) = lacking
    assert why.startswith("ping: an address cannot be read (")


def test_what_may_pass_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifications, "PAUSES", (0.0, 0.0))
    with receiver() as server:
        server.answers += [503, 429]
        target = Target("ping", ping(server.address))
        target.waiting.put("")
        target.waiting.put(None)
        target.run()
        assert (len(server.posts), target.sent, target.fault) == (1, 1, "")


@pytest.mark.parametrize(
    ("status", "tries"), [(503, 3), (404, 1), (302, 1)], ids=["503", "404", "a redirect"]
)
def test_what_is_refused_is_said_once(
    monkeypatch: pytest.MonkeyPatch, status: int, tries: int
) -> None:
    """A redirect is not followed: what is signed is for one receiver."""
    monkeypatch.setattr(notifications, "PAUSES", (0.0, 0.0))
    with receiver() as server:
        server.answers += [status] * 5
        target = Target("ping", ping(server.address))
        target.waiting.put("")
        target.waiting.put(None)
        target.run()
        assert (server.posts, len(server.answers)) == ([], 5 - tries)
    assert target.fault == f"it answered HTTP {status}"


def test_no_answer_is_said_and_names_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifications, "TRY_SECONDS", 0.2)
    with black_hole() as address, pytest.raises(NotToldError) as caught:
        ping(f"{address}/secret")("")
    assert str(caught.value) == "it gave no answer within 0.2 s"
    with pytest.raises(NotToldError, match="it cannot be reached: Connection refused"):
        ping(f"{address}/secret")("")
