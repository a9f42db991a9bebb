"""Define the formats as pydantic models; their JSON Schemas stand beside them."""

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
