"""Test planners and verifiers: plans without a file, receipts made by hand, an in-memory stack.

``MemoryStack`` runs jobs by a real Celery worker, in threads of this process. Nothing here imports
pytest.
"""

from pytest_manifest.stack.in_memory import MemoryStack
from pytest_manifest.testing.plans import plan, plan_notes
from pytest_manifest.testing.receipts import make_receipt
from pytest_manifest.testing.running import run

__all__ = ["MemoryStack", "make_receipt", "plan", "plan_notes", "run"]
