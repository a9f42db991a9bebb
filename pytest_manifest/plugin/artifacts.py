"""Check before anything is sent that reports can be written where the user wants them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_manifest.plugin.options import Options


def refuse_unwritable(config: pytest.Config, options: Options) -> None:
    """Raise pytest.UsageError for the first report that cannot be written where it is wanted.

    Makes folders that are missing.
    """
    for option, path in _artifacts(config, options):
        try:
            _try(path)
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise pytest.UsageError(
                f"{option}={path}: cannot be written ({why}), so nothing was sent; name a file in "
                "a folder that you can write to"
            ) from error


def _artifacts(config: pytest.Config, options: Options) -> Iterator[tuple[str, Path]]:
    named = {
        "--manifest-report" if config.option.manifest_report else "manifest_report": options.report,
        "--manifest-summary": options.summary,
        "--manifest-markdown": options.markdown,
    }
    yield from ((option, path) for option, path in named.items() if path is not None)
    if xml := getattr(config.option, "xmlpath", None):
        yield "--junitxml", Path(os.path.expandvars(xml)).expanduser().absolute()


def _try(path: Path) -> None:
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=target.parent):
        pass
    if target.exists():  # refuses a read-only file too, though its folder would let us replace it
        with target.open("ab"):
            pass
