"""A handler of loguru that is set aside for a while, by loguru's private parts."""

from __future__ import annotations

import subprocess
import sys
import textwrap


def test_a_handler_is_set_aside() -> None:
    """It is the same one when it is back, beside what was added meanwhile, and never twice."""
    program = """
        from loguru import logger
        from pytest_manifest.compat.loguru import set_aside

        heard = []
        put_back = set_aside(0)
        logger.error("to nobody")
        print(set_aside(0), set_aside(7))
        logger.add(heard.append, level="ERROR")
        logger.debug("to nobody")
        put_back()
        logger.debug("to the first one")
        logger.error("to both")
        print(len(heard))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["None None", "1"]
    said = [line.rpartition(" - ")[2] for line in done.stderr.splitlines()]
    assert said == ["to the first one", "to both"]
