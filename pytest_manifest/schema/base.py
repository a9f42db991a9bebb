"""Define what all documents share: strictness, and the names of states and verdicts."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

SCHEMA_VERSION: Literal[1] = 1

State = Literal[
    "succeeded",
    "failed",
    "timed_out",
    "crashed",
    "revoked",
    "expired",
    "rejected",
    "ignored",
    "unknown_task",
]
VerdictStatus = Literal[
    "passed",
    "failed",
    "pending",
    "unknown",
    "crashed",
    "lost",
    "timed_out",
    "unknown_task",
    "rejected",
    "expired",
    "revoked",
    "duplicated",
    "quarantined",
    "skipped",
    "forged",
]
Source = Literal["worker", "backend", "harness"]


class Document(BaseModel):
    """Frozen, strict about types (``true`` is not 1, ``"30"`` is not 30) and unknown fields."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        populate_by_name=True,
        protected_namespaces=(),
        serialize_by_alias=True,
    )
