"""The server: a thread for each connection, on the loopback address."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar, Final

from pydantic import JsonValue

from tests.workflows.gemini_server.batches import JobDesk
from tests.workflows.gemini_server.desk import Desk
from tests.workflows.gemini_server.handler import LOOK_SECONDS, Handler, Http
from tests.workflows.gemini_server.script import Script

LOOPBACK: Final = "127.0.0.1"
KEY: Final = "test-key-5f1c"


class GeminiServer(Desk):
    """Serves ``url`` until it is closed; what it did is in ``calls``."""

    handler: ClassVar[type[Handler]] = Handler

    def __init__(self, script: Script, *, key: str = KEY, port: int = 0) -> None:
        super().__init__(script, key)
        self.jobs = JobDesk(self)
        self._http = Http((LOOPBACK, port), self, self.jobs, self.handler)
        self.url = self._http.url
        self._thread = threading.Thread(target=self._http.serve_forever, args=(LOOK_SECONDS,))
        self._thread.start()

    def close(self) -> None:
        """Stop, and cut every connection."""
        self.stopping.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@contextmanager
def gemini_server(
    script: Mapping[str, JsonValue] | Script | None = None, *, key: str = KEY, port: int = 0
) -> Iterator[GeminiServer]:
    """Serve as the script says; other processes can reach it too."""
    server = GeminiServer(Script.model_validate(script or {}), key=key, port=port)
    try:
        yield server
    finally:
        server.close()
