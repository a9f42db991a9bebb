"""The local Gemini server: its scripts, its poison, and itself as a process."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from pydantic import JsonValue, ValidationError

from tests.workflows.crud_load import ROOT
from tests.workflows.gemini_server import KEY, Script, filled, gemini_server

SUMMARY: dict[str, JsonValue] = {"type": "string"}


def body_of(texts: dict[str, str]) -> dict[str, JsonValue]:
    prompt = "\n".join(f"=== passage {k} ===\n{v}\n=== end {k} ===" for k, v in texts.items())
    key: dict[str, JsonValue] = {"type": "string", "enum": list(texts)}
    item: dict[str, JsonValue] = {"type": "object", "properties": {"key": key, "summary": SUMMARY}}
    schema: dict[str, JsonValue] = {
        "type": "object",
        "properties": {"items": {"type": "array", "items": item}},
    }
    config: dict[str, JsonValue] = {
        "responseMimeType": "application/json",
        "responseJsonSchema": schema,
    }
    return {"contents": [{"parts": [{"text": prompt}]}], "generationConfig": config}


def post(
    url: str, body: JsonValue, *, method: str = "generateContent", key: str | None = KEY
) -> tuple[int, str]:
    """Status and text of the response."""
    address = f"{url}/v1beta/models/gemini-x:{method}"
    request = Request(address, json.dumps(body).encode(), method="POST")
    if key is not None:
        request.add_header("x-goog-api-key", key)
    try:
        with urlopen(request, timeout=20) as response:
            return response.status, response.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


def items_of(text: str) -> list[dict[str, JsonValue]]:
    answer = json.loads(text)["candidates"][0]["content"]["parts"][0]["text"]
    found: list[dict[str, JsonValue]] = json.loads(answer)["items"]
    return found


TEXTS = {"n-1": "A boat.", "n-2": "A bell.", "n-3": "A poisoned well."}


def test_rates_are_the_same_in_every_run() -> None:
    """By the number of the call and the seed; and about as often as they say."""
    script = Script(rates={"reset": 0.05, "cut_off": 0.1}, seed=7)
    drawn = [script.fault(number).kind for number in range(4000)]
    assert drawn == [script.fault(number).kind for number in range(4000)]
    counts = Counter(drawn)
    assert 120 <= counts["reset"] <= 280
    assert 300 <= counts["cut_off"] <= 500
    assert set(drawn) == {"ok", "reset", "cut_off"}
    assert drawn != [Script(rates=script.rates).fault(number).kind for number in range(4000)]


def test_a_list_goes_before_the_rates() -> None:
    """Used up call by call."""
    script = Script.model_validate(
        {"faults": ["ok", {"kind": "quota"}], "rates": {"empty": 1.0}, "seed": 1}
    )
    assert [script.fault(n).kind for n in range(4)] == ["ok", "quota", "empty", "empty"]
    with pytest.raises(ValidationError):
        Script.model_validate({"faults": ["no such thing"]})


def test_no_kind_befalls_a_passage_for_ever() -> None:
    """Where it is to have an end; each passage counts, and from its last good answer on."""
    script: dict[str, JsonValue] = {"rates": {"blocked_answer": 1.0}, "at_most": 2}
    with gemini_server(script) as server:
        for _ in range(5):
            post(server.url, body_of({"n-1": "A boat."}))
        post(server.url, body_of({"n-2": "A bell."}))
        post(server.url, body_of({"n-1": "A boat.", "n-2": "A bell."}))
        assert [call.fault for call in server.calls] == [
            "blocked_answer", "blocked_answer", "ok", "blocked_answer", "blocked_answer",
            "blocked_answer", "ok",
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        ("missing", ["n-1", "n-2"]),
        ("doubled", ["n-1", "n-2", "n-3", "n-3"]),
        ("invalid", ["n-1", "n-2", "n-3"]),
    ],
)
def test_a_poisoned_passage_spoils_its_own_item(kind: str, keys: list[str]) -> None:
    """And no other."""
    script: dict[str, JsonValue] = {"poison": [{"marker": "poisoned", "fault": kind}]}
    with gemini_server(script) as server:
        items = items_of(post(server.url, body_of(TEXTS))[1])
        assert server.faults == {kind: 1}
    assert [item["key"] for item in items] == keys
    assert items[0]["summary"] == filled("summary", "A boat.", SUMMARY)
    if kind == "invalid":
        assert items[2]["summary"] == 7


def test_a_poisoned_passage_spoils_every_call_that_holds_it() -> None:
    """Until it is asked for alone, all others pass."""
    fault: dict[str, JsonValue] = {"kind": "blocked_answer", "reason": "RECITATION"}
    with gemini_server({"poison": [{"marker": "poisoned", "fault": fault}]}) as server:
        _, text = post(server.url, body_of(TEXTS))
        assert json.loads(text)["candidates"][0]["finishReason"] == "RECITATION"
        well = {key: text for key, text in TEXTS.items() if "poisoned" not in text}
        assert len(items_of(post(server.url, body_of(well))[1])) == 2
        assert [call.fault for call in server.calls] == ["blocked_answer", "ok"]


def test_a_foreign_key_is_added() -> None:
    """One that nobody asked for."""
    with gemini_server({"faults": ["foreign"]}) as server:
        items = items_of(post(server.url, body_of(TEXTS))[1])
    assert [item["key"] for item in items] == [*TEXTS, "nobody-0"]


def test_the_key_is_looked_at() -> None:
    """A missing one and a wrong one are refused as the service does, before anything else."""
    with gemini_server() as server:
        assert post(server.url, body_of(TEXTS), key=None)[0] == 403
        status, text = post(server.url, body_of(TEXTS), key="wrong")
        assert (status, "API_KEY_INVALID" in text) == (400, True)
        assert post(server.url, body_of(TEXTS))[0] == 200


def test_a_request_that_cannot_be_read_is_refused() -> None:
    """With the service's own status."""
    with gemini_server() as server:
        bodies: list[JsonValue] = [{}, {"contents": []}, [], 7]
        for body in bodies:
            status, text = post(server.url, body)
            assert (status, "INVALID_ARGUMENT" in text) == (400, True)


@pytest.mark.parametrize("query", ["", "?alt=sse"])
def test_a_stream_is_an_array_or_events(query: str) -> None:
    """Its chunks joined are the whole answer; the last one has the reason and the counts."""
    with gemini_server() as server:
        whole = items_of(post(server.url, body_of(TEXTS))[1])
        _, text = post(server.url, body_of(TEXTS), method=f"streamGenerateContent{query}")
        billed = server.calls[1].tokens_in, server.calls[1].tokens_out
    documents = [json.loads(line[6:]) for line in text.splitlines() if line] if query else None
    chunks = documents or json.loads(text)
    assert len(chunks) == 3
    candidates = [chunk["candidates"][0] for chunk in chunks]
    joined = "".join(one["content"]["parts"][0]["text"] for one in candidates)
    assert json.loads(joined)["items"] == whole
    assert [one.get("finishReason") for one in candidates] == [None, None, "STOP"]
    usage = chunks[-1]["usageMetadata"]
    assert (usage["promptTokenCount"], usage["candidatesTokenCount"]) == billed


def test_a_server_can_be_closed_while_it_hangs() -> None:
    """No thread is left behind, nor a client that waits."""
    with gemini_server({"faults": ["timeout"]}) as server:
        process = subprocess.Popen(
            [sys.executable, "-c", HANGING, server.url], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "asking\n"
    assert process.communicate(timeout=20)[0] == "gone\n"


HANGING = """
import http.client, sys
connection = http.client.HTTPConnection(sys.argv[1].removeprefix("http://"), timeout=60)
print("asking", flush=True)
try:
    connection.request("POST", "/v1beta/models/gemini-x:generateContent", b"{}")
    connection.getresponse()
except (OSError, http.client.HTTPException):
    pass
print("gone")
"""


def test_the_server_is_a_process_too(tmp_path: Path) -> None:
    """It prints its URL, follows a script in a file, and writes what it did at its end."""
    script, log = tmp_path / "script.json", tmp_path / "calls.jsonl"
    script.write_text('{"faults": ["unavailable"]}')
    command = [sys.executable, "-m", "tests.workflows.gemini_server", "--script", f"{script}"]
    command += ["--log", f"{log}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url)
        assert [post(url, body_of(TEXTS))[0] for _ in range(2)] == [503, 200]
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
    calls = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    assert [call["fault"] for call in calls] == ["unavailable", "ok"]
    assert KEY not in log.read_text("utf-8")
