"""Read and write the two file formats: manifests and receipts."""

from pytest_manifest.manifest.jsonl import Limits, id_and_task
from pytest_manifest.manifest.partition import (
    Balance,
    Group,
    GroupRule,
    Groups,
    Shard,
    entries_of,
    overlap,
)
from pytest_manifest.manifest.reader import Manifest, Outline, read_manifest
from pytest_manifest.manifest.receipts import descendant_line, receipt_line
from pytest_manifest.manifest.scan import Summary, check_manifest, manifest_digest
from pytest_manifest.manifest.writer import (
    Draft,
    atomic_file,
    dump_document,
    dump_entry,
    dump_header,
    sync,
    write_draft,
    write_manifest,
    write_receipt_lines,
)

__all__ = [
    "Balance",
    "Draft",
    "Group",
    "GroupRule",
    "Groups",
    "Limits",
    "Manifest",
    "Outline",
    "Shard",
    "Summary",
    "atomic_file",
    "check_manifest",
    "descendant_line",
    "dump_document",
    "dump_entry",
    "dump_header",
    "entries_of",
    "id_and_task",
    "manifest_digest",
    "overlap",
    "read_manifest",
    "receipt_line",
    "sync",
    "write_draft",
    "write_manifest",
    "write_receipt_lines",
]
