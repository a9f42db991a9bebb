"""Faults of peers that are there and do not answer, and of a second session."""

from __future__ import annotations

import time

from tests.chaos.session import Session, suspended
from tests.chaos.stage import Stage
from tests.services import frozen_server

FROZEN_SECONDS = 12.0
"""Longer than a read of a socket may take."""
REFUSED = 4
"""pytest's exit code for a call that it does not carry out."""
SECOND = 99
"""A number beside those of the sessions that are judged."""
SECOND_SECONDS = 60.0


def freeze_broker(stage: Stage) -> None:
    """SIGSTOP of broker and store, for longer than any client waits for one answer."""
    stage.moment()
    with suspended([stage.stack.broker()], FROZEN_SECONDS):
        pass


def freeze_store(stage: Stage) -> None:
    """The same of the result store alone, whatever it is."""
    stage.moment()
    with frozen_server(stage.stack.store_url()):
        time.sleep(FROZEN_SECONDS)


def freeze_broker_for_good(stage: Stage) -> None:
    """SIGSTOP of broker and store; nobody lets them go on."""
    stage.moment(1, len(stage.members) // 2)
    stage.stack.broker().suspend()


def second_pytest(stage: Stage) -> None:
    """Somebody looks at the run, or goes on with it, from another pytest while it is going on.

    It is refused or, where the run has ended just before, finds nothing to be done.
    """
    stage.moment(1, len(stage.members) // 2)
    option = stage.rng.choice(("--manifest-resume", "--manifest-audit"))
    second = Session(stage.folder, stage.family, SECOND, [*stage.stack.options(), option])
    try:
        assert second.wait(SECOND_SECONDS), "the second pytest did not end"
        code = second.process.returncode
        assert code in (0, 1, REFUSED), f"the second pytest ended with {code}"
        assert "INTERNALERROR" not in second.output(), "the second pytest had an internal error"
    finally:
        second.end()
