"""Tasks that end in every way that a task can end."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from celery import Celery
from celery.exceptions import Ignore, Reject
from celery.utils.log import get_task_logger
from loguru import logger

from pytest_manifest.worker import evidence

task_log = get_task_logger(__name__)


class UnpicklableError(Exception):
    """Holds a lock, which no serialiser takes."""

    def __init__(self, what: str) -> None:
        super().__init__(what, threading.Lock())
        self.what = what

    def __str__(self) -> str:
        return f"unpicklable: {self.what}"


def add(first: int, second: int) -> int:
    return first + second


def echo(value: Any) -> Any:
    return value


def empty() -> None:
    """Return nothing."""


def dated() -> dict[str, object]:
    return {"at": datetime(2026, 11, 24, 15, 0, tzinfo=timezone.utc)}


def mutate(values: list[int]) -> list[int]:
    values.append(4)
    return values


def fail(message: str) -> None:
    raise ValueError(message)


def unpicklable(what: str) -> None:
    raise UnpicklableError(what)


def unserialisable() -> object:
    return threading.Lock()


def huge(size: int) -> str:
    return "x" * size


def flaky(self: Any, failures: int) -> str:
    logger.info("try {}", self.request.retries)
    evidence(cost=0.25 + self.request.retries)
    if self.request.retries < failures:
        raise self.retry(countdown=0, exc=RuntimeError("not yet"), max_retries=failures)
    return f"after {self.request.retries} retries"


def ignore() -> None:
    raise Ignore("nothing to do")


def retry_too_late(self: Any) -> None:
    raise self.retry(countdown=0, expires=datetime(2026, 1, 1, tzinfo=timezone.utc))


def reject() -> None:
    logger.info("rejecting")
    raise Reject("not for me", requeue=False)


def reject_once(marker: str) -> str:
    if not Path(marker).exists():
        Path(marker).touch()
        raise Reject("come again", requeue=True)
    return "taken"


def replace(self: Any, value: int) -> None:
    queue = self.request.delivery_info["routing_key"]
    raise self.replace(self.app.signature("double", args=[value], queue=queue))


def double(value: int) -> int:
    return 2 * value


def chatter(lines: int = 3) -> str:
    for number in range(lines):
        logger.info("loguru {}", number)
    logging.getLogger("some.library").warning("stdlib says amqp://user:hunter2secret@host/vhost")
    task_log.warning("task logger")
    print("printed")
    thread = threading.Thread(target=lambda: logger.info("from a thread"))
    thread.start()
    thread.join()
    return "said"


def long_story(lines: int, width: int = 20) -> None:
    for number in range(lines):
        logger.info("{:06d} {}", number, "x" * width)


def long_story_and_die(lines: int) -> None:
    evidence(before="the story")
    long_story(lines)
    os.kill(os.getpid(), signal.SIGKILL)


def raise_and_log() -> None:
    try:
        _ = os.environ["AN_INNER_MATTER"]
    except KeyError:
        logger.exception("caught")


def whole_context() -> dict[str, object]:
    """What loguru would add to a line of this task."""
    found: dict[str, object] = {}
    handler = logger.add(lambda message: found.update(message.record["extra"]))
    logger.info("look")
    logger.remove(handler)
    return found


def witness(**facts: Any) -> str:
    evidence(**facts)
    return "seen"


def bad_evidence() -> None:
    evidence(fine=1, lock=threading.Lock())  # type: ignore[arg-type]  # what the test is about


def die(say: str = "") -> None:
    if say:
        logger.warning(say)
        evidence(said=say)
    os.kill(os.getpid(), signal.SIGKILL)


def die_once(marker: str) -> str:
    logger.info("run of {}", os.getpid())
    if not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "survived"


def leave() -> None:
    logger.info("leaving")
    sys.exit(3)


def hang(say: str = "") -> None:
    if say:
        logger.info(say)
    while True:
        time.sleep(0.05)


def hold(marker: str) -> str:
    """Run until the file is there."""
    logger.info("holding")
    while not Path(marker).exists():
        time.sleep(0.01)
    return "released"


def burn(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def burn_here(seconds: float) -> None:
    """As ``burn``, counting this thread's time only."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def register(app: Celery, module: str) -> None:
    """Configure a test app, and register all of the above with it under their own names."""
    app.conf.update(
        broker_connection_retry_on_startup=True,
        imports=[module],  # a process that is spawned, not forked, knows no more than this
        worker_pool_start_method=os.environ.get("MANIFEST_TEST_POOL_START_METHOD", "fork"),
    )
    simple = [add, echo, empty, dated, mutate, fail, unpicklable, unserialisable, huge, ignore]
    simple += [
        reject,
        double,
        chatter,
        witness,
        bad_evidence,
        die,
        leave,
        hang,
        hold,
        burn,
        burn_here,
    ]
    simple += [long_story, long_story_and_die, raise_and_log, whole_context]
    for function in simple:
        app.task(name=function.__name__)(function)
    app.task(name="flaky", bind=True)(flaky)
    app.task(name="replace", bind=True)(replace)
    app.task(name="retry_too_late", bind=True)(retry_too_late)
    app.task(name="quiet", ignore_result=True)(add)
    app.task(name="quiet_fail", ignore_result=True)(fail)
    app.task(name="quiet_die", ignore_result=True)(die)
    app.task(name="die_once", acks_late=True, reject_on_worker_lost=True)(die_once)
    app.task(name="reject_once", acks_late=True)(reject_once)
    app.task(name="tracked", track_started=True)(add)
    app.task(name="impatient", soft_time_limit=0.3)(hang)
