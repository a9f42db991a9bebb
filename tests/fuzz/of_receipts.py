"""An exported receipts file of any bytes: read, refused by sentences, and judged by."""

from __future__ import annotations

from contextlib import closing
from itertools import count
from pathlib import Path

from pytest_manifest.errors import LedgerError, ManifestError
from pytest_manifest.ledger import Ledger
from pytest_manifest.manifest.receipts import receipt_line
from pytest_manifest.manifest.writer import dump_document
from pytest_manifest.run.audit import record_size, violations
from pytest_manifest.run.exports import ledger_of_receipts
from pytest_manifest.schema import Receipt
from tests.fuzz.made_run import ENTRIES, made_manifest
from tests.fuzz.oracles import expect, expect_refusal, expect_sentence, scratch
from tests.fuzz.verdicts import expect_verdict
from tests.receipts_files import read_receipts, write_receipts

_number = count()


def check(data: bytes) -> None:
    """Read these bytes as a receipts file, alone and for an audit of the manifest."""
    path = scratch() / "receipts.jsonl"
    path.write_bytes(data)
    receipts: list[Receipt] | None = None
    try:
        receipts = list(read_receipts(path))
    except ManifestError as error:
        expect_refusal(error)
    else:
        write_and_read(receipts)
    folder = scratch() / f"audit-{next(_number)}"
    try:
        ledger, notes = ledger_of_receipts(made_manifest(), path, folder)
    except (ManifestError, LedgerError) as error:
        expect_refusal(error)
        return
    else:
        expect(receipts is not None, "judged by a file that cannot be read")
        for note in notes:
            expect_sentence(note)
        judged(ledger, {receipt.entry for receipt in receipts or ()})
    finally:
        for file in folder.glob("*") if folder.exists() else ():
            file.unlink()
        if folder.exists():
            folder.rmdir()


def write_and_read(receipts: list[Receipt]) -> None:
    """Written anew they are the same, and the two ways of writing write alike."""
    again = scratch() / "again.jsonl"
    write_receipts(again, receipts)
    expect(list(read_receipts(again)) == receipts, "other receipts after they were written")
    for receipt in receipts[:20]:
        lines = dump_document(receipt), receipt_line(receipt.model_dump_json())
        expect(lines[0] == lines[1], "written otherwise", *lines)


def judged(path: Path, told: set[str]) -> None:
    """Each entry has one verdict, and none passes of which there is no receipt."""
    manifest = made_manifest()
    with Ledger.open(path) as ledger:
        found = {one.verdict.entry: one for one in ledger.queries.all_verdicts()}
        expect(list(found) == [entry.id for entry in ENTRIES], "not each entry once", list(found))
        for entry in ENTRIES:
            one = found[entry.id]
            expect_verdict(entry, one.verdict, one.receipt)
            expect(one.verdict.verdict != "passed" or entry.id in told, "passed without a word")
        size = record_size(ledger)
        expect(size.entries == size.verdicts == len(ENTRIES), "another size", size)
        with closing(violations(ledger, manifest)) as broken:
            for violation in broken:
                expect_sentence(violation.sentence)
