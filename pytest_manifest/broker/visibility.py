"""Read the visibility timeout: the seconds after which a broker hands a held message out again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from loguru import logger

from pytest_manifest.broker import checks
from pytest_manifest.broker.publisher import Publisher
from pytest_manifest.broker.workers import Worker
from pytest_manifest.urls import is_redis, scheme_of

SQS: Final = "sqs"
BY_APP: Final = "visibility_timeout in the app's broker_transport_options"
BY_QUEUE: Final = "the VisibilityTimeout of the queue, which is what holds once it is made,"


def hands_out_again(broker_url: str) -> bool:
    """Tell whether this broker takes a message back from a worker that only holds it too long."""
    return is_redis(broker_url) or scheme_of(broker_url) == SQS


def visibility_of(
    publisher: Publisher, workers: Sequence[Worker], queues: Iterable[str]
) -> tuple[float, str]:
    """Give the shortest timeout (s) that holds for these queues, and the words for its place.

    That is what Redis's workers are configured with, and what each queue of SQS has itself.

    Raises:
        PeerTimeoutError: the broker does not answer.
    """
    if scheme_of(publisher.address.broker_url) == SQS:
        return publisher.call(lambda: _of_queues(publisher, queues)), BY_QUEUE
    options = publisher.app.conf.broker_transport_options or {}
    configured = float(options.get("visibility_timeout") or checks.VISIBILITY_TIMEOUT)
    told = (worker.visibility or checks.VISIBILITY_TIMEOUT for worker in workers)
    return min(told, default=configured), BY_APP


def _of_queues(publisher: Publisher, queues: Iterable[str]) -> float:
    with publisher.control.channel() as channel:
        return min(
            (_of_queue(channel, name) for name in queues),
            default=float(channel.visibility_timeout),
        )


def _of_queue(channel: Any, name: str) -> float:  # kombu ships no types
    """Ask SQS for one queue's timeout (s); one that is not there yet is made with the app's."""
    try:
        client = channel.sqs(queue=name)
        given = channel.predefined_queues.get(name)
        url = given["url"] if given else _url(client, channel.canonical_queue_name(name))
        said = client.get_queue_attributes(QueueUrl=url, AttributeNames=["VisibilityTimeout"])
        return float(said["Attributes"]["VisibilityTimeout"])
    except Exception as error:  # of the client, which is not there without SQS
        logger.debug("the visibility timeout of queue {} is not told: {}", name, error)
        return float(channel.visibility_timeout)


def _url(client: Any, name: str) -> str:  # boto3 makes its clients at run time
    url: str = client.get_queue_url(QueueName=name)["QueueUrl"]
    return url
