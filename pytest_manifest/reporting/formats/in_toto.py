"""Write a run's result as an in-toto attestation, signed as work orders are: DSSE, Ed25519.

The predicate is test-result v0.1. Its subjects are the manifest, and the run's receipts by the root
of a Merkle tree (RFC 6962, section 2.1) over the lines of the exported receipts file: whoever has
one can be shown that it is of the tree, and whoever changes, adds or drops one has another root.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from pydantic import JsonValue

from pytest_manifest import signing
from pytest_manifest.errors import ManifestError
from pytest_manifest.files import file_sha256
from pytest_manifest.manifest import manifest_digest
from pytest_manifest.manifest.writer import atomic_file
from pytest_manifest.reporting.run_report import ReportedRun
from pytest_manifest.reporting.summary import records_of
from pytest_manifest.schema.statuses import BAD
from pytest_manifest.schema.summary import RunSummary

PREDICATE_TYPE: Final = "https://in-toto.io/attestation/test-result/v0.1"
ALGORITHM: Final = "rfc6962Sha256"
"""The name of the tree's digest: SHA-256 by RFC 6962."""
ENTRIES: Final = "manifestEntriesSha256"
"""The name of the digest of a manifest's lines after its header."""


def write(run: ReportedRun, summary: RunSummary, path: Path, mode: int) -> None:
    """Write the envelope in one line of JSON. Raises SigningError where no key can be read."""
    variable = signing.SIGNING_KEY_VARIABLE
    signer = signing.read_signer(os.environ[variable], variable)
    payload = json.dumps(statement(run, summary), separators=(",", ":")).encode()
    with atomic_file(path, mode) as file:
        file.write(json.dumps(signing.seal(signing.PAYLOAD_TYPE, payload, signer)).encode() + b"\n")


def statement(run: ReportedRun, summary: RunSummary) -> dict[str, JsonValue]:
    """Return what is signed. Raises LedgerError or ManifestError."""
    from pytest_manifest.run.exports import exported_lines

    with run.read() as ledger:
        root, number = merkle_root(exported_lines(ledger))
    failed: list[JsonValue] = []
    open_ones: list[JsonValue] = []
    with records_of(run) as records:
        for one in records:
            if one.outcome != "passed":
                (failed if one.outcome in BAD else open_ones).append(one.id)
    about, has_ended = summary.run, summary.run.status == "finished"
    result = "FAILED" if failed or not has_ended else "WARNED" if open_ones else "PASSED"
    receipts: JsonValue = {
        "name": f"{about.run}.receipts.jsonl",
        "digest": {ALGORITHM: root},
        "annotations": {"lines": number},
    }
    return {
        "_type": signing.STATEMENT_TYPE,
        "subject": [{"name": about.manifest, "digest": _digests(run, summary)}, receipts],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "result": result,
            "configuration": [
                {
                    "name": f"run {about.run}",
                    "digest": {ENTRIES: about.manifest_sha256},
                    "annotations": {
                        "createdAt": about.created_at.isoformat(),
                        "entries": summary.statistics.entries,
                        "verdicts": {
                            str(name): n for name, n in summary.statistics.verdicts.items()
                        },
                        "version": about.version,
                    },
                }
            ],
            "warnedTests": open_ones,
            "failedTests": failed,
        },
    }


def _digests(run: ReportedRun, summary: RunSummary) -> dict[str, JsonValue]:
    """Return the digests of the manifest: of its entries, and of its file where it is as it was."""
    found: dict[str, JsonValue] = {ENTRIES: summary.run.manifest_sha256}
    with suppress(ManifestError, OSError):
        if manifest_digest(run.manifest.path) == summary.run.manifest_sha256:
            found["sha256"] = file_sha256(run.manifest.path)
    return found


def merkle_root(lines: Iterable[bytes]) -> tuple[str, int]:
    """Return the root of the tree of these leaves, in hex, and their number.

    RFC 6962: a leaf's hash is that of a zero byte and the leaf, a node's of a one byte and its two
    children's; a tree of no leaves has the hash of nothing. Keeps one hash a level in memory.
    """
    peaks: list[tuple[int, bytes]] = []
    count = 0
    for count, line in enumerate(lines, 1):  # noqa: B007 - the last number is the count
        size, node = 1, hashlib.sha256(b"\0" + line).digest()
        while peaks and peaks[-1][0] == size:
            node = _node(peaks.pop()[1], node)
            size *= 2
        peaks.append((size, node))
    if not peaks:
        return hashlib.sha256().hexdigest(), 0
    root = peaks.pop()[1]
    while peaks:
        root = _node(peaks.pop()[1], root)
    return root.hex(), count


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()
