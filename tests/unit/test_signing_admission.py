"""To whom nothing is sent of a run that takes signed receipts alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from pytest_manifest import signing
from pytest_manifest.broker.preflight import Preflight
from pytest_manifest.run.dispatch import _signing_refusals

if TYPE_CHECKING:
    from pytest_manifest.run.strategy import Strategy

PEM = signing.generate()[1]
TRUSTED = "trusted"
KEY_IDS = {
    None: None,
    TRUSTED: signing.read_verifier(PEM, "key").key_ids[0],
    "another": "0" * 64,
}
"""The keys that a worker signs with, by names that are the same in each process."""


def strategy(kept: str | None, given: str | None, url: str, *, private: bool) -> Strategy:
    """A strategy whose ledger has ``kept`` keys, in a session that was ``given`` some."""

    @contextmanager
    def writing() -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(info=SimpleNamespace(get_meta=lambda _: kept))

    address = SimpleNamespace(is_private=private, broker_url=url)
    state = SimpleNamespace(address=address, settings=SimpleNamespace(receipt_keys=given))
    return cast("Strategy", SimpleNamespace(state=state, writing=writing))


@pytest.mark.parametrize(
    ("kept", "given", "url", "private", "signer", "said"),
    [
        (None, None, "redis://h", True, None, ""),
        (PEM, PEM, "redis://h", True, TRUSTED, ""),
        (PEM, None, "redis://h", True, None, "give it again"),
        (PEM, None, "memory://", True, None, "give it again"),
        (PEM, PEM, "memory://", True, None, ""),
        (PEM, None, "redis://h", False, None, "w@h sign nothing"),
        (PEM, None, "redis://h", False, TRUSTED, ""),
        (PEM, PEM, "redis://h", False, "another", "is not among those that are trusted"),
    ],
    ids=lambda value: "key" if value == PEM else None,  # it is another one in each process
)
def test_workers_whose_receipts_would_not_count(
    kept: str | None, given: str | None, url: str, private: bool, signer: str | None, said: str
) -> None:
    """Also those of a later session that does not ask for signatures, as its run does."""
    found = Preflight(signers={"w@h": KEY_IDS[signer]})
    refused = _signing_refusals(strategy(kept, given, url, private=private), found)
    assert bool(refused) == bool(said)
    assert said in " ".join(refused)
