"""The errors a user can cause, each with a sentence that says what, where, and what to do next."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple


class ManifestToolError(Exception):
    """Base of every error this package raises on purpose.

    The message is a whole sentence for the user: what is wrong, where, and what to do next.
    """

    def __init__(self, message: str) -> None:
        if not message:
            raise TypeError(f"{type(self).__name__} needs a sentence for the user")
        super().__init__(message)


def no_access(folder: Path, error: OSError, what: str = "written") -> str:
    """Say that the folder cannot be ``what``, whose it is and who asks.

    ``folder`` may be one that does not exist yet: then the nearest one that is seen is told.
    """
    for place in (folder, *folder.parents):
        with suppress(OSError):
            return (
                f"{place}: cannot be {what} ({error.strerror}); it belongs to the user with the "
                f"id {place.stat().st_uid}, and this is the one with the id {os.geteuid()}"
            )
    return f"{folder}: cannot be {what} ({error.strerror})"


class Fault(NamedTuple):
    """One thing that is wrong in a file; ``line`` counts from 1, 0 means the file as a whole."""

    path: Path
    line: int
    message: str

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" if self.line else str(self.path)
        return f"{place}: {self.message}"


class ManifestError(ManifestToolError):
    """A manifest or receipts file that does not hold what its format promises."""

    def __init__(
        self, faults: Sequence[Fault], *, more: int = 0, read_to: int | None = None
    ) -> None:
        """Take the faults; ``read_to``: the line at which reading stopped before the file's end."""
        self.faults = tuple(faults)
        self.more = more
        self.read_to = read_to
        lines = [str(fault) for fault in self.faults]
        if more:
            stopped = "" if read_to is None else f" up to line {read_to}, where the reading stopped"
            lines.append(f"... and {more} more{stopped}")
        super().__init__("\n".join(lines))


class PlanError(ManifestToolError):
    """A plan that cannot be made: an unknown name or option, a bad entry, a file in the way."""


class StackError(ManifestToolError):
    """A broker, result store or worker that does not start, cannot be reached, or died."""


class ResultStoreError(StackError):
    """A result store that cannot be reached."""


class DispatchError(ManifestToolError):
    """A run that must not, or could not, be sent."""


class DispositionError(ManifestToolError):
    """A file of accepted failures, or a baseline, that does not hold what its format promises."""


class LedgerError(ManifestToolError):
    """A ledger that cannot be opened, read or written."""


class SigningError(ManifestToolError):
    """A key that cannot be used, or a signature that is missing or does not hold."""
