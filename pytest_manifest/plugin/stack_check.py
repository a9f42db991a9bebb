"""Check a stack and send nothing: ``pytest --manifest-check``, a lint of a stack for CI.

It acts before a session begins, so neither tests nor fixtures are involved. Nothing is left on the
broker or here.

Write what ``--manifest-check`` found: as a table for people, or as one JSON document.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, redirect_stdout
from dataclasses import asdict
from itertools import chain
from typing import TYPE_CHECKING, Final

import pytest

from pytest_manifest.broker import checks, rules
from pytest_manifest.broker.client import load_app
from pytest_manifest.broker.preflight import NO_CONTROL
from pytest_manifest.console import quiet_console
from pytest_manifest.errors import ManifestToolError, ResultStoreError, SigningError, StackError
from pytest_manifest.plugin import stacks
from pytest_manifest.plugin.manifest_store import ManifestStore
from pytest_manifest.plugin.options import Options
from pytest_manifest.plugin.run_options import key_for_own_workers, read_options, receipt_keys
from pytest_manifest.plugin.session_runs import StackChoice
from pytest_manifest.redaction.texts import redact, redact_url
from pytest_manifest.text import plural
from pytest_manifest.urls import scheme_of

if TYPE_CHECKING:
    from pytest_manifest.broker.publisher import Publisher
    from pytest_manifest.broker.workers import Worker
    from pytest_manifest.schema import Entry
    from pytest_manifest.urls import StackAddress


COLOURS: Final[dict[checks.Level, str]] = {
    "error": "31;1",
    "warning": "33",
    "unchecked": "36",
    "ok": "32",
}


def document(check: checks.StackCheck) -> str:
    """Return the findings as JSON; the reference page has its table."""
    workers = [
        {
            "name": one.name,
            "pool": one.pool,
            "slots": one.slots,
            "queues": sorted(one.queues or ()),
            "tasks": [name for name in sorted(one.tasks) if rules.is_of_project(name)],
            "receipts": bool(one.tasks) and not one.is_stock,
        }
        for one in check.workers
    ]
    stack = ("kind", "reason", "broker", "backend", "app")
    whole = {
        "schema": "manifest-check/1",
        "ok": check.ok,
        "stack": {name: getattr(check, name) for name in stack},
        "workers": workers,
        "findings": list(map(asdict, check.findings)),
        "counts": {level: check.count(level) for level in checks.LEVELS},
    }
    return json.dumps(whole, indent=2, ensure_ascii=False)


def table(check: checks.StackCheck, words: str) -> Iterator[str]:
    """Yield the lines of the table, as wide as the terminal; ``words`` say which stack it is of."""
    colours = sys.stdout.isatty()
    yield f"manifest: {words}"
    for level, text in checks.table_rows(check.findings):
        if colours:
            shown, rest = text[: checks.LEVEL_WIDTH], text[checks.LEVEL_WIDTH :]
            text = f"\033[{COLOURS[level]}m{shown}\033[0m{rest}"
        yield from text.split("\n")
    counts = {level: check.count(level) for level in checks.LEVELS}
    found = [plural(counts[level], level) for level in ("error", "warning") if counts[level]]
    found += [f"{counts['unchecked']} unchecked"] if counts["unchecked"] else []
    yield f"{', '.join(found) or 'nothing to complain of'}; nothing was sent"


RECEIPTS: Final = "receipts"
"""The check of what workers report, and whether it would count."""


class CheckCommand:
    """Take the place of pytest's session where the check is asked for."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_cmdline_main(self, config: pytest.Config) -> pytest.ExitCode:
        """Check, show the findings, and return 0, or 4 where there is an error among them."""

        quiet_console(config)
        options = read_options(config)
        manifests, as_json = ManifestStore(options), options.check == "json"
        entries = chain.from_iterable([*map(manifests.load, manifests.files)])
        # What a project prints while it is imported is no JSON.
        with redirect_stdout(sys.stderr if as_json else sys.stdout):
            check, words = check_stack(manifests, entries if manifests.files else None)
        lines = [document(check)] if as_json else table(check, words)
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()
        return pytest.ExitCode.OK if check.ok else pytest.ExitCode.USAGE_ERROR


def check_stack(
    manifests: ManifestStore, entries: Iterable[Entry] | None
) -> tuple[checks.StackCheck, str]:
    """Check the stack that a run with these options would use; return it in words, too."""
    options = manifests.options
    try:
        choice = stacks.choose_stack(manifests)
        if options.app:
            load_app(stacks.project_app(options))
    except ManifestToolError as error:
        check = checks.StackCheck("none", "the app cannot be used", app=options.app or "")
        check.add("error", "app", str(error))
        return check, "no stack (the app cannot be used)"
    check = checks.StackCheck(
        choice.kind, choice.reason, redact_url(choice.broker), app=options.app or ""
    )
    if choice.kind == "memory":
        said = "a stack in memory is in the pytest that runs the jobs, so there is no worker to ask"
        check.add("unchecked", "workers", said)
        return check, choice.words
    private = choice.kind == "private"
    try:
        own_key, key = key_for_own_workers(options) if private else (None, "")
        trusted = receipt_keys(options, own_key)
    except SigningError as error:
        check.add("error", RECEIPTS, str(error))
        trusted, key = None, ""
    try:
        with _stack(options, choice, key) as address:
            _check(check, address, choice, entries, options)
            check.findings += signing_findings(check.workers, trusted)
    except ManifestToolError as error:
        check.add("error", "workers" if private else "broker", str(error))
    return check, choice.words


def signing_findings(workers: Sequence[Worker], trusted: str | None) -> Iterator[checks.Finding]:
    """Yield whether what these workers report would count; ``trusted``: the public keys by which it
    must be signed, as PEM, None or "" where it need not be."""
    from pytest_manifest.run.casebook import signing_refusals

    signers = {one.name: one.key_id for one in workers if one.tasks}
    if not trusted or not signers:
        return
    refused = signing_refusals(signers, trusted)
    yield from (checks.Finding("error", RECEIPTS, sentence) for sentence in refused)
    if not refused:
        yield checks.Finding(
            "ok", RECEIPTS, "each worker that answered signs with a key that is trusted"
        )


@contextmanager
def _stack(options: Options, choice: StackChoice, key: str) -> Iterator[StackAddress]:
    """Yield the address of an existing stack, or of a private one that ends with the block.

    ``key``: what workers of the private one sign with, as PEM; "": with none. Raises StackError or
    DispatchError where there is no stack.
    """
    if choice.kind != "private":
        yield stacks.external_address(options, choice)
        return
    stack = stacks.private_stack(options, key)
    stack.start()
    try:
        address = stack.wait_broker(stacks.START)
        stack.wait_workers(stacks.START)
        yield address
    finally:
        stack.stop()


def _check(
    check: checks.StackCheck,
    address: StackAddress,
    choice: StackChoice,
    entries: Iterable[Entry] | None,
    options: Options,
) -> None:
    """Add whether broker and store answer, who works there, and what the rules find."""
    from pytest_manifest.broker.publisher import Publisher

    check.broker, check.backend = redact_url(address.broker_url), redact_url(address.backend_url)
    publisher = Publisher(address, stream="", ttl=0, own_apply_async=options.apply_async)
    with closing(publisher):
        try:
            stacks.reach(address, choice)
        except StackError as error:
            is_store = isinstance(error, ResultStoreError)
            check.add("error", "store" if is_store else "broker", str(error))
            if not is_store:
                check.findings += rules.eager(publisher)
                return
        else:
            check.add("ok", "broker", f"{check.broker} answers")
            if address.backend_url != address.broker_url:
                check.add("ok", "store", f"{check.backend} answers")
        try:
            _ask(check, publisher)
            check.findings += rules.check(
                publisher, check.workers, entries, options.allow, options.accept
            )
        except ManifestToolError:
            raise
        except Exception as error:  # a transport may raise anything
            reason = redact(f"{type(error).__name__}: {error}")
            raise StackError(
                f"the broker answers no longer ({reason}); see its log, then check again"
            ) from error


def _ask(check: checks.StackCheck, publisher: Publisher) -> None:
    """Ask the workers, and add who answered."""
    if not publisher.call(publisher.control.is_supported):
        scheme = scheme_of(publisher.address.broker_url)
        check.add("unchecked", "workers", NO_CONTROL.format(scheme=scheme))
        return
    check.workers = rules.ask_for_check(publisher)
    busy = 0 if check.workers else publisher.call(publisher.control.count_connected)
    if busy:
        check.workers = rules.ask_for_check(publisher, rules.ASKING_LISTENERS)
    if check.workers:
        named = (f"{w.name} ({w.pool}, {plural(w.slots, 'slot')})" for w in check.workers)
        check.add("ok", "workers", ", ".join(named))
    elif busy:
        check.add(
            "unchecked",
            "workers",
            f"{busy} workers listen and none answered within "
            f"{rules.ASKING + rules.ASKING_LISTENERS:g} s, as all are busy; check again later",
        )
    else:
        check.add(
            "error",
            "workers",
            f"no worker answered within {rules.ASKING:g} s; start one with celery -A APP worker, "
            "or see that it uses this broker",
        )
