"""A run's ledger as the rest of the program sees it."""

from __future__ import annotations

from pytest_manifest.ledger.accounts import Accounts
from pytest_manifest.ledger.arrivals import Arrivals
from pytest_manifest.ledger.bulk import Bulk
from pytest_manifest.ledger.consistency import Consistency
from pytest_manifest.ledger.facts import RunFacts
from pytest_manifest.ledger.histories import Histories
from pytest_manifest.ledger.sendings import Sendings
from pytest_manifest.ledger.verdicts import Verdicts


class Ledger(RunFacts, Sendings, Arrivals, Accounts, Verdicts, Histories, Bulk, Consistency):
    """A run's ledger. Use one instance per thread; see :meth:`create` and :meth:`open`.

    Each method that writes does so in whole: in the caller's :meth:`transaction`, or in one of its
    own. All raise LedgerError where the file cannot be read or written.
    """
