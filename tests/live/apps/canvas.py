"""An app whose one entry task, ``plant``, starts others in each way of Celery's canvas.

One of those meets a fate: it fails, or its process ends, or it waits until somebody ends that; or
its message goes to a queue that no worker reads, where a test does with it what it likes. The truth
is in the file of ``MANIFEST_TEST_TRUTH``: each execution appends a line with the id and the name of
its task.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from celery import Celery, chain, chord, group
from celery.exceptions import TimeoutError as ResultTimeoutError
from celery.result import allow_join_result
from celery.signals import task_prerun

TRUTH: Final = "MANIFEST_TEST_TRUTH"
QUEUE: Final = "MANIFEST_TEST_QUEUE"
GATE: Final = "MANIFEST_TEST_GATE"
ASIDE: Final = ("lost", "twice")
"""Fates of those whose message goes to a queue of its own."""
EXECUTION: Final = "execution"
WAITS: Final = "waits"
GOES_ON: Final = "goes on"
"""What a line is about: a task that is run, one that has come to the gate, or leaves it."""
ALONE: Final = "alone-"
"""How the name of a worker begins that runs one tree alone, and one task at a time."""
LONGEST = 60.0
"""Seconds for which a task waits at the gate."""

app = Celery("canvas")
app.conf.update(
    task_default_queue=os.environ.get(QUEUE, "canvas"),
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=1,
)


def queue_of(queue: str, fate: str) -> str:
    """The queue of those that meet this fate."""
    return f"{queue}-{fate}"


def note(*words: str) -> None:
    """Append a line; one write, so that those of several processes do not mix."""
    with Path(os.environ[TRUTH]).open("ab", buffering=0) as file:
        file.write("\t".join(words).encode() + b"\n")


@task_prerun.connect  # type: ignore[untyped-decorator]  # Celery ships no types
def note_execution(task_id: str, task: Any, **_: object) -> None:
    """Note each execution, of Celery's own tasks, too."""
    note(EXECUTION, task_id, task.name)


def job(function: Callable[..., Any]) -> Any:
    """Make a task, called as its function is, which is given itself.

    Tests import this module, and what is shared is a task of each other app of their process, too.
    """
    return app.task(function, name=function.__name__, bind=True, shared=False)


def meet(fate: str) -> None:
    """Have it happen."""
    if fate == "fail":
        raise ValueError("this was its fate")
    if fate == "exit":
        os._exit(9)
    if fate in ("stuck", "killed"):
        gate = Path(os.environ[GATE])
        if gate.exists():  # it has been here before
            return
        note(WAITS, fate)
        until = time.monotonic() + LONGEST
        while time.monotonic() < until and not gate.exists():
            time.sleep(0.05)
        note(GOES_ON, fate)
        if fate == "killed":
            os._exit(9)


@job
def leaf(self: Any, *args: object) -> object:
    return 1


@job
def total(self: Any, values: object = None, *args: object) -> int:
    return 2


@job
def victim(self: Any, fate: str = "") -> int:
    meet(fate)
    return 3


@job
def told(self: Any, fate: str) -> int:
    """Be an errback that is sent as a task: it takes no more than an id."""
    meet(fate)
    return 4


@job
def boom(self: Any) -> None:
    raise KeyError("boom")


@job
def mapped(self: Any, fate: str) -> int:
    """Be one of many calls of one message."""
    meet(fate)
    return 5


@job
def retrying(self: Any, fate: str) -> int:
    if not self.request.retries:
        raise self.retry(countdown=0, **({"queue": aside(fate)} if fate in ASIDE else {}))
    meet(fate)
    return 6


@job
def deep(self: Any, levels: int, fate: str) -> int:
    (deep.si(levels - 1, fate) if levels else fated(fate)).delay()
    return levels


@job
def replacing(self: Any, how: str, fate: str) -> None:
    raise self.replace(replacement(how, fate))


def aside(fate: str) -> str:
    return queue_of(app.conf.task_default_queue, fate)


def put(sig: Any, fate: str) -> Any:
    """Have the message of a signature go where its fate is met."""
    return sig.set(queue=aside(fate)) if fate in ASIDE else sig


def fated(fate: str) -> Any:
    return put(victim.si(fate), fate)


def replacement(how: str, fate: str) -> Any:
    ways: Mapping[str, Callable[[], Any]] = {
        "task": lambda: fated(fate),
        "chain": lambda: chain(leaf.si(), fated(fate), leaf.si()),
        "group": lambda: group(leaf.si(), fated(fate), leaf.si()),
        "chord": lambda: chord([leaf.si(), fated(fate)], total.s()),
    }
    return ways[how]()


# Shapes: each is called in the entry's task with the fate of one of those that it starts.


def in_a_loop(_: Any, fate: str) -> None:
    for one in (leaf.si(), fated(fate), leaf.si()):
        one.delay()


def in_a_group(_: Any, fate: str) -> None:
    group(leaf.si(), fated(fate), leaf.si()).delay()


def in_a_chain(_: Any, fate: str) -> None:
    chain(leaf.si(), fated(fate), leaf.si()).delay()


def in_a_chain_of_groups(_: Any, fate: str) -> None:
    """A group in the middle of a chain becomes the header of a chord."""
    first = group(leaf.si(), fated(fate))
    chain(leaf.si(), first, total.s(), group(leaf.si(), leaf.si()), total.s()).delay()


def in_a_chord(_: Any, fate: str) -> None:
    chord([leaf.si(), fated(fate), leaf.si()], total.s()).delay()


def as_a_chord_body(_: Any, fate: str) -> None:
    chord([leaf.si(), leaf.si()], fated(fate)).delay()


def in_nested_chords(_: Any, fate: str) -> None:
    inner = chord([leaf.si(), fated(fate)], total.s())
    chord([inner, chord([leaf.si(), leaf.si()], total.s())], total.s()).delay()


def replaced(how: str) -> Callable[[Any, str], None]:
    """Start one that has itself replaced."""

    def shape(_: Any, fate: str) -> None:
        chain(leaf.si(), replacing.si(how, fate), leaf.si()).delay()

    return shape


def replaced_itself(how: str) -> Callable[[Any, str], None]:
    """Have the entry's own job replaced."""

    def shape(task: Any, fate: str) -> None:
        raise task.replace(replacement(how, fate))

    return shape


def linked(_: Any, fate: str) -> None:
    leaf.apply_async(link=[fated(fate), leaf.si()])


def linked_to_an_error(_: Any, fate: str) -> None:
    boom.apply_async(link_error=[put(told.si(fate), fate), told.si("")])


def in_a_starmap(_: Any, fate: str) -> None:
    some = put(mapped.starmap([("",), (fate,), ("",)]), fate)
    some.apply_async(**some.options)  # before Celery 5.7 it has them for nothing


def in_chunks(_: Any, fate: str) -> None:
    some = mapped.chunks([("",), ("",), (fate,), ("",), ("",)], 2).group()
    put(some.tasks[1], fate)
    some.apply_async()


def tried_again(_: Any, fate: str) -> None:
    retrying.delay(fate)


def four_levels_down(_: Any, fate: str) -> None:
    deep.delay(2, fate)


def from_threads(_: Any, fate: str) -> None:
    threads = [threading.Thread(target=one.delay) for one in (leaf.si(), fated(fate), leaf.si())]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda sig: sig.delay(), [leaf.si(), leaf.si()]))


def waited_for(task: Any, fate: str) -> None:
    """A worker that runs one task cannot run the other meanwhile: the task waits in vain.

    Of what Celery keeps whether a task may wait, there is one for all threads of a process.
    """
    can_run_both = not task.request.hostname.startswith(ALONE)
    seconds = LONGEST if fate == "killed" and can_run_both else 1.0
    results = [leaf.delay(), fated(fate).delay()]
    with allow_join_result():
        for result in results:
            try:
                result.get(timeout=seconds, propagate=False, disable_sync_subtasks=False)
            except ResultTimeoutError:
                return


SHAPES: Final[Mapping[str, Callable[[Any, str], None]]] = {
    "loop": in_a_loop,
    "group": in_a_group,
    "chain": in_a_chain,
    "chain of groups": in_a_chain_of_groups,
    "chord": in_a_chord,
    "chord body": as_a_chord_body,
    "nested chords": in_nested_chords,
    **{f"child replaced by a {how}": replaced(how) for how in ("task", "chain", "group", "chord")},
    **{f"replaced by a {how}": replaced_itself(how) for how in ("task", "chain", "group", "chord")},
    "link": linked,
    "link_error": linked_to_an_error,
    "starmap": in_a_starmap,
    "chunks": in_chunks,
    "retries": tried_again,
    "four levels": four_levels_down,
    "threads": from_threads,
    "get": waited_for,
}


@job
def plant(self: Any, shape: str, fate: str = "") -> str:
    SHAPES[shape](self, fate)
    return shape
