"""A run's ledger as the rest of the program sees it."""

from __future__ import annotations

from pytest_manifest.ledger.accounts import AttemptCosts
from pytest_manifest.ledger.arrivals import WorkerEvents
from pytest_manifest.ledger.bulk import BulkQueries
from pytest_manifest.ledger.consistency import Consistency
from pytest_manifest.ledger.facts import RunMetadata
from pytest_manifest.ledger.histories import Histories
from pytest_manifest.ledger.sendings import Attempts
from pytest_manifest.ledger.verdicts import Verdicts


class Ledger(
    RunMetadata, Attempts, WorkerEvents, AttemptCosts, Verdicts, Histories, BulkQueries, Consistency
):
    """A run's ledger. Use one instance per thread; see :meth:`create` and :meth:`open`.

    Each method that writes does so in whole: in the caller's :meth:`transaction`, or in one of its
    own. All raise LedgerError where the file cannot be read or written.
    """
