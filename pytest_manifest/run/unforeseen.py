"""Keep a failure of the evaluation itself to the one entry that it concerns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pytest_manifest.errors import ManifestToolError
from pytest_manifest.log import log_failure
from pytest_manifest.redaction import redact
from pytest_manifest.schema import Entry, Receipt, Verdict
from pytest_manifest.verdict import evaluate
from pytest_manifest.verdict.problems import NotJudged


def unforeseen_failure(
    entry: Entry, attempt: int, receipt: Receipt, error: Exception
) -> tuple[Verdict, Receipt]:
    """Return the verdict on an attempt whose receipt could not be judged.

    With the receipt: the job ran, so that it is not sent again for it. Raises ManifestToolError
    again, which concerns the whole run: the ledger, say, cannot be read.
    """
    why = not_judged(entry, error)
    verdict = evaluate(entry, None, attempt=attempt, problem="unknown", why=why)
    return verdict, receipt


def not_judged(entry: Entry, error: Exception) -> NotJudged:
    """Log that a job could not be judged; return why. Raises ManifestToolError again."""
    if isinstance(error, ManifestToolError):
        raise error
    log_failure(f"{entry.id!r} could not be judged", error, entry=entry.id)
    fault = redact(f"{type(error).__name__}: {error}").encode("utf-8", "replace").decode()
    return NotJudged(error=fault)


@contextmanager
def failure_ignored(what: str) -> Iterator[None]:
    """Let a late receipt that cannot be judged change nothing."""
    try:
        yield
    except ManifestToolError:
        raise  # the ledger's, which are everybody's affair
    except Exception as error:  # the verdict that stands is as true as it was
        log_failure(f"{what} could not be judged", error)
