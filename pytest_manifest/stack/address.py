"""Where a stack is."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_manifest.log import redact_url


@dataclass(frozen=True, slots=True, repr=False)
class StackAddress:
    """Broker and result store by URL; ``owned`` ones were started by us and die with pytest.

    ``app`` is the Celery app as ``module:attribute``, None where only URLs are known;
    ``flower_url`` is empty where no Flower is known to watch it. ``ours``: broker and workers were
    started by us, so what the app says of its own broker (a user, TLS) is not meant for this one.
    """

    broker_url: str
    backend_url: str
    app: str | None
    owned: bool
    flower_url: str = ""
    ours: bool = False

    def __repr__(self) -> str:
        return (
            f"StackAddress(broker_url={redact_url(self.broker_url)!r}, "
            f"backend_url={redact_url(self.backend_url)!r}, app={self.app!r}, owned={self.owned})"
        )
