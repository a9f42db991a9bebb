"""The command ``manifest``: whatever needs no pytest, from a first scaffold to old runs.

``main`` has the commands, each of which is a module of its own.
"""

from typing import Final

FOUND: Final = 1
"""The exit status of a check that has found something."""
USER_ERROR: Final = 2
"""The exit status of what the user can mend: a wrong option, a file that cannot be read."""
NOT_UP: Final = 3
"""The exit status of the stack's commands where no stack is up."""
INTERRUPTED: Final = 130
"""The exit status of a command that Ctrl-C has ended, as shells have it."""
