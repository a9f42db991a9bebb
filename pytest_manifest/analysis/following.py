"""Follow a run by its ledger: one reader, whose figures are everybody's."""

from __future__ import annotations

from pytest_manifest.analysis.live_figures import RunFigures
from pytest_manifest.analysis.notices import things_to_know
from pytest_manifest.analysis.run_picture import document
from pytest_manifest.schema import run_status as status


class RunReader(RunFigures):
    """A reader of a run's ledger; each :meth:`look` takes what is new. See :class:`RunFigures`."""

    def look(self) -> status.RunStatus:
        """Move on, and return the run as it is now, in at most 16 kB of JSON.

        Raises LedgerError where the ledger cannot be read.
        """
        self.read()
        with self.parse_errors():
            found = document(self)
            notices = things_to_know(self, found)
            return fitting(found.model_copy(update={"notices": notices}))


def fitting(found: status.RunStatus) -> status.RunStatus:
    """Return the document in at most 16 kB of JSON: of long lists the ends are left out."""
    while len(found.model_dump_json().encode()) > status.MOST_BYTES:
        changes: dict[str, object] = {}
        for name, more in (
            *(("workers", "more_workers"), ("tasks", "more_tasks"), ("causes", "more_causes")),
            *(("longest", None), ("actions", None), ("throttling", None)),
        ):
            some: list[object] = getattr(found, name)
            changes[name] = some[: len(some) // 2]
            if more is not None:
                changes[more] = getattr(found, more) + len(some) - len(some) // 2
        found = found.model_copy(update=changes)
        if not any(changes.values()):
            break
    return found
