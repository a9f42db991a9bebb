"""Read and write the two file formats: manifests and receipts."""

from pytest_manifest.manifest.jsonl import id_and_task
from pytest_manifest.manifest.partition import Shard
from pytest_manifest.manifest.reader import Manifest, read_manifest
from pytest_manifest.manifest.scan import check_manifest, manifest_digest
from pytest_manifest.manifest.writer import dump_entry, write_manifest

__all__ = [
    "Manifest",
    "Shard",
    "check_manifest",
    "dump_entry",
    "id_and_task",
    "manifest_digest",
    "read_manifest",
    "write_manifest",
]
