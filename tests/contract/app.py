"""An app whose tasks end in every way that does not end their process."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar, cast

from celery import Celery, Task, chain, chord, group
from celery.exceptions import Ignore, Reject
from loguru import logger

ROUTED = "contract-routed"
app = Celery("contract")
app.conf.update(
    broker_connection_retry_on_startup=True,
    imports=["tests.contract.app"],
    task_routes={"contract.routed": {"queue": ROUTED}},
)


F = TypeVar("F", bound=Callable[..., object])


def job(name: str, **options: Any) -> Callable[[F], F]:
    """Register a task with this app alone; Celery's own decorator has no types."""
    return cast("Callable[[F], F]", app.task(name=f"contract.{name}", shared=False, **options))


class OwnCall(Task):  # type: ignore[misc]  # Celery has no types
    """A task class with a ``__call__`` of its own, as web frameworks' recipes have it."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **kwargs)


@job("add")
def add(first: int, second: int) -> int:
    return first + second


@job("fail")
def fail(message: str) -> None:
    raise ValueError(message)


@job(
    "flaky",
    bind=True,
    autoretry_for=(OSError,),
    max_retries=2,
    default_retry_delay=0,
)
def flaky(self: Any, failures: int) -> str:
    if self.request.retries < failures:
        raise OSError("not yet")
    return f"after {self.request.retries} retries"


@job("later", bind=True)
def later(self: Any, delay: float, retries: int) -> str:
    """Ask to be tried again after a while, so often."""
    if self.request.retries < retries:
        raise self.retry(countdown=delay, max_retries=retries)
    return f"after {self.request.retries} retries"


@job("backs_off", bind=True, autoretry_for=(OSError,), retry_backoff=2, retry_jitter=False)
def backs_off(self: Any) -> str:
    if not self.request.retries:
        raise OSError("not yet")
    return "there"


@job("double")
def double(value: int) -> int:
    return 2 * value


@job("total")
def total(values: list[int]) -> int:
    return sum(values)


@job("replace", bind=True)
def replace(self: Any, how: str) -> None:
    """Have others do the work: 5 comes to 20."""
    ways: dict[str, Callable[[], object]] = {
        "task": lambda: double.s(10),  # type: ignore[attr-defined]  # Celery has no types
        "chain": lambda: chain(add.si(1, 4), double.s(), double.s()),  # type: ignore[attr-defined]  # celery's tasks get their methods as they are registered
        "group": lambda: group(add.si(1, 4), double.si(5)),  # type: ignore[attr-defined]  # celery's tasks get their methods as they are registered
        "chord": lambda: chord([add.si(5, 5), double.si(5)], total.s()),  # type: ignore[attr-defined]  # celery's tasks get their methods as they are registered
        "twice": lambda: replace.si("chain"),  # type: ignore[attr-defined]  # celery's tasks get their methods as they are registered
        "nested": lambda: chain(add.si(1, 4), replace.si("chord")),  # type: ignore[attr-defined]  # celery's tasks get their methods as they are registered
        "in vain": lambda: chain(add.si(1, 4), fail.si("on the way"), double.si(1)),  # type: ignore[attr-defined]  # celery's tasks get their methods as they are registered
        "late": lambda: later.si(0.1, 1),  # type: ignore[attr-defined]  # celery's tasks get their methods as they are registered
    }
    raise self.replace(ways[how]())


@job("ignore")
def ignore() -> None:
    raise Ignore("nothing to do")


@job("reject")
def reject() -> None:
    raise Reject("not for me", requeue=False)


@job("lock")
def lock() -> object:
    return threading.Lock()


@job("dated")
def dated() -> dict[str, object]:
    return {"at": datetime(2026, 11, 24, 15, 0, tzinfo=timezone.utc)}


@job("talk")
def talk(text: str) -> str:
    logger.info("loguru says {}", text)
    logging.getLogger("some.library").warning("logging says %s", text)
    # Not imported: a worker that is not instrumented would be so by that.
    instrumentation = sys.modules.get("pytest_manifest.worker")
    if instrumentation is not None:
        instrumentation.evidence(rows=3, text=text)
    return text


@job("routed")
def routed() -> str:
    return "routed"


@job("sleep")
def sleep(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


@job("limited", time_limit=0.5)
def limited(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


@job("own_call", bind=True, base=OwnCall)
def own_call(self: Any) -> str:
    return str(self.request.id)


@job("leave")
def leave() -> None:
    sys.exit(3)


@job("sends", bind=True)
def sends(self: Any) -> str:
    """Send another job, as tasks do."""
    self.app.send_task("contract.add", (1, 1), queue=self.request.delivery_info["routing_key"])
    return "sent"


def count(file: str) -> int:
    """Write down one more execution; return how many there are."""
    with Path(file).open("a", encoding="utf-8") as out:
        out.write("x")
    return Path(file).stat().st_size


@job("dies", retry_on_worker_lost=True, max_retries=5, default_retry_delay=0)
def dies(file: str, times: int) -> str:
    """Kill the process that runs it, so often."""
    if count(file) <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return "lives"


@job("held_up", acks_late=True, acks_on_timeout=False, time_limit=0.5)
def held_up(file: str) -> None:
    count(file)
    time.sleep(60)


@job("refused", acks_late=True, acks_on_failure=False)
def refused(file: str) -> None:
    count(file)
    raise ValueError("no")


@job("watch")
def watch(file: str, times: int, quiet: float) -> int:
    """Return how often another job has run, once it was that often and no more for a while."""
    path, number, since = Path(file), 0, time.monotonic()
    while number < times or time.monotonic() - since < quiet:
        now = path.stat().st_size if path.exists() else 0
        number, since = now, since if now == number else time.monotonic()
        time.sleep(0.05)
    return number
