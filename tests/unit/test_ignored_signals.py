"""The suite in the background of a shell: what it ignores itself, its children do not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CHILD = "from signal import *; print(getsignal(SIGINT) is default_int_handler, end=' ')"
SUITE = f"""
import os, signal, subprocess, sys
import tests.conftest
subprocess.run([sys.executable, "-c", {CHILD!r}], check=True)
os.kill(os.getpid(), signal.SIGINT)
os.kill(os.getpid(), signal.SIGHUP)
print("still there")
"""


def test_children_are_given_the_default_handler() -> None:
    """As after ``nohup``, and after ``&`` in a script."""
    command = ["sh", "-c", "trap '' INT HUP; exec \"$@\"", "sh", sys.executable, "-c", SUITE]
    root = Path(__file__).parents[2]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    assert shown.stdout == "True still there\n"
