"""Commands beside pytest: ``manifest-stack`` and ``manifest-ledger``."""

# ruff: noqa: T201 - printing is what a command is for

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import Final

from pytest_manifest.errors import ManifestToolError

USER_ERROR: Final = 2


def run_command(program: str, arguments: argparse.Namespace) -> int:
    """Call ``arguments.run`` with the arguments; return the program's exit status.

    An error that the user can mend is printed to stderr, and the status is USER_ERROR.
    """
    command: Callable[[argparse.Namespace], int] = arguments.run
    try:
        return command(arguments)
    except ManifestToolError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return USER_ERROR
    except BrokenPipeError:
        # The reader of a pipe has seen enough; nothing more may be written, at exit neither.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
