"""Make the settings of runs of the session's options.

Hold the limits of keys (``--manifest-key-limit``) against what is to be sent, and share them.

Hold work orders against their signatures, where the user asks for that, before all else.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, MutableSequence, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pytest_manifest.errors import DispatchError, SigningError
from pytest_manifest.plugin.options import Options
from pytest_manifest.text import listed, short_path

if TYPE_CHECKING:
    from pytest_manifest.manifest import Manifest
    from pytest_manifest.run import EarlierRuns, FailureLimit, RunSettings
    from pytest_manifest.signing import Signer, Verifier


_SHOWN: Final = 5
"""Names of keys that a message lists."""


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
                f"nothing was sent: {_written(options, name)} is for all {total} shards together, "
                f"which is less than one job each; make {most} shards or fewer, or allow more"
            )
    return found


def refuse_unknown_keys(
    options: Options, manifests: Sequence[Manifest], notices: MutableSequence[str]
) -> None:
    """Raise DispatchError where the command line limits a key that no entry has.

    The configuration file may limit keys that only other manifests have: that is noticed.
    """
    if not options.key_limits:
        return
    known = {manifest.path: manifest.key_counts() for manifest in manifests}
    everywhere = {name for counts in known.values() for name in counts}
    for name in options.key_limits:
        if name in everywhere:
            continue
        files = listed([short_path(path, options.root) for path in known], _SHOWN)
        keys = listed([repr(one) for one in sorted(everywhere)], _SHOWN)
        there = f"their keys are {keys}" if keys else f'they have none, like "key": {{"{name}": …}}'
        if options.key_limits_given:
            raise DispatchError(
                f"nothing was sent: {_written(options, name)}: no entry of {files} has a key "
                f"{name!r}; {there}"
            )
        notices.append(
            f"{_written(options, name)} limits nothing: no entry of {files} has a key {name!r}"
        )


def _written(options: Options, name: str) -> str:
    words = f"{name}={options.key_limits[name]}"
    return (
        f"{'--manifest-key-limit' if options.key_limits_given else 'manifest_key_limit ='} {words}"
    )


def run_settings(options: Options, own_key: Signer | None, files: Collection[Path]) -> RunSettings:
    """Return what is decided before a run starts; ``own_key``: that of this session's stack.

    ``files``: the manifests that have one. Raises DispatchError where the limits of keys cannot be
    shared among the shards.
    """
    from pytest_manifest.run import RunSettings

    return RunSettings(
        folder=options.ledgers,
        window=options.window,
        deadline=options.deadline,
        strict=options.strict,
        allow=options.allow,
        accept=options.accept,
        own_apply_async=options.apply_async,
        no_worker=options.no_worker,
        send_only=options.dispatch_only,
        canary=options.canary,
        max_failed=None if options.max_failed is None else _failure_limit(options.max_failed[0]),
        budget=options.budget,
        key_limits=limits_of_session(options),
        revoke_on_max_failed=options.max_failed is not None and options.max_failed[1],
        kills=options.kills,
        grace=options.grace,
        on_stop=options.on_interrupt,
        repair=options.repair,
        low_memory=options.aggregate is not None,
        receipt_keys=receipt_keys(options, own_key),
        reuse=_earlier_runs(options, files),
    )


def _earlier_runs(options: Options, files: Collection[Path]) -> EarlierRuns | None:
    """Return the runs whose passes count, the newest first."""
    if options.reuse is None:
        return None
    from pytest_manifest.ledger import find_runs
    from pytest_manifest.run import EarlierRuns

    if options.reuse == "last":
        return EarlierRuns([one for file in files for one in find_runs(options.ledgers, file)[-1:]])
    if options.reuse == "all":
        return EarlierRuns(find_runs(options.ledgers)[::-1])
    return EarlierRuns([options.reuse], are_named=True)


def _failure_limit(value: int | float) -> FailureLimit:
    from pytest_manifest.run import FailureLimit

    return FailureLimit(number=value) if isinstance(value, int) else FailureLimit(share=value)


def receipt_keys(options: Options, own_key: Signer | None) -> str | None:
    """Return the public keys that receipts must be signed by, as PEM; None: by none.

    ``own_key``: the one of this session's own stack. "": those that an earlier run's ledger has.
    Raises SigningError where keys are missing.
    """
    if not options.require_signed_receipts:
        return None
    if own_key is not None:
        return own_key.public_pem()
    return worker_keys(options, may_lack=bool(options.audit or options.resume))


def check_work_order(manifest: Manifest, options: Options) -> None:
    """Check that a trusted key has signed a manifest as it was read, where that is required.

    Raises SigningError with a sentence where it has not.
    """
    if options.require_signature:
        from pytest_manifest.signing import PUBLIC_KEY_VARIABLE, check_order

        keys = _verifier(options.public_key, "manifest_public_key", PUBLIC_KEY_VARIABLE)
        check_order(manifest.path, manifest.sha256, keys)


def worker_keys(options: Options, *, may_lack: bool) -> str:
    """Return the public keys of the workers, of the option or the environment's variable, as PEM.

    Raises SigningError where nothing names any, or, if they ``may_lack``, returns "".
    """
    from pytest_manifest.signing import RECEIPT_KEY_VARIABLE

    if may_lack and options.receipt_key is None and not os.environ.get(RECEIPT_KEY_VARIABLE):
        return ""
    return _verifier(options.receipt_key, "manifest_receipt_key", RECEIPT_KEY_VARIABLE).pem()


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
