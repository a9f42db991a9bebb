"""Refuse the names that options had before all of them began with ``--manifest``."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pytest_manifest.plugin.options import ROWS


def refuse_former_names(parser: pytest.Parser, arguments: Sequence[str]) -> None:
    """Raise pytest.UsageError that names the new option for each former name on the command line.

    Names that another plugin has registered are left to it, so call this when all plugins and
    initial conftests are loaded. pytest allows no abbreviations of options, so none are looked for.
    """
    rows = [row for row in ROWS.values() if row.renamed]
    renamed = {row.flag.replace("--manifest-", "--"): row.flag for row in rows}
    if not any(argument.partition("=")[0] in renamed for argument in arguments):
        return  # without parsing once more
    _, unknown = parser.parse_known_and_unknown_args(arguments)
    former = dict.fromkeys(argument.partition("=")[0] for argument in unknown)
    changes = [f"{renamed[name]} for {name}" for name in former if name in renamed]
    if changes:
        raise pytest.UsageError(
            f"write {', '.join(changes)}: all options of pytest-celery-manifest begin with "
            "--manifest"
        )
