"""Take only signed reports for true, in a run whose ledger has the public keys of its workers.

Its ledger keeps them, so that the run is judged by the same keys whoever judges it again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from pytest_manifest.errors import LedgerError, SigningError
from pytest_manifest.ledger import RECEIPT_KEYS, Ledger, key_of
from pytest_manifest.signing import SIGNING_KEY_VARIABLE, read_verifier
from pytest_manifest.text import listed
from pytest_manifest.verdict.signatures import ReportSignatures


def signing_refusals(signers: Mapping[str, str | None], pem: str | None) -> list[str]:
    """Refuse to send to workers whose receipts would not count.

    ``signers``: by worker, the id of the key that it signs with, None where it signs nothing.
    """
    if not pem:
        return []
    trusted = read_verifier(pem, RECEIPT_KEYS).key_ids
    silent = sorted(name for name, key in signers.items() if key is None)
    others = sorted(name for name, key in signers.items() if key and key not in trusted)
    refused = []
    if silent:
        refused.append(
            f"signed receipts are required, and {listed(silent, SHOWN)} sign nothing: start your "
            f"workers with -I pytest_manifest.worker and with {SIGNING_KEY_VARIABLE}, the file of "
            "their private key; a stock worker cannot sign."
        )
    if others:
        refused.append(
            f"signed receipts are required, and {listed(others, SHOWN)} sign with a key that is "
            "not among those that are trusted: add its .pub file to --manifest-receipt-key, or "
            "give your workers the right key."
        )
    return refused


SHOWN: Final = 3
"""Workers that a message names."""


def require_signatures(ledger: Ledger, pem: str | None) -> bool:
    """Have receipts count only where one of these keys, or of those before, has signed them.

    None: as before. Returns whether the keys are others than before. Raises SigningError for "",
    none anew, where there are none before.
    """
    if pem is None:
        return False
    names = [RECEIPT_KEYS, *(key_of(RECEIPT_KEYS, run) for run in ledger.info.merged())]
    before = {name: ledger.info.get_meta(name) for name in names}
    keys = {name: merged_keys([known, pem]) for name, known in before.items()}
    if not keys[RECEIPT_KEYS]:
        raise SigningError(
            "signed receipts are required, and this run has no keys to check them by; "
            "name them by --manifest-receipt-key=FILE, the .pub file of the workers' key"
        )
    for name, trusted in keys.items():
        ledger.info.set_meta(name, trusted)
    return keys != before


def merged_keys(several: Sequence[str | None]) -> str:
    """Return the keys of several texts, each once."""
    text = "".join(one for one in several if one)
    return read_verifier(text, RECEIPT_KEYS).pem() if text else ""


def merged_signatures(metadata: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return what the ledger of a merged run has of signatures, of the ledgers that it is made of.

    Each run's attempts are judged by its own keys. Raises LedgerError where some of these need them
    and others do not: a run has one rule for all.
    """
    keys = [one.get(RECEIPT_KEYS) for one in metadata]
    if any(keys) and not all(keys):
        raise LedgerError(
            "some of these runs take signed receipts alone and others do not, so what the merged "
            "one takes would hold for neither; judge them on their own"
        )
    return {RECEIPT_KEYS: merged_keys(keys)} if all(keys) and keys else {}


def signatures_of(ledger: Ledger, run: str | None = None) -> ReportSignatures | None:
    """Return what checks the reports of this run; None where they need no signature.

    ``run``: one of those that it was merged of; without, all of their keys count.
    """
    info = ledger.info
    pem = info.get_meta(RECEIPT_KEYS) if run is None else info.of_run(RECEIPT_KEYS, run)
    return ReportSignatures(read_verifier(pem, RECEIPT_KEYS)) if pem else None


class SignaturesByRun:
    """Check the reports of each run whose attempts a ledger has by the keys of that run."""

    def __init__(self, ledger: Ledger) -> None:
        self.all = signatures_of(ledger)
        """Those of all runs; None where none of them needs a signature."""
        merged = ledger.info.merged() if self.all is not None else ()
        self._by_run = {run: signatures_of(ledger, run) for run in merged}

    def of(self, run: str) -> ReportSignatures | None:
        """Return what checks the reports of a run's attempts."""
        return self._by_run.get(run, self.all)
