"""Hide secrets: by the name that they stand under, by their form, and by their value.

``redact`` is for text that was written for people: errors, log lines, tracebacks. ``redacted`` is
for JSON values, whose names and structure say more than text does; it leaves a salted digest, so
that two secrets can be told apart. ``manifest_secret`` adds a value that is hidden wherever it is.
"""

from __future__ import annotations

from pytest_manifest.redaction.documents import (
    agree,
    differ,
    is_marked,
    redacted,
    redacted_schema,
    secret_step,
    secrets_in,
)
from pytest_manifest.redaction.names import (
    DEFAULT_NAMES,
    configure,
    current_salt,
    is_on,
    is_secret_name,
    parse_names,
    use_salt,
)
from pytest_manifest.redaction.texts import (
    HIDDEN,
    SHORTEST_SECRET,
    hide,
    hide_environment,
    manifest_secret,
    may_hold_secret,
    passwords_of,
    redact,
    redact_about,
    redact_error,
    redact_url,
    registered_secrets,
    secret_signs,
    spelled,
    without,
    without_cut,
)

__all__ = [
    "DEFAULT_NAMES",
    "HIDDEN",
    "SHORTEST_SECRET",
    "agree",
    "configure",
    "current_salt",
    "differ",
    "hide",
    "hide_environment",
    "is_marked",
    "is_on",
    "is_secret_name",
    "manifest_secret",
    "may_hold_secret",
    "parse_names",
    "passwords_of",
    "redact",
    "redact_about",
    "redact_error",
    "redact_url",
    "redacted",
    "redacted_schema",
    "registered_secrets",
    "secret_signs",
    "secret_step",
    "secrets_in",
    "spelled",
    "use_salt",
    "without",
    "without_cut",
]
