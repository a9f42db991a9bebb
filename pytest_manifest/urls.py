"""URLs of brokers and result stores: a stack's address, schemes, and which mean a Redis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pytest_manifest.redaction.texts import redact_url

REDIS_SCHEMES: Final[Mapping[str, str]] = {
    "redis": "redis",
    "rediss": "rediss",
    "valkey": "redis",
    "valkeys": "rediss",
    "redis+socket": "unix",
    "unix": "unix",
    "sentinel": "",
}
"""The schemes that mean a Redis, or a server that speaks its protocol, by redis-py's names.

redis-py has no URL for Sentinel, which knows where the master is: Celery's own client asks it.
"""
SENTINEL: Final = "sentinel"
AMQP_SCHEMES: Final = ("amqp", "amqps", "pyamqp", "librabbitmq")
IN_PROCESS: Final = "memory"
SOCKETS: Final = frozenset(scheme for scheme, name in REDIS_SCHEMES.items() if name == "unix")


def scheme_of(url: str) -> str:
    """Give the scheme of a URL in lower case, ``""`` where there is none."""
    scheme, separator, _ = url.partition("://")
    return scheme.lower() if separator else ""


def kind_of(store: str) -> str:
    """Give the scheme of a result store's URL, or its name where Celery has one: ``django-db``."""
    return store.partition("://")[0].lower()


def is_redis(url: str) -> bool:
    """Tell whether a broker or backend URL means Redis, or a server that speaks its protocol."""
    return scheme_of(url) in REDIS_SCHEMES


def is_in_process(url: str) -> bool:
    """Tell whether a broker or result store is in the memory of one process."""
    return url.startswith(f"{IN_PROCESS}:")


def is_rpc(url: str) -> bool:
    """Tell whether results come back, by the broker, to the process alone that sent the job."""
    return scheme_of(url) == "rpc"


def is_redis_server(url: str) -> bool:
    """Tell whether a URL names the host of a Redis, and neither a socket nor who knows the host."""
    return is_redis(url) and scheme_of(url) not in (SENTINEL, *SOCKETS)


def is_tls(url: str) -> bool:
    """Tell whether the scheme of a URL asks for TLS."""
    scheme = scheme_of(url)
    return scheme == "amqps" or REDIS_SCHEMES.get(scheme) == "rediss"


def with_redis_scheme(url: str) -> str:
    """Give the URL of a Redis with the scheme that redis-py has for it, else unchanged."""
    known = REDIS_SCHEMES.get(scheme_of(url))
    return f"{known}{url[url.index('://') :]}" if known else url


@dataclass(frozen=True, slots=True, repr=False)
class StackAddress:
    """Broker and result store by URL; ``is_private`` ones were started by us and die with pytest.

    ``app`` is the Celery app as ``module:attribute``, None where only URLs are known;
    ``flower_url`` is empty where no Flower is known to watch it. ``is_managed``: broker and workers
    were started by us, so what the app says of its own broker (a user, TLS) is not meant for it.
    ``loaded``: the app itself, where it is not to be imported by its name.
    """

    broker_url: str
    backend_url: str
    app: str | None
    is_private: bool
    flower_url: str = ""
    is_managed: bool = False
    loaded: object = field(default=None, compare=False)

    def __repr__(self) -> str:
        return (
            f"StackAddress(broker_url={redact_url(self.broker_url)!r}, "
            f"backend_url={redact_url(self.backend_url)!r}, app={self.app!r}, "
            f"is_private={self.is_private})"
        )
