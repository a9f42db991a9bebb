"""Whether a run that is taken up again is looked at where its jobs were sent.

What is in no queue of another broker may well wait in one of the first, for a worker that comes.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from pytest_manifest.broker.same_server import is_same_server, with_host
from pytest_manifest.ledger import RunInfo
from pytest_manifest.log import redact_url
from pytest_manifest.stack.address import StackAddress


def is_other_broker(info: RunInfo, address: StackAddress) -> bool:
    """Whether the run's jobs were sent to another broker; names of one server lead to the same."""
    if not info.broker or not address.broker_url:
        return False
    if (
        info.is_private or address.is_private
    ):  # whose brokers keep their data, under another port each time
        return info.is_private != address.is_private
    if info.broker == redact_url(address.broker_url):
        return False
    try:
        then, now = urlsplit(info.broker), urlsplit(address.broker_url)
        host, port = then.hostname, then.port
        same = (host, port) == (now.hostname, now.port)
    except ValueError:  # several of them, or a port that is none
        return True
    if host is None or (then.path.strip("/") or "0") != (now.path.strip("/") or "0"):
        return True
    return not same and not is_same_server(
        address.broker_url, with_host(address.broker_url, host, port)
    )
