"""Read the options, refuse what contradicts itself or is of no use, and make a run's settings.

Hold the limits and rates of keys against what is to be sent, and share them.

Hold work orders against their signatures, where the user asks for that, before all else.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Iterator, Mapping, MutableSequence, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from pytest_manifest.errors import DispatchError, SigningError
from pytest_manifest.files import folder_of
from pytest_manifest.plugin.option_kinds import naming_sources, with_place
from pytest_manifest.plugin.options import ROWS, Options
from pytest_manifest.text import listed, plural, short, short_path
from pytest_manifest.urls import is_in_process

if TYPE_CHECKING:
    from pytest_manifest.manifest import Manifest
    from pytest_manifest.run.settings import EarlierRuns, RunSettings
    from pytest_manifest.signing import Signer, Verifier


_SHOWN: Final = 5
"""Names of keys that a message lists."""
_EXCLUDING: Final = (
    ("check", "sends and judges nothing", "plan audit resume dispatch_only live"),
    (
        "only_plan",
        "only plans; give the other option when the manifest is run",
        "audit dispatch_only compare reuse aggregate shard live",
    ),
    ("plan", "makes a new plan", "resume"),
    ("audit", "sends nothing", "rerun dispatch_only resume reuse"),
    ("resume", "goes on with a run and keeps what has passed", "rerun reuse"),
    (
        "dispatch_only",
        "has pytest end before the jobs do",
        "canary max_failed budget key_limits compare report live history",
    ),
    (
        "detach",
        "leaves the run to a process of its own",
        "check dispatch_only only_plan",
    ),
    ("receipts", "is all there is to judge", "wait run shard"),
    ("use_running_stack", "names the stack", "broker_given"),
)
"""An option, what it does, and those that do not go with it."""
_NEEDING: Final = (
    ("plan_run", "plan"),
    ("plan_options", "plan"),
    ("receipts", "audit"),
    ("run", "audit resume"),
    ("audit", "active"),
    ("resume", "active"),
    ("dispatch_only", "active"),
    ("live", "active"),
    ("detach", "active"),
    ("history", "active"),
)
"""An option, and those of which it needs one."""
_FLAGS: Final = {name: row.flag for name, row in ROWS.items()} | {
    "only_plan": "--manifest-plan",
    "report": "--manifest-report=FILE.html",
    "wait": "--manifest-audit=wait",
    "broker_given": "--manifest-broker",
    "active": "--manifest=FILE",
    "plan": "--manifest-plan=WORKFLOW:MODE",
}


def read_options(config: pytest.Config) -> Options:
    """Read what the user asked for.

    Raises pytest.UsageError where an option is not valid, or not beside another.
    """
    with naming_sources(config):
        return _read_options(config)


def _read_options(config: pytest.Config) -> Options:
    options = Options(config)
    for path in options.files:
        refuse_name(path)
    for message in _conflicts(options):
        raise pytest.UsageError(with_place(message))
    # pytest-socket closes all sockets of the process while a test runs, and a batch is sent and
    # collected meanwhile; ``--allow-hosts`` leaves them open for some.
    closed = config.getoption("disable_socket", False) and not (
        config.getoption("force_enable_socket", False) or config.getoption("allow_hosts", None)
    )
    needs_none = options.audit or config.option.collectonly or options.only_plans
    in_memory = is_in_process(options.broker or "")
    if closed and options.active and not (needs_none or in_memory):
        raise pytest.UsageError(
            "pytest-socket closes all sockets while tests run (--disable-socket); add "
            "--force-enable-socket, or --allow-hosts with the hosts of broker and result store (of "
            "a private stack: 127.0.0.1)"
        )
    return options


def _conflicts(o: Options) -> Iterator[str]:
    """Yield what contradicts itself in the options."""
    given = {name for name, row in ROWS.items() if getattr(o, name) != row.default}
    given |= {name for name in ("report", "broker_given", "active") if getattr(o, name)}
    given |= {"wait"} if o.audit == "wait" else set()
    given |= {"only_plan"} if o.only_plans else set()
    for name, does, others in _EXCLUDING:
        for other in others.split():
            if {name, other} <= given:
                yield f"{_FLAGS[name]} {does}; leave out {_FLAGS[other]}"
    for name, needed in _NEEDING:
        if name in given and given.isdisjoint(needed.split()):
            yield f"{_FLAGS[name]} needs {' or '.join(_FLAGS[one] for one in needed.split())}"
    if o.plan_run and o.require_signature:
        yield (
            "--manifest-plan-run sends an unsigned plan, and signatures are required; plan, then "
            "'manifest sign FILE', then --manifest=FILE"
        )
    if len(o.files) > 1 and (o.plan or o.receipts):
        yield (
            f"{_FLAGS['plan' if o.plan else 'receipts']} is of one manifest; give --manifest=FILE "
            "once"
        )
    if o.backend and o.stack_word == "private" and not o.use_running_stack:
        yield (
            "a private stack keeps its results itself; leave out --manifest-backend "
            "(manifest_backend), or --manifest-broker=private"
        )
    if o.backend and o.broker_named and is_in_process(o.broker or ""):
        yield (
            "a stack in memory keeps its results itself; leave out --manifest-backend "
            "(manifest_backend), or name a broker that other processes reach"
        )
    if o.receipts is not None and not o.receipts.is_file():
        missing = "there is no such file"
        yield f"--manifest-receipts={o.receipts}: {_no_file(o.receipts, 'file') or missing}"
    for path in () if o.plan else o.files:
        if not path.is_file():
            missing = (
                "there is no such manifest; correct its name, or plan one with "
                "--manifest-plan=WORKFLOW:MODE"
            )
            yield f"--manifest={path}: {_no_file(path, 'manifest') or missing}"


def _no_file(path: Path, what: str) -> str:
    """Say what is there in place of a file; "" where nothing is."""
    if path.is_dir():
        return f"it is a folder; name a {what} in it"
    return f"it is no regular file; name a {what}" if path.exists() else ""


def refuse_name(path: Path) -> None:
    """Raise pytest.UsageError for a file name that is not UTF-8: pytest could not write it down."""
    name = str(path)
    try:
        name.encode()
    except UnicodeEncodeError as error:
        shown = name.encode("utf-8", "backslashreplace").decode()
        raise pytest.UsageError(
            f"{shown}: the file's name is not UTF-8, which pytest cannot write down; rename it"
        ) from error


def refuse_unwritable(config: pytest.Config, options: Options) -> None:
    """Raise pytest.UsageError for the first report that cannot be written where it is wanted.

    Makes folders that are missing.
    """
    with naming_sources(config):
        for option, path, mode in _reports(config, options):
            try:
                _try_to_write(Path(os.path.realpath(path)), mode)
            except OSError as error:
                why = error.strerror or type(error).__name__
                raise pytest.UsageError(
                    f"{option}={path}: cannot be written ({why}), so nothing was sent; name another"
                ) from error


def _try_to_write(target: Path, mode: int | None) -> None:
    if mode is None:
        target.parent.mkdir(parents=True, exist_ok=True)
    else:
        folder_of(target, mode)
    with tempfile.TemporaryFile(dir=target.parent):
        pass
    if target.exists():  # refuses a read-only file too, though its folder would let us
        target.open("ab").close()


def _reports(config: pytest.Config, options: Options) -> Iterator[tuple[str, Path, int | None]]:
    """Yield each report's option, file and mode; None: its folder is made as pytest makes it."""
    option = "--manifest-report" if config.option.manifest_report else "manifest_report"
    yield from ((option, path, options.report_mode) for path in options.reports.values())
    if options.history is not None:
        yield "--manifest-history", options.history, options.report_mode
    if xml := getattr(config.option, "xmlpath", None):
        yield "--junitxml", Path(os.path.expandvars(xml)).expanduser().absolute(), None


# Settings of a run


def limits_of_session(options: Options) -> Mapping[str, int]:
    """Return the limits that hold for this session, which may be one of several shards.

    All shards together keep to the limit: each gets its part of it, the first ones one more where
    it cannot be divided. Raises DispatchError where a shard would get none.
    """
    if options.shard is None:
        return options.key_limits
    number, total = options.shard.number, options.shard.total
    found: dict[str, int] = {}
    for name, most in options.key_limits.items():
        found[name] = most // total + (number <= most % total)
        if most < total:
            raise DispatchError(
                f"nothing was sent: {_written(options, name)} is for all {total} shards together; "
                f"make {most} shards or fewer, or allow more"
            )
    return found


def refuse_unknown_keys(
    options: Options, manifests: Sequence[Manifest], notices: MutableSequence[str]
) -> None:
    """Raise DispatchError where the command line limits a key, or a value, that no entry has.

    The configuration file may limit keys that only other manifests have: that is noticed.
    """
    if not (options.key_limits or options.rates):
        return
    known = {manifest.path: manifest.key_counts() for manifest in manifests}
    everywhere: dict[str, set[str]] = {}
    for counts in known.values():
        for name, values in counts.items():
            everywhere.setdefault(name, set()).update(values)
    for name, value, written, is_given in _written_keys(options):
        if name in everywhere and value in (None, *everywhere[name]):
            continue
        files = listed([short_path(path, options.root) for path in known], _SHOWN)
        keys = listed([repr(one) for one in sorted(everywhere)], _SHOWN)
        there = f"their keys are {keys}" if keys else f'they have none, like "key": {{"{name}": …}}'
        lacking = f"no entry of {files} has a key {name!r}"
        if name in everywhere:
            lacking = f"of no entry of {files} the key {name!r} is {short(_hidden(value or ''))}"
            there = f"they have {plural(len(everywhere[name]), 'other value')}"
        if is_given:
            raise DispatchError(f"nothing was sent: {written}: {lacking}; {there}")
        notices.append(f"{written} limits nothing: {lacking}")


def _written_keys(options: Options) -> Iterator[tuple[str, str | None, str, bool]]:
    """Yield each key that is named, with its value: as written, and whether on the command line."""
    for name in options.key_limits:
        yield name, None, _written(options, name), options.key_limits_given
    start = "--manifest-rate" if options.rates_given else "manifest_rate ="
    for key, rate in options.rates.items():
        if key:
            name, _, value = key.partition("=")
            yield name, value or None, f"{start} {_hidden(key)}:{rate}", options.rates_given


def _hidden(text: str) -> str:
    from pytest_manifest.redaction.texts import redact

    return redact(text)


def _written(options: Options, name: str) -> str:
    flag = "--manifest-key-limit" if options.key_limits_given else "manifest_key_limit ="
    return f"{flag} {name}={options.key_limits[name]}"


def run_settings(options: Options, own_key: Signer | None, files: Collection[Path]) -> RunSettings:
    """Return what is decided before a run starts; ``own_key``: that of this session's stack.

    ``files``: the manifests that have one. Raises DispatchError where the limits of keys cannot be
    shared among the shards.
    """
    from pytest_manifest.run.settings import FailureLimit, RunSettings
    from pytest_manifest.schema.tracing import trace_note

    most, revokes = options.max_failed or (None, False)
    return RunSettings(
        **{name: getattr(options, name) for name in _SAME.split()},
        folder=options.ledgers,
        unsafe=options.resume == "unsafe",
        own_apply_async=options.apply_async,
        send_only=options.dispatch_only,
        max_failed=None if most is None else FailureLimit(most),
        key_limits=limits_of_session(options),
        rates={
            key: rate if options.shard is None else rate.shared(options.shard.total)
            for key, rate in options.rates.items()
        },
        revoke_on_max_failed=revokes,
        on_stop=options.on_interrupt,
        low_memory=options.aggregate is not None,
        receipt_keys=receipt_keys(options, own_key),
        reuse=_earlier_runs(options, files),
        traces=options.otlp is not None,
        trace_note=trace_note(os.environ),
    )


_SAME: Final = (
    "window queue_depth deadline strict allow accept no_worker canary budget kills grace repair "
    "arguments"
)
"""What a run's settings have as the options have it."""


def _earlier_runs(options: Options, files: Collection[Path]) -> EarlierRuns | None:
    """Return the runs whose passes count, the newest first."""
    if options.reuse is None:
        return None
    from pytest_manifest.ledger import find_runs
    from pytest_manifest.run.settings import EarlierRuns

    if options.reuse == "last":
        return EarlierRuns([one for file in files for one in find_runs(options.ledgers, file)[-1:]])
    if options.reuse == "all":
        return EarlierRuns(find_runs(options.ledgers)[::-1])
    return EarlierRuns([options.reuse], are_named=True)


def receipt_keys(options: Options, own_key: Signer | None) -> str | None:
    """Return the public keys that receipts must be signed by, as PEM; None: by none.

    ``own_key``: the one of this session's own stack. "": those that an earlier run's ledger has.
    Raises SigningError where keys are missing.
    """
    if not options.require_signed_receipts:
        return None
    from pytest_manifest.signing import RECEIPT_KEY_VARIABLE

    if own_key is not None:
        return own_key.public_pem()
    is_named = options.receipt_key is not None or os.environ.get(RECEIPT_KEY_VARIABLE)
    if not is_named and (options.audit or options.resume):
        return ""
    return _verifier(options.receipt_key, "manifest_receipt_key", RECEIPT_KEY_VARIABLE).pem()


def check_work_order(manifest: Manifest, options: Options) -> None:
    """Check that a trusted key has signed a manifest as it was read, where that is required.

    Raises SigningError with a sentence where it has not.
    """
    if options.require_signature:
        from pytest_manifest.signing import PUBLIC_KEY_VARIABLE, check_order

        keys = _verifier(options.public_key, "manifest_public_key", PUBLIC_KEY_VARIABLE)
        check_order(manifest.path, manifest.sha256, keys)


def _verifier(given: Path | None, setting: str, variable: str) -> Verifier:
    """Read public keys: the file that the configuration names, else what the variable says."""
    from pytest_manifest.signing import read_verifier

    if given is not None:
        return read_verifier(str(given), setting)
    if text := os.environ.get(variable):
        return read_verifier(text, variable)
    raise SigningError(
        f"signatures are required, and no public key is named to check them by; set {setting} or "
        f"{variable} to the .pub file of 'manifest keygen'"
    )


def key_for_own_workers(options: Options) -> tuple[Signer | None, str]:
    """Make a key for the workers of this session's own stack, where receipts must be signed.

    Return it with its PEM text; None and "" where they need not be.
    """
    if not options.require_signed_receipts:
        return None, ""
    from pytest_manifest.signing import generate, read_signer

    pem = generate()[0].decode()
    return read_signer(pem, "the key of this session's workers"), pem
