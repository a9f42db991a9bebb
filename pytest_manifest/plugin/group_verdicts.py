"""Turn the verdicts of a group of entries into the outcome and the message of its test."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, Protocol

import pytest

from pytest_manifest.bindings import Binding
from pytest_manifest.plugin.item_properties import record_properties
from pytest_manifest.plugin.session import ManifestSession, manifest_session
from pytest_manifest.text import short_path

if TYPE_CHECKING:
    from pytest_manifest.analysis.groups import Tally


def assert_group(item: pytest.Item, binding: Binding, when: Literal["setup", "call"]) -> None:
    """Turn the verdicts of a group's entries into the outcome of its test.

    As for one entry: a failed expectation fails the test in its call, an entry that could not be
    judged is an error, which pytest reports only of the set-up, and blocked entries skip the test.
    """
    state = manifest_session(item.config)
    if when == "setup":
        found = _tally(state, binding, item)
        if found is None:
            pytest.fail(f"{binding.group!r} was not judged: nothing of it was dispatched")
        if found.outcome == "failed":
            item.stash[_FAILED] = found
            return
    elif _FAILED in item.stash:
        found = item.stash[_FAILED]
        del item.stash[_FAILED]
    else:
        return
    if found.outcome == "passed":
        return
    from pytest_manifest.analysis.groups import explain_group, headline

    if found.outcome == "skipped":
        reason = f"{headline(found)}; {found.first[0].id!r}: {found.first[0].sentence}"
        pytest.skip(reason)
    where = list(_where(state, binding, found.first[0].id))
    pytest.fail(explain_group(found, where), pytrace=False)


class Crash(Protocol):
    """Describe where and by which message a test failed, as pytest's report has it."""

    path: str
    lineno: int
    message: str


def place_at_group(item: pytest.Item, group: str, crash: Crash) -> None:
    """Move a group's failure to the line of its first entry, and cut its message to one line."""
    if crash.path == __file__:
        groups = manifest_session(item.config).groups(item.path)
        crash.path, crash.lineno = str(item.path), groups[group].line
        crash.message = crash.message.partition("\n")[0].removeprefix("Failed: ")


_FAILED = pytest.StashKey["Tally"]()
"""The tally that the set-up of a failed group's test stored, for the call to fail with."""


def _tally(state: ManifestSession, binding: Binding, item: pytest.Item) -> Tally | None:
    book = state.verdicts
    ledger = None if book is None else book.ledger_of(binding)
    if book is None or ledger is None or binding.group is None:
        return None
    from pytest_manifest.analysis.groups import tally

    groups = state.groups(binding.manifest)
    found = tally(ledger, groups.ids(binding.group))
    runtime = None
    if getattr(item.config.option, "xmlpath", None):
        runtime = ledger.queries.runtime_of(groups.ids(binding.group))
    properties = properties_of(binding, book.run_of(binding), found, runtime)
    record_properties(item, properties)
    return found


def properties_of(
    binding: Binding, run: str, found: Tally, runtime: float | None
) -> list[tuple[str, object]]:
    """Return a group's properties for JUnit reports and other readers of ``user_properties``.

    ``runtime``: seconds that its jobs ran, summed up.
    """
    rows: list[tuple[str, object]] = [
        ("manifest_group", binding.group),
        ("manifest_outcome", found.outcome),
        ("manifest_run", run),
        ("manifest_entries", found.entries),
        ("manifest_passed", found.outcomes["passed"]),
        ("manifest_failed", found.outcomes["failed"]),
        ("manifest_errors", found.outcomes["error"]),
        ("manifest_pending", found.outcomes["pending"]),
        ("manifest_skipped", found.outcomes["skipped"]),
    ]
    if found.kinds:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(found.kinds.items()))
        rows.append(("manifest_verdicts", kinds))
    if runtime is not None:
        rows.append(("manifest_runtime", runtime))
    return rows


def _where(state: ManifestSession, binding: Binding, entry: str) -> Iterator[tuple[str, str]]:
    """Yield where to read what a group's message leaves out, as (label, file or command)."""
    root, options = state.options.root, state.options
    name = short_path(binding.manifest, root)
    audit = ["pytest", f"--manifest={name}", "--manifest-audit"]
    ledger = None if state.verdicts is None else state.verdicts.ledger_of(binding)
    if options.receipts is not None:
        receipts = short_path(options.receipts, root)
        yield "receipts", receipts
        audit.append(f"--manifest-receipts={receipts}")
    elif ledger is not None and ledger.path.parent == options.ledgers:
        from pytest_manifest.ledger.run_files import RunFiles

        files = RunFiles(ledger.path)
        yield "every entry", f"{short_path(files.summary, root)}, at the session's end"
        yield "receipts", short_path(files.receipts, root)
        audit.append(f"--manifest-run={ledger.path.stem}")
        if options.shard is not None:
            audit.append(f"--manifest-shard={options.shard}")
    yield "one in full", shlex.join([*audit, f"{name}::entry[{entry}]"])


__all__: Sequence[str] = ("assert_group", "place_at_group", "properties_of")
