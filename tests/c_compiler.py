"""The C compiler that some suites need, and what it needs itself."""

from __future__ import annotations

import shutil
import subprocess

COMPILER = "gcc"


def can_compile() -> bool:
    """Return whether the compiler is here, with the headers of the C library."""
    if shutil.which(COMPILER) is None:
        return False
    command = [COMPILER, "-fsyntax-only", "-x", "c", "-"]
    source = b"#include <stdio.h>\n#include <dlfcn.h>\n"
    return subprocess.run(command, input=source, capture_output=True, check=False).returncode == 0
