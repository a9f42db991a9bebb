"""Define the formats as pydantic models; their JSON Schemas stand beside them."""

from pytest_manifest.schema.fields import (
    ID_MAX_LENGTH,
    PARSED,
    RULE,
    SCHEMA_VERSION,
    Document,
    Identifier,
    Source,
    is_identifier,
)
from pytest_manifest.schema.json_values import MAX_DEPTH
from pytest_manifest.schema.models import Entry, Expectations, ExpectedError, Header
from pytest_manifest.schema.problems import problems
from pytest_manifest.schema.receipts import (
    ErrorInfo,
    Mismatch,
    Receipt,
    Retried,
    Verdict,
    actual_cost,
    cost_text,
    exact,
)
from pytest_manifest.schema.statuses import State, VerdictStatus

__all__ = [
    "ID_MAX_LENGTH",
    "MAX_DEPTH",
    "PARSED",
    "RULE",
    "SCHEMA_VERSION",
    "Document",
    "Entry",
    "ErrorInfo",
    "Expectations",
    "ExpectedError",
    "Header",
    "Identifier",
    "Mismatch",
    "Receipt",
    "Retried",
    "Source",
    "State",
    "Verdict",
    "VerdictStatus",
    "actual_cost",
    "cost_text",
    "exact",
    "is_identifier",
    "problems",
]
