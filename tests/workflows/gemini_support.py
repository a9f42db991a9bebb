"""What tests of Gemini's SDKs share: fixtures, passages, and a guard around the network."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator
from typing import cast

import pytest
from pydantic import SecretStr

from tasks.filling.shares import Spent
from tasks.text_model.base import Tier
from tasks.text_model.prices import PriceTable
from tasks.text_model.settings import (
    DEFAULT_GEMINI,
    GOOGLE_GENAI,
    GOOGLE_GENERATIVEAI,
    TextModelSettings,
)
from tests.workflows.gemini_server import KEY, Call, GeminiServer, gemini_server

PROVIDERS = [GOOGLE_GENAI, GOOGLE_GENERATIVEAI]
TEXTS = {"n-1": "A clerk in Łódź loses 金 and 🎬.", "n-2": "Two friends cross a desert."}


@pytest.fixture
def nobody_else() -> Iterator[None]:
    """Whoever connects to another host than this one fails, and so does looking one up."""
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def guarded(self: socket.socket, address: tuple[str, int]) -> None:
        assert address[0] == "127.0.0.1", address
        connect(self, address)

    def looked_up(host: str | bytes | None, *rest: object, **more: object) -> object:
        assert host in {"127.0.0.1", b"127.0.0.1"}, host
        return look_up(host, *rest, **more)  # type: ignore[arg-type]  # options as the callee names them

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded)
        patch.setattr(socket, "getaddrinfo", looked_up)
        yield


@pytest.fixture(params=PROVIDERS)
def provider(request: pytest.FixtureRequest) -> str:
    """Each SDK."""
    return str(request.param)


@pytest.fixture
def server() -> Iterator[GeminiServer]:
    """A server that follows no script yet."""
    with gemini_server() as running:
        yield running


def settings_of(provider: str, url: str, **more: object) -> TextModelSettings:
    """Settings of a model at ``url``, with the key that the local server takes."""
    return TextModelSettings.model_validate(
        {"choice": provider, "key": SecretStr(KEY), "base_url": url, **more}
    )


def cost_nanos(call: Call) -> int:
    """What the service asks for a call: by what answered it, at its tier, in nano dollars."""
    price = PriceTable.load().price(call.answered or DEFAULT_GEMINI, cast("Tier", call.tier))
    assert price is not None
    return price.cost_nanos(call.tokens_in, call.tokens_out, call.cached)


def show(
    what: str, rows: int, calls: int, failures: Counter[str], spent: Spent, in_rows: Spent
) -> None:
    """Print a line of the table of faults; a test has held what is in it to the service's notes."""
    cost = f"{spent.cost_nanos:,} | {in_rows.cost_nanos:,}"
    print(f"\n| {what} | {rows} | {calls:,} | {failures.total():,} | {len(failures)} | {cost} |")
