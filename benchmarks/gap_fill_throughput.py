"""How fast the batch task is: passages a second, beside the loops that one would write instead.

    python benchmarks/gap_fill_throughput.py [PASSAGES]

A local server that speaks Gemini's wire format answers each call after 50 ms. The same passages
(500), five to a call, with the same prompt and the same SDK (google-genai), are filled into a new
SQLite database by

* a plain loop: one call after the other, each answer's rows committed,
* an asyncio loop: the SDK's own asynchronous client, eight calls at once, and
* ``process_batch_task``, eight calls at once, in batches of 100,

each in turn, three times, in a process of its own; the server is a process too. The loops have no
retries, no limits, no check of what is there already, and no receipts. Printed are the medians, and
how they relate to the plain loop.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from google.genai.types import GenerateContentConfigDict
    from pydantic import JsonValue

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

LATENCY = 0.05
PER_CALL = 5
AT_ONCE = 8
BATCH = 100
ROUNDS = 3
KEY = "test-key-5f1c"
MODEL = "gemini-3.5-flash-lite"


def load(number: int) -> list[str]:
    """Fill the database with passages; returns their ids."""
    from tasks.movie_bible.bible import MovieBible
    from tasks.movie_bible.documents import Document

    text = "The captain walks through the dark ship, and behind her the creature breathes. " * 7
    documents = [Document(f"film-{n:05}/plot", f"{n}: {text}", "plot") for n in range(number)]
    with MovieBible.open() as bible:
        bible.load(documents)
    return [one.id for one in documents]


def plain_loop(ids: list[str]) -> None:
    """What one writes first."""
    from google import genai

    from tasks.movie_bible.bible import MovieBible

    with MovieBible.open() as bible:
        client = genai.Client(api_key=KEY, http_options={"base_url": os.environ["SERVER"]})
        for start in range(0, len(ids), PER_CALL):
            contents, config, by_key = _request(bible, ids[start : start + PER_CALL])
            answer = client.models.generate_content(model=MODEL, contents=contents, config=config)
            _write(bible, answer.text or "", by_key)
        client.close()


def asyncio_loop(ids: list[str]) -> None:
    """What one writes next."""
    from google import genai

    from tasks.movie_bible.bible import MovieBible

    async def fill(bible: MovieBible) -> None:
        client = genai.Client(api_key=KEY, http_options={"base_url": os.environ["SERVER"]})
        gate = asyncio.Semaphore(AT_ONCE)

        async def ask(chunk: list[str]) -> None:
            async with gate:
                contents, config, by_key = _request(bible, chunk)
                answer = await client.aio.models.generate_content(
                    model=MODEL, contents=contents, config=config
                )
                _write(bible, answer.text or "", by_key)

        async with client.aio:
            chunks = [ids[start : start + PER_CALL] for start in range(0, len(ids), PER_CALL)]
            await asyncio.gather(*map(ask, chunks))

    with MovieBible.open() as bible:
        asyncio.run(fill(bible))


def batch_task(ids: list[str]) -> None:
    """What a worker runs."""
    from tasks.filling.prompts import PROMPTS
    from tasks.movie_bible.fields import FIELDS
    from tasks.rag import process_batch_task

    prompt = PROMPTS.load("movie-bible")
    data: dict[str, JsonValue] = {
        "fields": [*FIELDS],
        "prompt": prompt.version,
        "prompt_digest": prompt.digest,
        "model": {"provider": "google-genai", "name": MODEL},
    }
    for start in range(0, len(ids), BATCH):
        done = process_batch_task(ids[start : start + BATCH], data)
        assert done["unfilled"] == []


def _request(
    bible: object, ids: list[str]
) -> tuple[str, GenerateContentConfigDict, Mapping[str, object]]:
    from tasks.filling.prompts import PROMPTS, Wanted
    from tasks.movie_bible.bible import MovieBible
    from tasks.movie_bible.fields import FIELDS

    assert isinstance(bible, MovieBible)
    stored = bible.passages(ids)
    wanted = [Wanted(one, stored[one].text, FIELDS) for one in ids]
    asked = PROMPTS.load("movie-bible").ask(wanted, timeout=60)
    config: GenerateContentConfigDict = {
        "system_instruction": asked.request.instructions,
        "response_mime_type": "application/json",
        "response_json_schema": asked.request.schema,
        "temperature": 0.0,
    }
    return asked.request.prompt, config, asked.by_key


def _write(bible: object, text: str, by_key: Mapping[str, object]) -> None:
    from tasks.filling.prompts import Wanted
    from tasks.movie_bible.bible import MovieBible, NewAnnotation

    assert isinstance(bible, MovieBible)
    rows = []
    for item in json.loads(text)["items"]:
        wanted = by_key[item.pop("key")]
        assert isinstance(wanted, Wanted)
        rows.append(NewAnnotation(wanted.passage, "loop/1", item))
    bible.write(rows)


WAYS: Mapping[str, Callable[[list[str]], None]] = {
    "plain loop": plain_loop,
    "asyncio loop": asyncio_loop,
    "batch task": batch_task,
}


def measure(way: str, number: int) -> None:
    """In a process of its own: prints the seconds of the filling alone."""
    ids = load(number)
    WAYS[way](ids[:PER_CALL])  # imports, connections and the first handshake are nobody's
    began = time.perf_counter()
    WAYS[way](ids[PER_CALL:])
    print(time.perf_counter() - began)


def main() -> None:
    if len(sys.argv) == 3:
        measure(sys.argv[1], int(sys.argv[2]))
        return
    number = int(sys.argv[1]) if len(sys.argv) == 2 else 500
    with tempfile.TemporaryDirectory(prefix="gap-fill-") as folder:
        script = Path(folder) / "script.json"
        script.write_text(json.dumps({"latency": LATENCY}))
        command = [sys.executable, "-m", "tests.workflows.gemini_server", "--script", str(script)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                compare(server.stdout.readline().strip(), number)
            finally:
                server.terminate()


def compare(url: str, number: int) -> None:
    took: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(ROUNDS):
        for way, times in took.items():
            with tempfile.TemporaryDirectory(prefix="gap-fill-") as folder:
                environment = {
                    "SERVER": url,
                    "GAP_FILL_DATABASE_URL": f"sqlite:///{folder}/bible.sqlite3",
                    "GEMINI_API_KEY": KEY,
                    "TEXT_MODEL_BASE_URL": url,
                    "TEXT_MODEL_CONCURRENCY": str(AT_ONCE),
                    "GAP_FILL_PASSAGES_PER_CALL": str(PER_CALL),
                }
                done = subprocess.run(
                    [sys.executable, __file__, way, str(number)],
                    cwd=ROOT,
                    env={**os.environ, **environment},
                    stdout=subprocess.PIPE,
                    text=True,
                    check=True,
                )
                times.append(float(done.stdout))
    filled = number - PER_CALL
    base = statistics.median(took["plain loop"])
    print(
        f"{filled} passages, {PER_CALL} a call, {LATENCY * 1000:.0f} ms a call, {AT_ONCE} at once"
    )
    for way, times in took.items():
        median = statistics.median(times)
        print(
            f"{way:<14}{median:>8.2f} s{filled / median:>8.0f} passages/s"
            f"{base / median:>8.1f} times the plain loop"
        )


if __name__ == "__main__":
    main()
