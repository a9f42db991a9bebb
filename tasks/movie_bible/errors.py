"""Define the errors of the movie bible's database, each worded for users."""

from __future__ import annotations

from pytest_manifest.errors import ManifestToolError


class BibleError(ManifestToolError):
    """The movie bible cannot be used; the message says what to do. Never holds a password."""


class BibleUrlError(BibleError):
    """The database's URL cannot be understood, or names a database that cannot serve."""


class BibleUnavailableError(BibleError):
    """The database cannot be reached, stays locked, or refuses what is asked of it."""


class BibleTooOldError(BibleError):
    """The database's tables are of an earlier version, and must be migrated first."""


class BibleTooNewError(BibleError):
    """The database's tables are of a version that this program does not know."""
