"""Make the settings of runs of the session's options."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_manifest.plugin.key_limits import limits_of_session
from pytest_manifest.plugin.options import Options
from pytest_manifest.plugin.signatures import worker_keys

if TYPE_CHECKING:
    from pytest_manifest.run import EarlierRuns, FailureLimit, ResumeRules, RunSettings
    from pytest_manifest.signing.keys import Signer


def run_settings(options: Options, own_key: Signer | None) -> RunSettings:
    """Return what is decided before a run starts; ``own_key``: that of this session's stack.

    Raises DispatchError where the limits of keys cannot be shared among the shards.
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
        max_failed=_failure_limit(options.max_failed),
        budget=options.budget,
        key_limits=limits_of_session(options),
        revoke_on_max_failed=options.revoke_on_max_failed,
        kills=options.kills,
        grace=options.grace,
        on_stop=options.on_interrupt,
        repair=options.repair,
        low_memory=options.aggregate is not None,
        receipt_keys=receipt_keys(options, own_key),
        reuse=_earlier_runs(options),
    )


def _earlier_runs(options: Options) -> EarlierRuns | None:
    """Return the runs whose passes count, the newest first."""
    if options.reuse is None:
        return None
    from pytest_manifest.ledger import find_runs
    from pytest_manifest.run import EarlierRuns

    if options.reuse != "all":
        return EarlierRuns([options.reuse], are_named=True)
    return EarlierRuns(list(reversed(find_runs(options.ledgers))))


def _failure_limit(value: int | float | None) -> FailureLimit | None:
    from pytest_manifest.run import FailureLimit

    if value is None:
        return None
    return FailureLimit(number=value) if isinstance(value, int) else FailureLimit(share=value)


def resume_rules(options: Options) -> ResumeRules:
    from pytest_manifest.run import ResumeRules

    return ResumeRules(unsafe=options.resume_unsafe)


def receipt_keys(options: Options, own_key: Signer | None) -> str | None:
    """Return the public keys that receipts must be signed by, as PEM; None: by none.

    ``own_key``: the one of this session's own stack. "": those that an earlier run's ledger has.
    Raises SigningError where keys are missing.
    """
    if not options.require_signed_receipts:
        return None
    if own_key is not None:
        return own_key.public_pem()
    return worker_keys(options, may_lack=options.audit or options.resume)
