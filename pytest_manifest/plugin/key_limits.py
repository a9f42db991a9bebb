"""Hold the limits of keys (``--manifest-limit``) against what is to be sent, and share them."""

from __future__ import annotations

from collections.abc import Mapping, MutableSequence, Sequence
from typing import TYPE_CHECKING, Final

from pytest_manifest.errors import DispatchError
from pytest_manifest.text import listed, short_path

if TYPE_CHECKING:
    from pytest_manifest.manifest import Manifest
    from pytest_manifest.plugin.options import Options

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
    return f"{'--manifest-limit' if options.key_limits_given else 'manifest_limit ='} {words}"
