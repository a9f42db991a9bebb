"""Names of environment variables by which a stack's supervisor speaks to its workers."""

from __future__ import annotations

from typing import Final

SUPERVISED: Final = "MANIFEST_SUPERVISED"
"""Set by the supervisor of a private stack for its workers, and by nobody else: what changes how a
worker takes or acknowledges messages hangs on it, and on nothing that a user may set."""

LOG_FORMAT: Final = "MANIFEST_LOG_FORMAT"
LOG_LEVEL: Final = "MANIFEST_LOG_LEVEL"
LOG_JOBS: Final = "MANIFEST_LOG_JOBS"
SPOOL: Final = "MANIFEST_SPOOL"
PATH: Final = "MANIFEST_SYS_PATH"
"""The folders from which modules are imported where the app was found, as a JSON array."""
