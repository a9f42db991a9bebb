"""Hold the address of a stack."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_manifest.log import redact_url


@dataclass(frozen=True, slots=True, repr=False)
class StackAddress:
    """Broker and result store by URL; ``is_private`` ones were started by us and die with pytest.

    ``app`` is the Celery app as ``module:attribute``, None where only URLs are known;
    ``flower_url`` is empty where no Flower is known to watch it. ``is_managed``: broker and workers
    were started by us, so what the app says of its own broker (a user, TLS) is not meant for it.
    """

    broker_url: str
    backend_url: str
    app: str | None
    is_private: bool
    flower_url: str = ""
    is_managed: bool = False

    def __repr__(self) -> str:
        return (
            f"StackAddress(broker_url={redact_url(self.broker_url)!r}, "
            f"backend_url={redact_url(self.backend_url)!r}, app={self.app!r}, "
            f"is_private={self.is_private})"
        )
