"""Workers that a run has not seen at its start, and that may have begun its jobs without a word.

One that hands in no receipts may join later, take a job, and die in it before anybody has asked
it anything. What is left of it is its name, which a Redis broker keeps. From then on nobody can say
of a job without a start that it was never begun.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Final

from pytest_manifest.broker.presence import find_workers, may_be_alive, unresponsive_nodes
from pytest_manifest.broker.publisher import Publisher
from pytest_manifest.ledger import STOCK_WORKERS, UNVERIFIED_WORKERS, Ledger

KNOWN_NODES: Final = "known_nodes"
"""The ledger's key for nodes that no job of the run can have begun on without a word: they say when
they begin one, or had ended before the first was sent."""


def record_known_workers(ledger: Ledger, publisher: Publisher, telling: Collection[str]) -> None:
    """Before anything is sent: these nodes say when they begin a job, and who has ended already
    will begin none."""
    listed = unresponsive_nodes(publisher, telling)
    # Nobody knows of what kind is one that is busy now.
    ended = frozenset() if may_be_alive(publisher, listed, telling) else listed
    _write_known(ledger, _read_known(ledger) | frozenset(telling) | ended)


def record_unknown_workers(ledger: Ledger, publisher: Publisher) -> None:
    """Remember who may have begun a job without a word, by who is there and who was.

    Raises StackError where the broker is away.
    """
    now = find_workers(publisher)
    known = _read_known(ledger) | now.instrumented | ledger.workers_with_starts()
    if now.stock:
        ledger.set_meta(STOCK_WORKERS, ", ".join(sorted(now.stock)))
    # One that was only slow to answer is none any more once it has.
    before = frozenset(json.loads(ledger.get_meta(UNVERIFIED_WORKERS) or "[]"))
    strangers = (before | now.unresponsive) - known
    if strangers or before:
        ledger.set_meta(UNVERIFIED_WORKERS, json.dumps(sorted(strangers)) if strangers else "")
    _write_known(ledger, known)


def _read_known(ledger: Ledger) -> frozenset[str]:
    return frozenset(json.loads(ledger.get_meta(KNOWN_NODES) or "[]"))


def _write_known(ledger: Ledger, nodes: Collection[str]) -> None:
    ledger.set_meta(KNOWN_NODES, json.dumps(sorted(nodes)))
