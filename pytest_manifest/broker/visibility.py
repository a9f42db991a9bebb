"""Read the visibility timeout: the seconds after which a broker hands a held message out again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pytest_manifest.broker import checks
from pytest_manifest.broker.publisher import Publisher
from pytest_manifest.broker.workers import Worker
from pytest_manifest.redaction import redact
from pytest_manifest.urls import is_redis, scheme_of

SQS: Final = "sqs"
BY_APP: Final = "visibility_timeout in the app's broker_transport_options"
BY_QUEUE: Final = "the VisibilityTimeout of the queue, which is what holds once it is made,"

NOT_THERE: Final = ("AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist")
"""Amazon's words for a queue that is not there yet, and is then made with the app's timeout."""


def hands_out_again(broker_url: str) -> bool:
    """Tell whether this broker takes a message back from a worker that only holds it too long."""
    return is_redis(broker_url) or scheme_of(broker_url) == SQS


@dataclass(frozen=True, slots=True)
class Visibility:
    """The shortest visibility timeout (s) that holds; ``where``: what it is set by, in words.

    ``unread``: queues whose own timeout could not be read -> why, so that the app's counts.
    """

    timeout: float
    where: str
    unread: Mapping[str, str] = field(default_factory=dict)

    def warnings(self) -> list[str]:
        """Warn of the queues whose timeout could not be read, once for each reason."""
        return [
            f"the visibility timeout of {_queues(reason, self.unread)} cannot be read ({reason}), "
            f"so the app's is taken for it ({self.timeout:g} s count here): where the queue's own "
            "is shorter, a job that waits or runs for longer is run twice; allow "
            "sqs:GetQueueAttributes and sqs:GetQueueUrl, or see that it is no shorter"
            for reason in dict.fromkeys(self.unread.values())
        ]


def _queues(reason: str, unread: Mapping[str, str]) -> str:
    names = [repr(name) for name, why in unread.items() if why == reason]
    return f"queue{'s'[: len(names) != 1]} {', '.join(names)}"


def visibility_of(
    publisher: Publisher, workers: Sequence[Worker], queues: Iterable[str]
) -> Visibility:
    """Find the timeout of these queues: that of Redis's workers, or of each queue of SQS itself.

    Raises:
        PeerTimeoutError: the broker does not answer.
    """
    if scheme_of(publisher.address.broker_url) == SQS:
        return publisher.call(lambda: _of_queues(publisher, queues))
    options = publisher.app.conf.broker_transport_options or {}
    configured = float(options.get("visibility_timeout") or checks.VISIBILITY_TIMEOUT)
    told = (
        (worker.visibility or checks.VISIBILITY_TIMEOUT) if worker.has_stats else configured
        for worker in workers
    )
    return Visibility(min(told, default=configured), BY_APP)


def _of_queues(publisher: Publisher, queues: Iterable[str]) -> Visibility:
    unread: dict[str, str] = {}
    with publisher.control.channel() as channel:
        own = float(channel.visibility_timeout)
        timeouts = []
        for name in queues:
            try:
                timeouts.append(_of_queue(channel, name))
            except Exception as error:  # of Amazon's client, which is not there without SQS
                timeouts.append(own)
                if name in channel.predefined_queues or _error_code(error) not in NOT_THERE:
                    unread[name] = redact(f"{type(error).__name__}: {error}")
    return Visibility(min(timeouts, default=own), BY_QUEUE, unread)


def _of_queue(channel: Any, name: str) -> float:  # kombu ships no types
    """Ask SQS for one queue's timeout (s); raise what its client raises."""
    client = channel.sqs(queue=name)
    given = channel.predefined_queues.get(name)
    url = given["url"] if given else _url(client, channel.canonical_queue_name(name))
    said = client.get_queue_attributes(QueueUrl=url, AttributeNames=["VisibilityTimeout"])
    return float(said["Attributes"]["VisibilityTimeout"])


def _error_code(error: Exception) -> str:
    """Give Amazon's own word for an error, "" where it has none."""
    response = getattr(error, "response", None)
    said = response.get("Error") if isinstance(response, dict) else None
    return str(said.get("Code", "")) if isinstance(said, dict) else ""


def _url(client: Any, name: str) -> str:  # boto3 makes its clients at run time
    url: str = client.get_queue_url(QueueName=name)["QueueUrl"]
    return url
