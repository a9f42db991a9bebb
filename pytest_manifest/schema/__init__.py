"""Define the formats as pydantic models; their JSON Schemas stand beside them.

The models are made when one is asked for: a worker writes records and needs none, nor pydantic,
which would take a third of the time in which it starts.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_manifest.schema.models import Entry, Expectations, Header
    from pytest_manifest.schema.receipts import (
        ErrorInfo,
        Mismatch,
        Receipt,
        Verdict,
        cost_text,
        exact,
    )
    from pytest_manifest.schema.statuses import State, VerdictStatus

__all__ = [
    "Entry",
    "ErrorInfo",
    "Expectations",
    "Header",
    "Mismatch",
    "Receipt",
    "State",
    "Verdict",
    "VerdictStatus",
    "cost_text",
    "exact",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pytest_manifest.schema import models, receipts, statuses

    found = {
        key: one for module in (models, receipts, statuses) for key, one in vars(module).items()
    }
    globals().update({key: found[key] for key in __all__})
    return found[name]
