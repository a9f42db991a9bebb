"""What a process keeps for a session, or for a worker in it, is made with it and ends with it."""

from __future__ import annotations

import subprocess
import sys
import textwrap


def play(program: str) -> list[str]:
    """Run it in a process of its own, as states stay known to theirs; return its lines."""
    start = "from pytest_manifest.process_state import ProcessState, begin_session, worker_within\n"
    holder = """
class Holder:
    def __init__(self, values=()):
        self.values = list(values)

    def close(self):
        print("closed", *self.values)
"""
    done = subprocess.run(
        [sys.executable, "-c", start + holder + textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def test_a_session_begins_with_an_object_of_its_own() -> None:
    """And with its end it is closed, and the former one is back."""
    assert play(
        """
        state = ProcessState(Holder)
        state.now.values.append("before")
        end = begin_session()
        print(*state.now.values, "first")
        state.now.values.append("within")
        inner = begin_session()
        print(*state.now.values, "second")
        inner()
        print(*state.now.values)
        end()
        print(*state.now.values)
        """
    ) == ["first", "second", "closed", "within", "closed within", "before"]


def test_what_goes_on_to_count_is_inherited() -> None:
    """What a session adds to it goes with the session."""
    assert play(
        """
        state = ProcessState(Holder, inherit=lambda before: Holder(before.values))
        state.now.values.append("before")
        end = begin_session()
        state.now.values.append("within")
        print(*state.now.values)
        end()
        print(*state.now.values)
        """
    ) == ["before within", "closed before within", "before"]


def test_a_module_that_is_imported_within_a_session_keeps_nothing_of_it() -> None:
    """Its state is made anew when the session ends."""
    assert play(
        """
        end = begin_session()
        late = ProcessState(Holder)
        late.now.values.append("within")
        end()
        print(*late.now.values, "empty")
        """
    ) == ["closed within", "empty"]


def test_a_worker_in_a_session_has_what_is_a_workers() -> None:
    """And leaves alone what is the session's."""
    assert play(
        """
        of_session = ProcessState(Holder)
        of_worker = ProcessState(Holder, is_of_worker=True)
        of_session.now.values.append("session")
        with worker_within():
            of_worker.now.values.append("worker")
            late = ProcessState(Holder, is_of_worker=True)
            late.now.values.append("late")
            print(*of_session.now.values)
        print(*of_worker.now.values, *late.now.values, "empty")
        """
    ) == ["session", "closed late", "closed worker", "empty"]


def test_each_is_ended_also_where_another_one_fails() -> None:
    assert play(
        """
        class Broken(Holder):
            def close(self):
                raise ValueError("broken")

        first, broken, last = (ProcessState(kind) for kind in (Holder, Broken, Holder))
        end = begin_session()
        try:
            end()
        except ValueError as error:
            print(error)
        """
    ) == ["closed", "closed", "broken"]
