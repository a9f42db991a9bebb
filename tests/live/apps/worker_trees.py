"""Tasks that start others in every way that Celery has, and note each of their executions.

The truth is in the file that ``MANIFEST_TEST_TRUTH`` names: each task appends a line ``ID NAME``
when it is run. Children go to the queue ``MANIFEST_TEST_QUEUE``, or to the app's own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from celery import Celery, Task, chain, chord, group
from celery.result import allow_join_result
from kombu import Connection
from kombu.exceptions import OperationalError

TRUTH = "MANIFEST_TEST_TRUTH"
QUEUE = "MANIFEST_TEST_QUEUE"
NOWHERE = "redis://127.0.0.1:1/0"

app = Celery("trees")
if QUEUE in os.environ:
    app.conf.task_default_queue = os.environ[QUEUE]


def note(task_id: object, name: str) -> None:
    """Append a line; one write, so that those of several processes do not mix."""
    if TRUTH in os.environ:
        with Path(os.environ[TRUTH]).open("ab", buffering=0) as file:
            file.write(f"{task_id} {name}\n".encode())


class Noting(Task):  # type: ignore[misc]  # Celery ships no types
    def before_start(self, task_id: str, args: object, kwargs: object) -> None:
        note(task_id, self.name)


def task(function: Callable[..., Any]) -> Any:
    """Make a task, called as its function is, which is given itself."""
    return app.task(function, name=function.__name__, bind=True, base=Noting)


# Leaves


@task
def leaf(self: Any, *args: object) -> object:
    return args[-1] if args else None


@task
def total(self: Any, values: list[int], *args: object) -> int:
    return sum(values)


@task
def boom(self: Any, *args: object) -> None:
    raise ValueError("boom")


@task
def second_try(self: Any, *args: object) -> int:
    if self.request.retries < 1:
        raise self.retry(countdown=0)
    return int(self.request.retries)


@task
def told_by_id(self: Any, task_id: str) -> str:
    """Be an errback of the old style: Celery sends it as a task."""
    return task_id


@app.task(name="told_in_place")  # type: ignore[untyped-decorator]  # celery has no types
def told_in_place(request: Any, error: object, traceback: object) -> None:
    """Be an errback of the new style: Celery calls it where the task failed."""


# What starts others


@task
def loop(self: Any, count: int) -> None:
    for number in range(count):
        leaf.delay(number)


@task
def grouped(self: Any, count: int) -> None:
    group(leaf.s(number) for number in range(count)).delay()


@task
def chained(self: Any, count: int) -> None:
    chain(leaf.si(number) for number in range(count)).delay()


@task
def chain_of_groups(self: Any, count: int) -> None:
    """A group in the middle of a chain becomes the header of a chord."""
    members = group(leaf.s(number) for number in range(count))
    chain(leaf.si(0), members, total.s(), members, total.s()).delay()


@task
def chorded(self: Any, count: int) -> None:
    chord([leaf.s(number) for number in range(count)], total.s()).delay()


@task
def nested_chords(self: Any, count: int) -> None:
    inner = [chord([leaf.s(number) for number in range(count)], total.s()) for _ in range(2)]
    chord(inner, total.s()).delay()


@task
def chord_then_chain(self: Any, count: int) -> None:
    chord([leaf.s(number) for number in range(count)], chain(total.s(), leaf.s(), leaf.s())).delay()


@task
def chord_then_group(self: Any, count: int) -> None:
    header = [leaf.s(number) for number in range(count)]
    chord(header, group(total.s(1), total.s(2), total.s(3))).delay()


@task
def chord_of_chains(self: Any, count: int) -> None:
    header = [chain(leaf.si(number), leaf.s()) for number in range(count)]
    chord(header, total.s()).delay()


@task
def failing_chord(self: Any, count: int) -> None:
    header = [leaf.s(number) for number in range(count)]
    chord([*header, boom.s()], total.s().on_error(told_by_id.s())).delay()


@task
def chord_of_failing_chains(self: Any, count: int) -> None:
    """The first of a chain fails, of which the last is a member of the chord."""
    header = [leaf.s(number) for number in range(count)]
    chord([*header, chain(boom.si(), leaf.si(1))], total.s()).delay()


@task
def nested_failing_chord(self: Any, count: int) -> None:
    """The inner chord's body is a member of the outer one, and never runs."""
    inner = chord([leaf.s(1), boom.s()], total.s())
    chord([inner, *(leaf.s(number) for number in range(count))], total.s()).delay()


@task
def chord_of_replaced(self: Any, count: int) -> None:
    header = [leaf.s(number) for number in range(count)]
    chord([*header, app.tasks["replaced_by_chord"].si()], total.s()).delay()


@task
def replaced_by_task(self: Any) -> None:
    raise self.replace(leaf.s(7))


@task
def replaced_by_chain(self: Any) -> None:
    raise self.replace(chain(leaf.s(7), leaf.s(), leaf.s()))


@task
def replaced_by_group(self: Any) -> None:
    raise self.replace(group(leaf.s(number) for number in range(3)))


@task
def replaced_by_chord(self: Any) -> None:
    raise self.replace(chord([leaf.s(number) for number in range(3)], total.s()))


@task
def replaced_below(self: Any, how: str) -> None:
    """Have a task replaced that is in the middle of a chain."""
    chain(leaf.si(0), app.tasks[f"replaced_by_{how}"].si(), leaf.si(9)).delay()


@task
def linked(self: Any) -> None:
    leaf.apply_async((1,), link=[leaf.s(), leaf.s()])


@task
def errback_by_id(self: Any) -> None:
    boom.apply_async(link_error=[told_by_id.s(), told_by_id.s()])


@task
def errback_in_place(self: Any) -> None:
    boom.apply_async(link_error=told_in_place.s())


@task
def chunked(self: Any, count: int) -> None:
    leaf.chunks([(number,) for number in range(count)], 2).apply_async()


@task
def starmapped(self: Any, count: int) -> None:
    leaf.starmap([(number,) for number in range(count)]).apply_async()


@task
def with_retries(self: Any) -> None:
    second_try.delay()


@task
def retrying_parent(self: Any) -> None:
    """Start a child in each of two tries."""
    leaf.delay(self.request.retries)
    if self.request.retries < 1:
        raise self.retry(countdown=0)


@task
def deep(self: Any, levels: int) -> None:
    if levels:
        deep.delay(levels - 1)


@task
def by_threads(self: Any, count: int) -> None:
    threads = [threading.Thread(target=leaf.delay, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


shared_pool = ThreadPoolExecutor(2)
"""Its threads are started by whichever task comes first."""


@task
def by_executor(self: Any, count: int) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(leaf.delay, range(count)))


@task
def by_shared_executor(self: Any, count: int) -> None:
    list(shared_pool.map(leaf.delay, range(count)))


@task
def joining(self: Any, count: int) -> int:
    with allow_join_result():
        return sum(leaf.delay(number).get(timeout=30) for number in range(count))


@task
def unsent(self: Any) -> None:
    """Start a child by a broker that is not there, and another one by the own."""
    with Connection(NOWHERE) as nowhere:
        try:
            leaf.apply_async((1,), connection=nowhere, retry=False)
        except OperationalError:
            leaf.delay(2)


@task
def handing_headers_on(self: Any) -> None:
    """Start a child with all headers of the own message, as some do to follow their calls."""
    fields = vars(self.request).items()
    own = {name: value for name, value in fields if isinstance(value, (str, int))}
    ours = {name: value for name, value in own.items() if name.startswith("manifest")}
    leaf.apply_async((1,), headers=ours)


@task
def dying(self: Any) -> None:
    os._exit(9)


@task
def errback_of_dying(self: Any) -> None:
    dying.apply_async(link_error=told_by_id.s())


@task
def delaying(self: Any, seconds: float) -> None:
    """Start tasks that may begin so much later."""
    leaf.apply_async(countdown=seconds)
    group(leaf.s(number) for number in range(2)).apply_async(countdown=seconds)


@task
def to_other_apps(self: Any) -> None:
    """Start a task of an app with another broker, which nobody serves, and one of one with ours."""
    with self.app.connection_for_write() as connection:
        ours = connection.as_uri(include_password=True)
    for broker in ("memory://", ours):
        other = Celery("other", set_as_current=False)
        other.conf.broker_write_url = broker  # comes before what the environment names
        other.send_task("leaf", queue=self.app.conf.task_default_queue)
